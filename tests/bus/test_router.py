"""A router's readers: who takes what, who is behind, and what is read for whom."""

from __future__ import annotations

from itertools import count

import pytest

from dsmt.bus.rules.routing import INDEXED, BrokerSubscription, Router, Snapshot
from dsmt.ports.store import Row


def interest(owner: object, number: int, *patterns: str, **about: object) -> BrokerSubscription[object]:
    usual = {
        "owner": owner, "id": number, "patterns": patterns, "name": None, "conflate": False, "signals": True,
        "bookmarks": False, "credit": 1, "most_credit": 10, "after": 0, "began": 0, "snapshot": None,
    }  # fmt: skip
    return BrokerSubscription(**{**usual, **about})  # type: ignore[arg-type]


def test_a_router_knows_its_readers_by_topic_and_address():
    router, numbers = Router(), count(1)

    def add(owner, *patterns, name=None, signals=True, live=True):
        made = interest(owner, next(numbers), *patterns, name=name, signals=signals, live=live)
        router.add(made)
        return made

    one, two = object(), object()
    a, b = add(one, "user/"), add(two, "user/+/x", name="node/n1")
    add(two, "user/", live=False)
    facts = add(two, "user/", signals=False)

    def readers(topic, to=(), fact=True):
        return set(router.readers(topic, to, fact=fact, brought=""))

    assert readers("user/t") == {a, facts}
    assert readers("user/t/x") == {a, b, facts}
    assert readers("user/t/x", fact=False) == {a, b}
    assert readers("config/a", ("node/n1",)) == {b}
    router.remove(two)
    assert readers("user/t/x") == {a}
    assert router.get(one, a.id) is a
    router.remove(one, a.id)
    assert list(router.all()) == []


def test_a_subscription_takes_the_place_of_its_owners_one_with_the_same_number() -> None:
    router, one, two = Router(), object(), object()
    first, other = interest(one, 1, "user/a", live=True), interest(two, 1, "user/a", live=True)
    again = interest(one, 1, "user/b", "user/b", live=True)
    for made in (first, other, again):
        router.add(made)
    assert router.readers("user/a", (), fact=True, brought="") == [other]
    assert router.readers("user/b", (), fact=True, brought="") == [again]
    assert (router.get(one, 1), router.get(one, 2), router.get(object(), 1)) == (again, None, None)
    assert (router.of(one), router.of(two), router.of(object())) == ([again], [other], [])
    assert router.behind() == [other, again], "what was replaced is read for no more"


def test_who_has_gone_leaves_nothing_in_a_router() -> None:
    router, owner = Router(), object()
    mine, ours = (interest(owner, n, "user/a", name="node/n1", live=True, copies=frozenset()) for n in (1, 2))
    router.add(mine)
    router.add(ours)
    assert router.readers("note/n", ("node/n1",), fact=True, brought="") == [mine, ours]
    router.remove(owner, 1)
    assert router.readers("note/n", ("node/n1",), fact=True, brought="") == [ours]
    router.remove(owner, 2)
    router.remove(owner)
    assert [router._inboxes, router._owned, router._behind, router._copies, router._all] == [{}] * 5


def test_who_is_behind_is_who_has_not_everything_and_has_credit() -> None:
    router = Router()
    one, broke = interest(object(), 1, "user/a"), interest(object(), 1, "user/a", credit=0)
    for made in (one, broke):
        router.add(made)
    assert router.behind() == [one]
    for _ in range(2):
        router.set_live(one, live=True)
    broke.consumed(5)
    assert (router.behind(), broke.credit, one.live) == ([broke], 5, True)
    broke.consumed(50)
    router.set_live(one, live=False)
    assert (router.behind(), broke.credit, one.live) == ([broke, one], 10, False)


def test_who_folds_reads_on_from_what_stands_again_where_it_could_not_be_told() -> None:
    router = Router()
    near, far = (interest(object(), 1, "user/", conflate=True, signals=False, after=after, live=True) for after in (3, 9))
    reads, whole = interest(object(), 1, "user/", after=9, live=True), Snapshot([("user/a", "user0")], 7)
    begins = interest(object(), 1, "user/", conflate=True, signals=False, name="node/n1", after=9, snapshot=whole)
    for made in (near, far, reads, begins):
        router.add(made)
        router.set_live(made, live=True)
    again = [Row(number, 0, "user/a", (), True, b"k", b"") for number in (8, 5)]
    assert router.elected(again, now_ms=100) == [near, far, begins]
    for made in (near, far, begins):
        router.go_back(made)
    assert [(one.after, one.live) for one in (near, far, reads, begins)] == [(3, False), (4, False), (9, True), (4, False)]
    assert begins.snapshot == Snapshot([("user/", "user0")], 0), "what it had read of the facts does not count"
    assert router.behind() == [near, far, begins]
    assert [router.place(9, at_ms, goes_back=True) for at_ms in (100, 101)] == [4, 9]
    assert router.place(9, 100, goes_back=False) == 9


def test_retained_facts_are_read_range_by_range_and_then_what_is_addressed_to_the_reader() -> None:
    def row(number: int, topic: str) -> Row:
        return Row(number, 0, topic, (), True, b"k", b"")

    left = Snapshot([("a/", "a0"), ("c/", "c0")], 0)
    left.go_on_behind(row(3, "a/x"), "a/x\0")
    left.go_on_at(row(9, "a/y"))
    assert left == Snapshot([("a/y", "a0"), ("c/", "c0")], 0)
    left.go_on_behind(row(9, "a/y"), "a0")
    assert left == Snapshot([("c/", "c0")], 0), "behind the end of a range is the next one"
    left.go_on_behind(row(4, "c/y"), None)
    left.go_on_at(row(8, "z"))
    assert (left, left.is_done) == (Snapshot([], 7), False), "it is the next one to be sent"
    left.go_on_behind(row(8, "z"), None)
    assert (left, left.is_done) == (Snapshot([], 8), False)
    left.go_on_behind(None, None)
    assert left.is_done
    assert not Snapshot([("a", "b")], None).is_done


def test_who_is_for_everything_takes_everything_and_looks_at_each_topic() -> None:
    all_of_it = interest(object(), 1, "/")
    assert all_of_it.takes_topic("user/a")
    assert all_of_it.following("user/a") == "user/a\0"


def test_what_lies_between_is_passed_over_and_what_is_taken_is_not() -> None:
    some = interest(object(), 1, "user/+/x")
    assert some.following("user/a/x") == "user/a/x\0"
    assert some.following("user/a/b") == "user/a/x"
    assert interest(object(), 1, "user/a").following("user/b") is None


COMMAND = "service/web/command/app/0"


@pytest.mark.parametrize(
    ("patterns", "about", "indexed"),
    [
        ((COMMAND,), {}, True),
        (tuple(f"{COMMAND[:-1]}{n}" for n in range(INDEXED)), {}, True),
        (tuple(f"{COMMAND[:-1]}{n}" for n in range(INDEXED + 1)), {}, False),
        ((COMMAND,), {"name": "node/n1"}, False),
        ((COMMAND,), {"signals": False}, False),
        ((COMMAND, "user/t"), {}, False),
        ((COMMAND, "service/web/command/+/1"), {}, False),
        ((COMMAND, "service/web/command/"), {}, False),
    ],
)
def test_only_who_reads_few_topics_of_commands_and_nothing_else_is_read_for_by_their_index(patterns, about, indexed) -> None:
    assert interest(object(), 1, *patterns, **about).evidence == (patterns if indexed else ())
