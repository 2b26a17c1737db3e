"""A NATS server that stands alone and has lost its disk: its gate makes the streams anew, and readers know that (A4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from dsmt.bus.nats.link import ApiError
from dsmt.bus.nats.streams import NO_STREAM, Head, head, make_streams, opened
from dsmt.bus.rules import refilling
from dsmt.bus.wire.subjects import Subjects
from dsmt.ports.bus import Bookmark, Complete, Draft, Start
from tests.bus.realm import Facts, Reading, reading
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


def lose_disk(k: Kept) -> None:
    k.servers.stop(hard=True)
    k.servers.forget()
    k.servers.start()


def marks(got: Reading, store: str) -> list[Bookmark | Complete]:
    """The marks of one store."""
    return [one for one in got.all if isinstance(one, Bookmark | Complete) and one.cursor.store == store]


async def attached_again(bus: Any, store: str) -> Head:
    """Where stream H of another store stands, when there is one."""

    async def another() -> Head | None:
        at = await bus.ask(lambda link: head(link, Subjects("test").history))
        return at if at.store != store else None

    return await told(another, "another store", 20.0)


@on_nats
async def test_who_was_attached_comes_back_brings_what_it_holds_and_is_told_since_when_all_is_there(k: Kept) -> None:
    alice, bob = await k.bus(k.identities["operator/alice"]), await k.bus(k.identities["operator/bob"])
    fact = await Facts(alice).publish("user/held", {"n": 1}, version=1)
    held = (await bob.fetch([fact.id]))[0]
    async with (
        reading(bob, "user/", conflate=True, bookmarks=True) as got,
        reading(bob, "user/", start=Start.HISTORY) as tail,
    ):
        before = got.completes[-1]
        assert before.whole
        lose_disk(k)
        at = await attached_again(bob, before.cursor.store)
        alice.offer([held])
        await got.until(lambda g: len(g.of("user/held")) == 2 and marks(g, at.store))
        await got.until(lambda g: marks(g, at.store)[-1].whole)
        found = marks(got, at.store)
        assert isinstance(found[0], Complete)
        assert [one.whole for one in found] == sorted(one.whole for one in found)
        assert not found[0].whole
        assert at.anew_ms
        assert found[-1].cursor.time_ms - at.anew_ms >= (refilling.AFTER_S - 0.5) * 1000
        assert [one.store for one in got.reattached][-1] == at.store
        await alice.publish(Draft("user/new", {"n": 2}))
        await tail.until(lambda g: g.of("user/new") == [{"n": 2}])
    again = await k.bus(k.made.identity("operator/bob"))
    async with reading(again, "user/") as got:
        assert got.completes[-1].whole


@on_nats
async def test_a_gate_that_begins_anew_makes_nothing_of_what_is_there(k: Kept) -> None:
    alice = await k.bus(k.identities["operator/alice"])
    ack = await alice.publish(Draft("user/t", {"n": 1}))
    k.servers.stop()
    k.servers.start()
    at = await attached_again(alice, "")
    assert at.store == ack.cursor.store
    assert at.anew_ms is None


class Server:
    """A server that has streams of these names, with what their metadata says."""

    def __init__(self, **streams: dict[str, str]) -> None:
        self.streams: dict[str, dict[str, Any]] = {
            name.replace("_", "-"): {"metadata": metadata} for name, metadata in streams.items()
        }
        self.fails_at = ""

    async def api(self, asked: str, body: Any = None) -> Any:
        _, what, name = asked.split(".")
        if name == self.fails_at and what == "CREATE":
            raise ApiError(1, "killed meanwhile")
        if what == "INFO":
            if name not in self.streams:
                raise ApiError(NO_STREAM, "stream not found")
            return {"config": self.streams[name], "ts": "1970-01-01T00:00:05Z"}
        self.streams[name] = dict(body)
        return {}


def made(server: Server) -> dict[str, str | None]:
    return {name: (config.get("metadata") or {}).get("anew") for name, config in server.streams.items()}


def anew(server: Server) -> Awaitable[None]:
    return make_streams(server, Subjects("t"), replicas=1, anew=True)  # type: ignore[arg-type]


def test_streams_are_made_anew_where_all_are_lost_and_nowhere_else() -> None:
    blank, born = Server(), Server(H_t={}, F_t={}, B_t={})
    some = [Server(H_t={}), Server(F_t={}), Server(B_t={}), Server(F_t={}, B_t={}), Server(H_t={"anew": "17"})]
    before = [dict(one.streams) for one in some]
    for one in (blank, born, *some):
        asyncio.run(anew(one))
    assert made(blank) == {"H-t": "0", "F-t": None, "B-t": None}
    assert set(made(born)) == {"H-t", "F-t", "B-t"}
    assert set(made(born).values()) == {None}
    assert [one.streams for one in some] == before


def test_a_depot_that_alone_is_lost_is_made_anew_and_nobody_is_told_that_facts_may_be_missing() -> None:
    for history in ({}, {"anew": "17"}):
        server = Server(H_t=dict(history), F_t={})
        asyncio.run(anew(server))
        assert made(server) == {"H-t": history.get("anew"), "F-t": None, "B-t": None}


def test_a_making_that_was_interrupted_is_gone_on_with_and_who_is_let_in_is_noted_once() -> None:
    server = Server()
    server.fails_at = "F-t"
    with pytest.raises(ApiError):
        asyncio.run(anew(server))
    server.fails_at = ""
    asyncio.run(anew(server))
    assert made(server) == {"H-t": "0", "F-t": None, "B-t": None}
    for _ in range(2):
        asyncio.run(opened(server, Subjects("t")))  # type: ignore[arg-type]
    assert made(server)["H-t"] == "5000"
    server.streams["H-t"]["metadata"]["anew"] = "17"
    asyncio.run(opened(server, Subjects("t")))  # type: ignore[arg-type]
    assert made(server)["H-t"] == "17"
