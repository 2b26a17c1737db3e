"""Coming up: what was started is announced, and waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from dsmt.errors import FailedError, RefusedError, TimedOutError, TransportError
from dsmt.event.envelope import SignedEvent
from dsmt.event.phrases import another_certificate, counted, some
from dsmt.operations.connection import Reading, connect, reading
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.steadiness import ended
from dsmt.operations.local.members.brokers import made_ms, meshed, note_announced
from dsmt.operations.local.members.letting_in import by_broker, by_fact, by_time, learnt, members, of_issuer
from dsmt.operations.local.up.machine import StartedRealm
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.certificates import NO_BROKER, WAY_BACK, ended_brokers, in_use
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.outside import revoked
from dsmt.operations.read.waits.waiting import until, until_none
from dsmt.operations.words.telling import Tell, silent
from dsmt.operations.write.brokers import announce
from dsmt.ports.bus import BusReader
from dsmt.ports.realm import ENDED
from dsmt.programs.configuration import IDENTITY, read_identity
from dsmt.programs.pings import AGAIN_S, SILENT_S
from dsmt.system.failures import little_left
from dsmt.system.records import process_of
from dsmt.trust.keys import key_id_of

PATIENCE_S = 30.0
CONTROLLERS_S = 10.0


async def announced(home: Home, without: Collection[str] = (), *, left: set[str] | None = None) -> list[str]:
    """Say which brokers are here, before nodes are waited for: those that ran already know of a new one by this alone.

    It is said at each of them, `without` those that are not started: what the new one alone is told no other one hears.
    What went amiss is returned. `left` takes the addresses of those that do not belong to the realm any more.
    """
    known, made, realm = meshed(home, without), made_ms(home, without), home.realm()
    if len(known) < 2:
        return []
    asked = [] if realm.nats is not None else [[one] for one in known.values()]
    gone: set[str] = set()
    told, unheard = False, []
    for brokers in asked:
        try:
            async with connect(home.operator(), realm, brokers=brokers) as connection:
                gone.update(await announce(connection.bus, known, by=connection.by, made_ms=made))
                told = True
        except TransportError as error:  # another one is told
            unheard.append(error.message)
        except RefusedError:  # it was removed
            continue
    if not told:
        async with connect(home.operator(), realm, patience_s=PATIENCE_S) as connection:
            gone.update(await announce(connection.bus, known, by=connection.by, made_ms=made))
    note_announced(home, known.keys() - gone)
    if left is not None:
        left.update(known[one].address for one in gone)
    removed = (
        f"broker {one} does not belong to the realm any more, but is still here: dsmt broker remove {one} ends it"
        for one in sorted(gone)
    )
    return [*unheard, *removed]


async def attached(
    home: Home,
    started: StartedRealm,
    *,
    limit_s: float = PATIENCE_S,
    tell: Tell = silent,
    out: dict[str, str] | None = None,
) -> list[str]:
    """Wait until all nodes are attached and alive, as long as within the limit one more of them is, and then controllers.

    Which nodes are let in no more, in words, which are `out` by their names, too: nobody waits for these, nor for those
    that are `out` before, nor for controllers whose certificate has ended. And which issuers' have, and which controllers
    are not alive after a while; they are started, and one that hangs is ended (C15).
    Raises `TimedOutError`, and `FailedError` where a key of brokers has ended.
    """
    out = {} if out is None else out
    before, late, over, idle = dict(out), list[str](), dict[str, str](), list[str]()
    nodes = [node for node in started.nodes if node not in out]
    keys = {node: read_identity(home.part("nodes", node) / IDENTITY).certificate.key_id.hex() for node in nodes}
    async with _reading(home, nodes, out, limit_s) as connection:
        if connection is not None:
            await _all_come(connection, home, keys, out, limit_s=limit_s, tell=tell)
            now_ms = connection.bus.now_ms()
            over = _over(home, "controllers", started.controllers, now_ms)
            idle = [words for one in started.controllers if (words := of_issuer(home, one, now_ms))]
            late = await _not_alive(connection.bus, [one for one in started.controllers if one not in over])
    hangs = f"one that hangs is ended after {round(SILENT_S + AGAIN_S)} s, and started again"
    said = {one: found for one in late if (found := ended(home.part("controllers", one), ("controller",)))}
    heard = [words for node, words in out.items() if node not in before]
    hang = (f"controller {one} is not alive yet; {_last(said.get(one)) or hangs}" for one in late)
    return [*heard, *over.values(), *idle, *hang]


async def _all_come(
    connection: Reading, home: Home, keys: Mapping[str, str], out: dict[str, str], *, limit_s: float, tell: Tell
) -> None:
    """Wait for the nodes with these keys that are not `out`, as long as one more comes. Raises `TimedOutError`."""
    missing = list(keys)

    def all_alive(sight: Sight) -> bool | None:
        nonlocal missing
        out.update({node: by_fact(home, node, fact) for node, fact in _ended(sight, keys).items()})
        out.update(_over(home, "nodes", _without(keys, out), sight.now_ms))
        wanted = _without(keys, out)
        missing = _missing(connection, sight, wanted) or [node for node in wanted if not _is_attached(home, sight, node)]
        return None if missing else True

    def far(_: Sight) -> str:
        every = len(_without(keys, out))
        why = _ended_one(home, missing)[0]
        return f"{every - len(missing)} of {every}; not {some(missing)}{f'; {why}' if why else ''}"

    while missing:
        before, unmet = len(missing), "not all nodes are attached and alive"
        try:
            await until(connection.bus, all_alive, limit_s=limit_s, unmet=unmet, look="dsmt nodes", far=far, tell=tell)
        except TimedOutError as error:
            if len(missing) >= before:
                every = len(_without(keys, out))
                here = f"{every - len(missing)} of {counted(every, 'node')} attached and alive"
                said = f"{here}; no other node came within {limit_s:g} s: {some(missing)} did not; the start goes on"
                advice = error.next
                why, log = _ended_one(home, missing)
                if why:
                    said, advice = f"{said}; {why}", f"see {log}; it goes on by itself when it can"
                full = little_left(str(home.root))
                said, advice = (f"{said}; {full}", "free space there") if full else (said, advice)
                raise TimedOutError(error.code, said, next=advice) from error


async def _not_alive(bus: BusReader, controllers: Sequence[str]) -> list[str]:
    """Which of these controllers of this home are not alive after a while."""

    def left(sight: Sight) -> list[str]:
        return sorted({*controllers}.difference(one.controller for one in controller_rows(sight) if one.alive))

    return await until_none(bus, left, limit_s=CONTROLLERS_S)


def _last(said: tuple[str, Path] | None) -> str:
    return "" if said is None else f"it does not run, and said last: {said[0]}. Next: see {said[1]}"


def _ended_one(home: Home, nodes: Sequence[str]) -> tuple[str, Path | None]:
    """Of the first of these nodes that does not run, what it said last, and the log that tells."""
    for node in nodes:
        found = ended(home.part("nodes", node), ("spawner", "container_manager"))
        if found is not None:
            return f"{node} does not run, and said last: {found[0]}", found[1]
    return "", None


@asynccontextmanager
async def _reading(home: Home, nodes: Sequence[str], out: dict[str, str], limit_s: float) -> AsyncIterator[Reading | None]:
    """Attached as the operator; on a machine that has joined as its first member that is let in, None where none is.

    Which of its nodes were asked, and are not, is added to `out`.
    """
    if not home.is_joined:
        async with reading(home.operator(), home.realm(), patience_s=limit_s) as connection:
            yield connection
        return
    realm = learnt(home)
    async with AsyncExitStack() as stack:
        for member in members(home, nodes):
            try:
                attached = reading(member.identity, realm, known=member.known, patience_s=limit_s)
                connection = await stack.enter_async_context(attached)
            except RefusedError as error:
                if error.code not in ENDED:
                    raise
                role, _, name = member.name.partition("/")
                out.update({name: by_broker(home, name, error)} if role == "node" else {})
            else:
                yield connection
                return
        yield None


def _without(keys: Mapping[str, str], out: Collection[str]) -> dict[str, str]:
    return {node: key for node, key in keys.items() if node not in out}


def _ended(sight: Sight, keys: Mapping[str, str]) -> dict[str, SignedEvent]:
    """Of the nodes with these keys those whose key was revoked: they cannot attach."""
    known = sight.view.nodes
    facts = {node: revoked(sight, known[node]) for node in keys if node in known}
    return {node: one for node, one in facts.items() if one is not None and one.event.topic.split("/")[2] == keys[node]}


def _over(home: Home, kind: str, names: Iterable[str], now_ms: int) -> dict[str, str]:
    """In words, of which of these parts of this home the certificate has ended: they cannot attach."""
    said = {name: by_time(home, kind, name, now_ms) for name in names}
    return {name: words for name, words in said.items() if words}


def _is_attached(home: Home, sight: Sight, node: str) -> bool:
    """Whether the manager that runs now is attached: a broker may take one of before for alive, another has a copy of it."""
    known, own = sight.view.sessions.of.get(f"node/{node}"), process_of(home.part("nodes", node), "container_manager")
    pids = [] if known is None else [held.record.pid for held in known.words.values() if held.record.state == "open"]
    return own is not None and any(pid in (None, own.pid) for pid in pids)


def _missing(connection: Reading, sight: Sight, keys: Mapping[str, str]) -> list[str]:
    """The nodes that are not attached and alive, of those with these keys. Raises `FailedError` where none ever will be."""
    if all(connection.trust.is_revoked(key_id_of(public)) for _, public in connection.realm.brokers):
        said = f"the key of the only broker was revoked: {NO_BROKER}"
        raise FailedError("broker.revoked", said, next=WAY_BACK)
    known = sight.view.nodes
    missing = [node for node in keys if sight.fleet.state(node) != "alive" or not known[node].attributes]
    ours = {public for _, public in connection.realm.brokers}  # one that was removed does not matter any more
    now_s = sight.now_ms // 1000
    ended_ones = ended_brokers(in_use(connection.trust, now_s), now_s) if missing else {}
    for broker in (name for name, one in ended_ones.items() if one.public in ours):
        said = f"the certificate of {broker} has ended: what it says of nodes is not believed"
        raise FailedError("broker.expired", said, next=another_certificate(broker))
    return missing
