"""The loop's records: tasks, handles and timers, and the process each of them belongs to.

Rule 1: a `SimTask` hashes to its number, so sets of tasks (TaskGroup, `asyncio.wait`, `all_tasks`) iterate alike in
every run; stock tasks hash to their address.
Rule 2: a handle belongs to the process that `OWNER` names in the handle's context; `None` is no process: the world.
"""

# ruff: noqa: SLF001 - these classes fill in the private slots of the classes of asyncio they stand for

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final


class Owner:
    """What the loop knows of a simulated process: `SimProcess` is the rest of it.

    `context` is what its callbacks run in, `tasks` its live tasks by number, `held` what came due while it
    was paused. `halted` means paused or dead: the loop runs nothing of it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.context = Context()
        self.context.run(OWNER.set, self)
        self.tasks: dict[int, SimTask] = {}
        self.held: list[SimHandle | SimTimer] = []
        self.halted = False
        self.dead = False

    def on_signal(self, number: int, handler: Callable[[], object] | None) -> None:
        """Run `handler` in the process on this signal, as `SimProcess` says."""
        raise NotImplementedError

    def system_exit(self, code: object) -> None:
        """Take a `SystemExit` that one of its callbacks raised; `SimProcess` says what comes of it."""
        raise NotImplementedError


OWNER: Final[ContextVar[Owner | None]] = ContextVar("dsmt_simulated_process", default=None)


class SimTask(asyncio.Task[Any]):
    """A task with a number, which counts within its loop, its context and the process it belongs to."""

    __slots__ = ("context", "number", "owner")

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        loop: asyncio.AbstractEventLoop,
        name: str | None,
        number: int,
        context: Context,
    ) -> None:
        self.number = number  # before the base class, which puts the task into a set
        self.context = context
        self.owner: Owner | None = context.get(OWNER)
        super().__init__(coro, loop=loop, name=name or f"sim-{number}", context=context)

    def __hash__(self) -> int:
        return self.number


class SimHandle(asyncio.Handle):
    """`asyncio.Handle` with one flat constructor; never in debug mode."""

    __slots__ = ()

    _repr = None
    _source_traceback = None
    _callback: Callable[..., object] | None
    _context: Context

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context  # an empty Context is falsy
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False

    def cancel(self) -> None:
        """Never run the callback."""
        self._cancelled = True
        self._callback = None
        self._args = ()


class SimTimer(asyncio.TimerHandle):
    """`asyncio.TimerHandle` with one flat constructor; `_scheduled` says that it waits for its instant."""

    __slots__ = ()

    _repr = None
    _source_traceback = None
    _callback: Callable[..., object] | None
    _context: Context
    _scheduled: bool
    _loop: Any

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._when = when
        self._cancelled = False
        self._scheduled = True

    def cancel(self) -> None:
        """Never run the callback."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = ()
            if self._scheduled:
                self._loop.count_cancelled()


def owner_of(handle: SimHandle | SimTimer) -> Owner | None:
    """Return the process that a handle belongs to."""
    return handle._context.get(OWNER)
