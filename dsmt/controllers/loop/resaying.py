"""Resaying: what a revoked key signed lives on as somebody's successor, with the same content (rule J3).

Rule 1: a reader that comes later believes nothing of a revoked key. So controllers say again each winner of theirs that
    one has signed, before anything is decided anew: nothing moves, and nothing stops.
Rule 2: only what a controller may write; what operators said is for an operator to keep or drop (`dsmt cert revoke`).
    A successor has the causes of what it replaces, in their order: which verdict a slot was moved for stands nowhere else.
Rule 3: while nothing new was revoked and nothing was left to say, nobody looks.
Rule 4: what an operator's key said nobody says again: it was signed anew, or dropped, before its end. Where a winner is
    such a word all the same (it came from the other side of a partition, or a moment before) its reader begins anew.
    An operator's tombstone of a service is such a word, though controllers may write it, too.
Rule 5: who begins anew does not read again what rule 1 has yet to be said of, and says it again all the same, for `LEFT_S`:
    a controller's tombstone that nobody else knows would hide a service at its own broker, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Final

from dsmt.controllers.intents import Intent
from dsmt.controllers.loop.echoes import ECHO_S
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.kinds.slot import Slot
from dsmt.event.order import newer
from dsmt.event.records import readable
from dsmt.ports.bus import Arrived, Delivery
from dsmt.trust.grants import may_write
from dsmt.trust.revocations import is_disowned, is_void
from dsmt.view import View

IsRevoked = Callable[[SignedEvent], bool]
LEFT_S: Final = 30.0
"""Longer than it takes to read all anew."""


class RepeatedFact(Intent, frozen=True):
    """A fact said again: its data is the very same, also what this version does not know."""

    @property
    def data(self) -> dict[str, Any]:
        """The data of the event that it replaces; empty where it replaces none."""
        return {} if self.replaces is None else dict(self.replaces.event.data)


def again(facts: Iterable[SignedEvent], name: str, is_revoked: IsRevoked) -> list[Intent]:
    """What a controller of this name says again of the facts that stand, in order of the topics."""
    return [_successor(signed) for signed in _writable(facts, name, is_revoked)]


def _writable(facts: Iterable[SignedEvent], name: str, is_revoked: IsRevoked) -> list[SignedEvent]:
    """What a revoked key has signed of these, and a controller of this name may write, in order of the topics."""
    found = [signed for signed in facts if signed.event.version is not None and is_revoked(signed)]
    return [one for one in sorted(found, key=lambda one: one.event.topic) if may_write(name, one.event.topic)]


def _successor(signed: SignedEvent) -> Intent:
    event = signed.event
    return RepeatedFact(
        topic=event.topic,
        record=None,
        replaces=signed,
        cause=(*event.cause, signed.id),
        because=f"the key of {event.source}, who said this, was revoked",
        to=_addressed(event),
        subject=event.subject,
        ttl_ms=event.ttl,
    )


def _addressed(event: Event) -> tuple[str, ...]:
    """Who is told: also the node that a slot's fact names, which a thief may have left out."""
    slot = readable(Slot, event.data) if event.type == "dsmt.slot" else None
    node = () if slot is None or slot.node is None else (f"node/{slot.node}",)
    return tuple(dict.fromkeys((*event.to, *node)))


class Resaying:
    """Rule 3, for one controller. `revocations` counts those that are known; `now` is boot-time seconds."""

    def __init__(self, name: str, is_revoked: IsRevoked, revocations: Callable[[], int]) -> None:
        self._name, self._is_revoked, self._revocations = name, is_revoked, revocations
        self._settled = self._looked = 0
        self._since: dict[str, float] = {}
        self._said_until: dict[str, float] = {}
        self._left: list[SignedEvent] = []
        """What is to be said again by rule 5."""
        self._left_until = 0.0

    def is_misled(self, view: View, folded: Sequence[Delivery], now: float) -> bool:
        """Whether a view holds what nobody believes any more and nobody says again: all is to be read anew (rules 4 and 5).

        `folded` came last. What waited for its reader may have been checked before that was told.
        """
        known = self._revocations()
        if not known:
            return False
        topics = [one.signed.event.topic for one in folded if isinstance(one, Arrived)]
        held = view.winners() if known != self._looked else [view.winner(topic) for topic in topics]
        self._looked = known
        misled = any(signed is not None and self.is_void(signed) for signed in held)
        if misled:
            self._keep(view, now)
        return misled

    def _keep(self, view: View, now: float) -> None:
        """Keep what is yet to be said again of a view that is given up (rule 5)."""
        self._left = self._wanted(*view.winners(), *self._left_of(view))
        self._left_until, self._settled = now + LEFT_S, 0

    def _left_of(self, view: View) -> list[SignedEvent]:
        """What is still to be said by rule 5: nobody has said anything in its place."""
        found = []
        for signed in self._left:
            winner = view.winner(signed.event.topic)
            if (winner is None or newer(signed.event, winner.event)) and not view.is_over(signed.event):
                found.append(signed)
        return found

    def _wanted(self, *facts: SignedEvent) -> list[SignedEvent]:
        """What controllers say again of these, of each topic the last."""
        last = {signed.event.topic: signed for signed in facts}
        return [one for one in _writable(last.values(), self._name, self._is_revoked) if not self.is_void(one)]

    def is_void(self, signed: SignedEvent) -> bool:
        """Whether nobody believes a fact any more, and nobody says it again."""
        return is_void(signed, self._is_revoked)

    def is_disowned(self, signed: SignedEvent) -> bool:
        """Whether its key has ended: another store takes it only from who says it again."""
        return is_disowned(signed, self._is_revoked)

    def due(self, view: View, now: float, *, waits: Callable[[str], float], besides: Container[str]) -> list[Intent]:
        """What is to be said again now: what is wanted since `waits` seconds of its topic, and not on its way.

        `besides` are topics on which something else was decided.
        """
        known = self._revocations()
        if known == self._settled:
            return []
        self._left = self._left_of(view) if now < self._left_until else []
        wanted = [_successor(one) for one in self._wanted(*view.winners(), *self._left)]
        if not wanted:
            self._settled = known
            self._since.clear()
            self._said_until.clear()
        due = []
        for intent in wanted:
            topic = intent.topic
            since = self._since.setdefault(topic, now)
            if topic not in besides and now >= since + waits(topic) and now >= self._said_until.get(topic, 0.0):
                self._said_until[topic] = now + ECHO_S
                due.append(intent)
        return due
