"""Run a scenario in virtual time, and find what it left behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from dsmt.simulator.engine.errors import LeftoverError
from dsmt.simulator.engine.loop import SimLoop
from dsmt.simulator.engine.trace import Trace

T = TypeVar("T")

_NOTES: Final = 20
"""Findings that are added to an exception of the main coroutine; the others are counted."""


def run(
    main: Coroutine[Any, Any, T],
    *,
    trace: Trace | None = None,
    hz: int = 1000,
    max_spin: int = 5_000_000,
    collect_every: float | None = 300.0,
) -> T:
    """Run `main` on a new `SimLoop` and return what it returns; `SimLoop` says what the arguments are.

    Garbage is collected at fixed virtual times only. Raises what `main` raises, with the findings as notes;
    DeadlockError, LivelockError; LeftoverError if `main` succeeded but there are findings: a task or process that
    still runs, a coroutine never awaited, an exception never retrieved, an asynchronous generator dropped
    half-way, a refused operation even when its error was swallowed. RuntimeError: another loop runs in this thread.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - get_running_loop raises in place of saying no
        main.close()
        raise RuntimeError("a simulation cannot run inside another event loop")
    loop = SimLoop(hz=hz, max_spin=max_spin, collect_every=collect_every, trace=trace)
    try:
        with _collected(loop):
            try:
                result = loop.run_until_complete(main)
            except BaseException as error:
                loop.power_off(report=False)
                gc.collect()
                _add_notes(error, loop)
                raise
            loop.power_off(report=True)
            gc.collect()
    finally:
        loop.close()
    if loop.findings.items:
        raise LeftoverError(tuple(loop.findings.items))
    return result


@contextmanager
def _collected(loop: SimLoop) -> Iterator[None]:
    """Keep the cyclic garbage collector off and away from older objects, and collect what finalizers raise."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    hook, sys.unraisablehook = sys.unraisablehook, loop.findings.note_unraisable
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="coroutine .* was never awaited", category=RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _add_notes(error: BaseException, loop: SimLoop) -> None:
    for finding in loop.findings.items[:_NOTES]:
        error.add_note(f"also found: {finding}")
    if len(loop.findings.items) > _NOTES:
        error.add_note(f"and {len(loop.findings.items) - _NOTES} more")
