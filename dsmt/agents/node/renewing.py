"""Renewing: a node has its certificate renewed over the bus, when half of its life has passed (rule J1).

Rule 1: the key stays, and so does all that it has signed. Its holder uses the new certificate from its next start on.
Rule 2: who is not answered asks again: issuers may be away for half of a certificate's life, and nothing stops meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.joining import RenewalRequest, Renewed
from dsmt.event.records import from_data, to_data
from dsmt.ports.bus import Arrived, Bus, Draft, Interest, Start
from dsmt.trust.identity import Identity
from dsmt.trust.joining import is_due
from dsmt.trust.store import Realm, TrustStore

LOOK_S: Final = 60.0


async def renewed(bus: Bus, identity: Identity, realm: Realm, *, look_s: float = LOOK_S) -> Identity:
    """Wait until a node's certificate is renewed; who it is then."""
    answers = Interest((f"{identity.name}/certificate",), start=Start.LIVE)
    async with bus.subscribe(answers) as batches:
        asking = asyncio.create_task(_ask(bus, identity, look_s))
        try:
            async for batch in batches:
                for one in batch:
                    found = _taken(bus, identity, realm, one.signed) if isinstance(one, Arrived) else None
                    if found is not None:
                        return found
        finally:
            asking.cancel()
            await asyncio.wait({asking})
    return identity


async def _ask(bus: Bus, identity: Identity, look_s: float) -> None:
    """Ask again and again from the middle of a certificate's life on."""
    asked = RenewalRequest(expires_ms=identity.certificate.not_after * 1000)
    while True:
        await bus.wait_attached()
        if is_due(identity.certificate, bus.now_ms() // 1000):
            bus.emit(Draft(f"{identity.name}/renewal", to_data(asked), subject=identity.name))
        await asyncio.sleep(look_s)


def _taken(bus: Bus, identity: Identity, realm: Realm, answer: SignedEvent) -> Identity | None:
    """Who the node is by an answer; None for one that does not certify its key for longer."""
    trust = TrustStore(realm)
    with suppress(UnusableEventError):
        trust.add_all(bus.proof(answer))
        certificate = trust.add(from_data(Renewed, answer.event.data).certificate)
        mine = (certificate.subject, certificate.public) == (identity.name, identity.key.public)
        if mine and certificate.not_after > identity.certificate.not_after:
            return Identity(identity.key, tuple(trust.chain(certificate.key_id, certificate.subject)))
    return None
