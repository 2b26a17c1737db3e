"""Topics and patterns: the grammar, and that a grant covers exactly what its patterns take."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmt.errors import InputError
from dsmt.event.topic import check_pattern, covers, is_level, is_topic, level_of, matches

levels = st.sampled_from(["a", "b", "c.d"])
topics = st.lists(levels, min_size=1, max_size=5).map("/".join)
patterns = st.just("/") | st.builds(
    lambda parts, end: "/".join(parts) + end,
    st.lists(levels | st.just("+"), min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)


def taken_by_the_words_of_the_grammar(pattern, topic):
    if pattern == "/":
        return True
    want, have = pattern.rstrip("/").split("/"), topic.split("/")
    if pattern.endswith("/"):
        if len(have) <= len(want):
            return False
        have = have[: len(want)]
    return len(want) == len(have) and all(w in ("+", h) for w, h in zip(want, have, strict=True))


@given(patterns, topics)
@settings(max_examples=200)
def test_a_pattern_takes_what_the_grammar_says(pattern, topic):
    assert check_pattern(pattern) == pattern
    assert matches(pattern, topic) == taken_by_the_words_of_the_grammar(pattern, topic)


@given(patterns, patterns, topics)
@settings(max_examples=200)
def test_what_a_covered_pattern_takes_is_taken_by_the_wider_one(wide, narrow, topic):
    if covers(wide, narrow) and matches(narrow, topic):
        assert matches(wide, topic)


@given(patterns, patterns)
@settings(max_examples=200)
def test_a_pattern_that_is_not_covered_takes_some_topic_that_the_other_does_not(wide, narrow):
    if narrow == "/":
        witnesses = ["z", "z/z", "z/z/z/z/z"]
    else:
        body = narrow.rstrip("/").replace("+", "z")
        witnesses = [f"{body}/z", f"{body}/z/z", f"{body}/z/z/z/z"] if narrow.endswith("/") else [body]
    assert all(matches(narrow, topic) for topic in witnesses)
    assert covers(wide, narrow) == all(matches(wide, topic) for topic in witnesses)


@given(patterns, patterns, patterns)
def test_covering_is_an_order(a, b, c):
    assert covers(a, a)
    if covers(a, b) and covers(b, c):
        assert covers(a, c)
    if covers(a, b) and covers(b, a):
        assert a == b


@pytest.mark.parametrize("name", ["a", "n1", "n1.example.org", "_x", "-", "...", ".a", "a..b", "x" * 63])
def test_a_name_of_the_alphabet_is_a_level(name):
    assert is_level(name)
    assert is_topic(name)
    assert is_topic(f"a/{name}/b")
    assert check_pattern(f"{name}/+/") == f"{name}/+/"


@pytest.mark.parametrize("name", ["", "A", "a b", "a\n", "é", "+", "a+", "*", "x" * 64, ".", "..", "a\0", "\u0661"])
def test_a_name_outside_the_alphabet_is_no_level(name):
    assert not is_level(name)
    assert not is_topic(name)
    assert not is_topic(f"a/{name}/b")
    if name != "+":
        with pytest.raises(InputError):
            check_pattern(f"a/{name}/b")


def test_a_topic_has_at_most_sixteen_levels_and_512_bytes():
    assert is_topic("/".join("a" * 16))
    assert not is_topic("/".join("a" * 17))
    assert is_topic("/".join(["x" * 63] * 8))
    assert not is_topic("/".join(["x" * 63] * 8) + "/y")
    assert check_pattern("/".join("+" * 16)) == "/".join("+" * 16)
    with pytest.raises(InputError, match="16 levels") as caught:
        check_pattern("/".join("+" * 17))
    assert caught.value.code == "topic.pattern"
    assert check_pattern("/".join("+" * 16) + "/") == "/".join("+" * 16) + "/"


@pytest.mark.parametrize("text", ["/a", "a/", "a//b", "/", "//"])
def test_an_empty_level_makes_no_topic(text):
    assert not is_topic(text)


@pytest.mark.parametrize("text", ["", "//", "a//", "/a", "+/+//", "a/b+"])
def test_a_malformed_pattern_is_refused_by_its_name_with_an_example(text):
    with pytest.raises(InputError) as caught:
        check_pattern(text)
    assert (caught.value.code, repr(text) in caught.value.message) == ("topic.pattern", True)
    assert "service/web/" in caught.value.next


def test_a_pattern_has_at_most_512_bytes():
    longest = "/".join(["x" * 63] * 8)
    assert check_pattern(longest) == longest
    with pytest.raises(InputError) as caught:
        check_pattern(longest + "/+")
    assert caught.value.code == "topic.pattern"


def test_a_subtree_is_below_its_pattern_and_not_the_pattern_itself():
    assert not matches("service/web/", "service/web/")
    assert not matches("service/web/", "service/web")


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("web-1", "web-1"), ("Web_1.example.org", "web_1"), ("köln", "k-ln"), ("-a b-", "a-b"), ("...", ""), ("", ""),
        (63 * "h", 63 * "h"), (64 * "h", 63 * "h"),
    ],
)  # fmt: skip
def test_a_host_s_name_without_its_domain_is_a_level_where_anything_of_it_can_be_one(host: str, level: str) -> None:
    assert level_of(host) == level
    assert is_level(level) == bool(level)
