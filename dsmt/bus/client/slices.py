"""Slices: a link that brings much is taken in a little at a time, and what else its loop has to do has its turn between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from dsmt.ports.clock import Clock
from dsmt.ports.network import Message

SLICE_S: Final = 0.02


async def in_slices(
    messages: Iterable[Message], handle: Callable[[Message], None], clock: Clock, came: Callable[[float], None]
) -> None:
    """Handle what came over a link, each slice for about `SLICE_S`; `came` hears at the end of each when that was."""
    now = began = clock.boottime()
    for message in messages:
        handle(message)
        now = clock.boottime()
        if now - began >= SLICE_S:
            came(now)
            await asyncio.sleep(0)
            began = clock.boottime()
    came(now)
