"""The bus that programs and operators are given: here, and nowhere else, it is chosen what carries it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dsmt.bus.adapters.zeromq import ZmqNetwork
from dsmt.bus.client.attaching import measure
from dsmt.bus.client.client import BusClient
from dsmt.bus.rules.realm_time import offset_of
from dsmt.ports.bus import Bus
from dsmt.ports.files import Files
from dsmt.ports.realm import About, BrokerAddress
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.identity import Identity
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.store import TrustStore
from dsmt.version import __version__


@contextmanager
def the_bus(
    identity: Identity,
    trust: TrustStore,
    brokers: Sequence[BrokerAddress],
    *,
    address: str = "",
    kept: Files | None = None,
    reads: bool = False,
) -> Iterator[Bus]:
    """A source's bus for the length of a block, in which its `run` is to be run.

    `address` is where this process serves, `kept` keeps its incarnation; with `reads` nothing can be said.
    """
    network = ZmqNetwork()
    try:
        yield BusClient(
            identity=identity,
            trust=trust,
            brokers=brokers,
            network=network,
            clock=LinuxClock(),
            entropy=SystemEntropy(),
            about=About(os.getpid(), __version__, address),
            kept=kept,
            reads=reads,
        )
    finally:
        network.close()


async def realm_ms(broker: BrokerAddress) -> int:
    """Realm time in ms, which a broker tells anybody who asks. Raises `TransportError`."""
    network, clock, key = ZmqNetwork(), LinuxClock(), SecretKey(SystemEntropy().bytes(32))
    try:
        link = await network.connect(broker.address, key.link_secret(), server_key=link_key(broker.public))
        try:
            return round(offset_of(await measure(link, clock)) + clock.boottime() * 1000)
        finally:
            await link.close()
    finally:
        network.close()
