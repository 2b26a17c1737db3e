"""Members on other machines: they are told where the realm moves before it does, and are waited for after that.

Rule 1: no realm is cut over while a member of it has not kept where it goes: it would look for it where nobody is.
Rule 2: a member that has left, and a controller that does not run, are not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dsmt.errors import RefusedError
from dsmt.event.kinds.realm import EngineWord
from dsmt.event.phrases import some
from dsmt.operations.local.home.home import SERVERS, Home
from dsmt.operations.local.moving.migrating import planned
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.waits.waiting import until_none
from dsmt.operations.write.engine import tell, unheard
from dsmt.ports.bus import Bus, BusReader
from dsmt.programs.configuration import BrokerFile, brokers_in

HEAR_S: Final = 30.0
COME_S: Final = 60.0


async def told(bus: Bus, home: Home, *, by: str) -> dict[str, int]:
    """Tell the members elsewhere where the realm goes, and wait until all of them have kept it.

    Who they are, each with since when it is attached (realm ms).

    Raises `RefusedError` that names who has not, and `TransportError`.
    """
    members = _elsewhere(await look(bus, passing=True), home)
    if not members:
        return {}
    word = await tell(bus, _word(home, by))
    left = await unheard(bus, word, members, limit_s=HEAR_S)
    if left:
        said = "; ".join(f"{member} {why}" for member, why in sorted(left.items()))
        said = f"not everybody can follow the realm: {said}"
        raise RefusedError("migrate.away", said, next="see to it, then dsmt bus migrate --cut again; or --abort")
    now = _attached(await look(bus))
    return {member: now.get(member, 0) for member in members}


async def stays(bus: Bus, *, by: str) -> None:
    """Say that the realm stays where it is, if anybody was told otherwise."""
    await tell(bus, EngineWord(brokers=(), by=by))


async def come(bus: BusReader, members: Mapping[str, int]) -> list[str]:
    """Wait until these members have attached where the realm is now; who has not.

    With each is since when it was attached before (realm ms): what carries the realm now knows that session, too.
    """

    def left(sight: Sight) -> list[str]:
        now = _attached(sight)
        return sorted(member for member, before in members.items() if now.get(member, before) == before)

    return await until_none(bus, left, limit_s=COME_S)


def _attached(sight: Sight) -> dict[str, int]:
    """Who is attached, and since when."""
    newest = {source: known.newest for source, known in sight.view.sessions.of.items()}
    words = {source: one[1].record for source, one in newest.items() if one is not None}
    return {source: word.since_ms for source, word in words.items() if word.state == "open"}


def _elsewhere(sight: Sight, home: Home) -> list[str]:
    """The members that are not in this home. Raises `RefusedError` where one is dead, and cannot hear anything."""
    found = [one for one in node_rows(sight) if one.liveness != "left" and one.node not in home.names("nodes")]
    dead = [one.node for one in found if one.liveness == "dead"]
    if dead:
        said = f"node {some(dead)} would not hear where the realm goes: {'it is' if len(dead) == 1 else 'they are'} dead"
        raise RefusedError("migrate.away", said, next="bring it back, or dsmt node remove --forget, first")
    of_nodes = [f"node/{one.node}" for one in found]
    of_controllers = [one.controller for one in controller_rows(sight) if one.alive]
    return of_nodes + [f"controller/{one}" for one in of_controllers if one not in home.names("controllers")]


def _word(home: Home, by: str) -> EngineWord:
    """The word on what was made in a home to move to."""
    nats = BrokerFile.read(brokers_in(home.root / SERVERS)[0]).realm.nats
    brokers = tuple((at.address, at.public) for at in planned(home).values())
    return EngineWord(
        brokers=brokers,
        by=by,
        authority="" if nats is None else nats.authority,
        replicas=0 if nats is None else nats.replicas,
    )
