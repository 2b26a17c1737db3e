"""The token with which a host is to join that is added over SSH: nobody joins with it who comes after that has failed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import TransportError
from dsmt.operations.local.home.home import Home
from dsmt.operations.remote import adding
from dsmt.operations.remote.hosts import address_of
from dsmt.operations.write import tokens
from dsmt.trust.joining import Token, read_token
from tests.issuers.joining import Joining, new_key, scenario


class Host:
    """A host that takes the token; its `join` then goes on for ever, or is lost, as a connection is."""

    def __init__(self, j: Joining, *, lost: bool = False, uses: bool = False) -> None:
        self.taken = asyncio.Event()
        self.token: Token
        self._j, self._lost, self._uses = j, lost, uses

    async def do(self, verb: str, _told: object, *, given: str) -> dict[str, Any]:
        assert verb == "join"
        self.token = read_token(given.strip())
        if self._uses:
            assert (await self._j.ask(self.token, "web-1", new_key()))["member"] == "web-1"
        self.taken.set()
        if self._lost:
            raise TransportError("ssh.lost", "the connection was lost", next="try again")
        await asyncio.Event().wait()
        return {}


def joining(j: Joining, host: Host) -> asyncio.Task[None]:
    """What is done on the operator's side, up to where the host has joined."""
    roles: Any = SimpleNamespace(all=())
    work = adding.Adding(j.connection(), j.operator, Home(Path("/nowhere")), labels={}, roles=roles, tell=lambda *_: None)
    there: Any = host
    return asyncio.create_task(work._join(address_of("web-1"), there, {}, "web-1"))


async def state(j: Joining) -> str:
    (listed,) = await tokens.listing(j.bus)
    return listed.state


@scenario
async def test_it_is_ended_where_the_host_is_lost_and_nobody_else_joins_with_it(j: Joining) -> None:
    await j.begin()
    host = Host(j, lost=True)
    with pytest.raises(TransportError, match="the connection was lost"):
        await joining(j, host)
    assert await state(j) == "revoked"
    assert (await j.ask(host.token, "web-1", new_key()))["code"] == "token.revoked"


@scenario
async def test_it_is_ended_by_an_interrupt(j: Joining) -> None:
    await j.begin()
    host = Host(j)
    work = joining(j, host)
    await host.taken.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await state(j) == "revoked"


@scenario
async def test_one_that_the_host_has_used_stays_used(j: Joining) -> None:
    await j.begin()
    with pytest.raises(TransportError, match="the connection was lost"):
        await joining(j, Host(j, lost=True, uses=True))
    assert await state(j) == "used"


@scenario
async def test_where_no_broker_is_in_reach_any_more_what_was_wrong_is_told_all_the_same(
    j: Joining,
) -> None:
    await j.begin()
    host = Host(j)
    work = joining(j, host)
    await host.taken.wait()
    await j.realm.stop(j.bus)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
