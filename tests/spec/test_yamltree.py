"""YAML to a tree: what each scalar means, where each node stands, and what is said of text that is not YAML."""

import math

import pytest

from dsmt.spec.tree import Mapping, Scalar, Sequence, resolve
from dsmt.spec.yamltree import LARGEST_TEXT, read_documents


def read(text):
    """Return the roots of a text as plain values, and its mistakes as (line, column, message, suggestion)."""
    roots, mistakes = read_documents(text, file="f.yaml")
    assert all(mistake.file == "f.yaml" for mistake in mistakes)
    return [plain(root) for root in roots], [(m.line, m.column, m.message, m.suggestion) for m in mistakes]


def plain(node):
    if isinstance(node, Mapping):
        return {key.text: plain(value) for key, value in node.entries}
    return [plain(item) for item in node.items] if isinstance(node, Sequence) else resolve(node)


def root_of(text):
    (root,), mistakes = read_documents(text, file="f")
    assert mistakes == []
    return root


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None), ("Null", None), ("NULL", None), ("~", None), ("nULL", "nULL"),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("tRUE", "tRUE"), ("yes", "yes"), ("off", "off"),
        ("0", 0), ("-12", -12), ("+3", 3), ("007", 7), ("0o17", 15), ("0x1F", 31), ("0b1", "0b1"), ("1_000", "1_000"),
        ("-0o7", "-0o7"), ("0o8", "0o8"), ("1:30", "1:30"),
        ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("-.5e-3", -0.0005), ("1e3", 1000.0), ("+12E+03", 12000.0), (".", "."),
        ("e3", "e3"), (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf), (".iNF", ".iNF"), ("inf", "inf"),
        ("1" * 40, int("1" * 40)), ("1" * 41, "1" * 41), ("2026-11-21", "2026-11-21"),
    ],
)  # fmt: skip
def test_a_plain_scalar_is_what_the_core_schema_makes_of_it_and_a_quoted_one_is_text(text, value):
    found = resolve(root_of(f"- {text}").items[0])
    assert (found, type(found)) == (value, type(value))
    assert resolve(root_of(f"- '{text}'").items[0]) == text


def test_not_a_number_is_one():
    assert [math.isnan(resolve(item)) for item in root_of("[.nan, .NaN, .NAN]").items] == [True] * 3
    assert resolve(root_of("- -.nan").items[0]) == "-.nan"


def test_every_node_knows_its_place_and_how_it_was_written():
    root = root_of("a: b\nlist:\n  - 'x'\n  - {k: |-\n      }\n".replace("{k: |-\n      }", "{k: v}") + "block: |\n  t\n")
    assert root == Mapping(
        (
            (Scalar("a", True, 1, 1), Scalar("b", True, 1, 4)),
            (
                Scalar("list", True, 2, 1),
                Sequence(
                    (
                        Scalar("x", False, 3, 5),
                        Mapping(((Scalar("k", True, 4, 6), Scalar("v", True, 4, 9)),), 4, 5, flow=True),
                    ),
                    3,
                    3,
                ),
            ),
            (Scalar("block", True, 5, 1), Scalar("t\n", False, 5, 8)),
        ),
        1,
        1,
    )
    assert root.get("a") == Scalar("b", True, 1, 4)
    assert root.get("nobody") is None
    assert root_of("a: >\n  t").get("a") == Scalar("t", False, 1, 4)


@pytest.mark.parametrize("after", ["", "\n", "\n\n# more\n", "\n  b: 1\n", "\n\n\n  b: 1\n"])
def test_a_value_that_is_not_there_has_the_place_of_its_key(after):
    assert root_of(f"top:\n  app:{after}").get("top").get("app") == Scalar("", True, 2, 3)


def test_the_places_of_later_documents_count_from_the_start_of_the_file():
    roots, mistakes = read_documents("a: 1\n---\nb: 2\n--- # here\nc: 3\n...\nd: 4\n---x: 5\n--- \n--- e\n", file="f")
    assert [mistake.message for mistake in mistakes] == []
    assert [plain(root) for root in roots] == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4, "---x": 5}, "e"]
    assert [(root.line, root.column) for root in roots] == [(1, 1), (3, 1), (5, 1), (7, 1), (10, 5)]


@pytest.mark.parametrize("text", ["", "\n", "# words\n", "---\n---\n", "~\n", "null"])
def test_a_document_of_nothing_is_none(text):
    assert read(text) == ([], [])


def test_an_alias_is_the_node_of_its_anchor_and_keeps_its_place():
    root = root_of("a: &one {k: 1}\nb: *one\nc: &one 2\nd: *one")
    assert plain(root) == {"a": {"k": 1}, "b": {"k": 1}, "c": 2, "d": 2}
    assert root.get("b") is root.get("a")


QUOTE = "a value that {} must be quoted"


@pytest.mark.parametrize(
    ("line", "column", "what", "hint", "read_as"),
    [
        ("a: b: c", 4, "holds `: `", "write 'b: c'", "b: c"),
        ("a: it's: c", 4, "holds `: `", 'write "it\'s: c"', "it's: c"),
        ("a: {x} y", 4, "begins with `{`", "write '{x} y'", "{x} y"),
        ("a: {x: 1} y", 4, "begins with `{`", "write '{x: 1} y'", "{x: 1} y"),
        ("a: @x", 4, "begins with `@`", "write '@x'", "@x"),
        ("a: %x", 4, "begins with `%`", "write '%x'", "%x"),
        ("a: `x`", 4, "begins with ```", "write '`x`'", "`x`"),
        ("a: [x] y  ", 4, "begins with `[`", "write '[x] y'", "[x] y"),
        ("a.b-c: @x\r", 8, "begins with `@`", "write '@x'", "@x"),
        (f"a: @{'x' * 99}", 4, "begins with `@`", f"write '@{'x' * 59}'", "@" + "x" * 99),
    ],
)
def test_a_value_that_needs_quotes_is_told_and_the_rest_is_read(line, column, what, hint, read_as):
    name = line.partition(":")[0]
    assert read(f"first: 1\n{line}\nlast: 2\n") == (
        [{"first": 1, name: read_as, "last": 2}],
        [(2, column, QUOTE.format(what), hint)],
    )


def test_an_item_that_needs_quotes_is_told_at_its_place():
    assert read("l:\n  - @x\n  - - a: @y\n  - z\n") == (
        [{"l": ["@x", [{"a": "@y"}], "z"]}],
        [(2, 5, QUOTE.format("begins with `@`"), "write '@x'"), (3, 10, QUOTE.format("begins with `@`"), "write '@y'")],
    )


TAB = ("a tab is not allowed here", "indent with spaces")


@pytest.mark.parametrize(
    ("text", "places", "value"),
    [
        ("a: 1\n\tb: 2\nc: 3\n", [(2, 1)], {"a": 1, "b": 2, "c": 3}),
        ("a:\n  b: 1\n\tc: 2\nd: 3\n", [(3, 1)], {"a": {"b": 1, "c": 2}, "d": 3}),
        ("a:\n    b: 1\n\tc: 2\nd: 3\n", [(3, 1)], {"a": {"b": 1, "c": 2}, "d": 3}),
        ("a:\n        b: 1\n\tc: 2\nd: 3\n", [(3, 1)], {"a": {"b": 1, "c": 2}, "d": 3}),
        ("a:\n b: 1\n\tc: 2\nd: 3\n", [(3, 1)], {"a": {"b": 1, "c": 2}, "d": 3}),
        ("a:\n      b: 1\n\tc: 2\nd: 3\n", [(3, 1)], {"a": {"b": 1, "c": 2}, "d": 3}),
        ("a:\n\t\tb: 1\n", [(2, 1)], {"a": {"b": 1}}),
        ("a:\n\tb: 1\n\tc: 2\n", [(2, 1), (3, 1)], {"a": {"b": 1, "c": 2}}),
    ],
)
def test_a_tab_is_told_and_read_as_the_spaces_that_fit(text, places, value):
    roots, mistakes = read(text)
    assert mistakes == [(*place, *TAB) for place in places]
    assert roots == [value]


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "value"),
    [
        ("b:\u00a0x\n", 1, 3, "00A0", {"b": "x"}),
        ("a: 1\nb: [x,\u2009y]\nc: 2\n", 2, 7, "2009", {"a": 1, "b": ["x", "y"], "c": 2}),
        ("a: \u00a0x\n", 1, 4, "00A0", {"a": "x"}),
        ("a: x\u200b\n", 1, 5, "200B", {"a": "x"}),
        ("a: &k \u3000x\n", 1, 7, "3000", {"a": "x"}),
        ("a: &k \u3000x # \u3000\n", 1, 7, "3000", {"a": "x"}),
        ("'\u3000': &k \u3000x\n", 1, 9, "3000", {"\u3000": "x"}),
        ("- \u2003x\n", 1, 3, "2003", ["x"]),
        ("a: x\u00a0# y\n", 1, 5, "00A0", {"a": "x"}),
    ],
)
def test_a_character_that_looks_like_a_space_is_told_and_read_as_one(text, line, column, code, value):
    roots, mistakes = read(text)
    said = f"the character U+{code} looks like a space here, and is none"
    assert mistakes == [(line, column, said, "write a space, or quote the value")]
    assert roots == [value]


@pytest.mark.parametrize("text", ["a: x\u00a0y", "a: '\u00a0x'", "a: |\n  \u00a0x"])
def test_within_a_text_such_a_character_may_be_meant(text):
    assert read(text)[1] == []


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("%YAML 1.2\n---\na: 1\n", [(1, 1, "directives (`%`) are not used here", "remove the line")]),
        ("a: 1\n---\nb: 1\n%x\n", [(4, 1, "directives (`%`) are not used here", "remove the line")]),
        ("a: 1\nb: x\x07y\n", [(2, 5, "the character U+0007 is not allowed here", "remove it")]),
        ("---\n---\na: x\x07\x08y\n", [(3, 5, "the character U+0007 is not allowed here", "remove it")]),
        ("a: !t 1\nb: ! 2\n", [(1, 4, "tags (`!...`) are not used here", "remove the tag, or quote the value")]),
        ("b: 1\n<<: {c: 1}\n",
         [(2, 1, "merge keys (`<<`) are not in YAML 1.2", "use `defaults:`, or an alias for a whole value")]),
        ("'<<': 1\n", []),
        ("a: 1\n? [x]\n: 2\n", [(2, 3, "a key must be a word", "quote a value that begins with { or [")]),
        ("a: 1\nb: 1\na: 2\n", [(3, 1, "`a` is here twice", "the first is on line 1")]),
        ("a:\n  x\nb: 1\na: 2\n", [(4, 1, "`a` is here twice", "the first is on line 1")]),
        ("x: 1\na: *b\n", [(2, 4, "`*b` has no `&b` before it", "quote the value, or define the anchor first")]),
        (b"a: 1\nb: \xc3\xa9\xff\n", [(2, 5, "this is not UTF-8", "save the file as UTF-8")]),
    ],
)  # fmt: skip
def test_what_is_not_used_here_is_told_with_its_place(text, mistakes):
    assert read(text)[1] == mistakes


@pytest.mark.parametrize(
    ("text", "line", "began"),
    [("a: 1\nb: 'x\nc: 2\n", 4, 2), ("---\na: [1,\n  2\nb: 3\n", 4, 2), ("a: 1\nb: {c: 1\n", 3, 2), ("a: [1}\n", 1, None)],
)
def test_what_is_not_closed_is_told_with_the_line_where_it_began(text, line, began):
    roots, ((at, _, message, hint),) = read(text)
    assert roots == []
    assert at == line
    assert message.startswith("this is not YAML: ")
    assert hint == (
        "" if began is None else f"it began on line {began}: a quote, a bracket or the indentation is not closed"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1}\n", "expected ',' or ']', but got '}'"), ("a: [x] ]\n", "expected"), ("a: {x} }\n", "expected"),
        ("a: 'x' y\n", "expected <block end>"), ("a: 'x\ty' z\n", "expected <block end>"),
        ("a:\n    b: 1\n  c: 2\n", "expected <block end>"),
    ],
)  # fmt: skip
def test_what_quotes_would_not_mend_is_told_in_the_words_of_the_parser(text, says):
    roots, ((_, _, message, _),) = read(text)
    assert roots == []
    assert message.startswith(f"this is not YAML: {says}")


@pytest.mark.parametrize(
    ("text", "root", "column", "write"),
    [
        ("a: {b: c -p {d} e}\n", {"a": {"b": "c -p {d} e"}}, 8, "'c -p {d} e'"),
        ("a: [b, c {d},  e]\n", {"a": ["b", "c {d}", "e"]}, 8, "'c {d}'"),
        ("a: {b: x{d}{e}:1 , c: 2}\n", {"a": {"b": "x{d}{e}:1", "c": 2}}, 8, "'x{d}{e}:1'"),
        ("a: [it's {d}]\n", {"a": ["it's {d}"]}, 5, "'it''s {d}'"),
        ("a: [{b: c {d}, e: 1}]\n", {"a": [{"b": "c {d}", "e": 1}]}, 9, "'c {d}'"),
    ],
)
def test_a_value_with_braces_in_a_flow_map_or_list_is_to_be_quoted(text, root, column, write):
    told = [(1, column, "a value that holds `{` must be quoted here", f"write {write}")]
    assert read(text) == ([root], told)


def test_of_a_value_with_braces_in_a_map_that_is_not_closed_both_are_told():
    roots, (braces, end) = read("a: {b: c {d} e\n")
    assert (roots, braces[2]) == ([], "a value that holds `{` must be quoted here")
    assert end[2].startswith("this is not YAML: expected ',' or '}'")


def test_what_is_no_file_of_ours_is_told_without_words_of_python():
    assert read("[Unit]\nDescription=x\n")[1] == [
        (
            2,
            1,
            "this is not YAML: more follows where the document has ended",
            "begin with `service: NAME`, and write `key: value` in a line",
        )
    ]


def test_a_tab_that_no_spaces_mend_is_told_and_the_document_given_up():
    assert read("a: 1\nb: x\ty: z\n---\nc: 1\n") == (
        [{"c": 1}],
        [(2, 5, TAB[0], "write spaces, or quote the value that holds it")],
    )


def test_a_broken_document_is_given_up_alone_and_nothing_is_concluded_from_it():
    roots, mistakes = read("a: 1\n---\nb: !t 1\nc: 'x\n---\nd: 1\n")
    assert roots == [{"a": 1}, {"d": 1}]
    assert [(line, message[:16]) for line, _, message, _ in mistakes] == [(4, "this is not YAML")]


def nested(depth):
    """Return a text whose innermost list stands below so many others."""
    return "x: 1\nb: " + "[" * depth + "]" * depth


def unfolding(weight):
    """Return a text that unfolds to so many nodes: 103 of its own frame, 100 by each alias."""
    aliases, singles = divmod(weight - 103, 100)
    return "a: &a [" + "1," * 98 + "]\nb: [" + "*a," * aliases + "1," * singles + "]"


@pytest.mark.parametrize(("within", "beyond"), [(nested(40), nested(41)), (unfolding(50_000), unfolding(50_001))])
def test_depth_and_size_of_what_is_read_are_bounded(within, beyond):
    assert read(within)[1] == []
    roots, ((line, _, message, hint),) = read(beyond)
    assert (roots, line) == ([], 2)
    assert (message, hint) == ("the document is nested too deep or unfolds too far", "simplify it")


def test_texts_up_to_the_bounds_are_read():
    assert read("# " + "x" * (128 * 1024 - 7) + "\na: 1") == ([{"a": 1}], [])
    parts = ["# " + "x" * (100 * 1024 - 9) + "\na: 1\n"] * 11
    assert len(read("---\n".join(parts)[:LARGEST_TEXT])[0]) == 10


def test_texts_above_the_bounds_are_refused_by_their_size():
    assert read("x" * (LARGEST_TEXT + 1)) == ([], [(1, 1, "the file is larger than 1048576 bytes", "split it")])
    small = "a: 1\n---\n"
    assert read(small + "# " + "x" * (128 * 1024) + f"\n{small}") == (
        [{"a": 1}],
        [(2, 1, "the document is larger than 128 KiB", "put large texts into an artifact")],
    )


def test_no_more_than_a_hundred_mistakes_are_repaired():
    roots, mistakes = read("- @\n" * 100)
    assert (len(roots), len(mistakes)) == (1, 100)
    roots, mistakes = read("- @\n" * 101)
    assert (len(roots), len(mistakes)) == (0, 101)
    assert mistakes[-1][:2] == (101, 3)
    assert mistakes[-1][2].startswith("this is not YAML: ")
