"""Attaching: a client's half of the handshake, and the realm time that is measured on the way (rule F1, A11, J4)."""

from __future__ import annotations

from typing import Final, TypeVar

from dsmt.bus.rules.realm_time import ROUND_TRIPS, Sample
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack, unpack
from dsmt.bus.wire.handshake import ONE_VERSION, statement
from dsmt.errors import RefusedError
from dsmt.ports.clock import Clock
from dsmt.ports.network import Link
from dsmt.ports.realm import About
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore

Kind = TypeVar("Kind", f.Welcome, f.TimeIs)

LONG_S: Final = 0.5
"""Once measuring has taken so long, no further round trip is made: who is far away has to be let in before it is left."""


async def measure(link: Link, clock: Clock) -> list[Sample]:
    """Up to three round trips to the broker's clock, before anything is said: what is claimed then is of realm time."""
    samples: list[Sample] = []
    began = clock.boottime()
    while not samples or (len(samples) < ROUND_TRIPS and clock.boottime() - began < LONG_S):
        sent = clock.boottime()
        link.send(pack(f.Time(sent=sent)))
        answer, _ = await _expect(link, f.TimeIs)
        samples.append(Sample(sent, clock.boottime(), answer.realm_ms))
    return samples


async def greet(
    link: Link,
    identity: Identity,
    trust: TrustStore,
    about: About,
    *,
    incarnation: int,
    attachment: int,
    reads: bool = False,
) -> f.Welcome:
    """Say hello; the broker's welcome. `incarnation` 0: none is known yet; `reads`: it is no source, and only reads.

    Raises `RefusedError`, `TransportError`.
    """
    hello = f.Hello(
        protocol=f.PROTOCOL,
        realm=trust.realm.name,
        name=identity.name,
        incarnation=incarnation,
        firm=incarnation > 0,
        attachment=attachment,
        pid=about.pid,
        version=about.version,
        address=about.address,
        reads=reads,
    )
    link.send(pack(hello, *(signed.raw for signed in identity.chain)))
    welcome, parts = await _expect(link, f.Welcome)
    trust.add_all(parts)
    return welcome


def sign_attachment(link: Link, identity: Identity, welcome: f.Welcome) -> None:
    """Sign what the broker has granted: from here on the attachment stands."""
    signed = statement(
        identity.key,
        nonce=welcome.nonce,
        broker=welcome.broker,
        name=identity.name,
        incarnation=welcome.incarnation,
        attachment=welcome.attachment,
    )
    link.send(pack(f.Attach(statement=signed)))


async def _expect(link: Link, kind: type[Kind]) -> tuple[Kind, tuple[bytes, ...]]:
    while True:
        for message in await link.receive():
            frame, parts = unpack(message)
            if isinstance(frame, f.Refused):
                follow = ONE_VERSION if frame.code == "bus.protocol" else frame.next  # an old broker says nothing of that
                raise RefusedError(frame.code, frame.message, next=follow)
            if isinstance(frame, kind):
                return frame, parts
