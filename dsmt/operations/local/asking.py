"""Asking a broker that is not alive what is wrong with it: who is attached to another one hears nothing of it.

Where nobody is attached to any, the disks of those of this home tell.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from dsmt.errors import RefusedError, TransportError
from dsmt.event.phrases import some
from dsmt.operations.connection import PATIENCE_S as RUNNING_PATIENCE_S
from dsmt.operations.connection import connect
from dsmt.operations.local.home import Home, is_up
from dsmt.operations.local.keeping import broker_programs, is_kept, was_up
from dsmt.operations.local.lock import is_held
from dsmt.operations.local.parts import Parts
from dsmt.operations.local.steadiness import last_words
from dsmt.operations.read.members import Broker
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import RealmConfig
from dsmt.system.records import process_of
from dsmt.trust.identity import Identity

PATIENCE_S = 1.5
DOWN_PATIENCE_S = 0.5
"""How long a command tries where everything is down."""
FULL_BYTES = 2**20
"""With less room than this on its disk a broker cannot start: it opens its store, and writes."""


def patience_s(home: Home, realm: RealmConfig) -> float:
    """How long a command waits for a broker: hardly where all are of this home, none runs, and nobody would start one."""
    own, parts = len(home.names("brokers")) >= len(realm.brokers), Parts(home)
    kept = not own or not was_up(home) or is_kept(home) or is_held(home)
    return RUNNING_PATIENCE_S if kept or parts.brokers() or parts.servers() else DOWN_PATIENCE_S


def unreached(home: Home, error: TransportError) -> TransportError:
    """Why no broker answers, or lets anybody in: one of this home ends, or has a full disk, or none is here."""
    if error.code not in ("bus.unreachable", "bus.stranger"):
        return error
    if error.code == "bus.unreachable" and not home.names("brokers"):
        runs = [one for one in Parts(home).things() if one.startswith("node/")]
        said = f"; {some(runs)} {'runs' if len(runs) == 1 else 'run'} here, and will attach when one does" if runs else ""
        learns = "; dsmt join TOKEN here, where the realm has others by now" if home.is_joined else ""
        return TransportError(error.code, f"{error.message}{said}", next=f"dsmt up on a machine that has a broker{learns}")
    brokers = {name: home.part("brokers", name) for name in home.names("brokers")}
    full = [str(directory) for directory in brokers.values() if _is_full(directory)]
    if full:
        said = f"{error.message}: the disk of {' and of '.join(full)} is full"
        return TransportError(error.code, said, next="free space there; it goes on by itself")
    ended = (
        [(name, *last) for name, directory in brokers.items() if (last := _ended(home, directory))] if is_up(home) else []
    )
    if not ended:
        return error
    why = "; ".join(f"broker {name} of this home ends again and again: {words}" for name, words, _ in ended)
    advice = f"see {' and '.join(str(log) for _, _, log in ended)}; it goes on by itself when it can"
    return TransportError(error.code, f"{error.message}: {why}", next=advice)


def _ended(home: Home, directory: Path) -> tuple[str, Path] | None:
    """The last words of a broker that its keeper has still to start again, or of its server, and where they stand."""
    for program in broker_programs(home.realm()):
        log = directory / f"{program}.log"
        if process_of(directory, program) is None and (words := last_words(log)):
            return words, log
    return None


def _is_full(directory: Path) -> bool:
    return shutil.disk_usage(directory).free < FULL_BYTES


async def asked(operator: Identity, home: Home, realm: RealmConfig, found: Sequence[Broker]) -> list[Broker]:
    """The same brokers, those that are not alive with what is wrong with them; all of these are asked at once.

    One whose key this home does not know cannot be asked. Gates of NATS servers say it themselves. Of one of this home that
    nobody reaches its disk tells: it may be started again and again, with no room even for its log.
    """
    known = {} if realm.nats is not None else {one.address: one for one in realm.addresses}
    silent = [one for one in found if not one.alive and one.address in known]
    faults = await asyncio.gather(*(_fault(operator, realm, known[one.address], _kept(home, one)) for one in silent))
    said = dict(zip((one.address for one in silent), faults, strict=True))
    return [replace(one, fault=said.get(one.address, one.fault)) for one in found]


def _kept(home: Home, one: Broker) -> Path | None:
    """The directory of a broker that lives in this home."""
    directory = None if one.broker is None else home.part("brokers", one.broker)
    return directory if directory is not None and directory.is_dir() else None


async def _fault(operator: Identity, realm: RealmConfig, broker: BrokerAddress, directory: Path | None) -> str:
    """What keeps an operator who may say something from being let in: a full store lets in who only reads (D6)."""
    try:
        async with connect(operator, realm, brokers=[broker], patience_s=PATIENCE_S):
            return "it answers here, and its own word does not come to the broker that was asked for this"
    except RefusedError as error:
        return f"{error.message}: {error.next}"
    except TransportError as error:
        if error.code != "bus.unreachable" or directory is None:
            return error.message
        if _is_full(directory):
            return f"{error.message}: it cannot start, for the disk of {directory} is full: free space there"
        return f"{error.message}; what it said last is in {directory / 'broker.log'}"
