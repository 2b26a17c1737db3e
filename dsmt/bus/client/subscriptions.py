"""The subscription registry: all subscriptions of a client, and the way of a broker's frames to them.

Rule 1: every event is checked here: signature, certificate, grant; a broker is not believed.
Rule 2: what concerns a subscription that has ended is dropped.
Rule 3: who reads a revocation believes nothing that its key signed from then on (J3); every client is told them all
    (`client`), so this concerns who reads a history.
"""

from __future__ import annotations

from collections.abc import Callable

from dsmt.bus.client.subscription import ClientSubscription
from dsmt.bus.wire import frames as f
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.codec import events_in
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import HybridClock
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Interest, Notice, Reattached
from dsmt.trust.revocations import REVOKED
from dsmt.trust.store import TrustStore

Post = Callable[[f.Frame], None]
Read = f.Deliver | f.Repaired | f.CompleteFrame | f.BookmarkFrame | f.Told


class SubscriptionRegistry:
    """A client's subscriptions. `post` sends a frame while there is an attachment; `now` is boot-time seconds."""

    def __init__(self, trust: TrustStore, clock: Callable[[], HybridClock], post: Post) -> None:
        self._trust, self._clock, self._post = trust, clock, post
        self._all: dict[int, ClientSubscription] = {}
        self._numbers = 0
        self._store = ""

    def begin(self, interest: Interest) -> ClientSubscription:
        """A new subscription; it is asked for at once, or at the next attachment."""
        self._numbers += 1
        subscription = ClientSubscription(self._numbers, interest, self._post)
        self._all[subscription.number] = subscription
        subscription.begin(self._store)
        return subscription

    def end(self, subscription: ClientSubscription) -> None:
        """A subscription's reader has left."""
        del self._all[subscription.number]
        subscription.end()
        self._post(f.Unsubscribe(id=subscription.number))

    def attached(self, broker: str, store: str, *, again: bool) -> None:
        """There is a new attachment: everything is asked for anew, from where it stands."""
        self._store = store
        for subscription in self._all.values():
            if again:
                subscription.tell(Reattached(broker, store))
            subscription.begin(store)
            self._ask_wanted(subscription)

    def tell(self, notice: Notice) -> None:
        """Tell all readers what concerns each of them."""
        for subscription in self._all.values():
            subscription.tell(notice)

    def tell_who_fold(self, notice: Notice) -> None:
        """Tell the readers that keep what they have read."""
        for subscription in self._all.values():
            if subscription.interest.conflate:
                subscription.tell(notice)

    def received(self, frame: Read, parts: tuple[bytes, ...], now: float, now_ms: int) -> None:
        """Take in a frame of the broker. Raises `TransportError` for one that cannot be."""
        subscription = self._all.get(frame.id)
        if subscription is None:
            return
        match frame:
            case f.Deliver(rows=rows, live=live):
                arrived = self._opened(subscription, rows, parts, live=live, now_ms=now_ms)
                subscription.events(arrived, sum(map(len, parts)), self._store, now)
                self._ask_wanted(subscription)
            case f.Repaired(rows=rows):
                arrived = self._opened(subscription, rows, parts, live=False, now_ms=now_ms)
                subscription.repaired(frame, arrived, now)
                self._ask_wanted(subscription)
            case f.CompleteFrame(store=store, row=row, time_ms=time_ms, whole=whole):
                subscription.reached(Complete(Cursor(store, row, time_ms), whole))
            case f.BookmarkFrame(store=store, row=row, time_ms=time_ms, whole=whole, token=token):
                subscription.reached(Bookmark(Cursor(store, row, time_ms), whole, token))
            case f.Told(type=kind, message=message, fields=fields):
                subscription.tell(Notice(kind, message, fields))

    def _opened(
        self,
        subscription: ClientSubscription,
        rows: tuple[int, ...],
        parts: tuple[bytes, ...],
        *,
        live: bool,
        now_ms: int,
    ) -> list[Arrived]:
        """The events that are what they say; of each other one the reader is told."""
        arrived: list[Arrived] = []
        clock, count, numbers = self._clock(), 0, iter(rows)
        for part in parts:
            opened = self._opened_part(part)
            count += len(opened)
            for one, row in zip(opened, numbers, strict=False):
                if isinstance(one, UnusableEventError):
                    subscription.tell(Notice("dsmt.notice.badsignature", one.message, {"code": one.code, "row": row}))
                    continue
                if one.event.topic.startswith(REVOKED):
                    self._trust.revoke(one)
                clock.merge(one.event.time, now_ms)
                arrived.append(Arrived(one, row, live))
        if count != len(rows):
            raise TransportError("bus.frame", f"the broker sent {count} events for {len(rows)} rows")
        return arrived

    def _opened_part(self, part: bytes) -> list[SignedEvent | UnusableEventError]:
        """The events of a part; in the place of each that cannot be believed why not."""
        try:
            return [error or signed for signed, error in self._trust.open_part(part)]
        except UnusableEventError as error:
            return [error] * events_in(part)

    def _ask_wanted(self, subscription: ClientSubscription) -> None:
        for source, incarnation, topic, after, before in subscription.wanted():
            self._post(
                f.Repair(
                    id=subscription.number,
                    source=source,
                    incarnation=incarnation,
                    topic=topic,
                    after=after,
                    before=before,
                )
            )
