"""Brokers of this home: one more is made, announced and started; one is ended and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dsmt.errors import UNDECODABLE, DsmtError, InputError, NotFoundError, RefusedError
from dsmt.event.kinds.realm import MAX_BROKERS
from dsmt.operations.connection import reading
from dsmt.operations.local.home.addresses import check_address, check_free, free_address
from dsmt.operations.local.home.home import ENGINES, Home, check_added, is_up, write_secret
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import broker_host, ensure_broker, reach_also, reach_at
from dsmt.operations.local.members import servers
from dsmt.operations.local.members.handing import handed_on, read_up
from dsmt.operations.local.processes.ending import release
from dsmt.operations.local.processes.keeping import broker_programs, keep_added
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.broker_rows import broker_rows, withholding
from dsmt.operations.words.telling import Tell
from dsmt.operations.write import brokers
from dsmt.operations.write.tokens import is_loopback
from dsmt.ports.bus import Bus, BusReader
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.bus import kept_brokers, learnt_words
from dsmt.programs.configuration import IDENTITY, BrokerFile, GateFile, RealmConfig, read_identity
from dsmt.programs.nats_server import cluster_of
from dsmt.system.files import write_atomically
from dsmt.system.records import process_of
from dsmt.system.removing import remove_or_empty
from dsmt.trust.identity import Identity

ADDRESSES = "addresses.json"
ANNOUNCED = "announced"
"""Beside a broker that was announced: the key with which it was."""
ANOTHER_S = 40.0
"""How long another broker may take to be whole; it tells so each half minute."""
TRIES = 4
"""How often one that lives is asked what it has stored: while others read much of that its link may be full."""
LOOK_S = 1.0
"""How long the realm's own brokers are asked for one at an address that is not theirs: there may be none but that one."""


def of_home(home: Home, without: Collection[str] = ()) -> dict[str, BrokerAddress]:
    """The brokers that live here, by name, without some, whose files are damaged."""
    found = {}
    for name, directory in home.parts("brokers").items():
        if name not in without and (directory / IDENTITY).exists():
            told = BrokerFile.read(directory)
            route = "" if told.realm.nats is None else cluster_of(told, GateFile.read(directory))
            found[name] = BrokerAddress(told.address, read_identity(directory / IDENTITY).key.public, route=route)
    return found


def made_ms(home: Home, without: Collection[str] = ()) -> dict[str, int]:
    """When the brokers that live here were given the certificates that they have (ms), by name.

    0 for one that was announced with the key that it has: any word that gives its name to another key is later for it, also
    the earlier one of two of both sides of a partition, and whenever its certificate was renewed (C19).
    """
    found = {}
    for name, at in of_home(home, without).items():
        directory = home.part("brokers", name)
        announced = _is_announced(directory, at)
        found[name] = 0 if announced else 1000 * read_identity(directory / IDENTITY).certificate.issued
    return found


def _is_announced(directory: Path, at: BrokerAddress) -> bool:
    """Whether it is noted that a broker was announced with the key that it has; what cannot be read notes nothing."""
    with suppress(OSError):
        return (directory / ANNOUNCED).read_bytes() == at.public
    return False


def note_announced(home: Home, names: Iterable[str]) -> None:
    """Note of brokers that live here that they were announced, each with the key that it has (see `made_ms`).

    A disk that takes nothing keeps nobody from anything: it is noted by who comes next.
    """
    names = set(names)
    here = of_home(home, set(home.names("brokers")) - names)
    for name in names:
        directory = home.part("brokers", name)
        with suppress(OSError):
            if name in here and not _is_announced(directory, here[name]):
                write_atomically(str(directory / ANNOUNCED), here[name].public)


def meshed(home: Home, without: Collection[str] = ()) -> dict[str, BrokerAddress]:
    """Those of them with which all of this home is configured: no leaf is, whatever was said of it (E5, C19)."""
    configured = set(home.realm().brokers)
    return {name: at for name, at in of_home(home, without).items() if (at.address, at.public) in configured}


async def located(home: Home, operator: Identity, realm: RealmConfig, named: list[BrokerAddress]) -> list[BrokerAddress]:
    """The brokers at these addresses; of one that this home was never told of, as of a leaf, the realm has the key (R8).

    What the realm says of it is kept in the home: the uplink of a site may be down when it is asked next.
    """
    strange = {one.address for one in named} - {one.address for one in realm.addresses}
    if realm.nats is not None or not strange:
        return named
    kept = _kept(home, realm)
    with suppress(DsmtError, OSError):
        async with reading(operator, realm, patience_s=LOOK_S) as connection:
            told = await brokers.announced(connection.bus)
            kept = {one.address: one.public for one in told.values() if one.address in strange}
            if kept:
                write_secret(home.root / ADDRESSES, msgspec.json.encode(kept))
    found = [BrokerAddress(address, public) for address, public in kept.items() if address in strange]
    return [*found, *(one for one in named if one.address not in kept)]


def _kept(home: Home, realm: RealmConfig) -> dict[str, bytes]:
    """By address, the keys of the brokers that commands here were told of, and of those that were named last."""
    told = kept_brokers(home.operator_file.parent)
    learnt = {} if told is None else {one.address: one.public for one in learnt_words(realm, [told]).all}
    try:
        return msgspec.json.decode((home.root / ADDRESSES).read_bytes(), type=dict[str, bytes]) | learnt
    except (OSError, *UNDECODABLE):
        return learnt


def check_asked(home: Home, name: str, listen: str | None) -> None:
    """Raise for a broker that nobody can add, whatever the realm says: as `check_added`, and `RefusedError` on NATS."""
    check_added(home, "broker", name)
    servers.check_grows(home.realm())
    if listen is not None:
        check_address(listen)


async def add(
    home: Home, bus: Bus, name: str, *, listen: str | None, by: str, reason: str, now_s: int, waits: Tell, leaf: bool
) -> BrokerAddress:
    """Make a broker in this home, a leaf or one as all others, announce it, and start it when the realm is up here.

    Where that was interrupted the rest of it is done (C19). Raises as `check_asked`, `FailedError` for a port that is taken,
    `RefusedError` for a name that is.
    """
    check_asked(home, name, listen)
    async with alone(home, waits):
        check_still(home)
        others = await brokers.announced(bus)
        _check_new(home, name, others, listen)
        if not leaf:
            check_number({name}, {**of_home(home), **others})
        if listen is not None:
            check_free(listen, f"broker {name}", then="choose another with --listen")
        others |= of_home(home)
        address = _listening(home, listen, others)
        more = None if home.realm().nats is None else servers.maker(home, others, leaf=leaf)
        ensure_broker(home, name, listen=address, now_s=now_s, leaf=leaf, more=more)
        known = of_home(home)
        known[name] = replace(known[name], leaf=leaf)
        if not leaf:
            reach_also(home, known[name])  # one that was removed half-way is here, and nobody is configured with it
        gone = await brokers.announce(bus, known, by=by, reason=reason, again=name, made_ms=made_ms(home))
        note_announced(home, known.keys() - gone)
        await keep_added(home, "brokers", broker_programs(home.realm()), name)
    return known[name]


def check_number(added: AbstractSet[str], known: Mapping[str, BrokerAddress]) -> None:
    """Raise `RefusedError` where a realm would have more brokers than it may (R8). A leaf is read by its upstream alone."""
    mesh = {name for name, at in known.items() if not at.leaf}
    if not added <= mesh and len(mesh | added) > MAX_BROKERS:
        said = f"the realm has {len(mesh)} brokers, and may have no more than {MAX_BROKERS}: each reads all others"
        raise RefusedError("broker.many", said, next="dsmt broker remove one first; a site may have one with --leaf")


def _check_new(home: Home, name: str, others: Mapping[str, BrokerAddress], listen: str | None) -> None:
    """Raise `RefusedError` for a name that somebody has; one that was interrupted half-way here may go on."""
    here = of_home(home)
    held = here.get(name)
    if name in others and (held is None or held.public != others[name].public):
        raise RefusedError("broker.exists", f"there is a broker {name} on another machine", next="choose another name")
    if held is None:
        return
    runs = not is_up(home) or all(process_of(home.part("brokers", name), one) for one in broker_programs(home.realm()))
    if runs and (name in others or len(here) == 1):
        said = f"broker {name} is in {home.root} already, and nothing is left to do for it"
        raise RefusedError("broker.exists", said, next="dsmt brokers shows it; one more needs another name")
    if listen not in (None, held.address):
        said = f"broker {name} was begun at {held.address}, not at {listen}"
        raise RefusedError("broker.exists", said, next="leave --listen out; or choose another name")


def _listening(home: Home, told: str | None, others: Mapping[str, BrokerAddress]) -> str:
    """Where a further broker of a home listens: where it was said, or where those here do.

    Raises `InputError` for an address that not all others reach.
    """
    address = told or free_address(broker_host(home))
    if is_loopback(address) and not is_loopback(*(one.address for one in others.values())):
        said = f"the realm's other brokers do not reach one at {address}"
        raise InputError("broker.listen", said, next="say where it is to listen: --listen HOST:PORT")
    return address


async def silent_since_ms(bus: BusReader, home: Home, name: str) -> int | None:
    """Since when (realm ms) the others do not hear a broker, and have nothing of what it stores; None while they do.

    No NATS server stores alone.
    """
    return None if home.realm().nats is not None else (await look(bus)).fleet.lost_brokers.get(name)


async def remove(home: Home, bus: Bus, name: str, *, by: str, reason: str, waits: Tell) -> BrokerAddress:
    """Have a broker be none any more; where it is of this home it is ended, and its directory goes.

    It ends when others hold what specs name of its depot, a NATS server when they hold all that it held. Raises
    `NotFoundError`, `TimedOutError`, `RefusedError` for the last, also of those that are alive.
    """
    async with alone(home, waits):
        check_still(home)
        realm = home.realm()
        asked = 0
        while realm.nats is None and asked < await _another_is_whole(bus, name, waits):
            asked = TRIES if await read_up(home, bus, name, waits) else asked + 1
        await handed_on(home, bus, name, waits)
        at = await _unsaid(bus, home, name, by=by, reason=reason, waits=waits)
        if realm.nats is not None:
            await servers.emptied(bus, realm, name)
        left = tuple(one for one in realm.brokers if one[1] != at.public)
        if left:
            reach_at(home, msgspec.structs.replace(realm, brokers=left))
        if name in home.names("brokers"):
            for program in reversed(broker_programs(realm)):
                await release(home, program, name)
            remove_or_empty(str(home.part("brokers", name)))
    return at


async def _another_is_whole(bus: BusReader, name: str, waits: Tell) -> int:
    """Wait until another broker is alive and whole, where this one is alive: what it alone has stored goes with it.

    How often it is to be asked for that: once where the others do not hear it, for they alone may be cut off from it; never
    where it gives nothing. Raises `RefusedError` where no other one is whole for `ANOTHER_S`.
    """
    known = await brokers.announced(bus)
    if {one for one, at in known.items() if not at.leaf} <= {name}:
        return 0  # it is the last one, and refused for that
    until, told = asyncio.get_running_loop().time() + ANOTHER_S, ""
    while True:
        sight = await look(bus, passing=True)
        alive = {one.broker: one for one in broker_rows(sight, []) if one.alive}
        others = [one for one in alive.values() if one.broker != name and not one.leaf]
        if name not in alive or any(one.whole for one in others):
            return (TRIES if name in alive else 1) if name not in withholding(sight) else 0
        lacks = "whole" if others else "alive"
        if asyncio.get_running_loop().time() >= until:
            said = f"no broker but {name} is {lacks}: what it alone has stored would be lost, and nobody would hear anything"
            raise RefusedError("broker.alone", said, next="dsmt brokers shows what is wrong with the others")
        if lacks != told:
            waits(f"no other broker is {lacks}")
            told = lacks
        await asyncio.sleep(LOOK_S)


async def _unsaid(bus: Bus, home: Home, name: str, *, by: str, reason: str, waits: Tell) -> BrokerAddress:
    """Say that it is none any more; of one that this home knows that may have been said, by who was interrupted (C19).

    One of this home whose name is another one's by now is none already: that one stays.
    """
    known = await brokers.announced(bus)
    here, stands = of_home(home).get(name), known.get(name)
    if here and stands and here.public != stands.public and here.address != stands.address:
        return here
    nats, least = home.realm().nats, 1
    if nats is not None and nats.replicas < servers.LEAST and name in of_home(home):
        said = f"{name} is the only NATS server, and stays so: without one nobody hears anything"
        raise RefusedError("broker.last", said, next="dsmt bus migrate dsmt, to have brokers in its place")
    if nats is not None:
        await servers.check_left(bus, name, known, waits)
        least = min(nats.replicas, servers.LEAST)
    try:
        return await brokers.remove(bus, name, of_home(home), by=by, reason=reason, least=least)
    except NotFoundError:
        at = (await brokers.announced(bus, removed=True)).get(name)
        if at is None or (name not in home.names("brokers") and (at.address, at.public) not in home.realm().brokers):
            raise
        return here or at  # its name may have been another one's when that was removed


def check_still(home: Home) -> None:
    """Raise `RefusedError` while the realm is moved: there it will have as many brokers, or servers, as it had then."""
    move = home.moving()
    if move is not None:
        said = f"the realm in {home.root} is being moved to {ENGINES[move.engine]} with the brokers that it has"
        raise RefusedError("migrate.brokers", said, next="dsmt bus migrate --cut or --abort first")
