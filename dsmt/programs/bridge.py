"""The bridge: copies all that the realm says to where it moves, until it is there: into NATS servers, or brokers' stores.

Its directory is that of the move (`programs.configuration`), in the home.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Never, Protocol

from dsmt.errors import DsmtError
from dsmt.logs import Logger
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.bus import nats_missing, running, the_bus
from dsmt.programs.configuration import (
    IDENTITY,
    BrokerFile,
    CopiedFile,
    MigrationFile,
    RealmConfig,
    brokers_in,
    read_identity,
)
from dsmt.programs.running import run_until_signalled
from dsmt.trust.store import TrustStore

LOOK_S: Final = 0.2
RETRY_S: Final = 0.5


class BridgeCopy(Protocol):
    """Copying for as long as its links last. `idle`: nearly nothing had come since the last look."""

    idle: bool

    async def step(self) -> CopiedFile:
        """Copy a part of what there is; how far that is. Raises `DsmtError`."""
        ...


Begin = Callable[[], AbstractAsyncContextManager[BridgeCopy]]
"""Makes the links; raises `DsmtError`."""


def main(directory: str) -> int:
    """Copy what comes until a signal; the exit code."""
    return run_until_signalled(lambda: _serve(Path(directory)))


async def _serve(directory: Path) -> None:
    if MigrationFile.read(directory).engine == "dsmt":
        try:
            from dsmt.programs.returning import returning  # noqa: PLC0415 - only where the client of NATS is installed
        except ImportError as error:
            raise nats_missing("its client") from error
        await _copy(directory, lambda: returning(directory))
    await _copy(directory, lambda: _to_nats(directory))


@asynccontextmanager
async def _to_nats(directory: Path) -> AsyncIterator[BridgeCopy]:
    """Copying from the first broker, which is read over the port, to NATS servers.

    Each time by a client that knows this one alone: one that was attached goes to another broker when this dies, and stays
    there; and that one's store is another.
    """
    try:
        from dsmt.programs.bridge_copies import LiveCopy, filler_of  # noqa: PLC0415 - only where the client of NATS is installed
    except ImportError as error:
        raise nats_missing("its client") from error
    home = directory.parent
    realm, operator = RealmConfig.read(home), read_identity(home / "operator" / IDENTITY)
    first = brokers_in(home / "brokers")[0]
    address = BrokerFile.read(first).address
    reached = BrokerAddress(address, read_identity(first / IDENTITY).certificate.public)
    with the_bus(operator, TrustStore(realm.realm), [reached], reads=True) as bus:
        async with running(bus), filler_of(directory) as filler:
            live = LiveCopy(bus, filler)
            await live.begin()
            yield live


async def _copy(directory: Path, begin: Begin) -> Never:
    """Copy, anew with other links whenever one is lost."""
    log, told = Logger(bridge=str(directory)), copied(directory)
    while True:
        try:
            async with begin() as copying:
                while True:
                    before, told = told, await copying.step()
                    if told != before:
                        told.write(directory)
                    if copying.idle:
                        await asyncio.sleep(LOOK_S)
        except DsmtError as error:
            log.warning("not copied for a moment", code=error.code, reason=str(error))
            told = CopiedFile(row=told.row, head=told.head, why=str(error))
            told.write(directory)
            await asyncio.sleep(RETRY_S)


def copied(directory: Path) -> CopiedFile:
    """How far the bridge of a move has come."""
    return CopiedFile.read(directory) if (directory / CopiedFile.FILE).exists() else CopiedFile()
