"""Watch: see one process end, at once, through its pidfd (pidfd_open(2)).

Rule 1: a child of ours is reaped by its watch and by nobody else; how another's child ended, `ask` must tell.
Rule 2: signals go through the pidfd: they never reach another process that has got the same pid.
Rule 3: who a child of ours is may be read late: until it is reaped nobody else gets its pid. Linux lets a reader of
        /proc/PID/stat wait while that process is in exec (0.6 ms where this was measured): too long for a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.processes import UNSEEN, Exit, ProcessIdentity
from dsmt.system.procfs import UNREACHED, handles, identity_of, open_pidfd

AGAIN_S: Final = 0.1
Ask = Callable[[ProcessIdentity], Awaitable[Exit]]
"""Tells how a process ended that is no child of ours; `UNSEEN` when it does not know. Never raises."""


async def nobody(_identity: ProcessIdentity) -> Exit:
    """Tell, as an `Ask`, that nobody saw how a process ended."""
    return UNSEEN


class ProcessWatch:
    """One process being watched from the running loop; fulfils the port `Process`.

    `identity` may be left out for a child of ours (rule 3).
    """

    def __init__(self, pid: int, descriptor: int, identity: ProcessIdentity | None = None, ask: Ask = nobody) -> None:
        self.pid = pid
        self.ended: Exit | None = None
        self._identity = identity
        self._descriptor = descriptor
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[Exit]] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._on_end)

    def __repr__(self) -> str:
        return f"<Watch pid={self.pid} ended={self.ended}>"

    @property
    def identity(self) -> ProcessIdentity:
        """Which process this is."""
        if self._identity is None:
            self._identity = identity_of(self.pid)
            if self._identity is None:
                raise FailedError("start.driver", f"pid {self.pid} was reaped by another part of this process")
        return self._identity

    async def wait(self) -> Exit:
        """Wait for its end. May be awaited by several, and after the end."""
        if self.ended is not None:
            return self.ended
        waiter: asyncio.Future[Exit] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def signal(self, number: int) -> None:
        """Send a signal to this process only; nothing happens when it is gone, or another user's."""
        if self._descriptor >= 0:
            with contextlib.suppress(*UNREACHED):
                signal.pidfd_send_signal(self._descriptor, number)

    def handles(self, number: int) -> bool:
        """Whether it has a handler for a signal, or is gone."""
        return self._descriptor < 0 or handles(self.pid, number)

    def leave(self) -> None:
        """Watch it no more: nobody waits for its end."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_end(self) -> None:
        """The pidfd is readable: the process has ended."""
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        try:
            self._identity = self._identity or identity_of(self.pid)
        except OSError:  # no descriptor is left to look with: it stays as it is until there is one
            self._loop.call_later(AGAIN_S, self._on_end)
            return
        seen = reap(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        if seen is not None:
            self._tell(seen)
        else:
            self._asking = self._loop.create_task(self._ask_how())

    async def _ask_how(self) -> None:
        """Have the spawner say how it ended."""
        self._tell(await self._ask(self.identity))

    def _tell(self, ended: Exit) -> None:
        """Wake who waits."""
        self.ended = ended
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(ended)


def watch(identity: ProcessIdentity, ask: Ask = nobody) -> ProcessWatch | None:
    """A watch over a process; None when it is gone."""
    descriptor = open_pidfd(identity)
    return None if descriptor is None else ProcessWatch(identity.pid, descriptor, identity, ask)


def reap(descriptor: int) -> Exit | None:
    """Reap the ended child behind a pidfd; None when it is no child of ours."""
    try:
        result = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if result is None else exit_of(result)


def exit_of(result: os.waitid_result) -> Exit:
    """What waitid(2) told, as an `Exit`."""
    if result.si_code == os.CLD_EXITED:
        return Exit(result.si_status, None)
    return Exit(None, result.si_status)
