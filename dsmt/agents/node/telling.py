"""Telling: what a node's manager has heard of a slot reaches the agent on the same machine, whatever the bus does (A1).

Rule 1: an agent hears of its slot by a session of its own, at a broker that may be cut off from the manager's. What it has
    not written down `TELL_AFTER_S` after the manager heard of it stands in a file beside, and the agent is poked to read it.
Rule 2: of the two files each has one writer while the agent lives, so neither is torn, and a lesser fact replaces no greater
    one in it. The agent looks at both when it starts: a poke that nobody heard loses nothing.
Rule 3: a poke ends no process that does not know it, such as an agent that has just begun, or one of an earlier version.
Rule 4: where all is heard in time nothing is written and nobody woken; at rest nothing is looked at.
Rule 5: a fact by which the agent is to run a spec that it has not is left to the bus, which has to bring the spec and what
    that names: until then what runs goes on, and is started again when it ends; what was stopped meanwhile waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from dsmt.agents.rules.container import POKE, SLOT, SPEC, TOLD
from dsmt.agents.rules.reconcile import Duty, owed
from dsmt.agents.rules.register import Register
from dsmt.agents.shared.kept import keep, kept
from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import readable
from dsmt.ports.bus import Bus
from dsmt.ports.files import Files
from dsmt.ports.processes import Process

TELL_AFTER_S: Final = 1.0
"""How long the agent has to hear it by itself, and how soon a full disk is tried again."""


class Telling:
    """Tells one container's agent of the greatest fact of its slot. `files` is the container's directory."""

    def __init__(self, node: str, greatest: Register, files: Files, bus: Bus) -> None:
        self._node = node
        self._greatest = greatest
        self._files = files
        self._bus = bus
        self._agent: Process | None = None
        self._due: asyncio.TimerHandle | None = None

    def begin(self, agent: Process) -> None:
        """There is an agent, which may have begun, or been poked, before what is the greatest now."""
        self._agent = agent
        self.soon()

    def end(self) -> None:
        """There is no agent: the next one finds all at its start."""
        self._agent = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def soon(self) -> None:
        """Another fact is the greatest: see that the agent knows it."""
        if self._agent is not None and self._due is None:
            self._due = asyncio.get_running_loop().call_later(TELL_AFTER_S, self._tell)

    def _tell(self) -> None:
        self._due = None
        fact = None if self._greatest.buried else self._greatest.held
        if self._agent is None or fact is None or not self._is_news(fact):
            return
        try:
            keep(self._files, TOLD, fact, self._bus)
        except FailedError:  # the disk is full
            self.soon()
            return
        self._agent.signal(POKE)

    def _is_news(self, signed: SignedEvent) -> bool:
        """Whether the agent has not heard of a fact that it can obey (rule 5)."""
        heard = kept(self._files, SLOT, self._bus)
        if heard is not None and not self._greatest.is_news(signed, heard):
            return False
        fact = readable(Slot, signed.event.data)
        if fact is None:
            return False
        if owed(self._node, fact, now_ms=self._bus.now_ms(), successor_ready=False).duty is not Duty.RUN:
            return True
        spec = kept(self._files, SPEC, self._bus)
        return spec is not None and str(spec.id) == fact.spec
