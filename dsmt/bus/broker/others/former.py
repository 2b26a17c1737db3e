"""Former brokers: those that were removed are asked for words on brokers and keys, and for nothing else (rule R8).

Rule 1: each side of a partition may have removed the brokers of the other one. Neither reads the other then, and only by
    this do they hear of it: where every broker was removed none was. Nor was who was removed by a key that has ended (J3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from dsmt.bus.broker.others.copying import Reach
from dsmt.bus.broker.others.other import Take, hear
from dsmt.event.kinds.realm import BROKERS
from dsmt.ports.realm import BrokerAddress
from dsmt.together import end_all
from dsmt.trust.revocations import REVOKED

ASK_S: Final = 10.0
ANSWER_S: Final = 5.0


class Former:
    """Asks one after the other; `take` stores what each has."""

    def __init__(self, reach: Reach, take: Take) -> None:
        self._reach, self._take = reach, take
        self._known: tuple[BrokerAddress, ...] = ()
        self._some = asyncio.Event()

    def know(self, removed: Iterable[BrokerAddress]) -> None:
        """These were removed."""
        self._known = tuple(removed)
        (self._some.set if self._known else self._some.clear)()

    async def run(self) -> None:
        """Ask all, again and again, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(ASK_S)
            for one in self._known:
                with suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        await self._ask(one)

    async def _ask(self, one: BrokerAddress) -> None:
        with self._reach([one]) as bus:
            running = asyncio.get_running_loop().create_task(bus.run())
            try:
                await bus.wait_attached()
                await hear(bus, self._take, f"{BROKERS}+", REVOKED)
            finally:
                await end_all(running)
