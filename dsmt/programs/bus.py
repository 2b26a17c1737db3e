"""The bus that programs and operators are given: here, and nowhere else, it is chosen what carries it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from dsmt.bus.client.attaching import measure
from dsmt.bus.client.client import BusClient
from dsmt.bus.rules.brokers import BROKERS_FILE, BrokerWords
from dsmt.bus.rules.realm_time import offset_of
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import FailedError, UnusableEventError
from dsmt.ports.bus import Bus, BusReader
from dsmt.ports.files import Files
from dsmt.ports.realm import About, BrokerAddress, NatsTerms
from dsmt.programs.configuration import RealmConfig
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.reading import read_what_is_there
from dsmt.together import end_all
from dsmt.trust.identity import Identity
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.store import TrustStore
from dsmt.version import __version__

NATS_EXTRA: Final = "pip install 'dsmt[nats]' brings it"


@contextmanager
def the_bus(
    identity: Identity,
    trust: TrustStore,
    brokers: Sequence[BrokerAddress],
    *,
    address: str = "",
    kept: Files | None = None,
    known: Files | None = None,
    reads: bool = False,
    asks_once: bool = False,
    nats: NatsTerms | None = None,
) -> Iterator[Bus]:
    """A source's bus for the length of a block, in which its `run` is to be run.

    `address` is where this process serves, `kept` keeps its incarnation, and where brokers are, which `known` alone keeps
    without it; with `reads` nothing can be said; who `asks_once` leaves a broker that is being filled for another one.
    With `nats` the brokers are NATS servers, and only where these are is kept. Raises `FailedError` where their client
    is not installed.
    """
    about = About(os.getpid(), __version__, address)
    if nats is not None:
        yield _on_nats(identity, trust, brokers, nats, about, kept=kept or known, reads=reads)
        return
    network = ZmqNetwork()
    try:
        yield BusClient(
            identity=identity,
            trust=trust,
            brokers=brokers,
            network=network,
            clock=LinuxClock(),
            entropy=SystemEntropy(),
            about=about,
            kept=kept,
            known=known,
            reads=reads,
            asks_once=asks_once,
        )
    finally:
        network.close()


@asynccontextmanager
async def running(bus: BusReader) -> AsyncIterator[None]:
    """Keep a bus attached for the length of a block. Raises the error of a bus that cannot go on: the block ends then."""
    task, block = asyncio.create_task(bus.run()), asyncio.current_task()
    failed: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        if block is not None and not task.cancelled() and (error := task.exception()) is not None:
            failed.append(error)
            block.cancel()

    task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if block is None or not failed or block.uncancel():
            raise
        raise failed[0] from None
    finally:
        task.remove_done_callback(ended)
        await end_all(task)


def _on_nats(
    identity: Identity,
    trust: TrustStore,
    brokers: Sequence[BrokerAddress],
    nats: NatsTerms,
    about: About,
    *,
    kept: Files | None,
    reads: bool,
) -> Bus:
    try:
        from dsmt.bus.nats.bus import NatsBus  # noqa: PLC0415 - only where it is installed
        from dsmt.bus.nats.connecting import NatsRealm  # noqa: PLC0415 - the same
        from dsmt.bus.nats.servers import KnownServers  # noqa: PLC0415 - the same
    except ImportError as error:
        raise nats_missing("its client") from error
    return NatsBus(
        identity=identity,
        trust=trust,
        realm=NatsRealm.of((one.address for one in brokers), nats),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        about=about,
        reads=reads,
        known=KnownServers(brokers, trust, kept),
    )


def nats_missing(what: str) -> FailedError:
    """What is needed for a realm on NATS is not installed."""
    return FailedError("nats.missing", f"this realm is carried by NATS, and {what} is not installed here", next=NATS_EXTRA)


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


def kept_brokers(directory: Path) -> bytes | None:
    """What a client that keeps its files in a directory has kept of the realm's brokers; None for nothing."""
    return read_what_is_there(str(brokers_file(directory)))


def brokers_file(directory: Path) -> Path:
    """Where such a client keeps that."""
    return directory / BROKERS_FILE


def learnt_words(realm: RealmConfig, kept: Iterable[bytes]) -> BrokerWords:
    """What is known of a realm's brokers by what clients of one home have kept; what cannot be used is left."""
    words = BrokerWords(realm.addresses, TrustStore(realm.realm), on_nats=realm.nats is not None)
    for one in kept:
        with suppress(UnusableEventError):
            words.recall(one)
    return words


def learnt_brokers(realm: RealmConfig, kept: Iterable[bytes]) -> list[BrokerAddress]:
    """The brokers that a realm is known to have, by what clients of one home have kept, that members of it may try."""
    own = {public for _, public in realm.brokers}
    return [one for one in learnt_words(realm, kept).all if not one.leaf or one.public in own] or realm.addresses


def hand_on_brokers(known: Files, own: Files) -> None:
    """Have a client begin with the brokers that another one of its node has learnt of (rule R8); each has its files.

    Those of its configuration may all be gone: it would reach nobody who told it of others.
    """
    words = known.read(BROKERS_FILE)
    if words is not None:
        with suppress(FailedError):  # a full disk: those of its configuration are tried
            own.write(BROKERS_FILE, words)
