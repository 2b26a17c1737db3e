"""Offering: what a controller held of one store is brought to the next one, which may lack it (rule R5).

Rule 1: a store lacks what was held if it is another one than was read before, or ends before the row that was read there:
    it is one that was lost, or an old one that has come back.
Rule 2: all durable winners are offered that are not void (J3), what ends or restrains before what it ends or restrains:
    who is cut short leaves no service running that was removed, no instance starting that was held, and no node in use
    that was excluded. What wins no more and slots name comes last: it changes nothing, and is waited for by the nodes
    that need it.
    Before them the newest word that each broker has signed: it is no fact for the next store, but the broker's own on realm
    time, which does not go back behind it (J4).
Rule 3: nothing is decided before all of it has come back, or what wins over it, or the tombstone that ended it. What has
    not come `PATIENCE_S` after the broker was whole was refused, or is over; it is complained of, and let go: of what a
    key had said that has ended meanwhile nobody complains, for no other store takes that (J3).
    What the broker refuses because its clock is behind is not: it is waited for as long as it takes, and that is told.
Rule 4: until then it is offered again at each attachment. It is no part of the view, which is what one store holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.order import newer
from dsmt.event.phrases import some
from dsmt.view import View

PATIENCE_S: Final = 5.0
_FIRST: Final = ("trust", "tombstone", "config", "node", "nodeset")
"""The first levels of topics of what is offered before all services: of one its controls, its slots and its spec follow,
in which order their topics stand by themselves."""
BEHIND: Final = "behind what was known before"


class Offering:
    """What is yet to be taken over by the store that is read now. `offer` sends; `complain` hears what did not come back."""

    def __init__(
        self,
        offer: Callable[[Sequence[SignedEvent]], None],
        complain: Callable[[str], None],
        is_void: Callable[[SignedEvent], bool],
        is_disowned: Callable[[SignedEvent], bool],
    ) -> None:
        self._offer, self._complain, self._is_void, self._is_disowned = offer, complain, is_void, is_disowned
        self._held: View | None = None
        self._named: dict[EventId, SignedEvent] = {}
        self._missing: dict[str, SignedEvent] = {}
        """By topic, what has not come back yet."""
        self._whole_since: float | None = None
        self._told_early = False

    def lost(self, view: View, named: Iterable[SignedEvent] = ()) -> None:
        """The store of a view is gone, or lacks some of it: its facts are held from now on, and what slots name beside."""
        self._named |= {signed.id: signed for signed in named}
        if self._held is None:
            self._held = view
        else:
            for signed in view.winners():
                self._held.apply(signed)

    def attached(self) -> None:
        """There is a new attachment: offer what is held (rule 4)."""
        self._whole_since = None
        if self._held is None:
            return
        durable = in_order(
            signed for signed in self._held.winners() if signed.event.expires_ms is None and not self._is_void(signed)
        )
        self._missing = {signed.event.topic: signed for signed in durable}
        self._offer([*_words(self._held), *durable, *self._named.values()])

    def look(self, early_s: float) -> None:
        """Tell, once, when the broker's realm time is `early_s` behind what is offered, so that it takes none of that."""
        if not early_s:
            self._told_early = False
        elif self._held is not None and not self._told_early:
            self._told_early = True
            self._complain(
                f"the clock of the broker's machine is {early_s:.0f} s {BEHIND}, so that its new store does not take "
                "that: nothing is decided until it does. Set that clock right, and say `dsmt clock accept BROKER`"
            )

    def is_over(self, view: View, now: float, early_s: float = 0.0) -> bool:
        """Whether nothing is waited for any more (rule 3); `view` is whole at `now` (boot-time seconds)."""
        if self._held is None:
            return True
        self._missing = {topic: signed for topic, signed in self._missing.items() if not _stands(view, signed)}
        if self._whole_since is None or early_s:
            self._whole_since = now
        if self._missing and now < self._whole_since + PATIENCE_S:
            return False
        if refused := sorted(topic for topic, signed in self._missing.items() if not self._is_disowned(signed)):
            self._complain(f"{some(refused)}: what was known there did not come back from the new store")
        self._held, self._missing, self._named = None, {}, {}
        return True


def _words(view: View) -> list[SignedEvent]:
    """The newest that each broker has said."""
    newest: dict[str, SignedEvent] = {}
    for signed in view.winners():
        source = signed.event.source
        if source.startswith("broker/") and (source not in newest or newest[source].event.time < signed.event.time):
            newest[source] = signed
    return list(newest.values())


def in_order(facts: Iterable[SignedEvent]) -> list[SignedEvent]:
    """Facts in the order in which they are offered (rule 2)."""
    return sorted(facts, key=lambda signed: (_turn(signed.event.topic), signed.event.topic))


def _turn(topic: str) -> int:
    level = topic.partition("/")[0]
    return _FIRST.index(level) if level in _FIRST else len(_FIRST)


def _stands(view: View, signed: SignedEvent) -> bool:
    """Whether a view holds a fact, or one that wins over it, or its epoch has ended there: nothing comes of it any more."""
    if view.is_over(signed.event):
        return True
    winner = view.winner(signed.event.topic)
    return winner is not None and not newer(signed.event, winner.event)
