"""Delivery: a broker's outward side: live rows are pushed, everything else is read from the store, page by page.

Rule 1: what a reader has not consumed is charged to its credit; without credit it is not live and costs nothing.
Rule 2: a page is at most `PAGE_ROWS` rows and a message at most about `MESSAGE_BYTES`; readers take turns.
Rule 3: the certificates of a signer go to a session before the first event of that signer.
Rule 4: a reader that reads behind the horizon of trimming is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dsmt.bus.frames import (
    BookmarkFrame,
    Certificates,
    Closing,
    CompleteFrame,
    Deliver,
    Frame,
    Repair,
    Repaired,
    Subscribe,
    Told,
)
from dsmt.bus.routing import Router, Subscription
from dsmt.errors import RefusedError
from dsmt.event.topic import check_pattern, covers, matches
from dsmt.ports.bus import Start
from dsmt.ports.network import Peer
from dsmt.ports.store import Row, Store
from dsmt.trust.certificate import Certificate
from dsmt.trust.store import TrustStore

PAGE_ROWS: Final = 512
MESSAGE_BYTES: Final = 256 * 1024
MAX_SUBSCRIPTIONS: Final = 64
"""How many a session may have: with their credit, this bounds what waits for it."""
MAX_CREDIT: Final = 4 * 1024 * 1024
OVERLAP_MS: Final = 60_000
"""How far a cursor of another store is rewound (SEMANTICS D3)."""


@dataclass(slots=True, eq=False)
class Session:
    """A connected client, as the broker holds it. `nonce` is what its attach statement must sign."""

    peer: Peer
    key: bytes
    since: float = 0.0
    name: str = ""
    certificate: Certificate | None = None
    incarnation: int = 0
    claimed: int = 0
    """The incarnation that its hello said."""
    attachment: int = 0
    nonce: bytes = b""
    attached: bool = False
    refused: bool = False
    """It has been told to go: nothing of it is listened to any more."""
    pid: int | None = None
    version: str = ""
    address: str = ""
    known: set[bytes] = field(default_factory=set)
    """Key ids whose certificates it has been sent."""


Sub = Subscription[Session]
Send = Callable[[Session, Frame, tuple[bytes, ...]], bool]


class Deliveries:
    """Hands rows to subscriptions. `send` answers False when a session can take no more now."""

    def __init__(
        self, store: Store, trust: TrustStore, *, send: Send, now_ms: Callable[[], int], whole: Callable[[], bool]
    ) -> None:
        self._store, self._trust, self._send = store, trust, send
        self._now_ms, self._whole = now_ms, whole
        self._pages: dict[tuple[int, bool, bool], list[Row]] = {}
        self._router: Router[Session] = Router()
        self._frame = Deliver(id=0, rows=(), live=False)

    # --- what readers ask ----------------------------------------------------------------------------------------

    def subscribe(self, session: Session, asked: Subscribe) -> None:
        """Begin a subscription. Raises `InputError` for a bad pattern, `RefusedError` outside the session's grant."""
        granted = () if session.certificate is None else session.certificate.read
        for pattern in asked.patterns:
            check_pattern(pattern)
            if not any(covers(wide, pattern) for wide in granted):
                raise RefusedError("trust.denied", f"{session.name} may not read {pattern}")
        if len(self._router.of(session)) >= MAX_SUBSCRIPTIONS:
            raise RefusedError("quota", f"{session.name} has {MAX_SUBSCRIPTIONS} subscriptions, which is the limit")
        start, head, credit = Start(asked.start), self._store.head, min(asked.credit, MAX_CREDIT)
        subscription: Sub = Subscription(
            owner=session,
            id=asked.id,
            patterns=asked.patterns,
            name=session.name if asked.inbox else None,
            conflate=asked.conflate,
            signals=asked.signals,
            bookmarks=asked.bookmarks,
            credit=credit,
            most_credit=credit,
            after=self._begin(asked, start, head),
            began=head,
            snapshot=start is Start.FACTS,
        )
        self._router.add(subscription)

    def _begin(self, asked: Subscribe, start: Start, head: int) -> int:
        if start is Start.LIVE:
            return head
        if start is Start.FACTS:
            return 0
        if asked.row is not None and asked.store == self._store.identity:
            return min(asked.row, head)
        if asked.time_ms is None:
            return 0
        return self._store.row_at(asked.time_ms - (OVERLAP_MS if asked.row is not None else 0))

    def unsubscribe(self, session: Session, number: int | None = None) -> None:
        """End one subscription of a session, or all."""
        self._router.remove(session, number)

    def consumed(self, session: Session, number: int, count: int) -> None:
        """A reader has taken `count` bytes."""
        subscription = self._router.get(session, number)
        if subscription is not None:
            subscription.consumed(count)

    def repair(self, session: Session, asked: Repair) -> None:
        """Send what is stored of a part of a chain, to a subscription that takes the topic."""
        subscription = self._router.get(session, asked.id)
        if subscription is None or not any(matches(p, asked.topic) for p in subscription.patterns):
            return
        found: list[Row] = []
        size = 0
        for row in self._store.chain(
            asked.source, asked.incarnation, asked.topic, after=asked.after, before=asked.before, limit=PAGE_ROWS
        ):
            size += len(row.raw)
            if found and size > MESSAGE_BYTES:
                break
            found.append(row)
        closing: Closing = "more" if size > MESSAGE_BYTES or len(found) == PAGE_ROWS else self._closing(asked)
        self._introduce(session, found)
        frame = Repaired(
            id=asked.id,
            source=asked.source,
            topic=asked.topic,
            before=asked.before,
            rows=tuple(row.row for row in found),
            closing=closing,
        )
        self._send(session, frame, tuple(row.raw for row in found))

    def _closing(self, asked: Repair) -> Closing:
        """Why what is not in the store is not: it was trimmed if the event before it is behind the horizon, or gone."""
        before = self._store.event(asked.source, asked.incarnation, asked.after)
        row = 0 if before is None else before.row
        return "trimmed" if row <= self._store.trimmed and self._store.trimmed else "lost"

    # --- rows go out ---------------------------------------------------------------------------------------------

    def routed(self, rows: Sequence[Row]) -> None:
        """Push rows that have just been stored to the readers that are live."""
        parcels: dict[Sub, list[Row]] = {}
        for row in rows:
            for subscription in self._router.readers(row):
                parcels.setdefault(subscription, []).append(row)
        for subscription, parcel in parcels.items():
            if self._push(subscription, parcel):
                if subscription.bookmarks:
                    self._mark(subscription)
            else:
                subscription.live = False

    def pump(self) -> bool:
        """Read one page for every reader that is behind and has credit; whether there is more to do."""
        behind = [s for s in self._router.all() if not s.live and s.credit > 0]
        self._pages.clear()
        more = [self._page(subscription) for subscription in behind]
        self._pages.clear()
        return any(more)

    def _rows(self, subscription: Sub) -> list[Row]:
        """Its next page; many that begin at once, as after a restart, read the same ones, which are fetched once."""
        page = (subscription.after, subscription.winners_only, subscription.signals_too)
        rows = self._pages.get(page)
        if rows is None:
            after, winners_only, signals = page
            rows = self._pages[page] = self._store.rows(after, PAGE_ROWS, winners_only=winners_only, signals=signals)
        return rows

    def bookmark_all(self) -> None:
        """Send bookmarks to all that asked for them and have everything."""
        for subscription in self._router.all():
            if subscription.bookmarks and subscription.live:
                self._mark(subscription)

    def _page(self, subscription: Sub) -> bool:
        """Read and send one page; whether there is more to do now."""
        self._tell_trimmed(subscription)
        rows = self._rows(subscription)
        ended = len(rows) < PAGE_ROWS
        if subscription.snapshot:
            kept = [row for row in rows if row.row <= subscription.began]
            ended, rows = ended or len(kept) < len(rows), kept
        taken = [row for row in rows if subscription.takes(row)]
        if taken and not self._push(subscription, taken):
            return False
        if rows:
            subscription.after = max(subscription.after, rows[-1].row)
        if not ended:
            return subscription.credit > 0
        if subscription.snapshot:
            subscription.snapshot, subscription.after = False, subscription.began
            return True
        return not self._caught_up(subscription)

    def _caught_up(self, subscription: Sub) -> bool:
        """It has everything there is: say so, and let it be live. False when it could not be told now."""
        subscription.after = self._store.head
        if not subscription.completed:
            subscription.completed = self._mark(subscription, complete=True)
            if not subscription.completed:
                return True  # its queue is full: `pump` is called when there is room
        elif subscription.bookmarks:
            self._mark(subscription)
        subscription.live = True
        return True

    def _tell_trimmed(self, subscription: Sub) -> None:
        last = self._store.trimmed
        if subscription.winners_only or subscription.told_trimmed or subscription.after >= last:
            return
        said = f"the history before row {last + 1} is not whole any more: parts of it were trimmed"
        fields = {"from": subscription.after + 1, "to": last}
        told = Told(id=subscription.id, type="dsmt.notice.trimmed", message=said, fields=fields)
        subscription.told_trimmed = self._send(subscription.owner, told, ())

    def _push(self, subscription: Sub, rows: Sequence[Row]) -> bool:
        """Send rows as messages of bounded size; False, with `after` before the first one not sent, when refused."""
        parcel: list[Row] = []
        size = 0
        for row in rows:
            if parcel and (size >= MESSAGE_BYTES or (row.row > subscription.began) != (parcel[0].row > subscription.began)):
                if not self._parcel(subscription, parcel, size):
                    return False
                parcel, size = [], 0
            parcel.append(row)
            size += len(row.raw)
        return not parcel or self._parcel(subscription, parcel, size)

    def _parcel(self, subscription: Sub, parcel: Sequence[Row], size: int) -> bool:
        numbers = tuple([row.row for row in parcel])
        if subscription.credit <= 0 or not self._introduce(subscription.owner, parcel):
            sent = False
        else:
            frame = self._deliver(subscription.id, numbers, live=numbers[0] > subscription.began)
            sent = self._send(subscription.owner, frame, tuple([row.raw for row in parcel]))
        if sent:
            subscription.credit -= size
            subscription.after = numbers[-1]
        else:
            subscription.after = numbers[0] - 1
        return sent

    def _deliver(self, number: int, rows: tuple[int, ...], *, live: bool) -> Deliver:
        """The frame; the very last one when it is equal, so that it is encoded once for many readers."""
        last = self._frame
        if last.id != number or last.rows != rows or last.live != live:
            self._frame = Deliver(id=number, rows=rows, live=live)
        return self._frame

    def _introduce(self, session: Session, parcel: Sequence[Row]) -> bool:
        strangers = {row.key_id for row in parcel if row.key_id not in session.known}
        if not strangers:
            return True
        raws = dict.fromkeys(signed.raw for key_id in sorted(strangers) for signed in reversed(self._trust.chain(key_id)))
        session.known.update(strangers)
        return self._send(session, Certificates(), tuple(raws))

    def introduce(self, session: Session, rows: Sequence[Row]) -> None:
        """Send a session the certificates of those who signed these rows, if it has not had them."""
        self._introduce(session, rows)

    def _mark(self, subscription: Sub, *, complete: bool = False) -> bool:
        frame = CompleteFrame if complete else BookmarkFrame
        return self._send(
            subscription.owner,
            frame(
                id=subscription.id,
                store=self._store.identity,
                row=self._store.head,
                time_ms=self._now_ms(),
                whole=self._whole(),
            ),
            (),
        )
