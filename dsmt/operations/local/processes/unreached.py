"""Unreached: why no broker answers, or lets anybody in, as the brokers of this home, and their disks, tell.

Who is attached to one hears of the others from it: `asking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from dsmt.errors import DsmtError, FailedError, InputError, TransportError
from dsmt.event.addresses import host_of
from dsmt.event.phrases import some
from dsmt.operations.connection import PATIENCE_S as RUNNING_PATIENCE_S
from dsmt.operations.connection import UP_AGAIN, listens
from dsmt.operations.local.home.addresses import check_free, is_here
from dsmt.operations.local.home.home import Home, is_up
from dsmt.operations.local.home.lock import is_held
from dsmt.operations.local.home.steadiness import LOOK_S, ended, is_full, stays
from dsmt.operations.local.processes.keeping import broker_programs, is_kept, was_up
from dsmt.operations.local.processes.parts import Parts
from dsmt.programs.configuration import BrokerFile, RealmConfig
from dsmt.system.records import process_of
from dsmt.together import unless

Result = TypeVar("Result")
DOWN_PATIENCE_S = 0.5
"""How long a command tries where everything is down."""
STAYS_S = 20.0
"""How long it is looked whether the brokers of this home stay."""


def patience_s(home: Home, realm: RealmConfig) -> float:
    """How long a command waits for a broker: hardly where all are of this home, none runs, and nobody would start one."""
    own, parts = len(home.names("brokers")) >= len(realm.brokers), Parts(home)
    kept = not own or not was_up(home) or is_kept(home) or is_held(home)
    return RUNNING_PATIENCE_S if kept or parts.brokers() or parts.servers() else DOWN_PATIENCE_S


def unreached(home: Home, error: TransportError) -> TransportError:
    """Why no broker answers, or lets anybody in: one of this home ends, or has a full disk, or none is here.

    Where a node of this home runs, what tells of that meanwhile is named, too.
    """
    if error.code not in ("bus.unreachable", "bus.stranger"):
        return error
    runs = [one for one in Parts(home).things() if one.startswith("node/")]
    told = _why_unreached(home, error, runs)
    return TransportError(told.code, told.message, next=f"{told.next}; meanwhile dsmt ps --local") if runs else told


def _why_unreached(home: Home, error: TransportError, runs: Sequence[str]) -> TransportError:
    if error.code == "bus.unreachable" and not home.names("brokers"):
        said = f"; {some(runs)} {'runs' if len(runs) == 1 else 'run'} here, and will attach when one does" if runs else ""
        learns = "; dsmt join TOKEN here, where the realm has others by now" if home.is_joined else ""
        return TransportError(error.code, f"{error.message}{said}", next=f"dsmt up on a machine that has a broker{learns}")
    brokers = home.parts("brokers")
    full = [str(directory) for directory in brokers.values() if is_full(directory)]
    if full:
        said = f"{error.message}: the disk of {' and of '.join(full)} is full"
        return TransportError(error.code, said, next="free space there; it goes on by itself")
    if error.code == "bus.stranger" and (held := _held(home)):
        return TransportError(error.code, held, next=f"stop it{'' if is_up(home) else ', then dsmt up'}")
    if not is_up(home):
        return error
    programs = broker_programs(home.realm())
    found = [(name, *last) for name, directory in brokers.items() if (last := ended(directory, programs))]
    if not found:
        return _unheard(error, brokers, programs[-1])
    why = "; ".join(f"broker {name} of this home ends again and again: {words}" for name, words, _ in found)
    advice = f"see {' and '.join(str(log) for _, _, log in found)}; it goes on by itself when it can"
    return TransportError(error.code, f"{error.message}: {why}", next=advice)


def _unheard(error: TransportError, brokers: Mapping[str, Path], program: str) -> TransportError:
    """Where all is up already, `dsmt up` starts nothing again: the broker runs, and is not reached."""
    running = {name: one.pid for name, directory in brokers.items() if (one := process_of(directory, program)) is not None}
    if error.next != UP_AGAIN or not running:
        return error
    if moved := _moved(brokers):
        return TransportError(error.code, f"{error.message}: {moved}", next="give the machine that address again")
    said = ", ".join(
        f"broker {name} of this home runs, pid {pid}, and does not listen there" for name, pid in running.items()
    )
    log = brokers[next(iter(running))] / f"{program}.log"
    advice = f"try again in a minute; if it stays so, see {log}"
    return TransportError(error.code, f"{error.message}: {said}", next=advice)


def _moved(brokers: Mapping[str, Path]) -> str:
    """Which broker of this home is known by an address that the machine has no more; empty for none."""
    for name, directory in brokers.items():
        with suppress(InputError, OSError):
            host = host_of(BrokerFile.read(directory).address)
            if not is_here(host):
                return f"broker {name} of this home is known by {host}, which is no address of this machine any more"
    return ""


def _held(home: Home) -> str:
    """Which other program has the port of a broker of this home, which does not run; empty where none has."""
    for name, directory in home.parts("brokers").items():
        if all(process_of(directory, program) is None for program in ("broker", "nats_server")):
            try:
                check_free(BrokerFile.read(directory).address, f"broker {name}", then="")
            except (DsmtError, OSError) as error:
                if isinstance(error, FailedError) and error.code == "start.port_in_use":
                    return error.message
    return ""


async def while_they_stay(home: Home, work: Awaitable[Result]) -> Result:
    """What some work comes to that begins with a broker's answer.

    Raises `TransportError` as soon as it is clear that none comes: all brokers are of this home, and none of them stays.
    """
    return await unless(_check_stays(home), work)


async def _check_stays(home: Home) -> None:
    if await _none_stays(home):
        addresses = [address for address, _ in home.realm().brokers]
        raise TransportError("bus.unreachable", f"no broker answers at {', '.join(addresses)}")


async def _none_stays(home: Home) -> bool:
    """Whether all brokers of the realm are of this home, and each is damaged, or ends again and again before it listens."""
    brokers, at = home.parts("brokers"), dict[str, str]()
    for name, directory in brokers.items():
        with suppress(InputError, OSError):
            at[name] = BrokerFile.read(directory).address
    listener = broker_programs(home.realm())[0]
    if len({address for address, _ in home.realm().brokers} - set(at.values())) > len(brokers) - len(at):
        return False

    async def ends(name: str, address: str) -> bool:
        broker = brokers[name]
        if await stays(lambda: process_of(broker, listener), lambda: listens(address), patience_s=STAYS_S):
            return False
        while process_of(broker, listener) is not None:  # noqa: ASYNC110 - no event: its next life, which is as short
            await asyncio.sleep(LOOK_S)
        return True

    return all(await asyncio.gather(*(ends(name, address) for name, address in at.items())))
