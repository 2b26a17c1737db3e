"""The bridge: copies what the realm's brokers have stored into NATS servers beside them, until the realm moves there.

Its directory is that of the move (`programs.configuration`), in the home. It reads the first broker over the port.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Never

from dsmt.errors import DsmtError
from dsmt.logs import Logger
from dsmt.ports.bus import BusReader
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.bus import nats_missing, the_bus
from dsmt.programs.configuration import (
    BrokerFile,
    CopiedFile,
    RealmConfig,
    brokers_in,
    read_config,
    read_identity,
    write_config,
)
from dsmt.programs.running import run_until_signalled
from dsmt.trust.store import TrustStore

COPIED: Final = "copied.cbor"
LOOK_S: Final = 0.2
RETRY_S: Final = 0.5


def main(directory: str) -> int:
    """Copy what comes until a signal; the exit code."""
    return run_until_signalled(lambda: _serve(Path(directory)))


async def _serve(directory: Path) -> None:
    home = directory.parent
    realm, operator = read_config(home / "realm.cbor", RealmConfig), read_identity(home / "operator" / "identity")
    first = brokers_in(home / "brokers")[0]
    address = read_config(first / "broker.cbor", BrokerFile).address
    reached = BrokerAddress(address, read_identity(first / "identity").certificate.public)
    with the_bus(operator, TrustStore(realm.realm), [reached], reads=True) as bus:
        running = asyncio.ensure_future(bus.run())
        try:
            await _copy(bus, directory)
        finally:
            running.cancel()
            await asyncio.wait({running})


async def _copy(bus: BusReader, directory: Path) -> Never:
    """Copy, anew with other links whenever one is lost."""
    try:
        from dsmt.programs.copying import Live, filler_of  # noqa: PLC0415 - only where the client of NATS is installed
    except ImportError as error:
        raise nats_missing("its client") from error
    log, told = Logger(bridge=bus.source), copied(directory)
    while True:
        try:
            async with filler_of(directory) as filler:
                live = Live(bus, filler)
                await live.begin()
                while True:
                    before, told = told, await live.step()
                    if told != before:
                        write_config(directory / COPIED, told)
                    if live.idle:
                        await asyncio.sleep(LOOK_S)
        except DsmtError as error:
            log.warning("not copied for a moment", code=error.code, reason=str(error))
            told = CopiedFile(row=told.row, head=told.head, why=str(error))
            write_config(directory / COPIED, told)
            await asyncio.sleep(RETRY_S)


def copied(directory: Path) -> CopiedFile:
    """How far the bridge of a move has come."""
    path = directory / COPIED
    return read_config(path, CopiedFile) if path.exists() else CopiedFile()
