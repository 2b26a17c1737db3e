"""Following: a member of a realm, on whatever machine, goes with it to what it moves to (docs/decisions/0038).

Rule 1: where it moves (`config/engine`) is kept on the disk first; then it is said that it was heard.
Rule 2: while nobody carries the realm where it was, the place to which it moves is tried. Nobody is let in there before it
    has moved, and it is nowhere else after that.
Rule 3: who is let in writes down that it has moved, for its home first, and ends, to be started again: it, and who is
    attached for it. What services run goes on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dsmt.errors import DsmtError, FailedError, InputError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import EngineWord
from dsmt.event.kinds.source import Following
from dsmt.event.records import from_data, to_data
from dsmt.logs import Logger
from dsmt.ports.bus import Arrived, Bus, Draft, Interest
from dsmt.ports.realm import NatsTerms
from dsmt.programs.bus import NATS_EXTRA, the_bus
from dsmt.programs.configuration import ControllerFile, NodeFile, RealmConfig, read_config, write_config
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore

TOPIC: Final = "config/engine"
PLAN: Final = "moves.cbor"
"""In a member's directory: the realm as it will be."""
TRY_S: Final = 1.0
ANSWER_S: Final = 5.0


async def moved(bus: Bus, identity: Identity, directory: Path, realm: RealmConfig) -> RealmConfig:
    """Wait until the realm has moved away from `bus`; what it is now."""
    heard = asyncio.Event()
    hearing = asyncio.create_task(_hear(bus, directory, realm, heard))
    try:
        while True:
            await heard.wait()
            await asyncio.sleep(TRY_S)
            plan = _plan(directory, realm)
            if plan is None:
                heard.clear()
            elif not bus.attached and await _lets_in(identity, plan):
                return plan
    finally:
        hearing.cancel()
        await asyncio.wait({hearing})


def settle(directory: Path, realm: RealmConfig) -> None:
    """Write down where the realm of a node's or controller's directory is now. Raises `FailedError`."""
    home, node, controller = directory.parent.parent / "realm.cbor", directory / "node.cbor", directory / "controller.cbor"
    if home.exists():
        write_config(home, realm)
    if node.exists():
        write_config(node, replace(read_config(node, NodeFile), realm=realm))
    if controller.exists():
        write_config(controller, replace(read_config(controller, ControllerFile), realm=realm))
    (directory / PLAN).unlink(missing_ok=True)


async def _hear(bus: Bus, directory: Path, realm: RealmConfig, heard: asyncio.Event) -> None:
    """Keep what is said of where the realm moves, and say so."""
    if _plan(directory, realm) is not None:
        heard.set()
    async with bus.subscribe(Interest((TOPIC,), signals=False)) as batches:
        async for batch in batches:
            for one in batch:
                if not isinstance(one, Arrived):
                    continue
                try:
                    _keep(bus, directory, realm, one.signed)
                except UnusableEventError:
                    continue
                except FailedError as error:  # the disk is full: who moves the realm is not told that it was heard
                    Logger(source=bus.source).warning("where the realm moves is not kept", reason=error.message)
                heard.set()


def _keep(bus: Bus, directory: Path, realm: RealmConfig, word: SignedEvent) -> None:
    told = from_data(EngineWord, word.event.data)
    nats = NatsTerms(authority=told.authority, replicas=told.replicas) if told.authority else None
    plan = replace(realm, brokers=told.brokers, nats=nats)
    if not told.brokers or plan.engine == realm.engine:
        (directory / PLAN).unlink(missing_ok=True)
        return
    write_config(directory / PLAN, plan)
    lacks = "" if nats is None or find_spec("nats") else f"the client of NATS is not installed there: {NATS_EXTRA}"
    bus.emit(Draft(f"{bus.source}/following", to_data(Following(word=str(word.id), lacks=lacks)), subject=bus.source))


def _plan(directory: Path, realm: RealmConfig) -> RealmConfig | None:
    """To what the realm moves, if it is not there."""
    with suppress(InputError):
        plan = read_config(directory / PLAN, RealmConfig)
        return None if plan.engine == realm.engine else plan
    return None


async def _lets_in(identity: Identity, realm: RealmConfig) -> bool:
    """Whether somebody carries the realm there."""
    try:
        with the_bus(identity, TrustStore(realm.realm), realm.addresses, reads=True, nats=realm.nats) as bus:
            running = asyncio.create_task(bus.run())
            try:
                async with asyncio.timeout(ANSWER_S):
                    await bus.wait_attached()
                return True
            finally:
                running.cancel()
                await asyncio.wait({running})
    except (DsmtError, TimeoutError):
        return False
