"""The will: what an operator was told is so. The truth that invariants measure a fleet by, outside of the code under test.

Rule 1: only what was acknowledged counts; what waits for an answer stands in `asked`, and until it has one nobody can say
    what is to be.
Rule 2: it is kept by words alone: no fact of the realm enters it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dsmt.operations.write.node_control import Mode


@dataclass(slots=True)
class Will:
    """`specs` is what is to run, by service, as plain values; `held` the slots that are not to; `modes` those of nodes.

    `either` are the slots of a service that was removed while they were held, and made again before it had ended: whether
    the hold ended with it nobody has said. `excluded_s` says since when (virtual s) a node is to get nothing more.
    """

    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    either: set[str] = field(default_factory=set)
    modes: dict[str, Mode] = field(default_factory=dict)
    excluded_s: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def slots(self) -> Iterator[str]:
        """Every slot that is to exist."""
        for service, spec in self.specs.items():
            yield from slots_of(service, spec)

    def mode(self, node: str) -> Mode:
        """How a node is to be used."""
        return self.modes.get(node, "active")

    # --- what is acknowledged ------------------------------------------------------------------------------------

    def applied(self, service: str, spec: dict[str, Any]) -> None:
        """A service file was taken; what it does not want stays held: only `start` lifts a hold."""
        self.specs[service] = spec

    def removed(self, service: str) -> None:
        """A service was removed, and its holds with it, as soon as it has ended."""
        self.specs.pop(service, None)
        self.either |= {slot for slot in self.held if slot.startswith(f"{service}/")}
        self.held -= self.either

    def ended(self, service: str) -> None:
        """Nothing is left of a service that was removed."""
        self.either = {slot for slot in self.either if not slot.startswith(f"{service}/")}

    def holds(self, slot: str, held: bool) -> None:
        """A slot is held, or not any more."""
        self.either.discard(slot)
        (self.held.add if held else self.held.discard)(slot)

    def used(self, node: str, mode: Mode, now: float) -> None:
        """A node is to be used so."""
        self.modes[node] = mode
        self.excluded_s.pop(node, None)
        if mode == "excluded":
            self.excluded_s[node] = now


def slots_of(service: str, spec: dict[str, Any]) -> Iterator[str]:
    """The slots that a spec asks for."""
    for component, one in spec["components"].items():
        for index in range(one["instances"] or 0):
            yield f"{service}/{component}/{index}"
