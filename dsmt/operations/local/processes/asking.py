"""Asking a broker that is not alive what is wrong with it: who is attached to another one hears nothing of it.

Of one of this home that nobody reaches its disk tells. Where nobody is attached to any: `unreached`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from dsmt.errors import RefusedError, TransportError
from dsmt.operations.connection import connect
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.steadiness import ended, is_full
from dsmt.operations.read.rows.broker_rows import BrokerRow
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import RealmConfig
from dsmt.trust.identity import Identity

PATIENCE_S = 1.5


async def asked(operator: Identity, home: Home, realm: RealmConfig, found: Sequence[BrokerRow]) -> list[BrokerRow]:
    """The same brokers, those that are not alive with what is wrong with them; all of these are asked at once.

    One whose key this home does not know cannot be asked. Of a NATS server what its gate says counts more, and of one of
    this home that nobody reaches its disk tells: it may be started again and again, with no room even for its log.
    """
    known = {one.address: one for one in realm.addresses}
    silent = [one for one in found if not one.alive and one.address in known]
    faults = await asyncio.gather(*(_fault(operator, realm, known[one.address], one, _kept(home, one)) for one in silent))
    said = dict(zip((one.address for one in silent), faults, strict=True))
    return [replace(one, fault=said.get(one.address, one.fault)) for one in found]


def _begins_not(directory: Path | None) -> str | None:
    """What keeps a NATS server of this home from beginning, so that its gate says nothing; None where nothing tells."""
    if directory is None:
        return None
    if is_full(directory):
        return f"its server cannot begin, for the disk of {directory} is full: free space there"
    words, log = ended(directory, ("nats_server",)) or ("", None)
    return f"its server does not run; what it said last is in {log}: {words}" if words else None


def _kept(home: Home, one: BrokerRow) -> Path | None:
    """The directory of a broker that lives in this home."""
    directory = None if one.broker is None else home.part("brokers", one.broker)
    return directory if directory is not None and directory.is_dir() else None


async def _fault(
    operator: Identity, realm: RealmConfig, broker: BrokerAddress, told: BrokerRow, directory: Path | None
) -> str:
    """What keeps an operator who may say something from being let in: a full store lets in who only reads (D6)."""
    if realm.nats is not None and (wrong := told.fault or _begins_not(directory)):
        return wrong
    try:
        async with connect(operator, realm, brokers=[broker], patience_s=PATIENCE_S):
            if realm.nats is not None:
                return "its server lets in who comes, and its gate says nothing: broker.log beside it says why"
            return "it answers here, and its own word does not come to the broker that was asked for this"
    except RefusedError as error:
        return f"{error.message}: {error.next}"
    except TransportError as error:
        if error.code != "bus.unreachable" or directory is None:
            return error.message
        if is_full(directory):
            return f"{error.message}: it cannot start, for the disk of {directory} is full: free space there"
        words, log = ended(directory, ("broker",)) or ("", directory / "broker.log")
        return f"{error.message}; what it said last is in {log}{f': {words}' if words else ''}"
