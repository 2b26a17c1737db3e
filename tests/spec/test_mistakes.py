"""Mistakes as they are told: one place each, all of one text together, and the word that was probably meant."""

import pytest

from dsmt.errors import InputError, UnusableEventError
from dsmt.spec.mistakes import BadSpecEventError, Mistake, SpecErrors, WrongValueError, nearest

FIRST = Mistake("f.yaml", 2, 7, "this is wrong", "write that")
SECOND = Mistake("f.yaml", 10, 1, "this too")


def test_a_mistake_is_told_with_its_place_and_what_to_write():
    assert str(FIRST) == "f.yaml:2:7: this is wrong (write that)"
    assert str(SECOND) == "f.yaml:10:1: this too"


def test_all_mistakes_of_a_text_come_once_each_by_line():
    errors = SpecErrors(iter([SECOND, FIRST, SECOND]))
    assert isinstance(errors, InputError)
    assert errors.mistakes == (FIRST, SECOND)
    assert (errors.code, errors.next) == ("bad_spec", "Correct the file and try again")
    assert errors.message == "2 mistakes, the first is f.yaml:2:7: this is wrong (write that)"
    assert errors.fields["mistakes"] == [
        {"file": "f.yaml", "line": 2, "column": 7, "message": "this is wrong", "suggestion": "write that"},
        {"file": "f.yaml", "line": 10, "column": 1, "message": "this too", "suggestion": ""},
    ]


def test_a_single_mistake_is_the_message():
    assert SpecErrors([SECOND, SECOND]).message == "f.yaml:10:1: this too"


def test_a_value_or_an_event_that_cannot_be_used_says_so_by_its_code():
    wrong = WrongValueError("this is no size", "write 5MiB")
    assert (wrong.code, wrong.message, wrong.next) == ("wrong_value", "this is no size", "write 5MiB")
    assert WrongValueError("this is no size").next == ""
    bad = BadSpecEventError("it has no name")
    assert isinstance(bad, UnusableEventError)
    assert (bad.code, bad.message) == ("bad_spec_event", "this is not a service spec: it has no name")


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("instnce", {"instances", "install"}, "instances"),
        ("rnu", {"run", "stop"}, "run"),
        ("ot", {"to"}, ""),
        ("stop", {"run", "start"}, ""),
        ("abcdef", {"abcxyz"}, ""),
        ("abcdefg", {"abcdexy"}, "abcdexy"),
        ("run", set(), ""),
        ("tca", {"cat", "act"}, "act"),
    ],
)
def test_the_nearest_word_is_close_or_has_the_same_letters(word, known, meant):
    assert nearest(word, known) == meant


def test_of_two_words_that_are_as_near_the_same_is_named_in_any_order():
    assert nearest("abcd", ["abcf", "abce"]) == nearest("abcd", ["abce", "abcf"]) != ""
