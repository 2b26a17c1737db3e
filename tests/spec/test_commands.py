"""Commands are split as a shell would, and refused where only a shell could help."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.spec.commands import join_command, split_command
from dsmt.spec.mistakes import WrongValueError


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("./server --listen 127.0.0.1:{port.http}", ("./server", "--listen", "127.0.0.1:{port.http}")),
        ("  a   b ", ("a", "b")),
        ("sh -c 'a; b | c > d && e'", ("sh", "-c", "a; b | c > d && e")),
        ('say "it is $HOME" \\$5', ("say", "it is $HOME", "$5")),
        ("a '' \"\"", ("a", "", "")),
        ("a\"b c\"'d e'f", ("ab cd ef",)),
        ('x "a\\"b\\\\c\\d"', ("x", 'a"b\\c\\d')),
        ("a b=c#d # e", ("a", "b=c#d", "#", "e")),
        ("x a~b", ("x", "a~b")),
        ("a 'b c' d 'e f'", ("a", "b c", "d", "e f")),
        ('a "b c" d "e f"', ("a", "b c", "d", "e f")),
        ("a\tb\\ c", ("a", "b c")),
        ("a b\\\nc", ("a", "bc")),
        ("a\n", ("a",)),
    ],
)
def test_a_line_is_split_by_the_shell_rules(line, argv):
    assert split_command(line) == argv


@pytest.mark.parametrize("sign", ["$", "|", ">", "<", ";", "&", "&&", "*", "`"])
def test_what_needs_a_shell_is_refused_outside_quotes_and_taken_inside(sign):
    with pytest.raises(WrongValueError, match="no shell") as caught:
        split_command(f"a b{sign} c")
    assert "[sh, -c," in caught.value.next
    assert split_command(f"a 'b{sign} c'") == ("a", f"b{sign} c")
    assert split_command(f'a "b{sign} c"') == ("a", f"b{sign} c")


@pytest.mark.parametrize("line", ["", "   ", "'' a", "a 'b", 'a "b', "a \\", "~/bin/x", "LOG=debug ./server", "a\nb", "a\0"])
def test_a_line_that_is_no_command_is_refused(line):
    with pytest.raises(WrongValueError) as caught:
        split_command(line)
    assert caught.value.message
    assert caught.value.next, "what to write in its place"
    assert caught.value.code == "wrong_value"


@given(st.text(alphabet="abc \t'\"\\=x-/{}.", max_size=30))
def test_without_special_signs_the_result_is_that_of_the_standard_library(line):
    try:
        ours = split_command(line)
    except WrongValueError:
        return
    assert list(ours) == shlex.split(line)


@pytest.mark.parametrize("word", ["", "~/x", "a b", "a\tb", "a'b", 'a"b', "a\\b", "a$b", "a*", "a\nb", "x~", "a=b"])
def test_a_word_that_a_line_would_change_is_quoted(word):
    assert split_command(join_command(("x", word))) == ("x", word)
    assert (join_command(("x", word)) == f"x {word}") == (word in ("x~", "a=b"))


@given(st.lists(st.text(st.characters(blacklist_characters="\0"), max_size=8), min_size=1, max_size=5))
def test_a_joined_command_splits_back(argv):
    try:
        split = split_command(join_command(tuple(argv)))
    except WrongValueError:
        assert not argv[0] or "=" in argv[0]
        return
    assert split == tuple(argv)
