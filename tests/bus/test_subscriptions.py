"""What a client makes of a broker's frames for its subscriptions, and of a blob that it is given."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.client.asking import Asking
from dsmt.bus.client.subscription import ClientSubscription
from dsmt.bus.client.subscriptions import SubscriptionRegistry
from dsmt.bus.nats.deliveries import Deliveries
from dsmt.bus.rules.ended_keys import KEY_HAS_ENDED, NAMESAKE
from dsmt.bus.rules.follower import CREDIT, MAIL
from dsmt.bus.rules.ordered import Ordered
from dsmt.bus.rules.routing import OVERLAP_MS
from dsmt.bus.wire import frames as f
from dsmt.errors import FailedError, TransportError, UnusableEventError
from dsmt.event.hlc import BOUND_MS
from dsmt.event.topic import PATTERNS_MOST
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Interest, Start
from tests.bus.stored import append
from tests.loops import in_real_time
from tests.waiting import until

AT = Cursor("s", 5, 900)


class Reading:
    """One subscription of a client, what was posted for it, and what its reader has got."""

    def __init__(self, **interest: Any) -> None:
        self.posted: list[Any] = []
        clock: Any = SimpleNamespace(merge=lambda *_: None)
        signed = SimpleNamespace(event=SimpleNamespace(topic="user/x", time=1, time_ms=1))
        trust: Any = SimpleNamespace(open_part=lambda _: [(signed, None)])
        self.registry = SubscriptionRegistry(trust, lambda: clock, self.posted.append)
        self.subscription: ClientSubscription = self.registry.begin(Interest(("user/",), **interest))

    def receives(self, frame: Any, *parts: bytes) -> None:
        self.registry.received(frame, parts, 1.0, 1000)

    def got(self) -> list[Any]:
        return [one for batch, _ in self.subscription._queue for one in batch]


def bookmark(row: int, token: int | None = None) -> f.BookmarkFrame:
    return f.BookmarkFrame(id=1, store="s", row=row, time_ms=900, whole=True, token=token)


def test_a_bookmark_says_where_it_stands_and_from_there_is_read_on_at_the_next_broker() -> None:
    reading = Reading(conflate=False)
    reading.receives(f.CompleteFrame(id=1, store="s", row=4, time_ms=800, whole=True))
    reading.receives(bookmark(5, token=3))
    assert reading.got() == [Complete(Cursor("s", 4, 800), True), Bookmark(AT, True, 3)]
    reading.registry.attached("broker/b2", "s", again=True)
    asked = reading.posted[-1]
    assert (asked.start, asked.store, asked.row, asked.time_ms) == ("history", "s", 5, 900)


@pytest.mark.parametrize(
    ("interest", "asked"),
    [({"start": Start.FACTS}, ("facts", None)), ({"start": Start.HISTORY}, ("history", 5))],
    ids=["what stands", "the history"],
)
def test_who_had_not_read_all_reads_on_in_the_history_and_begins_again_with_what_stands(
    interest: dict[str, Any], asked: tuple[str, int | None]
) -> None:
    """Which facts had come does not say which are yet to come."""
    reading = Reading(conflate=True, **interest)
    reading.registry.attached("broker/b1", "s", again=False)
    reading.receives(f.Deliver(id=1, rows=(5,), live=False), b"an event")
    reading.registry.attached("broker/b1", "s", again=True)
    assert (reading.posted[-1].start, reading.posted[-1].row) == asked


@pytest.mark.parametrize("interest", [{"start": Start.LIVE}, {"start": Start.HISTORY, "since": 500_000}, {}])
def test_another_broker_is_not_asked_for_what_came_long_before_it_began(interest: dict[str, Any]) -> None:
    reading = Reading(**interest)
    reading.receives(f.CompleteFrame(id=1, store="s", row=4, time_ms=500_000, whole=True))
    for time_ms, store, asked in (
        (505_000, "s", (5, 505_000)),
        (505_000, "other", (None, 500_000 - BOUND_MS)),
        (500_000 - BOUND_MS + OVERLAP_MS, "other", (5, 500_000 - BOUND_MS + OVERLAP_MS)),
    ):
        reading.receives(f.BookmarkFrame(id=1, store="s", row=5, time_ms=time_ms, whole=True))
        reading.registry.attached("broker/b2", store, again=True)
        said = reading.posted[-1]
        assert (said.start, said.store, (said.row, said.time_ms)) == ("history", "s", asked)


def test_how_far_a_reader_has_stored_is_said_once_and_again_over_another_link() -> None:
    reading = Reading(conflate=False)

    def said() -> list[int]:
        rows = [one.row for one in reading.posted if isinstance(one, f.Stored)]
        reading.posted.clear()
        return rows

    for row in (4, 4, 5, 5):
        reading.subscription.stored(row)
    assert said() == [4, 5]
    reading.registry.attached("broker/b1", "s", again=True)
    reading.subscription.stored(5)
    assert said() == [5]


def test_what_a_reader_awaits_of_a_lost_link_it_asks_of_the_next_one() -> None:
    """Or a controller would wait for its bookmark, and decide nothing, for ever."""
    reading = Reading(conflate=True, bookmarks=True)
    reading.subscription.mark(7)
    reading.posted.clear()
    reading.registry.attached("broker/b2", "s", again=True)
    assert [type(one) for one in reading.posted] == [f.Subscribe, f.Mark]
    assert reading.posted[-1].token == 7


def test_that_a_key_has_ended_is_told_to_those_who_keep_what_they_have_read_and_to_nobody_else() -> None:
    folds, follows = Reading(conflate=True), Reading(conflate=False)
    for reading in (folds, follows):
        reading.registry.tell_who_fold(KEY_HAS_ENDED)
    assert (folds.got(), list(follows.subscription._queue)) == ([KEY_HAS_ENDED], [])


@in_real_time
async def test_of_a_question_that_was_answered_or_is_awaited_no_more_nothing_is_kept() -> None:
    asked, attached = list[Any](), asyncio.Event()
    attached.set()
    asking = Asking(lambda frame, *_: asked.append(frame), attached)
    answered, given_up = (asyncio.ensure_future(asking.head()) for _ in range(2))
    await until(lambda: len(asked) == 2)
    asking.answered(asked[0].id, f.HeadIs(id=asked[0].id), (b"head",))
    assert await answered == b"head"
    given_up.cancel()
    await asyncio.wait({given_up})
    assert asking._answers == {}


@in_real_time
async def test_a_broker_that_can_sign_no_head_is_told_of_as_one_whose_certificate_has_ended() -> None:
    asked, attached = list[Any](), asyncio.Event()
    attached.set()
    asking = Asking(lambda frame, *_: asked.append(frame), attached)
    head = asyncio.ensure_future(asking.head())
    await until(lambda: asked)
    asking.answered(asked[0].id, f.HeadIs(id=asked[0].id), (b"",))
    with pytest.raises(UnusableEventError) as caught:
        await head
    assert caught.value.code == "trust.expired"


def test_that_all_of_a_store_has_come_is_told_once_and_again_of_another_store() -> None:
    reading = Reading(conflate=False)
    for store in ("s", "s", "t"):
        reading.receives(f.CompleteFrame(id=1, store=store, row=4, time_ms=800, whole=True))
    here, there = Cursor("s", 4, 800), Cursor("t", 4, 800)
    assert reading.got() == [Complete(here, True), Bookmark(here, True), Complete(there, True)]


def test_what_was_not_read_yet_when_it_is_asked_for_again_is_not_told_to_be_consumed_of_the_new_credit() -> None:
    reading = Reading(conflate=True)
    reading.subscription.events([], CREDIT // 2, "s", 1.0)
    reading.subscription._put([Bookmark(AT, True)], 0)
    reading.registry.attached("broker/b2", "s", again=True)
    assert len(asyncio.run(reading.subscription.__anext__())) == 2
    assert [one for one in reading.posted if isinstance(one, f.Consumed)] == []
    reading.subscription.events([], CREDIT // 4, "s", 1.0)
    reading.subscription._put([Bookmark(AT, True)], 0)
    asyncio.run(reading.subscription.__anext__())
    assert [one.count for one in reading.posted if isinstance(one, f.Consumed)] == [CREDIT // 4]


@in_real_time
async def test_credit_that_is_used_up_in_small_parts_is_given_back_whole() -> None:
    reading = Reading(conflate=True)
    for _ in range(20):
        reading.subscription.events([], CREDIT // 10, "s", 1.0)
        reading.subscription._put([Bookmark(AT, True)], 0)
        await reading.subscription.__anext__()
    given = [one.count for one in reading.posted if isinstance(one, f.Consumed)]
    assert given == [3 * (CREDIT // 10)] * 6


def test_mail_that_comes_twice_is_read_once_however_much_came_before_it() -> None:
    ordered = Ordered(follows=True)
    mail: list[Any] = [SimpleNamespace(signed=SimpleNamespace(id=("source", 1, n))) for n in range(MAIL + 3)]
    assert all(ordered.mail(one) == [one] for one in mail)
    assert [ordered.mail(one) for one in mail[-MAIL:]] == [[]] * MAIL
    assert len(ordered._mail) == MAIL


def test_however_much_comes_that_was_read_before_its_reader_waits_for_what_is_new() -> None:
    """A broker gives a minute anew to who comes from another one, and more where that one was cut off; or a hostile one."""

    async def within() -> None:
        r, signed = Reading(), append(1).signed
        one = Arrived(signed, 1, live=True)
        r.subscription.events([one], 10, "s", 1.0)
        assert await anext(r.subscription) == [one]
        reading = asyncio.create_task(anext(r.subscription))
        for _ in range(2 * sys.getrecursionlimit()):
            r.subscription.events([one], 10, "s", 1.0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        r.receives(bookmark(6))
        assert [type(one) for one in await reading] == [Bookmark]

    asyncio.run(within())


def test_of_bookmarks_that_wait_for_what_is_missing_the_last_is_told_with_the_token_of_any() -> None:
    reading = Reading()
    held_back: Any = SimpleNamespace(deadline=2.0, timer=lambda _: [])
    reading.subscription._ordered._follower = held_back
    reading.receives(bookmark(3, token=7))
    reading.receives(bookmark(5))
    assert reading.got() == []
    held_back.deadline = None
    reading.subscription._fire(2.0)
    assert reading.got() == [Bookmark(AT, True, 7)]


def test_of_bookmarks_that_wait_on_nats_no_token_is_lost() -> None:
    deliveries = Deliveries(conflate=False)
    held_back: Any = SimpleNamespace(deadline=2.0, timer=lambda _: [])
    deliveries._ordered._follower = held_back
    for token in (None, 7, None, 8, None):
        deliveries.mark(Bookmark(AT, True, token))
    assert not deliveries.hand_on()
    held_back.deadline = None
    deliveries.tick(2.0)
    assert deliveries.hand_on()
    assert asyncio.run(deliveries.next()) == [Bookmark(AT, True, 7), Bookmark(AT, True, 8)]


def test_of_no_more_mail_than_a_bound_the_ids_are_remembered_on_nats_the_newest() -> None:
    deliveries = Deliveries(conflate=True)
    mail: list[Any] = [SimpleNamespace(signed=SimpleNamespace(id=("source", 1, n), size=1)) for n in range(MAIL + 3)]
    for one in (*mail, *mail[-MAIL:]):
        deliveries.mail(one)
    deliveries.mark(Bookmark(AT, True))
    assert deliveries.hand_on()
    assert asyncio.run(deliveries.next()) == [*mail, Bookmark(AT, True)]
    assert len(deliveries._ordered._mail) == MAIL


@pytest.mark.parametrize("inbox", [False, True], ids=["no mail", "mail too"])
@in_real_time
async def test_a_part_that_is_missing_is_asked_for_again_at_the_next_broker(*, inbox: bool) -> None:
    reading = Reading(inbox=inbox)
    trust: Any = reading.registry._trust
    trust.open_part = lambda part: [(append(part[0]).signed, None)]
    reading.receives(f.CompleteFrame(id=1, store="s", row=0, time_ms=800, whole=True))
    reading.receives(f.Deliver(id=1, rows=(1, 2), live=True), bytes([1]), bytes([4]))
    asked = [one for one in reading.posted if isinstance(one, f.Repair)]
    assert [(one.after, one.before) for one in asked] == [(1, 4)]
    reading.registry.attached("broker/b2", "s", again=True)
    assert isinstance(reading.posted[-2], f.Subscribe)
    assert reading.posted[-1] == asked[0]
    reading.registry.end(reading.subscription)


def test_what_was_asked_for_again_is_not_taken_for_live() -> None:
    reading, found = Reading(), list[Arrived]()
    reading.subscription.repaired = lambda _, arrived, now: found.extend(arrived)  # type: ignore[method-assign]
    reading.receives(f.Repaired(id=1, source="node/n1", topic="user/x", before=2, rows=(9,), closing="lost"), b"an event")
    assert [(one.row, one.live) for one in found] == [(9, False)]


@pytest.mark.parametrize("given", [[b"123456", b"789012"], [b"12345678901"], [b""] * 30])
def test_of_a_blob_no_more_is_taken_than_it_was_said_to_have(given: list[bytes]) -> None:
    parts, taken = iter(given), []

    async def ask(_kind: Any, frame: Any) -> Any:
        return (SimpleNamespace(size=10), ()) if isinstance(frame, f.BlobAsked) else (None, (next(parts),))

    async def take() -> None:
        asking = Asking(lambda *_: None, asyncio.Event())
        asking._ask = ask  # type: ignore[assignment, method-assign]
        async for chunk in asking.get_blob(bytes(32)):
            taken.append(chunk)  # noqa: PERF401 - also what came before it is refused

    with pytest.raises(FailedError, match="has 10 bytes, and more than that came") as refused:
        asyncio.run(take())
    assert (refused.value.code, refused.value.next) == ("depot.mismatch", "fetch it from another broker")
    assert len(taken) <= 10
    assert sum(map(len, taken)) <= 10


def test_a_link_that_is_lost_as_an_answer_has_come_loses_neither_the_answer_nor_what_else_was_asked() -> None:
    asked: list[Any] = []

    async def ask() -> None:
        attached = asyncio.Event()
        attached.set()
        asking = Asking(lambda frame, *_: asked.append(frame), attached)
        first, second = (asyncio.create_task(asking.history(after, lambda: "s")) for after in (3, 4))
        await asyncio.sleep(0)
        asking.answered(asked[0].id, f.HistoryIs(id=asked[0].id, rows=(), nodes=(), lost=((4, 9),)), ())
        asking.lost()
        assert (await first).lost == ((4, 9),)
        await asyncio.sleep(0)
        asking.answered(asked[1].id, f.HistoryIs(id=asked[1].id, rows=(), nodes=(), lost=()), ())
        assert (await second).lost == ()

    asyncio.run(asyncio.wait_for(ask(), 20))
    assert [one.after for one in asked] == [3, 4, 4]


def test_what_could_not_be_asked_over_a_link_that_was_lost_in_that_moment_is_asked_over_the_next_one() -> None:
    """Who asks is woken a turn after the attachment; it waited for an answer to what was never sent, for ever."""
    asked: list[Any] = []

    async def ask() -> None:
        attached = asyncio.Event()

        def post(frame: Any, *_: bytes) -> None:
            if not attached.is_set():
                raise TransportError("link.lost", "no broker is attached")
            asked.append(frame)

        asking = Asking(post, attached)
        head = asyncio.create_task(asking.head())
        await asyncio.sleep(0)
        attached.set()
        attached.clear()
        asking.lost()
        for _ in range(3):
            await asyncio.sleep(0)
        assert asked == []
        attached.set()
        await until(lambda: asked)
        asking.answered(asked[0].id, f.HeadIs(id=asked[0].id), (b"head",))
        assert await head == b"head"

    asyncio.run(asyncio.wait_for(ask(), 20))


def test_more_patterns_than_a_subscription_has_are_refused_where_they_are_asked_for() -> None:
    ClientSubscription(1, Interest(("a",) * PATTERNS_MOST), lambda _frame: None)
    with pytest.raises(ValueError, match="257 patterns of one subscription, and 256 are the most"):
        ClientSubscription(1, Interest(("a",) * (PATTERNS_MOST + 1)), lambda _frame: None)


def test_what_concerns_every_reader_each_is_told() -> None:
    reading = Reading(conflate=True)
    other = reading.registry.begin(Interest(("config/",)))
    reading.registry.tell(NAMESAKE)
    assert [[one for batch, _ in each._queue for one in batch] for each in (reading.subscription, other)] == [[NAMESAKE]] * 2
