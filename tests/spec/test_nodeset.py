"""Node sets: grammar with columns, the algebra's laws, stable limits, named cycles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.spec import nodeset
from dsmt.spec.nodeset import Intersect, Limit, Minus, NamedNodes, NodeSetError, Union

NODES = [f"n{i}" for i in range(12)]
names = st.sampled_from(["all_nodes", "failed", "good", "n1", "n2", "elsewhere"])
expressions = st.recursive(
    names.map(NamedNodes),
    lambda inner: st.one_of(
        st.builds(Minus, inner, inner),
        st.builds(Union, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Intersect, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Limit, inner, st.integers(0, 5)),
    ),
    max_leaves=8,
)
universes = st.lists(st.sampled_from(NODES), unique=True)
failures = st.frozensets(st.sampled_from(NODES))
NAMED = {"good": nodeset.parse("minus(all_nodes, failed)")}


def value(text, universe=tuple(NODES), failed=frozenset(), named=None):
    return nodeset.evaluate(nodeset.parse(text), universe=universe, failed=failed, named=named or {})


def test_the_example_of_the_manual_takes_ten_nodes_that_have_not_failed():
    failed = frozenset({"n0", "n5"})
    selected = value("limit(minus(all_nodes, failed), 10)", failed=failed)
    assert set(selected) == set(NODES) - failed
    assert len(value("limit(minus(all_nodes, failed), 4)", failed=failed)) == 4


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "missing"),
        ("minus(a", 8, "missing"),
        ("minus(a, b, c)", 1, "takes 2 parts, not 3"),
        ("minus(a,, b)", 9, "missing"),
        ("without(a, b)", 1, "no operator"),
        ("limit(a)", 1, "needs a number"),
        ("limit(a, b)", 10, "not a number"),
        ("limit(a, 3, 4)", 11, "missing"),
        ("a b", 3, "`b` stands after a whole expression"),
        ("a - $", 3, "no meaning"),
        ("union", 1, "needs its parts"),
        ("Node", 1, "not a name"),
        ("(" * 3, 1, "missing"),
        ("minus(" * 40 + "a", 199, "deeper"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_column(text, column, says):
    with pytest.raises(NodeSetError, match=says) as caught:
        nodeset.parse(text)
    assert caught.value.column == column


@given(expressions)
def test_the_canonical_text_reads_back_as_the_same_expression(expression):
    assert nodeset.parse(nodeset.format_expression(expression)) == expression


@given(st.text(alphabet="abn1_-.,() \t\n$limtus", max_size=40))
def test_any_text_parses_or_is_refused_with_the_one_error(text):
    try:
        expression = nodeset.parse(text)
    except NodeSetError:
        return
    assert nodeset.parse(nodeset.format_expression(expression)) == expression


@given(expressions, expressions, universes, failures)
def test_the_algebra_agrees_with_python_sets(a, b, universe, failed):
    def of(expression):
        return set(nodeset.evaluate(expression, universe=universe, failed=failed, named=NAMED))

    assert of(Union((a, b))) == of(a) | of(b) == of(Union((b, a)))
    assert of(Intersect((a, b))) == of(a) & of(b) == of(Intersect((b, a)))
    assert of(Minus(a, b)) == of(a) - of(b)
    assert of(Minus(a, a)) == set()
    assert of(Limit(a, 2)) <= of(a)
    assert len(of(Limit(a, 2))) == min(2, len(of(a)))
    assert of(Limit(a, 2)) <= of(Limit(a, 3))
    assert of(a) <= set(universe)
    bound = nodeset.most(a)
    assert bound is None or len(of(a)) <= bound


@given(expressions, universes, failures, st.randoms())
def test_the_order_of_the_universe_does_not_matter(expression, universe, failed, random):
    shuffled = list(universe)
    random.shuffle(shuffled)
    first = nodeset.evaluate(expression, universe=universe, failed=failed, named=NAMED)
    assert first == nodeset.evaluate(expression, universe=shuffled, failed=failed, named=NAMED)
    assert list(first) == sorted(first)


@given(st.lists(st.sampled_from(NODES), unique=True, min_size=2), st.integers(1, 6))
def test_a_node_that_leaves_changes_at_most_one_member_of_a_limit(universe, count):
    text = f"limit(all_nodes, {count})"
    before = set(value(text, universe))
    gone = universe[0]
    after = set(value(text, universe[1:]))
    assert before - after <= {gone}
    assert len(after - before) <= (1 if gone in before else 0)


@pytest.mark.parametrize(
    "text", ["minus(all_nodes, limit(all_nodes, 4))", "minus(all_nodes, front)", "minus(union(back, n1), front)"]
)
def test_what_is_taken_away_is_so_whatever_a_limit_prefers(text):
    named = {"front": nodeset.parse("limit(all_nodes, 4)"), "back": nodeset.parse("minus(all_nodes, front)")}

    def preferring(nodes):
        def rank(key, node):
            return nodeset.rendezvous_rank(key, node) + (0 if node in nodes else 2**64)

        return nodeset.evaluate(nodeset.parse(text), universe=NODES, failed=frozenset(), named=named, rank=rank)

    assert preferring(()) == preferring(NODES[:4]) == preferring(preferring(())) == value(text, named=named)
    assert nodeset.evaluate(
        nodeset.parse("union(front, minus(n1, front))"), universe=NODES, failed=frozenset(), named=named,
        rank=lambda _, node: -NODES.index(node),
    ) == tuple(sorted({*NODES[-4:], *value("minus(n1, front)", named=named)}))  # fmt: skip


@given(expressions, universes, failures)
def test_who_prefers_the_nodes_that_it_has_comes_to_rest(expression, universe, failed):
    had, before = (), []
    while had not in before:
        before.append(had)

        def rank(key, node, has=frozenset(had)):
            return nodeset.rendezvous_rank(key, node) + (0 if node in has else 2**64)

        had = nodeset.evaluate(expression, universe=universe, failed=failed, named=NAMED, rank=rank)
    assert had == before[-1]


def test_a_named_set_and_its_text_written_out_select_the_same_nodes():
    inline = value("limit(minus(all_nodes, failed), 3)", failed=frozenset({"n3"}))
    assert value("three", failed=frozenset({"n3"}), named={
        "three": nodeset.parse("limit(minus(all_nodes,failed),3)"),
    }) == inline  # fmt: skip


def test_a_cycle_of_named_sets_is_named():
    named = {"a": nodeset.parse("minus(b, failed)"), "b": nodeset.parse("union(n1, c)"), "c": nodeset.parse("a")}
    with pytest.raises(NodeSetError, match="b -> c -> a -> b"):
        value("limit(b, 2)", named=named)


def test_a_chain_that_doubles_at_each_name_is_evaluated_quickly():
    named = {f"s{i}": nodeset.parse(f"union(s{i - 1}, s{i - 1})") for i in range(1, 60)}
    named["s0"] = nodeset.parse("n1")
    assert value("s59", named=named) == ("n1",)


def test_a_chain_of_any_length_is_evaluated_and_a_cycle_of_any_length_is_named():
    deep = "union(" * 30 + "s{}" + ")" * 30
    named = {f"s{i}": nodeset.parse(deep.format(i + 1)) for i in range(500)}
    assert value("s0", named={**named, "s500": nodeset.parse("n1")}) == ("n1",)
    assert value("minus(all_nodes, s0)", named={**named, "s500": nodeset.parse("n1")}) == tuple(sorted({*NODES} - {"n1"}))
    with pytest.raises(NodeSetError, match="s499 -> s500 -> s0"):
        value("s0", named={**named, "s500": nodeset.parse("s0")})


def test_a_set_called_as_what_is_given_does_not_stand_in_its_place():
    named = {"failed": nodeset.parse("failed"), "all_nodes": nodeset.parse("n1")}
    assert value("minus(all_nodes, failed)", named=named) == tuple(sorted(NODES))


def test_a_name_is_a_set_first_then_a_node_then_nothing():
    assert value("n1", named={"n1": nodeset.parse("n2")}) == ("n2",)
    assert value("n1") == ("n1",)
    assert value("typo") == ()
    expression = nodeset.parse("union(typo, n1, good)")
    assert nodeset.unknown_names(expression, universe=NODES, named=NAMED) == ("typo",)


@pytest.mark.parametrize("text", ["union(typo, n1)", "minus(n1, typo)", "limit(typo, 1)", "intersect(n1, union(typo, n2))"])
def test_a_name_that_is_nothing_is_found_wherever_it_stands(text):
    assert nodeset.unknown_names(nodeset.parse(text), universe=NODES, named=NAMED) == ("typo",)


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("all_nodes", None),
        ("limit(all_nodes, 3)", 3),
        ("limit(limit(all_nodes, 3), 5)", 3),
        ("limit(limit(all_nodes, 5), 3)", 3),
        ("minus(limit(all_nodes, 3), limit(all_nodes, 1))", 3),
        ("minus(all_nodes, limit(all_nodes, 1))", None),
        ("union(limit(all_nodes, 3), limit(failed, 2))", 5),
        ("union(limit(all_nodes, 3), failed)", None),
        ("intersect(limit(all_nodes, 3), failed, limit(all_nodes, 2))", 2),
        ("intersect(all_nodes, failed)", None),
    ],
)
def test_how_many_an_expression_can_select_at_most_whatever_the_realm(text, most):
    assert nodeset.most(nodeset.parse(text)) == most


@pytest.mark.parametrize(
    "text", ["minus", "union", "limit", "minus(a)", "limit(a)", "limit(a, x)", "x(a)", "", "Node", "a $", "a b"]
)
def test_who_writes_a_wrong_expression_is_told_what_to_write(text):
    with pytest.raises(NodeSetError) as caught:
        nodeset.parse(text)
    assert (caught.value.code, bool(caught.value.next)) == ("bad_nodeset", True)
    word = text.split("(")[0]
    if word in nodeset.OPERATORS:
        assert f"{word}(a, " in caught.value.next


def test_the_longest_and_deepest_expression_is_read_and_one_beyond_is_not():
    longest = "a" + " " * 4095
    assert nodeset.parse(longest) == NamedNodes("a")
    with pytest.raises(NodeSetError, match="4096"):
        nodeset.parse(longest + " ")
    deepest = "union(" * 32 + "a" + ")" * 32
    assert nodeset.parse(deepest)
    with pytest.raises(NodeSetError, match="deeper"):
        nodeset.parse(f"union({deepest})")
    assert nodeset.parse("limit(a, 1000000)") == Limit(NamedNodes("a"), 1_000_000)
    for number in ("1000001", "00000001", "-1", "1.5", "\u0661"):
        with pytest.raises(NodeSetError):
            nodeset.parse(f"limit(a, {number})")


def test_the_rendezvous_order_never_changes():
    assert value("limit(all_nodes, 3)") == ("n0", "n11", "n4")
    assert value("limit(minus(all_nodes, failed), 3)") != value("limit(all_nodes, 3)")
