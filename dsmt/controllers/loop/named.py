"""Named: spec events that slots name and that win no more, kept for a store that may lack them (rules A12, R5).

Rule 1: what the fact of a slot names and does not win is asked for by its id until it is here, `AT_ONCE` of them at once,
    each again after `AGAIN_S`: a controller that came later has never seen it win.
Rule 2: it is kept while a slot of its service names it, as is looked at when another spec of that service wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dsmt.errors import InputError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.view import ServiceEntry, View

AT_ONCE: Final = 64
AGAIN_S: Final = 30.0


class NamedSpecs:
    """What one controller keeps beside its view. `now` is boot-time seconds."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, SignedEvent]] = {}
        """By service and id."""
        self._missing: dict[str, tuple[str, float]] = {}
        """By id, whose service it is of, and when it is asked for next."""

    def folded(self, view: View, topic: str) -> None:
        """A fact was folded into a view."""
        thing, _, rest = topic.removeprefix("tombstone/").partition("/")
        service, _, kind = rest.partition("/")
        if thing != "service":
            return
        entry = view.services.get(service)
        if entry is None:
            self._keep(service, ())
        elif kind == "spec" and entry.slots:
            self._keep(service, {one for place in entry.slots for one in _names(entry, place)})
        elif kind.startswith("slot/"):
            _, component, index = kind.split("/")
            self._miss(service, _names(entry, (component, int(index))) if index.isdigit() else ())

    def _keep(self, service: str, names: Iterable[str]) -> None:
        """Rule 2: of a service no more than these."""
        kept = {name: signed for name, signed in self._held.pop(service, {}).items() if name in names}
        if kept:
            self._held[service] = kept
        self._missing = {name: one for name, one in self._missing.items() if one[0] != service or name in names}
        self._miss(service, names)

    def _miss(self, service: str, names: Iterable[str]) -> None:
        held = self._held.get(service, {})
        for name in names:
            if name not in held:
                self._missing.setdefault(name, (service, 0.0))

    def due(self, now: float) -> list[EventId]:
        """What is to be asked for now."""
        due = [name for name, (_, at) in self._missing.items() if at <= now][:AT_ONCE]
        found = []
        for name in due:
            self._missing[name] = (self._missing[name][0], now + AGAIN_S)
            try:
                found.append(EventId.parse(name))
            except InputError:
                del self._missing[name]
        return found

    def take(self, signed: SignedEvent) -> None:
        """It is here."""
        service, _ = self._missing.pop(str(signed.id), ("", 0.0))
        if signed.event.topic == f"service/{service}/spec":
            self._held.setdefault(service, {})[str(signed.id)] = signed

    def events(self) -> list[SignedEvent]:
        """All that is kept, in order of their ids."""
        return sorted((one for kept in self._held.values() for one in kept.values()), key=lambda one: one.id)


def _names(entry: ServiceEntry, place: tuple[str, int]) -> set[str]:
    """What the fact of a slot names and does not win."""
    slot, spec = entry.slots.get(place), entry.spec
    named = () if slot is None or slot.fact is None else slot.fact.record.names
    return {one for one in named if spec is None or one != str(spec.id)}
