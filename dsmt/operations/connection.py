"""The command line's connection to a realm: a bus, under an operator's own short-lived identity.

Rule 1: each process that writes speaks as `operator/<name>.<random>`, delegated by the operator's certificate, so that two
    terminals of one operator never take each other's place. One that only reads is no source: it shows the operator's own
    certificate, says nothing, and leaves no trace (D2). What it is given has no way to say anything: `Reading`.
Rule 2: who does not get attached within the patience is told why: the last refusal, or who does not answer. Who was, and
    is let in no more, is told that, too, however long it would wait. Of several brokers that take a connection, each but
    one may hang, or be so far away that it is left before it answers: for each of these there is more patience.
Rule 3: a broker that is being filled lacks what others have: an operator leaves it for one that does not, if there is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from dsmt.errors import RefusedError, TransportError, UnusableEventError
from dsmt.event.addresses import host_of, parted
from dsmt.event.phrases import person, some
from dsmt.ports.bus import Bus, BusReader
from dsmt.ports.files import Files
from dsmt.ports.realm import ENDED, KEPT_OUT, BrokerAddress
from dsmt.programs.bus import running, the_bus
from dsmt.programs.configuration import RealmConfig
from dsmt.system.entropy import SystemEntropy
from dsmt.system.threads import check_threads
from dsmt.together import end_all
from dsmt.trust.identity import Identity, delegate
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore

Result = TypeVar("Result")
LINK_THREADS = 2
"""Which the library of a link starts: without them it ends the whole process, in words of its own."""
PATIENCE_S = 5.0
REFUSED_S = 1.0
"""Who is refused asks again for so long: another broker, or the same a moment later, may think otherwise."""
HANGS_S = 1.5
"""And so much longer for each other broker: one that hangs is left after that."""
LOOK_S = 0.1
ENDED_LOOK_S = 0.5
"""How often who does something is looked after, whether it is let in."""
UP_AGAIN = "dsmt up starts this home's realm again"
_LOST = "where disks are lost, or a part of one, broker.log beside each says so"
_LOOK = (
    "if it stays so, see there which process listens (ss -ltnp), and whether its disk answers;"
    " end it if it hangs, and dsmt starts it again"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """An attached operator who only looks. `by` is who types, as others see it."""

    bus: BusReader
    identity: Identity
    trust: TrustStore
    realm: RealmConfig
    by: str
    brokers: list[BrokerAddress]


@dataclass(frozen=True, slots=True)
class Connection(Reading):
    """An attached operator who may say something."""

    bus: Bus


@asynccontextmanager
async def reading(
    operator: Identity,
    realm: RealmConfig,
    *,
    brokers: list[BrokerAddress] | None = None,
    known: Files | None = None,
    patience_s: float = PATIENCE_S,
) -> AsyncIterator[Reading]:
    """Attach to the realm for the length of a block, in which nothing can be said. Raises as `connect`.

    `known` keeps which brokers there are by now: all that the realm's file names may be gone (R8).
    """
    async with _attached(operator, realm, brokers, patience_s, known=known, reads=True, asks_once=True) as connection:
        yield connection


@asynccontextmanager
async def connect(
    operator: Identity,
    realm: RealmConfig,
    *,
    brokers: list[BrokerAddress] | None = None,
    known: Files | None = None,
    patience_s: float = PATIENCE_S,
) -> AsyncIterator[Connection]:
    """Attach to the realm for the length of a block. Raises `TransportError`, or `RefusedError` that says why."""
    program = _program(operator)
    async with _attached(program, realm, brokers, patience_s, known=known, reads=False, asks_once=True) as connection:
        yield connection


def _program(operator: Identity) -> Identity:
    """The identity of this process, below its operator's (rule 1)."""
    entropy = SystemEntropy()
    return delegate(
        f"{operator.name}.{entropy.bytes(4).hex()}",
        operator,
        key=SecretKey(entropy.bytes(32)),
        now_s=int(time.time()),
        serial=entropy.bytes(16),
    )


@asynccontextmanager
async def attached(
    identity: Identity,
    realm: RealmConfig,
    brokers: list[BrokerAddress] | None = None,
    patience_s: float = PATIENCE_S,
) -> AsyncIterator[Connection]:
    """Attach as this very identity, which nobody else uses at the same time. Raises as `connect`."""
    async with _attached(identity, realm, brokers, patience_s, reads=False) as connection:
        yield connection


@asynccontextmanager
async def _attached(
    identity: Identity,
    realm: RealmConfig,
    brokers: list[BrokerAddress] | None,
    patience_s: float,
    *,
    known: Files | None = None,
    reads: bool,
    asks_once: bool = False,
) -> AsyncIterator[Connection]:
    trust = TrustStore(realm.realm)
    try:
        trust.add_all([signed.raw for signed in identity.chain])
    except UnusableEventError as error:  # no broker of the realm would think otherwise
        raise RefusedError(error.code, error.message, next=f"use a home whose operator belongs to {realm.name}") from error
    reached = brokers or realm.addresses
    check_threads(LINK_THREADS)
    answering = await _answering(reached)
    patience_s += HANGS_S * max(0, len(answering) - 1)
    with the_bus(
        identity, trust, answering or reached, known=known, reads=reads, asks_once=asks_once, nats=realm.nats
    ) as bus:
        async with running(bus):
            await _wait_attached(bus, reached, realm, patience_s)
            yield Connection(bus, identity, trust, realm, person(identity.name), reached)


async def _wait_attached(bus: BusReader, reached: list[BrokerAddress], realm: RealmConfig, patience_s: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    refused = False
    while not bus.attached and (left := until - loop.time()) > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(LOOK_S, left)):
                await bus.wait_attached()
        if bus.refusal is not None and not refused:
            refused, until = True, min(until, loop.time() + REFUSED_S + HANGS_S * (len(reached) - 1))
    if bus.attached:
        return
    if bus.refusal is not None:
        raise bus.refusal
    raise await _unreachable(list(dict.fromkeys(broker.address for broker in reached)), realm)


async def while_let_in(bus: BusReader, work: Awaitable[Result]) -> Result:
    """What some work comes to, which may take as long as it likes.

    Raises `RefusedError` as soon as nobody lets us in any more, for our certificate has ended or our key was revoked.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=ENDED_LOOK_S)
            if not task.done() and not bus.attached and bus.refusal is not None and bus.refusal.code in ENDED - {KEPT_OUT}:
                raise bus.refusal
        return task.result()
    finally:
        await end_all(task)


async def _unreachable(addresses: list[str], realm: RealmConfig) -> TransportError:
    """Why nobody attached us: nobody is there, or somebody who is no broker of this realm (rule 2)."""
    own = {broker.address for broker in realm.addresses}
    named = not own.issuperset(addresses)
    answering = [address for address in addresses if await listens(address)]
    if answering and realm.nats is not None and not named:
        said = f"the NATS servers of realm {realm.name} let nobody in, though there is an answer at {', '.join(answering)}"
        advice = f"try again: when one of several dies that takes up to 10 s; {_LOST}; {_LOOK}"
        return TransportError("bus.stranger", said, next=advice)
    if answering and named:
        one = len(answering) == 1
        is_ = "answers, but not for", "it belongs to another realm, or hangs"
        are = "answer, but not for", "they belong to another realm, or hang"
        said = f" realm {realm.name}: ".join(is_ if one else are)
        said = f"{', '.join(answering)} {said}"
        return TransportError("bus.stranger", said, next="check --bus (DSMT_BUS) and --home (DSMT_HOME)")
    if answering:
        hang = "lets nobody in: the broker there hangs or is overloaded, or another program has its port"
        hangs = "let nobody in: the brokers there hang or are overloaded, or other programs have their ports"
        one = len(answering) == 1
        said = f"{', '.join(answering)} {'takes' if one else 'take'} connections, but {hang if one else hangs}"
        return TransportError("bus.stranger", said, next=f"try again in a minute; {_LOOK}")
    said = f"no broker answers at {', '.join(addresses)}"
    unknown = [host for host in dict.fromkeys(map(host_of, addresses)) if not await _resolves(host)]
    if unknown:
        said = f"{said}: this machine knows no address of {some(unknown)}"
        return TransportError("bus.unreachable", said, next=f"see to its name: getent hosts {unknown[0]}; then try again")
    advice = f"check --bus (DSMT_BUS): this home names {', '.join(sorted(own))}" if named else UP_AGAIN
    return TransportError("bus.unreachable", said, next=advice)


async def _answering(brokers: list[BrokerAddress]) -> list[BrokerAddress]:
    """Of several brokers those that take a connection at once: the machine of one may be gone (R8).

    A client would wait for the answer of such a one as long as a command has patience.
    """
    if len(brokers) == 1:
        return brokers
    asked = {asyncio.create_task(listens(one.address)): one for one in brokers}
    await asyncio.wait(asked, timeout=LOOK_S)
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    found = [one for task, one in asked.items() if task.done() and task.result()]
    await end_all(*asked)
    return found


async def _resolves(host: str) -> bool:
    """Whether a name leads to an address; one that nobody answers for in time may."""
    try:
        async with asyncio.timeout(REFUSED_S):
            await asyncio.get_running_loop().getaddrinfo(host, None)
    except TimeoutError:
        return True
    except (OSError, ValueError):
        return False
    return True


async def listens(address: str) -> bool:
    """Whether anybody takes a TCP connection there."""
    try:
        async with asyncio.timeout(REFUSED_S):
            _, writer = await asyncio.open_connection(*parted(address))
    except (OSError, ValueError, OverflowError):
        return False
    writer.close()
    return True
