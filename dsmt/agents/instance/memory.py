"""Memory: what an agent keeps in its container's directory, so that it may be killed at any time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from dsmt.agents.rules.after import did
from dsmt.agents.rules.container import OUTCOME, RECORD, AgentOutcome
from dsmt.agents.rules.record import InstanceRecord, dump_record, load_record
from dsmt.agents.shared.kept import own
from dsmt.agents.shared.patient import PatientWriter
from dsmt.errors import FailedError
from dsmt.event.kinds.instance import Status
from dsmt.event.status import Layer, State
from dsmt.ports.files import Files


class Memory:
    """The instance's record, read once and written at each change that matters; `boot` is the present boot id."""

    def __init__(self, files: Files, boot: str) -> None:
        self._files, self._writer = files, PatientWriter(files)
        self._due = False
        raw = own(files, RECORD)
        found = load_record(raw)
        self.excused = own(files, OUTCOME) == AgentOutcome.EXCUSED.encode()
        """The agent before this one was ended by dsmt: by no step that was under way (C13)."""
        self.fresh = raw is None
        """There is no record here: nothing was started, or somebody has removed it."""
        self.rebooted = found is not None and found.boot != boot
        """The machine has been started anew since the record was written: nothing that ran then runs."""
        if found is None:
            found = InstanceRecord(boot=boot)
        elif self.rebooted:
            found = msgspec.structs.replace(
                found, boot=boot, history=type(found.history)(), not_before_s=0.0, began_s=0.0, finished=found.ended_well
            )
        self.record = msgspec.structs.replace(found, **did()) if self.rebooted or self.excused else found

    def note(self, **changes: Any) -> None:
        """Change the record without writing it."""
        self.record = msgspec.structs.replace(self.record, **changes)

    def save(self, **changes: Any) -> None:
        """Change the record and write it; on a full disk again and again, for what runs must not end with that."""
        self.record = msgspec.structs.replace(self.record, **changes)
        self._due = False
        self._writer.write(RECORD, dump_record(self.record))

    @property
    def unwritable(self) -> FailedError | None:
        """Why there is no record at all, while the disk has no room for one."""
        return None if self._writer.lacking is None or self._files.read(RECORD) is not None else self._writer.lacking

    def save_soon(self, **changes: Any) -> None:
        """Change the record and write it when the present handler is done: a rename costs a millisecond.

        For what a successor can do without if the agent is killed in between.
        """
        self.record = msgspec.structs.replace(self.record, **changes)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._save_due)

    def _save_due(self) -> None:
        if self._due:
            self.save()

    def note_status(self, status: Status) -> None:
        """Remember what was said last of the instance's state."""
        self.note(state=status.state, attempt=status.attempt, since_ms=status.since_ms, taken_ms=status.taken_ms)
        self.note(reason=status.reason, next_try_ms=status.next_try_ms, parked=status.parked)

    def last_status(self, node: str, emit_rate_s: float) -> Status | None:
        """The status that was said last, as far as the record knows, without a pid; what runs is in no earlier state.

        What has failed says why, and what comes next, as before.
        """
        record = self.record
        state = record.state
        runs = record.process is not None and not record.asked
        if runs:
            state = State.RUNNING if record.started else State.INSTANTIATED
        if state is None:
            return None
        failed = state is State.FAILED and not self.rebooted
        return Status(
            state=state,
            layer=Layer.APPLICATION,
            node=node,
            generation=record.run_generation if runs else record.generation,
            attempt=record.attempt,
            since_ms=record.since_ms,
            emit_rate_s=emit_rate_s,
            reason=record.reason if failed else None,
            restarts=record.restarts,
            failures=record.history.failures,
            next_try_ms=record.next_try_ms if failed else None,
            parked=failed and record.parked,
            last_exit=record.last_exit,
            last_command=record.last_command,
            revision=record.revision,
            taken_ms=record.taken_ms,
            good=record.good,
        )
