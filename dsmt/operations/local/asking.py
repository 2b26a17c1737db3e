"""Asking a broker that is not alive what is wrong with it: who is attached to another one hears nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from dsmt.errors import RefusedError, TransportError
from dsmt.operations.local.connection import connect
from dsmt.operations.read.members import Broker
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import RealmConfig
from dsmt.trust.identity import Identity

PATIENCE_S = 1.5


async def asked(operator: Identity, realm: RealmConfig, found: Sequence[Broker]) -> list[Broker]:
    """The same brokers, those that are not alive with what is wrong with them; all of these are asked at once.

    One whose key this home does not know cannot be asked. Of NATS servers the others say enough.
    """
    known = {} if realm.nats is not None else {one.address: one for one in realm.addresses}
    silent = [one for one in found if not one.alive and one.address in known]
    faults = await asyncio.gather(*(_fault(operator, realm, known[one.address]) for one in silent))
    said = dict(zip((one.address for one in silent), faults, strict=True))
    return [replace(one, fault=said.get(one.address)) for one in found]


async def _fault(operator: Identity, realm: RealmConfig, broker: BrokerAddress) -> str:
    """What keeps an operator who may say something from being let in: a full store lets in who only reads (D6)."""
    try:
        async with connect(operator, realm, brokers=[broker], patience_s=PATIENCE_S):
            return "it answers here, and the broker that was asked for this does not hear it"
    except RefusedError as error:
        return f"{error.message}: {error.next}"
    except TransportError as error:
        return error.message
