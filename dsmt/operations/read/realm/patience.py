"""Patience: no command waits for ever for a broker that does not answer, and what lasts is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Final

from dsmt.errors import TransportError
from dsmt.operations.words.telling import Tell, silent

PATIENCE_S: Final = 20.0
SLOW_S: Final = 3.0
SLOW: Final[ContextVar[Tell]] = ContextVar("SLOW", default=silent)
"""Who hears what does not come for so long: whoever has begun what is done here."""


@asynccontextmanager
async def patience(what: str, limit_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """Bound a wait for the broker, and tell one that lasts. Raises `TransportError` that says what did not come."""
    try:
        with told_if_slow(what):
            async with asyncio.timeout(limit_s):
                yield
    except TimeoutError as error:
        raise TransportError(
            "bus.slow", f"{what} did not come within {limit_s:.0f} s", next="dsmt brokers; then try again"
        ) from error


@contextmanager
def told_if_slow(what: str) -> Iterator[None]:
    """Tell what is waited for in a block that lasts longer than `SLOW_S`."""
    slow = asyncio.get_running_loop().call_later(SLOW_S, SLOW.get(), what)
    try:
        yield
    finally:
        slow.cancel()
