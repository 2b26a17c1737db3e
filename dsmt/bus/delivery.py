"""Delivery: a broker's outward side: live rows are pushed, everything else is read from the store, page by page.

Rule 1: what a reader has not consumed is charged to its credit; without credit it is not live and costs nothing.
Rule 2: a page is at most `PAGE_ROWS` rows and a message at most about `MESSAGE_BYTES`; readers take turns.
Rule 3: the certificates of a signer go to a session before the first event of that signer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dsmt.bus.frames import BookmarkFrame, Certificates, CompleteFrame, Deliver, Frame, Subscribe, Told
from dsmt.bus.routing import Router, Subscription
from dsmt.errors import RefusedError
from dsmt.event.topic import check_pattern, covers
from dsmt.ports.bus import Start
from dsmt.ports.network import Peer
from dsmt.ports.store import Row, Store
from dsmt.trust.certificate import Certificate
from dsmt.trust.store import TrustStore

PAGE_ROWS: Final = 512
MESSAGE_BYTES: Final = 256 * 1024
OVERLAP_MS: Final = 60_000
"""How far a cursor of another store is rewound (SEMANTICS D3)."""


@dataclass(slots=True, eq=False)
class Session:
    """An attached client, as the broker holds it. `nonce` is what its attach statement must sign."""

    peer: Peer
    key: bytes
    name: str = ""
    certificate: Certificate | None = None
    incarnation: int = 0
    attachment: int = 0
    nonce: bytes = b""
    attached: bool = False
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
        self._router: Router[Session] = Router()

    def subscribe(self, session: Session, asked: Subscribe) -> None:
        """Begin a subscription. Raises `InputError` for a bad pattern, `RefusedError` outside the session's grant."""
        granted = () if session.certificate is None else session.certificate.read
        for pattern in asked.patterns:
            check_pattern(pattern)
            if not any(covers(wide, pattern) for wide in granted):
                raise RefusedError("trust.denied", f"{session.name} may not read {pattern}")
        self._router.remove(session, asked.id)
        start = Start(asked.start)
        head = self._store.head
        subscription: Sub = Subscription(
            owner=session,
            id=asked.id,
            patterns=asked.patterns,
            name=session.name if asked.inbox else None,
            conflate=asked.conflate,
            signals=asked.signals,
            bookmarks=asked.bookmarks,
            credit=asked.credit,
            after=self._begin(asked, start, head),
            complete_at=head,
            snapshot=start is Start.FACTS,
        )
        self._router.add(subscription)
        self._tell_trimmed(subscription, asked)

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

    def _tell_trimmed(self, subscription: Sub, asked: Subscribe) -> None:
        first = self._store.counts()["first_row"] if asked.row is not None else 0
        if asked.store == self._store.identity and asked.row is not None and first > asked.row + 1:
            fields = {"from": asked.row + 1, "to": first - 1}
            said = f"history before row {first} was trimmed; {first - 1 - asked.row} rows cannot be shown"
            self._send(
                subscription.owner,
                Told(id=subscription.id, type="dsmt.notice.trimmed", message=said, fields=fields),
                (),
            )

    def unsubscribe(self, session: Session, number: int | None = None) -> None:
        """End one subscription of a session, or all."""
        self._router.remove(session, number)

    def consumed(self, session: Session, number: int, count: int) -> None:
        """A reader has taken `count` bytes."""
        subscription = self._router.get(session, number)
        if subscription is not None:
            subscription.credit += count

    def routed(self, rows: Sequence[Row]) -> None:
        """Push rows that have just been stored to the readers that are live."""
        parcels: dict[Sub, list[Row]] = {}
        for row in rows:
            for subscription in self._router.readers(row):
                parcels.setdefault(subscription, []).append(row)
        for subscription, parcel in parcels.items():
            if self._push(subscription, parcel, live=True):
                if subscription.bookmarks:
                    self._bookmark(subscription)
            else:
                subscription.live = False

    def pump(self) -> bool:
        """Read one page for every reader that is behind and has credit; whether there is more to do."""
        behind = [s for s in self._router.all() if not s.live and s.credit > 0]
        more = [self._page(subscription) for subscription in behind]
        return any(more)

    def bookmark_all(self) -> None:
        """Send bookmarks to all that asked for them and have everything."""
        for subscription in self._router.all():
            if subscription.bookmarks and subscription.live and subscription.completed:
                self._bookmark(subscription)

    def _page(self, subscription: Sub) -> bool:
        rows = self._store.rows(subscription.after, PAGE_ROWS, winners_only=subscription.winners_only)
        ended = len(rows) < PAGE_ROWS
        if subscription.snapshot:
            kept = [row for row in rows if row.row <= subscription.complete_at]
            ended, rows = ended or len(kept) < len(rows), kept
        taken = [row for row in rows if subscription.takes(row)]
        if taken and not self._push(subscription, taken, live=subscription.completed):
            return subscription.credit > 0
        if rows:
            subscription.after = max(subscription.after, rows[-1].row)
        if not ended:
            return True
        if subscription.snapshot:
            subscription.snapshot, subscription.after = False, subscription.complete_at
        if not subscription.completed:
            subscription.completed = self._mark(subscription, complete=True)
            return True
        if subscription.after >= self._store.head or ended:
            subscription.live = True
            if subscription.bookmarks:
                self._bookmark(subscription)
        return False

    def _push(self, subscription: Sub, rows: Sequence[Row], *, live: bool) -> bool:
        """Send rows as messages of bounded size; False, with `after` before the first one not sent, when refused."""
        parcel: list[Row] = []
        size = 0
        for row in rows:
            parcel.append(row)
            size += len(row.raw)
            if size >= MESSAGE_BYTES:
                if not self._parcel(subscription, parcel, size, live=live):
                    return False
                parcel, size = [], 0
        return not parcel or self._parcel(subscription, parcel, size, live=live)

    def _parcel(self, subscription: Sub, parcel: Sequence[Row], size: int, *, live: bool) -> bool:
        numbers = tuple(row.row for row in parcel)
        frame = Deliver(id=subscription.id, rows=numbers, live=live)
        if subscription.credit <= 0 or not self._introduce(subscription.owner, parcel):
            sent = False
        else:
            sent = self._send(subscription.owner, frame, tuple(row.raw for row in parcel))
        if sent:
            subscription.credit -= size
            subscription.after = numbers[-1]
        else:
            subscription.after = numbers[0] - 1
        return sent

    def _introduce(self, session: Session, parcel: Sequence[Row]) -> bool:
        strangers = dict.fromkeys(row.key_id for row in parcel if row.key_id not in session.known)
        if not strangers:
            return True
        raws = dict.fromkeys(signed.raw for key_id in strangers for signed in reversed(self._trust.chain(key_id)))
        sent = self._send(session, Certificates(), tuple(raws))
        if sent:
            session.known.update(strangers)
        return sent

    def introduce_raw(self, session: Session, key_ids: Sequence[bytes]) -> None:
        """Send a session the certificates of these keys, if it has not had them."""
        self._introduce(session, [Row(0, 0, "", (), False, key_id, b"") for key_id in key_ids])

    def _bookmark(self, subscription: Sub) -> None:
        self._mark(subscription, complete=False)

    def _mark(self, subscription: Sub, *, complete: bool) -> bool:
        row = subscription.after if complete else self._store.head
        frame = CompleteFrame if complete else BookmarkFrame
        return self._send(
            subscription.owner,
            frame(
                id=subscription.id,
                store=self._store.identity,
                row=row,
                time_ms=self._now_ms(),
                whole=self._whole(),
            ),
            (),
        )
