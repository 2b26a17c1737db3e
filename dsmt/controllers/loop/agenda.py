"""The agenda: which services the next decision must look at, and when one is due.

Rule 1: whatever it leaves out would give no intent (a property test and invariant 12.12 hold it against a full look).
    So what only time will change is a wake, and what one slot's fact means for others makes the service one that changed.
Rule 2: a slot that changed is looked at by itself, unless its service needs a full pass; then the whole service is.
Rule 3: a node that changed concerns the slots on it, what it reports with no slot fact, and every service that waits for
    nodes or follows their set.
Rule 4: what concerns the realm (brokers, named sets, the brake) means everything. That is looked at in parts, in the order
    of names: what comes after the part is not looked at before, whatever changes there, for what comes first takes its room
    first.
Rule 5: everything is looked at again each `AGAIN_MS`. Nothing is to be found then, by rule 1; so what is overlooked all the
    same, by a mistake of ours, waits no longer than that.
"""

from __future__ import annotations

from typing import Final

from dsmt.controllers.brake import LOOSE
from dsmt.controllers.intents import Decided
from dsmt.controllers.look import Look, Scope
from dsmt.view import Dirty, View

AGAIN_MS: Final = 60_000


class Agenda:
    """What is to be looked at; everything each `again_ms` (realm ms), or never for that alone."""

    def __init__(self, *, again_ms: int | None = AGAIN_MS) -> None:
        self._again_ms = again_ms
        self._since_ms: int | None = None
        """When the last look at everything began."""
        self.rest: str | None = ""
        """The first service that a look at everything has yet to come to; None where nothing is left of one."""
        self._everything = True
        self._wakes: dict[str, int] = {}
        self._look_at_all: set[str] = set()
        self._no_place: set[str] = set()
        self._asked: set[str] = set()
        self._brake = LOOSE
        """How the brake stood at the last decision."""

    def ask(self, service: str) -> None:
        """Look at a service again next time, whatever happens; `""` asks for the nodes."""
        self._asked.add(service)

    @property
    def wake_ms(self) -> int | None:
        """When something could change without a new fact; at once, where a look at everything is to go on."""
        if self.rest is not None and not self._everything:
            return 0
        return min(self._wakes.values(), default=None)

    def due(self, now_ms: int) -> bool:
        """Whether to decide now, though nothing changed."""
        wake = self.wake_ms
        return self._everything or bool(self._asked) or self._again(now_ms) or (wake is not None and wake <= now_ms)

    def _again(self, now_ms: int) -> bool:
        """Rule 5; where realm time was put back, at once."""
        since, each = self._since_ms, self._again_ms
        if since is None or each is None or self.rest is not None:
            return False
        return not since <= now_ms < since + each

    def look(self, view: View, dirty: Dirty, now_ms: int, *, most: int | None = None) -> Look:
        """What to look at, given what changed; of a look at everything a part of so many slots."""
        scope = None
        if self._everything or dirty.realm or self._again(now_ms):
            self.rest, self._since_ms = "", now_ms
        else:
            scope = self._scope(view, dirty, now_ms)
        return Look(scope, self.rest, most, self._brake)

    def _scope(self, view: View, dirty: Dirty, now_ms: int) -> Scope:
        due = {service for service, at in self._wakes.items() if at <= now_ms}
        whole = {*dirty.services, *due, *self._asked} - {""}
        slots = set(dirty.slots)
        for node in dirty.nodes:
            slots |= view.allocations.node(node).slots.keys() | view.orphans.get(node, set())
        if dirty.nodes:
            whole |= self._look_at_all | self._no_place | view.roaming
        scope: dict[str, set[tuple[str, int]] | None] = dict.fromkeys(sorted(whole))
        for key in sorted(slots):
            if key.service in self._look_at_all:
                scope[key.service] = None
            some = scope.setdefault(key.service, set())
            if some is not None:
                some.add((key.component, key.index))
        if self.rest is not None:
            scope |= dict.fromkeys(name for name in view.services if name >= (self.rest or ""))
        return scope

    def note(self, decided: Decided) -> None:
        """A decision was made."""
        if decided.look.scope is None:
            self._wakes.clear()
            self._look_at_all.clear()
            self._no_place.clear()
        else:
            whole = set(filter(decided.is_whole, decided.look.scope))
            self._wakes = {service: at for service, at in self._wakes.items() if service and service not in whole}
            self._look_at_all -= whole
            self._no_place -= whole
        for service, at in decided.wakes.items():
            self._wakes[service] = min(at, self._wakes.get(service, at))
        self._look_at_all |= decided.look_at_all
        self._no_place |= decided.no_place
        self._everything, self.rest, self._brake = False, decided.left, decided.brake
        self._asked.clear()
