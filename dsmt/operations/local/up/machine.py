"""A realm on this machine: `up` starts what a home holds (who ends it: `ending`).

`up` may be repeated, also while another is at it: what runs is left alone, what is missing is made and started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec

from dsmt.errors import FailedError, RefusedError
from dsmt.operations.local.home.addresses import check_free
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
from dsmt.operations.local.members.settling import label_nodes, settle_nodes
from dsmt.operations.local.processes.by_systemd import check_left
from dsmt.operations.local.processes.keeping import ask_keeper, begin, keep, start_keeper
from dsmt.operations.local.processes.parts import Parts
from dsmt.operations.local.up.startable import check_whole, damaged_brokers
from dsmt.operations.local.up.wanted import Wanted, check_brokers, check_counts, check_running, check_same, names_of
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import IDENTITY


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


class RealmRun(NamedTuple):
    """The run of a realm that `up` begins, or goes on with: whether it was up already, and its name."""

    was_up: bool
    name: str


async def up(
    home: Home, wanted: Wanted, *, waits: Tell = silent, begins: Callable[[RealmRun], object] = lambda _: None
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
        without = await _check(home, wanted)
        begins(RealmRun(is_up(home), begin(home)))
        moved = settle_nodes(home) if home.exists else []
        started = await _up(home, wanted, without=without)
        if not moved and not without:
            return started
        return msgspec.structs.replace(started, moved=tuple(moved), amiss=without)


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
        check_whole(home)
    else:
        check_same(home, wanted)
        check_running(home, wanted)
        await check_brokers(home, wanted)
    return damaged_brokers(home)


async def _up(home: Home, wanted: Wanted, *, without: Collection[str]) -> StartedRealm:
    made = not home.exists
    if not made and home.is_joined:
        label_nodes(home, wanted.labels)
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
    label_nodes(home, wanted.labels)
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
    if wanted != Wanted(labels=wanted.labels):
        here = ", ".join(dict.fromkeys([*home.names("brokers"), *home.names("controllers"), *home.names("nodes")]))
        said = f"{home.root} has joined realm {home.realm().name}, and holds only {here} of it"
        raise RefusedError("up.joined", said, next="dsmt up, with no option but --label; or set another DSMT_HOME")


def left_out(home: Home, started: StartedRealm) -> list[str]:
    """What a home holds and was not started, for fewer were asked for, in a sentence; nothing where all was."""
    left = sorted({*home.names("controllers"), *home.names("nodes")} - {*started.controllers, *started.nodes})
    ours = {name for kind in ("controllers", "nodes") for name in names_of(home, kind, None, else_=0)}
    own = [name for name in left if name in ours]
    are = "is" if len(own) == 1 else "are"
    told = [f"{', '.join(own)} of this home {are} not started: dsmt up, with no number, starts all of it"] if own else []
    others = [name for name in left if name not in ours]
    runs = {name: "node" if name in home.names("nodes") else "controller" for name in others}
    return [*told, *(f"dsmt up does not start {name}: dsmt {kind} run {name} does" for name, kind in runs.items())]


def more_than(home: Home, wanted: Wanted) -> list[str]:
    """What is started though fewer were asked for, in sentences: the keeper keeps all brokers and controllers of a home."""
    told = []
    for kind, number in (("brokers", wanted.brokers), ("controllers", wanted.controllers)):
        asked = names_of(home, kind, number, else_=0)
        more = [] if number is None else [name for name in home.names(kind) if name not in asked]
        if more:
            are = "is" if len(more) == 1 else "are"
            end = f"dsmt {ROLES[kind]} remove {more[0]} ends one"
            told.append(f"{', '.join(more)} of this home {are} started, too, for all of its {kind} are: {end}")
    return told


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
