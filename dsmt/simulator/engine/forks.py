"""Runs that begin alike are played as one, and go on apart: each in a fork of the process, from the moment that all share.

Rule 1: a fork goes on as the run alone would: nothing is drawn, awaited or set between the beginning and the rest.
Rule 2: a fork says through a pipe what it came to, or what it raised, and ends there: nothing that it has of its parent
    is flushed or closed.
Rule 3: what is garbage at the fork was collected before it, and all else is left alone by the collector in each fork.
Rule 4: one fork lives at a time, and none outlives its parent's wait for it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from dsmt.simulator.engine.errors import ForkError

W = TypeVar("W")
T = TypeVar("T")


class _OverError(Exception):
    """Every way has been gone: the parent's own run ends here."""


def each_way(ways: Sequence[W], main: Callable[[Callable[[], W]], T]) -> list[T]:
    """What `main` returns for each of the ways: it asks once which to go, and is run once up to there.

    Raises ForkError: a fork raised something, or died.
    """
    parent, told = os.getpid(), list[T]()
    answer = -1

    def which() -> W:
        nonlocal answer
        loop = asyncio._get_running_loop()  # noqa: SLF001 - it is the process's, which a fork is not
        gc.collect()  # what the beginning has left is found once, and no fork looks at its objects again
        gc.freeze()
        for way in ways:
            reader, writer = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from 3.12 on: a run waits for none
                pid = os.fork()
            if pid == 0:
                os.close(reader)
                answer = writer
                asyncio._set_running_loop(loop)  # noqa: SLF001
                return way
            os.close(writer)
            told.append(_told(pid, reader, way))
        raise _OverError

    said: tuple[object, str] | None = None
    try:
        said = main(which), ""
    except _OverError:
        pass
    except BaseException:
        if os.getpid() == parent:
            raise
        said = None, traceback.format_exc()
    if said is None:
        gc.collect()  # the beginning, which no run collects: it was frozen for the forks
        return told
    if os.getpid() == parent:
        raise ForkError("the run ended before it asked which way to go: ask in `main`")
    return _tell(answer, said)


def _tell(writer: int, said: tuple[object, str]) -> NoReturn:
    try:
        with open(writer, "wb") as pipe:
            pickle.dump(said, pipe)
    finally:
        os._exit(0)


def _told(pid: int, reader: int, way: object) -> Any:
    """Wait for what a fork says, and for its end."""
    try:
        with open(reader, "rb") as pipe:
            said = pipe.read()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    if not said:
        raise ForkError(f"the run that went on with {way} died with wait status {status}, and said nothing: run it alone")
    result, raised = pickle.loads(said)  # noqa: S301 - it comes from a fork of this very process
    if raised:
        raise ForkError(f"the run that went on with {way} raised:\n{raised}")
    return result
