"""Children: whom a spawner forks, which of its programs runs already, and how those ended that are its own or came to it.

Rule 1: to start is idempotent: while the process of the record lives, it is the answer; so is one without (`recorded`).
Rule 2: how the last `EXITS_REMEMBERED` ended is known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from dsmt.errors import InputError
from dsmt.newest import Newest
from dsmt.ports.processes import Exit, ProcessIdentity
from dsmt.programs.anew import Forked, SpawnerState
from dsmt.programs.recorded import Recorded, say
from dsmt.programs.recorded import record as write_down
from dsmt.programs.wards import Wards
from dsmt.system.fork import Main, Program, fork
from dsmt.system.procfs import identity_of, is_alive
from dsmt.system.records import make_lock, record_path
from dsmt.system.watch import exit_of

EXITS_REMEMBERED: Final = 1024


class Children:
    """Those of one spawner, after its `past`; `close` closes in a child what is the spawner's."""

    def __init__(
        self, programs: Mapping[str, Main], recorded: Recorded, wards: Wards, past: SpawnerState, close: Callable[[], None]
    ) -> None:
        self._programs, self._recorded, self._wards, self._close = programs, recorded, wards, close
        self.forked = dict(past.children)
        """By process, those that were forked here and live."""
        self._exits: Newest[ProcessIdentity, Exit] = Newest(EXITS_REMEMBERED)
        self._exits.update(past.exits)

    def past(self) -> SpawnerState:
        """What the next spawner is to know."""
        return SpawnerState(tuple(self.forked.items()), tuple(self._exits.items()))

    def fork(self, name: str, directory: str, record: str = "") -> ProcessIdentity:
        """Fork a program, or find the one that runs there (rule 1). Raises `InputError`, `FailedError`."""
        main = self._programs.get(name)
        if main is None or not os.path.isabs(directory):
            raise InputError("spawner.request", f"{name!r} in {directory!r} is not a program and an absolute directory")
        record = record or record_path(directory, name)
        forked = (identity for identity, child in self.forked.items() if child.record == record)
        known = self._recorded.find(directory, name, record) or next(forked, None)  # a full disk takes no records
        if known is not None:
            return known
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if name == "spawner":
            make_lock(directory)
            self._wards.add(directory)
        identity = fork(Program(name, main, directory, record), self._close)
        write_down(record, identity)
        self.forked[identity] = Forked(name, directory, record)
        return identity

    def reap(self) -> Iterator[ProcessIdentity]:
        """Reap every dead child, own and inherited, and remember how it ended: each of them."""
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if result is None:
                return
            identity = identity_of(result.si_pid)
            os.waitpid(result.si_pid, 0)
            if identity is not None:
                self.ended(identity, exit_of(result))
                yield identity

    def ended(self, identity: ProcessIdentity, how: Exit) -> None:
        """Keep how a process ended, and forget the oldest."""
        self._exits[identity] = how
        program = self.forked.pop(identity, None)
        if program is not None:
            say(f"{program.name} of {program.directory} (pid {identity.pid}) {how}")

    def status(self, identity: ProcessIdentity) -> dict[str, Any]:
        """How a process ended: `{code, signal}`, `{running: true}` or `{unknown: true}`."""
        ended = self._exits.get(identity)
        if ended is None:
            return {"running": True} if is_alive(identity) else {"unknown": True}
        return {"code": ended.code, "signal": ended.signal}
