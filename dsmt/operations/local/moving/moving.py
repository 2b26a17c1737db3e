"""Moving: what is asked and said on the bus when the realm of a home moves to another one; the steps are in `migrating`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dsmt.errors import RefusedError
from dsmt.operations.connection import Connection, connect, reading
from dsmt.operations.local.home.home import Home, is_up
from dsmt.operations.local.members.brokers import of_home
from dsmt.operations.local.moving import far_members, migrating
from dsmt.operations.local.moving.ways import Way
from dsmt.operations.local.up import coming_up
from dsmt.operations.local.up.machine import StartedRealm
from dsmt.operations.write.brokers import announce, announced
from dsmt.ports.realm import BrokerAddress

ATTACHED_S: Final = 120.0
"""Servers that are started together may take long to find their leaders."""


async def check(home: Home, way: Way) -> None:
    """See that the realm can be moved, where it is up and can be asked."""
    if is_up(home):
        async with reading(home.operator(), home.realm()) as connection:
            await way.check_realm(connection.bus, home)


async def tell_where(home: Home) -> dict[str, int]:
    """Say where the realm will be: which members on other machines have heard it (`far_members.told`).

    Of dsmt's brokers, which do not run yet, each must know the others as it starts (R8). Raises `RefusedError`, also where
    somebody ends the move meanwhile.
    """
    if not is_up(home):
        said = f"the realm in {home.root} is not up: members on other machines would not hear where it goes"
        raise RefusedError("migrate.down", said, next="dsmt up --detach, then dsmt bus migrate --cut again")
    async with connect(home.operator(), home.realm()) as connection:
        try:
            members = await far_members.told(connection.bus, home, by=connection.by)
            if migrating.under_way(home) == "dsmt":
                await _announce(connection, migrating.planned(home))
        except FileNotFoundError as error:
            if home.moving() is None:
                raise RefusedError(*migrating.ENDED, next=migrating.BEGIN_AGAIN) from error
            raise
        return members


async def stays(home: Home, engine: str) -> None:
    """Say that the realm stays where it is, if it is up: a cut to `engine` may have said where it would be."""
    if is_up(home):
        async with connect(home.operator(), home.realm()) as connection:
            await far_members.stays(connection.bus, by=connection.by)
            if engine == "dsmt":
                await _announce(connection, of_home(home))


async def attached(home: Home, started: StartedRealm, members: Mapping[str, int]) -> list[str]:
    """Wait until all that is here is alive, and say where the servers are; which of the members elsewhere have not come."""
    await coming_up.attached(home, started, limit_s=ATTACHED_S)
    async with connect(home.operator(), home.realm()) as connection:
        await _announce(connection, of_home(home))
        return await far_members.come(connection.bus, members) if members else []


async def _announce(connection: Connection, known: Mapping[str, BrokerAddress]) -> None:
    """Say where these are; of one that is alone, only if something is said of it that may be wrong now."""
    if len(known) > 1 or await announced(connection.bus):
        await announce(connection.bus, known, by=connection.by)
