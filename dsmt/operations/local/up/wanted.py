"""Wanted: what `up` was asked for, and what of it cannot be on this machine, or on a realm that is up already."""

from __future__ import annotations

import asyncio

import msgspec

from dsmt.errors import InputError, RefusedError
from dsmt.event.kinds.realm import MAX_BROKERS
from dsmt.operations.connection import listens
from dsmt.operations.local.home.home import ENGINES, ROLES, Home
from dsmt.operations.local.home.making import had_address
from dsmt.operations.local.processes.keeping import was_up
from dsmt.system.records import process_of

MOST_NODES = 500
MOST_CONTROLLERS = 9
NATS_SERVERS = (1, 3, 5)
"""How many one machine takes: beyond that a number is a slip of the hand."""


class Wanted(msgspec.Struct, frozen=True):
    """What `up` was asked for; None is what the home holds, or 1 node, 2 controllers and 1 broker where it was never up.

    `name` (`local` if None), `listen` and `engine` (`dsmt` if None, or `nats`) make the realm; one that is there must have
    them.
    """

    nodes: int | None = None
    controllers: int | None = None
    brokers: int | None = None
    name: str | None = None
    listen: str | None = None
    engine: str | None = None
    labels: dict[str, str] = {}
    """Which every node of the home has from then on."""


def names_of(home: Home, kind: str, number: int | None, *, else_: int) -> list[str]:
    """The programs of a kind to start: so many or, where nobody says it, those of the home that `up` has made."""
    if number is None and (home.names(kind) or was_up(home)):
        return [name for name in home.names(kind) if name[:1] == kind[:1] and name[1:].isdigit()]
    return [f"{kind[:1]}{n}" for n in range(1, (else_ if number is None else number) + 1)]


def check_counts(wanted: Wanted) -> None:
    """Raise `InputError` for what no machine can start."""
    nodes = 1 if wanted.nodes is None else wanted.nodes
    controllers = 2 if wanted.controllers is None else wanted.controllers
    if wanted.brokers is not None and not 1 <= wanted.brokers <= MAX_BROKERS:
        said = f"--brokers {wanted.brokers}: a realm has 1 to {MAX_BROKERS} brokers"
        raise InputError("up.count", said, next="three survive the loss of any two of them")
    if wanted.engine == "nats" and (wanted.brokers or 1) not in NATS_SERVERS:
        said = f"--brokers {wanted.brokers}: of NATS servers a majority must be there, so a realm has 1, 3 or 5 of them"
        raise InputError("up.count", said, next="three survive the loss of any one of them")
    if nodes < 0 or controllers < 1:
        raise InputError(
            "up.count",
            "a realm needs at least one controller, and the number of nodes cannot be negative",
            next="dsmt up --help",
        )
    if nodes > MOST_NODES:
        said = f"--nodes {nodes}: `up` runs at most {MOST_NODES} nodes on one machine"
        raise InputError("up.count", said, next="ask for fewer; on further machines: dsmt node run")
    if controllers > MOST_CONTROLLERS:
        said = f"--controllers {controllers}: `up` runs at most {MOST_CONTROLLERS} controllers on one machine"
        raise InputError("up.count", said, next=f"name 1 to {MOST_CONTROLLERS}: two are enough, each does all the work")


def check_same(home: Home, wanted: Wanted) -> None:
    """Raise `RefusedError` when the realm of this home has another name or address than was asked for."""
    realm = home.realm()
    if wanted.name is not None and wanted.name != realm.name:
        said = f"--name {wanted.name}: the realm in {home.root} is named {realm.name}, and cannot be renamed"
        raise RefusedError("up.made", said, next="leave --name out, or set another DSMT_HOME")
    if wanted.engine not in (None, realm.engine):
        said = f"--engine {wanted.engine}: the realm in {home.root} is carried by {realm.engine}, and is not moved by `up`"
        raise RefusedError("up.made", said, next=f"leave --engine out, or dsmt bus migrate {wanted.engine}")
    if realm.nats is not None and wanted.brokers not in (None, len(realm.brokers)):
        said = f"--brokers {wanted.brokers}: {home.root} keeps as many NATS servers as it has, {len(realm.brokers)}"
        raise RefusedError("up.made", said, next="leave --brokers out, or set another DSMT_HOME")
    move = home.moving()
    if move is not None and wanted.brokers not in (None, len(home.names("brokers"))):
        to = ENGINES[move.engine]
        said = f"--brokers {wanted.brokers}: the realm in {home.root} is being moved to {to} with the brokers that it has"
        raise RefusedError("up.made", said, next="dsmt bus migrate --cut or --abort first")
    addresses = [address for address, _ in realm.brokers]
    if wanted.listen is not None and wanted.listen not in addresses:
        said = f"--port: the broker of the realm in {home.root} listens at {', '.join(addresses)}, not {wanted.listen}"
        raise RefusedError("up.made", said, next="leave --port out, or set another DSMT_HOME")


async def check_brokers(home: Home, wanted: Wanted) -> None:
    """Raise `RefusedError` where a home holds no broker of its realm, as one that was restored, and none elsewhere answers.

    `up` makes none: whom all know by its key, and which names are taken, is not told by a home that lost them.
    """
    if home.names("brokers"):
        return
    realm = home.realm()
    addresses = [address for address, _ in realm.brokers]
    if wanted.brokers is not None:
        said = f"--brokers {wanted.brokers}: the brokers of realm {realm.name} are elsewhere, at {', '.join(addresses)}"
        raise RefusedError("up.brokers", said, next="leave --brokers out; dsmt broker add NAME gives the realm one more")
    if not any(await asyncio.gather(*map(listens, addresses))):
        said = f"no broker of realm {realm.name} is in {home.root}, and none answers at {', '.join(addresses)}"
        ours = realm.nats is None and home.moving() is None and had_address(home, "b1") is not None
        anew = "; or dsmt cert rotate broker/b1, then dsmt node add of each host" if ours else ""
        raise RefusedError("up.brokers", said, next=f"restore {home.root}/brokers from a backup{anew}")


def check_running(home: Home, wanted: Wanted) -> None:
    """Raise `RefusedError` where fewer are asked for than run: `up` ends nothing."""
    for kind, program, number in (
        ("nodes", "spawner", wanted.nodes),
        ("controllers", "controller", wanted.controllers),
        ("brokers", "broker", wanted.brokers),
    ):
        if number is None:
            continue
        running = [one for one, directory in home.parts(kind).items() if process_of(directory, program) is not None]
        more = [one for one in running if one[1:].isdigit() and int(one[1:]) > number]
        if more:
            said = f"--{kind} {number}: {', '.join(more)} {'runs' if len(more) == 1 else 'run'} too, and `up` stops nothing"
            drain = f"dsmt node drain {more[0]}, then " if kind == "nodes" else ""
            raise RefusedError("up.running", said, next=f"leave --{kind} out; or {drain}dsmt {ROLES[kind]} remove {more[0]}")
