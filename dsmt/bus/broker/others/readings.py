"""Readings: how far a broker has read each of the others, and what it has of them by that (rules E1, A4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dsmt.bus.broker.others.other import Other
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.withheld import GIVEN_MS
from dsmt.newest import Newest
from dsmt.ports.bus import BusReader
from dsmt.ports.clock import Clock
from dsmt.ports.realm import BrokerAddress

LAG_MS: Final = 30_000
MOST_MS: Final = 60_000
"""For so long what was missed may come from others that cannot be read."""
FORMER: Final = 16
"""Of how many that are brokers no more it is remembered which stores they had."""


class Readings:
    """Of all `others`, by key. Who reads them writes there (`copying`)."""

    def __init__(self, clock: Clock, now_ms: Callable[[], int]) -> None:
        self._clock, self._now_ms = clock, now_ms
        self.others: dict[bytes, Other] = {}
        self.former: Newest[bytes, Other] = Newest(FORMER)
        """Those that were read, and are brokers no more: who was attached to them goes on here (D3)."""

    @property
    def alone(self) -> bool:
        """Whether no other broker is known."""
        return not self.others

    @property
    def known(self) -> list[BrokerAddress]:
        """All others."""
        return [other.address for other in self.others.values()]

    def is_other(self, session: Session) -> bool:
        """Whether a session is of another broker of the realm."""
        return session.certificate is not None and session.certificate.public in self.others

    @property
    def reads(self) -> bool:
        """Whether another is being read that was not read to its end yet."""
        now = self._clock.boottime()
        return any(other.name and not other.complete and not other.is_stalled(now) for other in self.others.values())

    @property
    def times_ms(self) -> list[int]:
        """What realm time is by the others that are linked."""
        return [other.bus.now_ms() for other in self.others.values() if other.bus is not None and other.name]

    @property
    def held_ms(self) -> int | None:
        """Until when (realm ms) everything is here that others have taken in; None where no other is known."""
        return min((other.until_ms for other in self.others.values()), default=None)

    def settled_ms(self) -> int | None:
        """What was missed before (realm ms) comes from no other any more (rule 5 of `others`); None where none is known."""
        held_ms, now_ms = self.held_ms, self._now_ms()
        return None if held_ms is None else max(min(held_ms, now_ms) - GIVEN_MS, now_ms - MOST_MS)

    @property
    def readers(self) -> list[BusReader]:
        """The readers of those that are linked."""
        return [other.bus for other in self.others.values() if other.bus is not None and other.name]

    @property
    def linked(self) -> set[bytes]:
        """The keys of those that are linked."""
        return {public for public, other in self.others.items() if other.name}

    @property
    def names(self) -> list[str]:
        """The names of those that were linked once."""
        return [other.last_name for other in self.others.values() if other.last_name]

    def was_leaf(self, public: bytes) -> bool:
        """Whether one that is a broker no more was a leaf."""
        other = None if public in self.others else self.former.get(public)
        return other is not None and other.address.leaf

    def has_read(self, public: bytes) -> bool:
        """Whether one is read to its end, and goes on to give what it has."""
        other = self.others.get(public)
        return other is not None and other.complete and not other.is_stalled(self._clock.boottime())

    def lacks(self, broker: str) -> bool:
        """Whether one says that it has not everything."""
        return any(one.name == broker and not one.whole for one in self.others.values())

    def keeps_up(self, attached: Callable[[bytes], bool]) -> bool:
        """Whether what the others of the mesh have is here, but for `LAG_MS`: of all that are linked, or attached here."""
        mesh = [one for one in self.others.values() if not one.address.leaf and (one.name or attached(one.address.public))]
        return all(one.complete and self.read_ms(one.address.public) >= self._now_ms() - LAG_MS for one in mesh)

    def read_ms(self, public: bytes) -> int:
        """Up to when (realm ms) everything is here that another one has; 0 where that is not known."""
        other = self.others.get(public)
        return 0 if other is None else other.until_ms

    def gave_ms(self, broker: str) -> int:
        """Up to when (realm ms) a linked one has given everything; 0 for none."""
        return max((one.place.time_ms for one in self.others.values() if one.name == broker and one.place), default=0)

    def whose(self, store: str) -> bytes | None:
        """The key of the broker that has a store, or had it lately, be it one no more; None where that is not known."""
        places = ((public, one.place, one.stores) for public, one in (*self.others.items(), *self.former.items()))
        return next((by for by, at, had in places if store in had or (at is not None and at.store == store)), None)
