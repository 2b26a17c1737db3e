"""Filling: a broker's depot has what specs name, as the depots of the others have (rule E6).

Rule 1: what a spec names that counts, and is not here, is fetched from the first other broker that has it and checked by its
    sha256; now and then (`PAST_S`) also what slots go back to. What nobody has is looked for again after `AGAIN_S`, or
    when somebody asks for it.
Rule 2: who asks for it meanwhile waits until all were asked once; no broker does, for two would wait for each other.
Rule 3: what an operator is putting is left alone. One that gives nothing for `STILL_S` is passed over, and so is one that is
    not done after `PATIENCE_S`: it is asked behind the others then, and has twice as long the next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from dsmt.bus.broker.depot import Depot
from dsmt.errors import DsmtError, NotFoundError
from dsmt.logs import Logger
from dsmt.ports.bus import BusReader
from dsmt.ports.clock import Clock

LOOK_S: Final = 5.0
PAST_S: Final = 600.0
ASKED_S: Final = 0.1
"""Who asks without end has it look so often, and no more."""
AGAIN_S: Final = 60.0
STILL_S: Final = 10.0
PATIENCE_S: Final = 30.0
TWICE_MOST: Final = 8
PAUSE_S: Final = 0.01
MOST_WAITING: Final = 1024
"""How many questions wait at once; those beyond are answered by what is here."""


class Filling:
    """Fills a depot. `others` are the readers of the brokers that are linked."""

    def __init__(self, depot: Depot, others: Callable[[], Sequence[BusReader]], clock: Clock, log: Logger) -> None:
        self._depot, self._others, self._clock, self._log = depot, others, clock, log
        self._waiting: list[tuple[bytes, Callable[[], None]]] = []
        self._due: dict[bytes, float] = {}
        """When what nobody had is looked for again."""
        self._late: dict[str, int] = {}
        """How often each broker was not done in time."""
        self._asked = asyncio.Event()

    def wait(self, digest: bytes, answer: Callable[[], None]) -> None:
        """Call `answer` when a blob is here, or nobody has it: at once where it is not to be fetched."""
        if self._depot.has(digest) or not self._others() or len(self._waiting) >= MOST_WAITING:
            answer()
            return
        self._waiting.append((digest, answer))
        self._due.pop(digest, None)
        self._asked.set()

    async def run(self) -> None:
        """Fill it until cancelled."""
        looked = -PAST_S
        while True:
            self._asked.clear()
            asked, now = {digest for digest, _ in self._waiting}, self._clock.boottime()
            if self._others():
                past = now >= looked + (LOOK_S if asked else PAST_S)
                looked = now if past else looked
                await self._look(past=past)
            self._answer(asked)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
                    await asyncio.sleep(ASKED_S)

    async def _look(self, *, past: bool) -> None:
        missing: set[bytes] = set()
        for service in self._depot.services():
            missing.update(self._depot.missing(service, past=past))
            await asyncio.sleep(0)
        now = self._clock.boottime()
        self._due = {digest: at for digest, at in self._due.items() if at > now}
        for digest in sorted(missing - self._due.keys()):
            await self._fill(digest)
            self._answer({digest})

    def _answer(self, those: Collection[bytes]) -> None:
        waiting, self._waiting = self._waiting, []
        for digest, answer in waiting:
            if digest in those:
                answer()
            else:
                self._waiting.append((digest, answer))

    async def _fill(self, digest: bytes) -> None:
        for bus in sorted(self._others(), key=lambda one: self._late.get(one.broker, 0)):
            while self._depot.is_removing(digest):  # noqa: ASYNC110 - what the one before gave; nobody is told of its end
                await asyncio.sleep(PAUSE_S)
            if not self._depot.begin(digest):
                return
            late = self._late.get(bus.broker, 0)
            try:
                async with asyncio.timeout(PATIENCE_S * 2 ** min(late, TWICE_MOST)) as patience:
                    await self._fetch(digest, bus)
            except NotFoundError:
                continue
            except (DsmtError, TimeoutError) as error:
                self._late[bus.broker] = late + patience.expired()
                self._log.warning("a blob was not fetched", digest=digest.hex(), broker=bus.broker, reason=str(error))
            else:
                return
            finally:
                self._depot.ended(digest)
        self._due[digest] = self._clock.boottime() + AGAIN_S

    async def _fetch(self, digest: bytes, bus: BusReader) -> None:
        """Fetch a blob from one broker. Raises `NotFoundError`, `DsmtError`, `TimeoutError`."""
        count, chunks = 0, aiter(bus.get_blob(digest))
        while True:
            async with asyncio.timeout(STILL_S):
                chunk = await anext(chunks, None)
            if chunk is None:
                break
            self._depot.take(digest, count, chunk, bus.broker)
            count += 1
        self._depot.taken(digest, count)
        self._log.info("a blob was fetched", digest=digest.hex(), broker=bus.broker)
