"""Kept programs: those that a spawner keeps alive: how each is started, watched, asked to end and found to hang.

Rule 1: when one is started, started again and ended `dsmt.agents.rules.keeping` decides. One that an earlier spawner left
    alive is watched, not started a second time.
Rule 2: one that asked, and has ceased to, hangs: it is killed, and so started again (`pings`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from dsmt.agents.rules.keeping import Effect, Keeping
from dsmt.errors import DsmtError
from dsmt.ports.clock import Clock
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.again import SCARCE, why
from dsmt.programs.children import Children
from dsmt.programs.pings import Pings
from dsmt.programs.recorded import Recorded, say
from dsmt.programs.watches import Watches
from dsmt.system.procfs import began_s, send_signal


class Keep(NamedTuple):
    """A program to be kept alive, and its directory; empty for the spawner's own."""

    program: str
    directory: str = ""


@dataclass(slots=True)
class KeptProgram:
    """A program that is kept alive, and who runs it now."""

    program: str
    directory: str
    keeping: Keeping
    identity: ProcessIdentity | None = None


class KeptPrograms:
    """Those of one spawner, which are among its `children`, or were left alive by an earlier one."""

    def __init__(self, kept: Iterable[Keep], children: Children, recorded: Recorded, watches: Watches, clock: Clock) -> None:
        self._children, self._recorded, self._watches, self._clock = children, recorded, watches, clock
        self._kept = [KeptProgram(*one, Keeping(now=clock.boottime())) for one in kept]
        self._pings = Pings()
        self.stopping = False
        """Whether all of them are to end."""

    @property
    def running(self) -> dict[ProcessIdentity, Keep]:
        """Who runs now."""
        return {one.identity: Keep(one.program, one.directory) for one in self._kept if one.identity is not None}

    @property
    def dues(self) -> list[float | None]:
        """When something is due."""
        return [self._pings.due, *(kept.keeping.due for kept in self._kept)]

    def ticks(self) -> list[Callable[[], None]]:
        """What is due now; each may find nothing with which to do it, and keeps no other one from being done."""
        return [self.reap, *(partial(self._tick, kept) for kept in self._kept), self._end_hung]

    def reap(self) -> None:
        """See which children have ended."""
        for identity in self._children.reap():
            self._ended(identity)

    def keep(self, program: str, directory: str) -> None:
        """Keep a program from now on."""
        if not any(kept.keeping.wanted for kept in self._of(program, directory)):
            self._kept.append(KeptProgram(program, directory, Keeping(now=self._clock.boottime())))

    def release(self, program: str, directory: str) -> None:
        """End a program, and keep it no more."""
        self._end(self._of(program, directory))

    def stop(self) -> None:
        """Ask all of them to end."""
        self.stopping = True
        self._end(self._kept)

    def heard(self, identity: ProcessIdentity) -> None:
        """Somebody asks after the spawner; who is kept and ceases to hangs (rule 2)."""
        if identity in self.running:
            self._pings.heard(identity, self._clock.boottime())

    def _of(self, program: str, directory: str) -> list[KeptProgram]:
        return [kept for kept in self._kept if (kept.program, kept.directory) == (program, directory)]

    def _end(self, those: Iterable[KeptProgram]) -> None:
        for kept in those:
            self._do(kept, kept.keeping.stop(self._clock.boottime()))

    def _end_hung(self) -> None:
        for identity in self._pings.hung(self._clock.boottime()):
            _send(identity, signal.SIGKILL)

    def _tick(self, kept: KeptProgram) -> None:
        self._do(kept, kept.keeping.tick(self._clock.boottime()))

    def _do(self, kept: KeptProgram, effects: Sequence[Effect]) -> None:
        """Do what the machine of a kept program asks for."""
        for effect in effects:
            match effect:
                case Effect.START:
                    self._start(kept)
                case Effect.ASK_TO_END:
                    _send(kept.identity, signal.SIGTERM)
                case Effect.KILL:
                    _send(kept.identity, signal.SIGKILL)

    def _start(self, kept: KeptProgram) -> None:
        """Watch the process that a spawner before this one left alive, or fork one."""
        now = self._clock.boottime()
        try:
            identity = self._recorded.find(kept.directory, kept.program)
            if identity is not None and self._watches.begin(identity, partial(self._adopted_ended, identity)) is not None:
                kept.identity = identity
                self._do(kept, kept.keeping.started(now, began=began_s(identity)))
                return
            kept.identity = self._children.fork(kept.program, kept.directory)
            self._do(kept, kept.keeping.started(now))
        except (DsmtError, *SCARCE) as error:
            kept.keeping.start_failed(now)
            say(f"{kept.program} cannot be started: {why(error)}; next try in {kept.keeping.delay:.1f} s")

    def _adopted_ended(self, identity: ProcessIdentity, watch: int) -> None:
        """A kept program that is no child of ours has ended; nobody can say how."""
        self.reap()  # first: where that fails it is tried again
        self._watches.end(watch)
        self._ended(identity)

    def _ended(self, identity: ProcessIdentity) -> None:
        """Who was kept has ended; its machine plans the next start."""
        for kept in self._kept:
            if kept.identity == identity:
                kept.identity = None
                kept.keeping.ended(self._clock.boottime())
                then = "as asked" if self.stopping else f"next start in {kept.keeping.delay:.1f} s"
                say(f"{kept.program} (pid {identity.pid}) ended; {then}")


def _send(identity: ProcessIdentity | None, number: int) -> None:
    """Send a signal to this very process, if there is one. Who is asked in vain is killed, again and again (`keeping`)."""
    with suppress(OSError):
        if identity is not None:
            send_signal(identity, number)
