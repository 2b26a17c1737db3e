"""Held here: that the instance was stopped by hand on its node, as long as its file says so (rule A24).

Rule 1: the file is written by who types `dsmt stop --local`, and read at the start and at each poke. It goes by
    `dsmt start --local`, or by an operator's word that names it; another stop that came since stays.
"""

from __future__ import annotations

import msgspec

from dsmt.agents.instance.reporting import Reporter
from dsmt.agents.rules.container import HELD
from dsmt.agents.rules.held_here import is_lifted, load_held, why_held
from dsmt.agents.shared.kept import own
from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.instance import HeldHere, Status
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.reason import Reason
from dsmt.event.records import readable
from dsmt.event.slots import SlotKey
from dsmt.event.status import State
from dsmt.ports.files import Files


class HoldHere:
    """The stop on this node, if there is one. `files` is the container's directory."""

    def __init__(self, files: Files, slot: SlotKey, node: str) -> None:
        self._files, self._slot, self._node = files, slot, node
        self._will: SlotControl | None = None
        self.held: HeldHere | None = None
        self._read()

    @property
    def why(self) -> Reason | None:
        """Why it is stopped; None where it is not stopped so."""
        return None if self.held is None else why_held(self.held, target=str(self._slot), node=self._node)

    def said(self, before: Status | None) -> Status | None:
        """What an agent said last, with who has stopped it: the record does not say that."""
        if before is not None and before.has_ended:
            return msgspec.structs.replace(before, held_here=self.held)
        if before is None or before.state is not State.STOPPED:
            return before
        return msgspec.structs.replace(before, held_here=self.held, reason=self.why)

    def look(self, reporter: Reporter) -> bool:
        """Read the file; whether it says something else than before. That it holds no more is said.

        What has ended by itself has nothing to stop: it stays what it is, and says who lets it run no more (A20).
        """
        before, said = self.held, reporter.monitor.status
        self._read()
        if said is not None and said.has_ended:
            reporter.note(held_here=self.held)
        elif before is not None and self.held is None:
            reporter.note(held_here=None, reason=None)
        return self.held != before

    def take(self, signed: SignedEvent, reporter: Reporter) -> bool:
        """Take in an operator's will; whether it ends the stop. What follows has that for its cause."""
        will = readable(SlotControl, signed.event.data) if signed.event.topic == self._slot.control_topic else None
        self._will = will or self._will
        if self.held is not None and is_lifted(self.held, will):
            reporter.trigger = (signed.id,)
            return self.look(reporter)
        return False

    def _read(self) -> None:
        """Read the file; what cannot be read now is as it was, and one that cannot be removed now is lifted all the same."""
        try:
            self.held = load_held(own(self._files, HELD))
            if self.held is not None and is_lifted(self.held, self._will):
                self.held = None
                self._files.remove(HELD)
        except FailedError:
            return
