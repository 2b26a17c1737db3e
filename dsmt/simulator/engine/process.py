"""Simulated operating-system processes: start, exit, SIGKILL, SIGSTOP and SIGCONT, and other signals.

Rule 1: a process has a context of its own, empty but for its name, and every task started in it belongs to it.
Rule 2: its main coroutine's end is its end, as under `asyncio.run`: the other tasks are cancelled and awaited first.
Rule 3: `kill` is immediate: nothing of the process runs afterwards; see `dsmt.simulator.engine.burial`.
Rule 4: what comes due while a process is paused is held and runs, in that order, when it resumes.
Rule 5: a signal is acted on when the process next runs, so a paused one gets it on resume; SIGKILL, SIGSTOP and
SIGCONT act at once.
"""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from dsmt.simulator.engine.errors import Finding, ProcessKilled, SimulationError
from dsmt.simulator.engine.findings import failure_text
from dsmt.simulator.engine.handles import OWNER, Owner, SimTask
from dsmt.simulator.engine.loop import SimLoop, current_loop

_IGNORED: Final = frozenset({signals.SIGCHLD, signals.SIGURG, signals.SIGWINCH})
"""Signals whose default action is nothing (signal(7))."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: `code` when it exited, `signal` when a signal ended it; exactly one is not None.

    `failure` is the exception that its main coroutine raised; the code is 1 then.
    """

    code: int | None = None
    signal: int | None = None
    failure: BaseException | None = None

    @property
    def returncode(self) -> int:
        """The code, or minus the signal, as in `subprocess`."""
        return self.code if self.code is not None else -(self.signal or 0)


class SimProcess(Owner):
    """A process of the simulation that is running; it does nothing before `start` and cannot be started twice."""

    def __init__(self, name: str, *, loop: SimLoop | None = None) -> None:
        super().__init__(name)
        self._loop = current_loop() if loop is None else loop
        self._number = 0
        self._main_task: SimTask | None = None
        self._exit_code: int | None = None
        self._status: ExitStatus | None = None
        self._waiters: list[asyncio.Future[ExitStatus]] = []
        self._handlers: dict[int, Callable[[], object]] = {}

    def __repr__(self) -> str:
        return f"<SimProcess {self.name} {self.state}>"

    @property
    def state(self) -> str:
        """`new`, `running`, `paused`, `exited` (of itself) or `killed` (by a signal)."""
        if self._status is not None:
            return "exited" if self._status.signal is None else "killed"
        if self.halted:
            return "paused"
        return "running" if self._number else "new"

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._status is None

    @property
    def status(self) -> ExitStatus | None:
        """How it ended, or None. Reading it does not count as having noticed a failure; `wait` does."""
        return self._status

    def start(self, main: Coroutine[Any, Any, int | None]) -> None:
        """Run `main` as the process's main coroutine; what it returns is the exit code (None: 0).

        SimulationError: started before, or dead. ProcessKilled: the calling process is dead.
        """
        if self._number or self.dead:
            main.close()
            raise SimulationError(f"process {self.name} was started before; make a new SimProcess")
        try:
            self._loop.require_alive()
        except ProcessKilled:
            main.close()
            raise
        self._number = self._loop.register(self)
        self._main_task = self._loop.create_task(self._run(main), name=f"{self.name}:main", context=self.context.copy())

    def call_soon(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        """Run a callback in this process; see `SimLoop.call_in`."""
        return self._loop.call_in(self, callback, *args)

    async def wait(self) -> ExitStatus:
        """Wait for the end and return how it ended."""
        if self._status is None:
            waiter: asyncio.Future[ExitStatus] = self._loop.create_future()
            self._waiters.append(waiter)
            return await waiter
        self._loop.unseen.pop(self._number, None)
        return self._status

    # --- signals ---

    def kill(self) -> None:
        """SIGKILL. Nothing when it has ended. A process that kills itself gets ProcessKilled from here."""
        self._end_by(signals.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP. A process that pauses itself still runs up to its next wait."""
        if self._number and not self.dead:
            self.halted = True
            self._loop.note_halt()

    def resume(self) -> None:
        """SIGCONT: what came due meanwhile is ready now, in that order, before what comes due only now."""
        if self.halted and not self.dead:
            self.halted = False
            self._loop.release(self)

    def on_signal(self, number: int, handler: Callable[[], object] | None) -> None:
        """Run `handler` in the process on this signal; None restores the default, which ends the process.

        SimulationError: SIGKILL and SIGSTOP cannot be handled.
        """
        if number in (signals.SIGKILL, signals.SIGSTOP):
            raise SimulationError(f"{signals.Signals(number).name} cannot be handled")
        if handler is None:
            self._handlers.pop(number, None)
        else:
            self._handlers[number] = handler

    def handles(self, number: int) -> bool:
        """Whether it would act on a signal: it has a handler, and does not stand still; or is gone."""
        return self.dead or (number in self._handlers and self.state != "paused")

    def send_signal(self, number: int) -> None:
        """Send a signal. Nothing when it has not started or has ended."""
        if not self._number or self.dead:
            return
        if number == signals.SIGKILL:
            self.kill()
        elif number == signals.SIGSTOP:
            self.pause()
        else:
            if number == signals.SIGCONT:
                self.resume()
            self._loop.call_in(self, self._take_signal, number)

    def _take_signal(self, number: int) -> None:
        handler = self._handlers.get(number)
        if handler is not None:
            handler()
        elif number not in _IGNORED and number != signals.SIGCONT:
            self._end_by(number)

    def _end_by(self, number: int) -> None:
        if self._status is not None:
            return
        self._finish(ExitStatus(signal=number))
        if OWNER.get() is self:
            if (running := asyncio.current_task(self._loop)) in self.tasks.values():
                self._loop.call_soon(self._bury_rest, running, context=self._loop.world)
            raise ProcessKilled(f"process {self.name} is dead")

    def _bury_rest(self, task: SimTask) -> None:
        """End the task that killed its own process, if it waits nevertheless."""
        self._loop.bury([task])

    # --- exit ---

    def system_exit(self, code: object) -> None:
        """End as `asyncio.run` does on `SystemExit`: cancel the main coroutine, clean up, exit with that code."""
        self._exit_code = _exit_code(code)
        if self._main_task is not None:
            self._main_task.cancel()

    async def _run(self, main: Coroutine[Any, Any, int | None]) -> None:
        failure: BaseException | None = None
        code = 0
        try:
            code = _exit_code(await main)
        except SystemExit as error:
            code = _exit_code(error.code)
        except (GeneratorExit, KeyboardInterrupt, ProcessKilled):
            raise
        except BaseException as error:
            if self.dead:
                raise ProcessKilled("killed") from error  # an exception group of such
            failure, code = error, 1
        await self._cancel_others()
        if self._exit_code is not None:
            failure, code = None, self._exit_code
        self._finish(ExitStatus(code=code, failure=failure))

    async def _cancel_others(self) -> None:
        running = asyncio.current_task()
        others = [task for task in self.tasks.values() if task is not running]
        for task in others:
            task.cancel()
        while not all(task.done() for task in others):
            try:
                await asyncio.wait(others)
            except asyncio.CancelledError:
                continue  # SystemExit out of one of them; the process ends anyway
        for task in others:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._loop.call_exception_handler(
                    {"message": "exception while the process ended", "exception": error, "task": task}
                )

    def _finish(self, status: ExitStatus) -> None:
        self._status = status
        self.dead = self.halted = True
        self._loop.note_halt()
        self._loop.findings.after_a_kill |= status.signal is not None
        self.held.clear()
        self._handlers.clear()
        self._loop.processes.pop(self._number, None)
        waiters, self._waiters = [waiter for waiter in self._waiters if not waiter.done()], []
        for waiter in waiters:
            waiter.set_result(status)
        if status.failure is not None and not waiters:
            text = f"failed, and nobody waited for it\n{failure_text(status.failure)}"
            self._loop.unseen[self._number] = Finding(self._loop.time(), self.name, text)
        self._loop.bury(list(self.tasks.values()))


def current_process() -> SimProcess | None:
    """Return the simulated process that this code runs in, or None in the world outside of all processes."""
    owner = OWNER.get()
    return owner if isinstance(owner, SimProcess) else None


def _exit_code(value: object) -> int:
    """Return the exit code for what a main coroutine or `sys.exit` gave: None is 0, an int itself, else 1."""
    if value is None:
        return 0
    return int(value) & 0xFF if isinstance(value, int) else 1
