"""A realm on this machine: `up` starts what a home holds (who ends it: `ending`).

`up` may be repeated, also while another is at it: what runs is left alone, what is missing is made and started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from dsmt.errors import DsmtError, FailedError, InputError, RefusedError, UnusableEventError, unreadable
from dsmt.operations.local.home.addresses import NEW_REALM, check_free
from dsmt.operations.local.home.dating import dated
from dsmt.operations.local.home.home import ENGINES, ROLES, SERVERS, Home, check_in_place, is_up
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import (
    check_name,
    ensure_broker,
    ensure_controller,
    ensure_node,
    ensure_operator,
    init,
    lacks_issuer,
)
from dsmt.operations.local.members.letting_in import learnt
from dsmt.operations.local.members.settling import settle_nodes
from dsmt.operations.local.processes.by_systemd import check_left
from dsmt.operations.local.processes.keeping import ask_keeper, begin, keep, start_keeper
from dsmt.operations.local.processes.parts import Parts
from dsmt.operations.local.up.wanted import Wanted, check_brokers, check_counts, check_running, check_same, names_of
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import (
    IDENTITY,
    ISSUER,
    RESTORE,
    BrokerFile,
    ControllerFile,
    NodeFile,
    RealmConfig,
    read_identity,
)
from dsmt.system.placed import Placed
from dsmt.system.records import process_of
from dsmt.trust.store import TrustStore


class StartedRealm(msgspec.Struct, frozen=True):
    """What `up` did: the realm's brokers' addresses, and the names of its programs here."""

    realm: str
    brokers: tuple[str, ...]
    controllers: tuple[str, ...]
    nodes: tuple[str, ...]
    made: bool
    moved: tuple[str, ...] = ()
    """In words, which nodes serve at another address from now on."""
    amiss: dict[str, str] = {}
    """In words, what is wrong with the brokers without which the others were started, by name."""
    refused: dict[str, str] = {}
    """In words, why no spawner of a node could be begun, by `node NAME`."""


def abandoned(home: Home) -> list[ProcessIdentity]:
    """The spawners that run in a home whose realm is gone: it was removed while they ran."""
    return [] if home.exists else Parts(home).holders()


class Run(NamedTuple):
    """The run of a realm that `up` begins, or goes on with: whether it was up already, and its name."""

    was_up: bool
    name: str


async def up(
    home: Home, wanted: Wanted, *, waits: Tell = silent, begins: Callable[[Run], object] = lambda _: None
) -> StartedRealm:
    """Start a realm on this machine, and make it first when there is none; two at once do it one after the other (C16).

    `waits` hears whom it waits for, and `begins` the run, before anything is done and when nothing speaks against it.

    Raises `InputError`, `RefusedError`, `FailedError` when something does not start or the broker's port is taken,
    `TransportError` when it does not answer in time.
    """
    check_counts(wanted)
    if wanted.name is not None:
        check_name(wanted.name)
    async with alone(home, waits):
        amiss = await _check(home, wanted)
        begins(Run(is_up(home), begin(home)))
        moved = settle_nodes(home) if home.exists else []
        started = await _up(home, wanted, without=amiss)
        if not moved and not amiss:
            return started
        return msgspec.structs.replace(started, moved=tuple(moved), amiss=amiss)


async def _check(home: Home, wanted: Wanted) -> dict[str, str]:
    """Raise where a home, as it is, cannot be started as it is wanted; in words, which brokers it is started without."""
    if not home.exists:
        home.check_lost()
    check_abandoned(home)
    check_in_place(home)
    check_moved(home)
    check_left(home, "dsmt up")
    if not home.exists:
        if wanted.listen is not None:
            check_free(wanted.listen, "the broker", then="stop it, or choose another with --port")
        return {}
    if home.is_joined:
        _check_joined(home, wanted)
        _check_whole(home)
    else:
        check_same(home, wanted)
        check_running(home, wanted)
        await check_brokers(home, wanted)
    return _amiss(home)


def _amiss(home: Home) -> dict[str, str]:
    """What is wrong with which brokers of a home; raises where that is so of all: one that is whole carries the realm."""
    names, found = home.names("brokers"), dict[str, str]()
    for name in names:
        try:
            check_broker(home, name)
        except (InputError, FailedError, OSError) as error:
            if len(found) == len(names) - 1:
                raise
            said = unreadable(error.filename, error) if isinstance(error, OSError) else _told(error)
            found[name] = f"broker {name} does not start, and the others do without it: {said}"
    return found


async def _up(home: Home, wanted: Wanted, *, without: Collection[str]) -> StartedRealm:
    made = not home.exists
    if not made and home.is_joined:
        return await start_all(home)
    if made:
        name = "local" if wanted.name is None else wanted.name
        init(home, name=name, listen=wanted.listen, brokers=wanted.brokers or 1, nats=wanted.engine == "nats")
    brokers = [one for one in names_of(home, "brokers", wanted.brokers, else_=0) if one not in without]
    controllers = names_of(home, "controllers", wanted.controllers, else_=2)
    nodes = names_of(home, "nodes", wanted.nodes, else_=1)
    held = (("brokers", brokers), ("controllers", controllers), ("nodes", nodes))
    parts = [home.part(kind, name) for kind, names in held for name in names]
    there = all(file.exists() for file in (home.operator_file, *(part / IDENTITY for part in parts)))
    there = there and not any(lacks_issuer(home, name) for name in controllers)
    now_s = None if made or there else (await dated(home.realm().clocks)).now_s
    ensure_operator(home, now_s=now_s)
    for name in brokers:
        ensure_broker(home, name, now_s=now_s)
    for name in controllers:
        ensure_controller(home, name, now_s=now_s)
    for name in nodes:
        ensure_node(home, name, now_s=now_s)
        await asyncio.sleep(0)  # who interrupts is heard
    return await start(home, brokers, controllers, nodes, made=made)


def check_moved(home: Home) -> None:
    """Raise `RefusedError` where the move of the realm to another engine has ended its brokers, and is not done."""
    move = home.moving()
    if move is not None and move.cut and (home.names(SERVERS) or home.realm().engine != move.engine):
        said = f"the realm in {home.root} is being moved to {ENGINES[move.engine]}, and was not started again"
        raise RefusedError("migrate.cut", said, next="dsmt bus migrate --cut goes on; dsmt bus migrate --abort goes back")


def check_abandoned(home: Home) -> None:
    """Raise `RefusedError` where a realm still runs whose home was removed: another one beside it would fight with it."""
    left = abandoned(home)
    if left:
        said = f"the realm that was removed from {home.root} still runs: pid {', '.join(str(one.pid) for one in left)}"
        raise RefusedError("start.running", said, next="dsmt down ends it")


def _check_joined(home: Home, wanted: Wanted) -> None:
    """Raise `RefusedError` where of a machine that has joined a realm more is wanted than it has."""
    if wanted != Wanted():
        here = ", ".join(dict.fromkeys([*home.names("brokers"), *home.names("controllers"), *home.names("nodes")]))
        said = f"{home.root} has joined realm {home.realm().name}, and holds only {here} of it"
        raise RefusedError("up.joined", said, next="dsmt up starts that, with no option; or set another DSMT_HOME")


def _check_whole(home: Home) -> None:
    """Raise `InputError` where of a machine that has joined nothing is whole: there is nothing to start."""
    members, found = [*home.names("controllers"), *home.names("nodes")], _damage(home)
    if not home.names("brokers") and len(found) == len(members):
        first = next(iter(found.values()))
        raise InputError("config.broken", f"{first.message}; nothing else is here to start", next=first.next)


def left_out(home: Home, started: StartedRealm) -> list[str]:
    """What a home holds and was not started, for fewer were asked for, in a sentence; nothing where all was."""
    left = sorted({*home.names("controllers"), *home.names("nodes")} - {*started.controllers, *started.nodes})
    are = "is" if len(left) == 1 else "are"
    return [f"{', '.join(left)} of this home {are} not started: dsmt up, with no number, starts all of it"] if left else []


async def start_all(home: Home) -> StartedRealm:
    """Start all that a home holds, unless it runs."""
    return await start(home, home.names("brokers"), home.names("controllers"), home.names("nodes"))


async def start(
    home: Home, brokers: list[str], controllers: list[str], nodes: list[str], *, made: bool = False
) -> StartedRealm:
    """Start these programs, which are made, unless they run."""
    await start_keeper(home)
    if home.realm().nats is not None:
        await keep(home, "brokers", "nats_server", brokers)
    await keep(home, "brokers", "broker", brokers)
    await keep(home, "controllers", "controller", controllers)
    refused = {}
    for node in nodes:  # the keeper forks one after the other, and each may take long
        try:
            await ask_keeper(home, "start", "spawner", home.part("nodes", node))
        except FailedError as error:
            if error.code != "start.driver":  # the keeper answers nobody
                raise
            refused[f"node {node}"] = f"node {node} does not start: {error.message}. Next: see to its files, then dsmt up"
    realm = learnt(home)
    addresses = tuple(address for address, _ in realm.brokers)
    return StartedRealm(realm.name, addresses, tuple(home.names("controllers")), tuple(nodes), made, refused=refused)


def check_broker(home: Home, name: str) -> None:
    """Raise `FailedError` when somebody else holds the port of a broker of this home, which does not run.

    Raises `InputError` for files of it that are damaged: without it nobody hears anything.
    """
    directory = home.part("brokers", name)
    config = BrokerFile.read(directory)
    check_realm(home, directory / BrokerFile.FILE, config.realm)
    identity = directory / IDENTITY
    if not identity.exists() and (directory / "broker.log").exists():  # it has run, and is known by its key
        said = f"{identity} is missing: broker {name} is known by the key in it to all who have joined"
        again = (
            "" if config.realm.nats else f"; or dsmt cert rotate broker/{name}, and then dsmt node add of each host again"
        )
        raise InputError("trust.identity", said, next=f"restore it from a backup{again}")
    if identity.exists():
        read_identity(identity)
    listens = "broker" if config.realm.nats is None else "nats_server"
    if process_of(directory, listens) is None and Placed().of(str(directory), listens) is None:
        check_free(config.address, f"broker {name}", then="stop it, then try again", moved=_moved(home, name))


def _moved(home: Home, broker: str) -> str:
    """What is to be done where the machine has not the address of a broker of this home, but that address."""
    if home.is_joined:
        return f"dsmt node remove {broker}, where the realm was made, and add it again"
    if len(home.realm().brokers) > 1:
        return f"dsmt broker remove {broker}, while another broker of the realm answers, and dsmt up again"
    return NEW_REALM


def damaged(home: Home) -> dict[str, str]:
    """What is wrong with the files of controllers and nodes of a home, by whose: these do not start, and all else does."""
    return {who: _told(error) for who, error in _damage(home).items()}


def _told(error: DsmtError) -> str:
    return f"{error.message}. Next: {error.next}"


def _damage(home: Home) -> dict[str, InputError]:
    found: dict[str, InputError] = {}
    files: dict[str, type[ControllerFile | NodeFile]] = {"controllers": ControllerFile, "nodes": NodeFile}
    for kind, file in files.items():
        for name, directory in home.parts(kind).items():
            who = f"{ROLES[kind]} {name}"
            try:
                check_realm(home, directory / file.FILE, file.read(directory).realm)
                for path in (directory / IDENTITY, directory / ISSUER):
                    if path.exists() or (path.name == IDENTITY and home.is_joined):  # elsewhere it is made anew
                        _check_trusted(home, path)
            except InputError as error:
                found[who] = InputError(error.code, f"{error.message}; {who} lacks it", next=error.next)
            except OSError as error:  # it is somebody else's, or no file at all
                said = f"{unreadable(error.filename, error)}; {who} lacks it"
                found[who] = InputError("config.broken", said, next="see to its owner and mode, or restore it from a backup")
    return found


def check_realm(home: Home, file: Path, told: RealmConfig) -> None:
    """Raise `InputError` for the file of a member of another realm, as one that was copied into the wrong home."""
    ours = home.realm()
    if told.roots != ours.roots:
        raise InputError("config.realm", f"{file} is of another realm than {ours.name}, the one of this home", next=RESTORE)


def _check_trusted(home: Home, path: Path) -> None:
    """Raise `InputError` for an identity that is damaged, or of another realm."""
    identity = read_identity(path)
    try:
        TrustStore(home.realm().realm).add_all([signed.raw for signed in identity.chain])
    except UnusableEventError as error:
        raise InputError("config.realm", f"{path} is not of this home: {error.message}", next=RESTORE) from error


def check_alone(directory: str, program: str) -> None:
    """Raise `RefusedError` when a program runs from its directory already: two would contest each other's every word."""
    running = process_of(directory, program)
    if running is not None:
        said = f"the {program} of {directory} runs already, pid {running.pid}"
        raise RefusedError("start.running", said, next="leave it running, or stop it first: dsmt down")
