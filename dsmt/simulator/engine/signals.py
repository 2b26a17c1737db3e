"""Signals of the running process, as asyncio's loop offers them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn, TypeVarTuple

from dsmt.simulator.engine.handles import OWNER

Args = TypeVarTuple("Args")


class OwnSignals:
    """What a simulated process does on a signal. Real signals are never touched."""

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise `NotSimulatedError`, as the loop says."""
        raise NotImplementedError

    def add_signal_handler(self, sig: int, callback: Callable[[*Args], object], *args: *Args) -> None:
        """Run the callback in the calling process on this signal. NotSimulatedError: no simulated process calls."""
        process = OWNER.get()
        if process is None:
            self.refuse("add_signal_handler", "a signal is handled by a simulated process, and none calls")
        process.on_signal(sig, partial(callback, *args))
