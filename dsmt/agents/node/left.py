"""Left: what stays of a container that was cleared away (`dsmt down`), and is brought back to a store that lacks it (R5).

Rule 1: nothing begins by what was kept before it has come from a store: by then another fact may have overruled it.
Rule 2: it is over when a container was made in its place, when it was hidden or has ended by itself, or when a fact that is
    as great has come. That a store says nothing of the slot ends nothing (A5): it may have yet to take what is offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from dsmt.agents.rules import container as c
from dsmt.agents.rules.register import Register
from dsmt.agents.shared.kept import kept
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import readable
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Bus
from dsmt.ports.files import Files


@dataclass(slots=True)
class LeftContainer:
    """What is left of one slot's container."""

    spec: SignedEvent | None
    heard: bool = False
    """Whether a fact has come that is as great as the one that was kept."""

    @classmethod
    def read(cls, slot: SlotKey, known: Register, files: Files, bus: Bus) -> Self:
        """Read it; `known` takes in the slot's facts."""
        for path in (c.SLOT, c.TOLD):
            fact = kept(files, f"{slot.directory}/{path}", bus)
            if fact is not None and fact.event.topic == slot.topic:
                known.take(fact)
        return cls(kept(files, f"{slot.directory}/{c.SPEC}", bus))

    def offers(self, known: Register, now_ms: int) -> list[SignedEvent]:
        """What a store may lack. A slot that is to be gone needs no spec, and one that is offered would stand again."""
        known.expire(now_ms)
        if known.held is None or known.buried:
            return []
        return [known.held] if self.spec is None or _is_gone(known.held) else [known.held, self.spec]

    def is_over(self, known: Register, now_ms: int) -> bool:
        """Whether a whole store has nothing more to say of it (rule 2)."""
        known.expire(now_ms)
        return self.heard or known.held is None or known.buried


def _is_gone(signed: SignedEvent) -> bool:
    fact = readable(Slot, signed.event.data)
    return fact is not None and fact.desired == "gone"
