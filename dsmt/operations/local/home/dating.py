"""Dating: by whose clock a certificate is dated, and is judged from this home (rule J4).

Rule 1: by realm time, which a broker tells anybody who asks: it judges by that, and who asks may have no certificate that is
    valid. Where no broker answers by this machine's clock, which nobody vouches for: who dates by it says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Literal, NamedTuple

from dsmt.errors import DsmtError
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.bus import realm_ms

ANSWER_S: Final = 2.0
"""How long one broker is waited for."""


class Dated(NamedTuple):
    """The time in seconds, and whose it is."""

    now_s: int
    clock: Literal["realm", "machine"]


async def dated(brokers: Iterable[BrokerAddress]) -> Dated:
    """What time it is now."""
    for broker in brokers:
        with suppress(DsmtError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                return Dated(await realm_ms(broker) // 1000, "realm")
    return Dated(int(time.time()), "machine")
