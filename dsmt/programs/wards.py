"""Wards: nodes whose death the keeper of `up` notices, so that none stays half dead, and nothing outlives one that is dead.

Rule 1: nobody keeps a node when neither its spawner nor its container manager lives, 0.3 s after one of them has died:
    each of them would have started the other by then.
Rule 2: all goes whose program and agent are dead: what that program had forked serves nobody's orders.
Rule 3: where its monitor lives, an agent or a program, the node is begun again, since it would be half dead for ever; not
    sooner than 5 s after the time before. One of which nothing lives was ended as a whole: it stays dead.
Rule 4: this looks again until two looks find nobody, since a look can miss who is being forked meanwhile.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.containers import agents_in, containers_in, owners_in, roots_in
from dsmt.programs.watches import Watches
from dsmt.system.marks import UNMARKED, bearers
from dsmt.system.process_tree import Tree
from dsmt.system.procfs import is_alive, send_signal
from dsmt.system.records import process_of

GRACE_S: Final = 0.3
LOOK_AGAIN_S: Final = 0.05
BEGIN_AGAIN_S: Final = 5.0


@dataclass(slots=True)
class Ward:
    """A node, who is watched there, when it is looked at next, and may be begun again (boot-time seconds)."""

    directory: str
    due: float | None = None
    begins: float = 0.0
    watched: dict[ProcessIdentity, int] = field(default_factory=dict)
    empty_looks: int = 0


class WardRemains(NamedTuple):
    """What is left of a node that nobody keeps: whether anything that is kept lives, and what the dead had forked."""

    lives: bool
    forked: set[ProcessIdentity]


class Wards:
    """The `nodes` of one keeper. `now` is the boot-time clock, `begin` starts the spawner of a directory."""

    def __init__(
        self,
        nodes: Iterable[str],
        watches: Watches,
        now: Callable[[], float],
        *,
        begin: Callable[[str], object],
    ) -> None:
        self._watches = watches
        self._wards: dict[str, Ward] = {}
        self._now = now
        self._begin = begin
        for node in nodes:
            self.add(node)

    @property
    def due(self) -> float | None:
        """When `tick` has something to do."""
        return min((ward.due for ward in self._wards.values() if ward.due is not None), default=None)

    def add(self, directory: str) -> None:
        """Watch over a node, which runs or is being started."""
        ward = self._wards.setdefault(directory, Ward(directory))
        ward.due, ward.empty_looks = self._now() + GRACE_S, 0

    def release(self, directory: str) -> None:
        """A node is being removed: whatever lives there, it is not begun again."""
        ward = self._wards.pop(directory, Ward(directory))
        for identity in tuple(ward.watched):
            self._unwatch(ward, identity)

    def tick(self) -> None:
        """Look at the nodes whose time has come."""
        now = self._now()
        for ward in self._wards.values():
            if ward.due is not None and ward.due <= now:
                self._look(ward)

    def _look(self, ward: Ward) -> None:
        """Watch who lives there, or end what the dead have left, and begin the node again where something lives."""
        found = [process_of(ward.directory, program) for program in ("spawner", "container_manager")]
        alive = [identity for identity in found if identity is not None]
        for identity in alive:
            self._watch(ward, identity)
        if alive:
            ward.due, ward.empty_looks = None, 0
            return
        remains = remains_of(ward.directory)
        for member in remains.forked:
            send_signal(member, signal.SIGKILL)
        if remains.lives:
            self._begin_again(ward)
            return
        ward.empty_looks = 0 if remains.forked else ward.empty_looks + 1
        ward.due = None if ward.empty_looks >= 2 else self._now() + LOOK_AGAIN_S

    def _begin_again(self, ward: Ward) -> None:
        now = self._now()
        if now < ward.begins:
            ward.due = ward.begins
            return
        ward.begins = now + BEGIN_AGAIN_S
        ward.due = now + GRACE_S
        self._begin(ward.directory)

    def _watch(self, ward: Ward, identity: ProcessIdentity) -> None:
        watch = None if identity in ward.watched else self._watches.begin(identity, lambda _: self._ended(ward, identity))
        if watch is not None:
            ward.watched[identity] = watch

    def _ended(self, ward: Ward, identity: ProcessIdentity) -> None:
        """Somebody has died: look when another has had the time to start it again (rule 1)."""
        self._unwatch(ward, identity)
        ward.due, ward.empty_looks = self._now() + GRACE_S, 0

    def _unwatch(self, ward: Ward, identity: ProcessIdentity) -> None:
        self._watches.end(ward.watched.pop(identity))


def remains_of(directory: str) -> WardRemains:
    """What lives of a node, and what programs had forked whose agent and who themselves are dead (rules 2 and 3)."""
    owners: set[str] = set()
    found: set[ProcessIdentity] = set()
    lives = process_of(directory, "node_monitor") is not None
    for container in containers_in(Path(directory)):
        if agents_in(container) or any(map(is_alive, roots := roots_in(container))):
            lives = True
            continue
        owners.update(owners_in(container))
        found.update(*(Tree(root, UNMARKED, ours=False).members() for root in roots))
    return WardRemains(lives, found | bearers(owners) if owners else found)
