"""Fan-out: a broker's outward side: live rows are pushed, everything else is read from the store, page by page.

Rule 1: what a reader has not consumed is charged to its credit; without credit it is not live and costs nothing.
Rule 2: a page is at most `PAGE_ROWS` rows and a message at most about `MESSAGE_BYTES`; sessions take turns, and in each
    its subscriptions. Between two pages the loop does what else is due.
Rule 3: who signed events is introduced before them (`introductions`).
Rule 4: a reader that reads behind the horizon of trimming is told so.
Rule 5: what many live readers take is made once for all of them: its parts, its frame, and who is to be introduced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple

from dsmt.bus.broker.introductions import Introductions, Proofs, Send
from dsmt.bus.broker.session import Session
from dsmt.bus.rules.authority import check_reads
from dsmt.bus.rules.interests import ranges_of
from dsmt.bus.rules.routing import ASKS, OVERLAP_MS, BrokerSubscription, Router, Snapshot
from dsmt.bus.wire.frames import (
    BookmarkFrame,
    CompleteFrame,
    Deliver,
    Subscribe,
    Told,
)
from dsmt.errors import RefusedError
from dsmt.event.burst import parts_of
from dsmt.event.kinds.row import CLASSES
from dsmt.ports.bus import Start
from dsmt.ports.store import Kept, Row
from dsmt.trust.store import TrustStore

PAGE_ROWS: Final = 256
TREES: Final = 64
"""Of how many bursts paths are made at once, for up to 25 us each: facts in the order of topics may all be of others."""
PAGES: Final = 8
"""How many pages are remembered for others who read the same."""
SUBSCRIPTION_ROWS: Final = 8
"""What looking at a reader costs, in rows."""
MESSAGE_BYTES: Final = 256 * 1024
MAX_SUBSCRIPTIONS: Final = 64
"""How many a session may have: with their credit, this bounds what waits for it."""
MAX_CREDIT: Final = 4 * 1024 * 1024
LATE_MS: Final = 1_000
"""How long after the time of a cursor its row may have arrived; where it is longer, some is read again."""


Sub = BrokerSubscription[Session]


class _Parcel(NamedTuple):
    """Rows that go as one message, its size in bytes, and what proves those who signed them."""

    rows: tuple[int, ...]
    parts: tuple[bytes, ...]
    size: int
    proofs: Proofs


class FanOut:
    """Hands rows to subscriptions. `send` answers False when a session can take no more now.

    `had` says up to which row another store had all at a time (`lags`).
    """

    def __init__(
        self,
        store: Kept,
        trust: TrustStore,
        *,
        send: Send,
        now_ms: Callable[[], int],
        whole: Callable[[], bool],
        had: Callable[[str, int], int],
    ) -> None:
        self._store, self._send = store, send
        self.introductions = Introductions(trust, send)
        self._now_ms, self._whole, self._had_elsewhere = now_ms, whole, had
        self._pages: dict[tuple[str, ...] | tuple[int, ...], list[Row]] = {}
        self._router: Router[Session] = Router()
        self._served = 0
        self._frame = Deliver(id=0, rows=(), live=False)
        self._made: tuple[tuple[int, ...], tuple[bytes, ...]] = ((), ())

    # --- what readers ask ----------------------------------------------------------------------------------------

    def subscribe(self, session: Session, asked: Subscribe) -> None:
        """Begin a subscription. Raises `InputError` for a bad pattern, `RefusedError` outside the session's grant."""
        check_reads(session.name, session.granted, asked.patterns)
        if len(self._router.of(session)) >= MAX_SUBSCRIPTIONS:
            raise RefusedError("quota", f"{session.name} has {MAX_SUBSCRIPTIONS} subscriptions, which is the limit")
        start, head, credit = Start(asked.start), self._store.head, min(asked.credit, MAX_CREDIT)
        subscription: Sub = BrokerSubscription(
            owner=session,
            id=asked.id,
            patterns=asked.patterns,
            name=session.name if asked.inbox else None,
            conflate=asked.conflate,
            signals=asked.signals,
            bookmarks=asked.bookmarks,
            copies=None if asked.copies is None else frozenset((session.name, *asked.copies)),
            credit=credit,
            most_credit=credit,
            after=self._begin(asked, start, head),
            began=head,
            snapshot=Snapshot(ranges_of(asked.patterns), 0 if asked.inbox else None) if start is Start.FACTS else None,
        )
        self._router.add(subscription)
        if subscription.bookmarks and asked.store == self._store.identity and subscription.after < (asked.row or 0):
            self._mark_at(subscription, subscription.after)  # what it has read since is not of this store

    def _begin(self, asked: Subscribe, start: Start, head: int) -> int:
        if start is not Start.HISTORY:
            return head if start is Start.LIVE else 0
        if asked.row is not None and asked.store == self._store.identity and self._had(asked.row, asked.time_ms, head):
            return self._router.place(asked.row, asked.time_ms or 0, goes_back=asked.conflate and not asked.signals)
        if asked.time_ms is None:
            return 0
        since_ms = min(asked.time_ms, self._now_ms()) - (OVERLAP_MS if asked.row is not None else 0)
        return min(self._store.row_at(since_ms), self._had_elsewhere(asked.store or "", since_ms))

    def _had(self, row: int, time_ms: int | None, head: int) -> bool:
        """Whether a reader can have had a row of this store, and not of a copy of it that went further.

        One that is not here yet, or arrived only after the reader's time, it cannot: an old copy has come back, and numbers
        its rows as the one did that is lost.
        """
        return row <= head and (time_ms is None or row <= self._store.row_at(time_ms + LATE_MS))

    @property
    def copying(self) -> list[Session]:
        """The brokers that keep a copy of everything, and have had all that is here."""
        return self._router.copying()

    def unsubscribe(self, session: Session, number: int | None = None) -> None:
        """End one subscription of a session, or all."""
        self._router.remove(session, number)

    def consumed(self, session: Session, number: int, count: int) -> None:
        """A reader has taken `count` bytes."""
        subscription = self._router.get(session, number)
        if subscription is not None:
            subscription.consumed(count)

    def mark(self, session: Session, number: int, token: int) -> None:
        """A reader asks to hear this token back when it has everything that is here now."""
        subscription = self._router.get(session, number)
        if subscription is not None:
            subscription.token = token
            if subscription.live:
                self._mark(subscription)

    def given(self, session: Session, number: int) -> int:
        """The row up to which a subscription has been sent all that it takes; 0 when there is none of that number."""
        subscription = self._router.get(session, number)
        if subscription is None:
            return 0
        return self._store.head if subscription.live else subscription.after

    def of(self, session: Session, number: int) -> Sub | None:
        """One subscription of a session."""
        return self._router.get(session, number)

    # --- rows go out ---------------------------------------------------------------------------------------------

    def routed(self, rows: Sequence[Row]) -> None:
        """Push rows that have just been stored to the readers that are live (rule 5)."""
        self._pages.clear()
        groups: list[list[Row]] = []
        takers: dict[Sub, tuple[int, ...]] = {}
        for at, ((topic, to, fact, by), some) in enumerate(
            groupby(rows, key=lambda row: (row.topic, row.to, row.fact, row.brought))
        ):
            groups.append(list(some))
            for subscription in self._router.readers(topic, to, fact=fact, brought=by):
                takers[subscription] = (*takers.get(subscription, ()), at)
        made: tuple[int, ...] = ()
        for subscription, taken in takers.items():
            if taken != made:
                made, together = taken, [row for at in taken for row in groups[at]]
                parcels = list(self._parcels(together, 0))
            sent = self._push(subscription, parcels)
            subscription.after = together[-1].row if sent == len(together) else together[sent].row - 1
            if sent < len(together):
                self._router.set_live(subscription, live=False)
            elif subscription.bookmarks:
                self._mark(subscription)

    def elected(self, rows: Sequence[Row]) -> None:
        """These stand again: who reads what stands is told."""
        self._pages.clear()
        for one in self._router.elected(rows, self._now_ms()):
            taken = [row for row in rows if one.takes(row)]
            if not (one.live and self._push(one, self._parcels(taken, one.began)) == len(taken)):
                self._router.go_back(one)

    def pump(self) -> bool:
        """Read about one page for readers that are behind and have credit, in turns; whether there is more to do."""
        left, more = PAGE_ROWS, True
        while more and left > 0:
            more = False
            for subscription in sorted(self._router.behind(), key=lambda one: (one.owner.served, one.served)):
                if left <= 0:
                    return True
                self._served += 1
                subscription.served = subscription.owner.served = self._served
                read, again = self._page(subscription)
                left, more = left - SUBSCRIPTION_ROWS - read, more or again
        return more

    def _cached(self, page: tuple[str, ...] | tuple[int, ...], read: Callable[[], list[Row]]) -> list[Row]:
        """A page; many that begin at once, as after a restart, read the same ones, which are fetched once."""
        rows = self._pages.get(page)
        if rows is None:
            if len(self._pages) >= PAGES:
                self._pages.clear()
            rows = self._pages[page] = read()
        return rows

    def bookmark_all(self) -> None:
        """Send bookmarks to all that asked for them, have everything, and do not ask by tokens."""
        self._pages.clear()
        for subscription in self._router.all():
            due = subscription.bookmarks and not subscription.asks
            subscription.asks = max(0, subscription.asks - 1)
            if subscription.live and (due or subscription.token is not None):
                self._mark(subscription)

    def _page(self, subscription: Sub) -> tuple[int, bool]:
        """Read and send one page: how many rows were read, and whether there is more to do now."""
        if subscription.snapshot is not None:
            return self._page_of_facts(subscription, subscription.snapshot)
        self._tell_trimmed(subscription)
        last = subscription.stretch(self._store.head)
        rows = self._rows(subscription, last)
        taken = [row for row in rows if subscription.takes(row)]
        sent = self._push(subscription, self._parcels(taken, subscription.began))
        if sent < len(taken):
            subscription.after = taken[sent].row - 1
            return len(rows), False
        if last and len(rows) < PAGE_ROWS:
            subscription.after = last
        elif rows:
            subscription.after = max(subscription.after, rows[-1].row)
        if last or len(rows) == PAGE_ROWS:
            return PAGE_ROWS, subscription.credit > 0
        return len(rows), not self._caught_up(subscription)

    def _rows(self, subscription: Sub, last: int) -> list[Row]:
        after, winners = subscription.after, subscription.conflate
        if subscription.evidence:
            return self._store.signals(subscription.evidence, after, PAGE_ROWS)
        if last:
            return self._store.among(subscription.ranges, after, last, PAGE_ROWS, winners_only=winners)
        signals = winners and subscription.signals
        read = partial(self._store.rows, after, PAGE_ROWS, winners_only=winners, signals=signals)
        return self._cached((after, winners, signals), read)

    def _page_of_facts(self, subscription: Sub, left: Snapshot) -> tuple[int, bool]:
        """Read and send one page of retained facts: of a range of topics, at last of what is addressed to the reader."""
        rows = self._facts(subscription, left)
        taken = [row for row in rows if row.row <= subscription.began]
        if left.ranges:
            taken = [row for row in taken if subscription.takes(row)]
        else:
            taken = [row for row in taken if not subscription.takes_topic(row.topic)]
        sent = self._push(subscription, self._parcels(taken, subscription.began))
        if sent < len(taken):
            left.go_on_at(taken[sent])
            return len(rows), False
        last = rows[-1] if len(rows) == TREES else None
        left.go_on_behind(last, None if last is None else subscription.following(last.topic))
        if left.is_done:
            subscription.snapshot, subscription.after = None, subscription.began
        return len(rows), left.is_done or subscription.credit > 0

    def _facts(self, subscription: Sub, left: Snapshot) -> list[Row]:
        if left.ranges:
            low, high = left.ranges[0]
            return self._cached((low, high), lambda: self._store.facts(low, high, TREES))
        name, after = subscription.name, left.mail
        return [] if name is None or after is None else self._store.mail(name, after, TREES)

    def _caught_up(self, subscription: Sub) -> bool:
        """It has everything there is: say so, and let it be live. False when it could not be told now."""
        subscription.after = self._store.head
        if not subscription.completed:
            subscription.completed = self._mark(subscription, complete=True)
            if not subscription.completed:
                return True  # its queue is full: `pump` is called when there is room
            if subscription.token is not None:
                self._mark(subscription)
        elif subscription.bookmarks:
            self._mark(subscription)
        self._router.set_live(subscription, live=True)
        return True

    def _tell_trimmed(self, subscription: Sub) -> None:
        last, first = self._store.trimmed, subscription.after + 1
        if subscription.conflate or subscription.told_trimmed >= last or first > last:
            return
        said = f"the history before row {last + 1} is not whole any more: parts of it were trimmed"
        fields: dict[str, object] = {"from": first, "to": last}
        if subscription.copies is not None:
            fields["budgets"] = [one for one in CLASSES if self._store.trimmed_between(one, first, last)]
        told = Told(id=subscription.id, type="dsmt.notice.trimmed", message=said, fields=fields)
        if self._send(subscription.owner, told, ()):
            subscription.told_trimmed = last

    def _parcels(self, rows: Iterable[Row], began: int) -> Iterator[_Parcel]:
        """Rows as messages of bounded size, of which none has rows from before a subscription began and from after."""
        size = 0
        some: list[Row] = []
        for row in rows:
            if some and (size >= MESSAGE_BYTES or (row.row > began) != (some[0].row > began)):
                yield self._parcel(some)
                some, size = [], 0
            some.append(row)
            size += row.size
        if some:
            yield self._parcel(some)

    def _parcel(self, rows: Sequence[Row]) -> _Parcel:
        numbers = tuple([row.row for row in rows])
        parts = self._parts(numbers, rows)
        return _Parcel(numbers, parts, sum(map(len, parts)), self.introductions.proofs(rows))

    def _push(self, subscription: Sub, parcels: Iterable[_Parcel]) -> int:
        """Send parcels; how many rows, up to the first parcel that was refused."""
        owner, sent = subscription.owner, 0
        for parcel in parcels:
            if subscription.credit <= 0 or not self.introductions.show(owner, parcel.proofs):
                break
            frame = self._deliver(subscription.id, parcel.rows, live=parcel.rows[0] > subscription.began)
            if not self._send(owner, frame, parcel.parts):
                break
            subscription.credit -= parcel.size
            sent += len(parcel.rows)
        return sent

    def _deliver(self, number: int, rows: tuple[int, ...], *, live: bool) -> Deliver:
        """The frame; the very last one when it is equal, so that it is encoded once for many readers."""
        last = self._frame
        if last.id != number or last.rows != rows or last.live != live:
            self._frame = Deliver(id=number, rows=rows, live=live)
        return self._frame

    def _parts(self, rows: tuple[int, ...], parcel: Sequence[Row]) -> tuple[bytes, ...]:
        """The parcel's parts; the very last ones when they are the same, so that they are made once for many readers."""
        if self._made[0] != rows:
            self._made = (rows, tuple(parts_of(row.sealed for row in parcel)))
        return self._made[1]

    def _mark(self, subscription: Sub, *, complete: bool = False) -> bool:
        if complete:
            number, store, row, time_ms = subscription.id, self._store.identity, self._store.head, self._now_ms()
            frame = CompleteFrame(id=number, store=store, row=row, time_ms=time_ms, whole=self._whole())
            return self._send(subscription.owner, frame, ())
        sent = self._mark_at(subscription, self._store.head, subscription.token)
        if sent and subscription.token is not None:
            subscription.token, subscription.asks = None, ASKS
        return sent

    def _mark_at(self, subscription: Sub, row: int, token: int | None = None) -> bool:
        frame = BookmarkFrame(
            id=subscription.id, store=self._store.identity, row=row, time_ms=self._now_ms(), whole=self._whole(), token=token
        )
        return self._send(subscription.owner, frame, ())
