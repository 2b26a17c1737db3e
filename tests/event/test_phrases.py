"""Phrases: the parts of sentences, as operators read them."""

import pytest

from dsmt.event.phrases import (
    another_certificate,
    another_key,
    counted,
    cut,
    in_retrospect,
    person,
    quoted,
    size_in_words,
    some,
    speaker,
    why,
)
from dsmt.event.reason import reason

ALICES = "dsmt cert rotate operator/alice; of a home without root.key: dsmt operator add alice, where that key is"


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("agent/n1/web/app/0", "agent n1"),
        ("controller/c1", "c1"),
        ("node/n1", "n1"),
        ("broker/b1", "broker/b1"),
        ("operator/alice.x7f3", "alice"),
    ],
)
def test_a_speaker_is_named_in_short(source: str, short: str) -> None:
    assert speaker(source) == short


def test_an_operator_is_one_person_in_all_terminals() -> None:
    assert person("operator/alice.x7f3") == person("alice") == "alice"


def test_what_was_given_as_a_reason_is_quoted_and_nothing_stands_for_none() -> None:
    assert (quoted("disk"), quoted(""), quoted(None)) == (': "disk"', "", "")


def test_why_something_is_so_stands_behind_it_and_nothing_where_no_reason_is_known() -> None:
    assert (why(reason("run.exited", exit_code=1, time="2 s")), why(None)) == (": exited with code 1 after 2 s", "")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"), (512, "512 B"), (1000 * 2**20, "1000 MiB"), (8 * 2**30, "8 GiB"), (int(5.1 * 2**30), "5.1 GiB"),
        (2**30 - 1, "1 GiB"), (900 * 2**30, "900 GiB"), (3 * 2**50, "3072 TiB"), (-(2**30), "-1 GiB"),
    ],
)  # fmt: skip
def test_a_size_is_shown_in_the_unit_in_which_people_read_it(size, words):
    assert size_in_words(size) == words


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["n1"], "n1"),
        (["n1", "n2", "n3"], "n1, n2, n3"),
        (["n1", "n2", "n3", "n4"], "n1, n2, n3 and 1 more"),
        ([f"n{n}" for n in range(1, 301)], "n1, n2, n3 and 297 more"),
    ],
)
def test_of_many_names_the_first_are_said_and_how_many_more_there_are(names, said):
    assert some(names) == said


@pytest.mark.parametrize(
    ("who", "certificate", "key"),
    [
        ("operator/alice", ALICES, ALICES),
        ("operator/alice.55a0e3ed", ALICES, ALICES),
        (
            "broker/b1",
            "dsmt cert rotate broker/b1; on an added host: its dsmt node add again",
            "dsmt cert rotate broker/b1; on an added host: its dsmt node add again",
        ),
        (
            "node/n1",
            "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there",
            (
                "dsmt cert rotate node/n1; on a host: dsmt node add it again, "
                "or dsmt cert revoke 07aa here and dsmt join TOKEN there"
            ),
        ),
        (
            "agent/n1/web/app/0",
            "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there",
            "dsmt why node/n1",
        ),
        (
            "monitor/n1",
            "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there",
            "dsmt why node/n1",
        ),
    ],
)
def test_who_needs_another_certificate_or_key_is_given_the_commands_for_its_role(
    who: str, certificate: str, key: str
) -> None:
    assert (another_certificate(who), another_key(who, "07aa")) == (certificate, key)


@pytest.mark.parametrize("power", range(5))
def test_a_size_is_told_in_the_unit_in_which_it_is_below_1024(power: int) -> None:
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    assert size_in_words(3 * 1024**power) == f"3 {unit}"
    assert size_in_words(1000 * 1024**power) == f"1000 {unit}"


def test_how_long_a_silence_was_when_it_was_judged_is_told_in_the_past() -> None:
    said = "n4 has been silent for 5.0 s; probes by n1 failed"
    assert in_retrospect(said) == "n4 had been silent for 5.0 s when that was judged; probes by n1 failed"
    assert in_retrospect("all 2 connections from n4 closed") == "all 2 connections from n4 closed"


def test_things_are_counted_in_words() -> None:
    assert [counted(number, "node") for number in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    assert [counted(number, "process") for number in (1, 2)] == ["1 process", "2 processes"]


@pytest.mark.parametrize(
    ("text", "told"), [("", ""), ("1234567", "1234567"), ("12345678", "1234..."), (99 * "x", "xxxx...")]
)
def test_a_text_that_is_cut_is_no_longer_than_it_may_be_and_shows_it(text: str, told: str) -> None:
    assert cut(text, 7) == told
