"""Where each waiting task stands: the whole chain of awaits, which `Task.get_stack` does not give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import FrameType

from dsmt.simulator.engine.handles import Owner, SimTask


def frames(awaitable: object) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, the outermost first, down to where it waits."""
    while awaitable is not None:
        frame = _first(awaitable, "cr_frame", "gi_frame", "ag_frame")
        if isinstance(frame, FrameType):
            yield frame
        awaitable = _first(awaitable, "cr_await", "gi_yieldfrom", "ag_await")


def describe_task(task: asyncio.Task[object]) -> str:
    """Return the task's name and, one line each, the places where it waits, the outermost first."""
    places = [
        f"    {'/'.join(PurePath(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
        for frame in frames(task.get_coro())
    ]
    return "\n".join([f"task {task.get_name()}", *places])


def describe_waiting(tasks: Iterable[SimTask], processes: Iterable[Owner]) -> str:
    """Return where each task waits, with its process, and what each paused process holds."""
    waiting = [
        describe_task(task) if task.owner is None else f"process {task.owner.name}, {describe_task(task)}" for task in tasks
    ]
    paused = [
        f"process {process.name} is paused and holds {len(process.held)} callbacks"
        for process in processes
        if process.halted
    ]
    return "\n".join([*waiting, *paused])


def _first(thing: object, *names: str) -> object:
    for name in names:
        value = getattr(thing, name, None)
        if value is not None:
            return value
    return None
