"""Renewing: a node has its certificate renewed over the bus, when half of its life has passed (rule J1).

Rule 1: the key stays, and so does all that it has signed. Its holder uses the new certificate from its next start on.
Rule 2: who is not answered asks again: issuers may be away for half of a certificate's life, and nothing stops meanwhile.
Rule 3: nobody is given another certificate before that: who holds an issuer's key takes no node below it.
Rule 4: where who has signed it is revoked, and another certificate of the key stands (the one before, which is kept), the
    node goes on with that: what is below it is believed by the certificates that it shows.
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
from dsmt.together import end_all
from dsmt.trust.identity import Identity
from dsmt.trust.joining import is_due
from dsmt.trust.store import Realm, TrustStore

LOOK_S: Final = 60.0
BACK_S: Final = 5.0


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
            await end_all(asking)
    return identity


async def returned(bus: Bus, identity: Identity, trust: TrustStore, *, look_s: float = BACK_S) -> Identity:
    """Wait until a node must go on with another certificate of its key (rule 4); who it is then."""
    while True:
        found = _back(identity, trust, bus.now_ms() // 1000)
        if found is not None:
            return found
        await asyncio.sleep(look_s)


def _back(identity: Identity, trust: TrustStore, now_s: int) -> Identity | None:
    above = (one.certificate for one in identity.chain[1:])
    if not any(trust.is_revoked(one.key_id, one.subject) for one in above):
        return None
    found = trust.chain(identity.key.key_id, identity.name)
    if trust.is_revoked(identity.key.key_id, identity.name) or found[0].certificate.not_after <= now_s:
        return None
    return Identity(identity.key, tuple(found))


async def _ask(bus: Bus, identity: Identity, look_s: float) -> None:
    """Ask again and again from the middle of a certificate's life on."""
    asked = RenewalRequest(expires_ms=identity.certificate.not_after * 1000)
    while True:
        await bus.wait_attached()
        if is_due(identity.certificate, bus.now_ms() // 1000):
            bus.emit(Draft(f"{identity.name}/renewal", to_data(asked), subject=identity.name))
        await asyncio.sleep(look_s)


def _taken(bus: Bus, identity: Identity, realm: Realm, answer: SignedEvent) -> Identity | None:
    """Who the node is by an answer; None for one that does not certify its key for longer, or that comes too soon."""
    if not is_due(identity.certificate, bus.now_ms() // 1000):
        return None
    trust = TrustStore(realm)
    with suppress(UnusableEventError):
        trust.add_all(bus.proof(answer))
        certificate = trust.add(from_data(Renewed, answer.event.data).certificate)
        mine = (certificate.subject, certificate.public) == (identity.name, identity.key.public)
        if mine and certificate.not_after > identity.certificate.not_after:
            return Identity(identity.key, tuple(trust.chain(certificate.key_id, certificate.subject)))
    return None
