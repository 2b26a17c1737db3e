"""Leaving: waiting until nothing is left of a service that was removed.

Rule 1: where nobody can tell whether it is, for a node that had some of it is dead, it is gone, and that is told; so is what
    an instance has left behind.
Rule 2: what a broker does not know yet, to which who waits went meanwhile, is not gone: it is waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dsmt.controllers.endings import BURIAL_MS
from dsmt.errors import FailedError
from dsmt.event.phrases import some
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instances import living_holders
from dsmt.operations.read.waits.waiting import Waited, unheard_of, until
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader
from dsmt.view import ServiceEntry


async def gone(
    bus: BusReader, service: str, *, epoch: int | None = None, limit_s: float | None, tell: Tell = silent
) -> Waited:
    """Wait until nothing of a service is left. `because` says where nobody can tell, for the node is dead, and what remains.

    Raises `TimedOutError`, and `FailedError` when it stands in a later epoch.
    """
    leaving, unmet, look = _Leaving(service, epoch), f"{service} is not gone", f"dsmt ps {service}"
    return await until(bus, leaving.seen, limit_s=limit_s, unmet=unmet, look=look, far=leaving.far, tell=tell)


class _Leaving:
    """A service that was removed; from that `epoch` on, where it is known."""

    def __init__(self, service: str, epoch: int | None) -> None:
        self._service, self._epoch = service, epoch
        self._unheard: set[str] = set()
        """The nodes that are dead and had some of it, at any look."""
        self._remains: dict[str, str] = {}
        """What was left behind, by where, at any look."""

    def seen(self, sight: Sight) -> Waited | None:
        """What is so once all is gone; else None. Raises `FailedError` where it was applied again."""
        service, entry = self._service, sight.view.services.get(self._service)
        slots = [] if entry is None else entry.slots.values()
        self._unheard.update(node for slot in slots for node in slot.holders if sight.fleet.state(node) == "dead")
        self._remains.update(_remains(service, entry))
        if self._is_news(sight):
            return None
        if entry is None or (entry.spec is None and not self._left(sight)):
            because = "; ".join(filter(None, [_may_run(service, self._unheard), *self._remains.values()]))
            return Waited(target=service, wanted=Shown.GONE.value, reached=True, instances=[], because=because)
        if self._epoch is not None and entry.spec is not None and (entry.spec.signed.event.epoch or 0) > self._epoch:
            said = f"{service} was removed, and applied again before it was seen to be gone"
            raise FailedError("wait.applied_again", said, next=f"dsmt status {service}")
        return None

    def far(self, sight: Sight) -> str:
        """How far it is."""
        if self._is_news(sight):
            return unheard_of(sight)
        left = self._left(sight)
        quiet = f"all that is known of it has ended; whether a node has more is known {BURIAL_MS / 1000:g} s after that"
        return f"left: {', '.join(left)}" if left else quiet

    def _is_news(self, sight: Sight) -> bool:
        """Whether the broker has not heard of the service yet, nor of its end (rule 2)."""
        known = self._service in sight.view.services
        return self._epoch is not None and not known and sight.view.epoch(f"service/{self._service}/spec") <= self._epoch

    def _left(self, sight: Sight) -> list[str]:
        """The instances that are there, as far as anybody can tell."""
        entry = sight.view.services.get(self._service)
        return [
            f"{self._service}/{component}/{index} on {node}"
            for (component, index), slot in sorted(() if entry is None else entry.slots.items())
            for node in living_holders(sight, slot)
        ]


def _may_run(service: str, nodes: Collection[str]) -> str:
    """What is not known of a service that is gone from all nodes but these, which are dead; empty for none."""
    are, they = ("are", "they are") if len(nodes) > 1 else ("is", "it is")
    dead = f"{some(sorted(nodes))} {are} dead"
    return f"{dead}: whatever may run there of {service} ends when {they} back" if nodes else ""


def _remains(service: str, entry: ServiceEntry | None) -> Iterator[tuple[str, str]]:
    """Where an instance has left something behind, and what was said of that."""
    for (component, index), slot in sorted(entry.slots.items() if entry is not None else ()):
        for node, there in sorted(slot.instances.items()):
            why = None if there.application is None else there.application.record.reason
            if why is not None and why.code == "stop.leftover":
                where = f"{service}/{component}/{index} on {node}"
                yield where, f"{where}: {why.message}"
