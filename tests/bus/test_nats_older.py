"""An older copy of the store of a NATS server that stands alone is put back: all take it for one of less (R5, D3)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dsmt.bus.nats.older import ENDS
from dsmt.bus.rules import refilling
from dsmt.ports.bus import Complete, Draft, Start
from tests.bus.realm import Facts, reading
from tests.bus.test_nats_anew import attached_again, marks
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


def store_of(k: Kept) -> tuple[Path, Path]:
    """Where the server has it, and where a copy is kept."""
    return k.servers.directory / "s0", k.servers.directory / "copy"


def copy(k: Kept) -> None:
    k.servers.stop()
    shutil.copytree(*store_of(k))
    k.servers.start()


def put_back(k: Kept) -> None:
    k.servers.stop(hard=True)
    here, kept = store_of(k)
    shutil.rmtree(here)
    shutil.copytree(kept, here)
    k.servers.start()


async def noted(k: Kept, row: int) -> None:
    """Wait until the gate has noted that its server's store ends no sooner than with a row."""
    file = k.servers.directory / "gate0" / ENDS
    await until(lambda: file.exists() and int(file.read_text().split()[1]) >= row)


@on_nats
async def test_who_was_attached_brings_what_the_copy_lacks_and_nobody_is_told_that_it_is_whole_before(k: Kept) -> None:
    alice, bob = await k.bus(k.identities["operator/alice"]), await k.bus(k.identities["operator/bob"])
    await Facts(alice).publish("user/old", {"n": 1}, version=1)
    copy(k)
    await attached_again(bob, "")
    fact = await Facts(alice).publish("user/since", {"n": 2}, version=1)
    for n in range(20):
        await alice.publish(Draft("user/signal", {"n": n}))
    async with (
        reading(bob, "user/", conflate=True, bookmarks=True) as got,
        reading(bob, "user/new", "broker/+/notice", start=Start.HISTORY) as tail,
    ):
        before = got.completes[-1]
        held = (await bob.fetch([fact.id]))[0]
        await noted(k, before.cursor.row)
        put_back(k)
        at = await attached_again(bob, before.cursor.store)
        alice.offer([held])
        await got.until(lambda g: marks(g, at.store) and marks(g, at.store)[-1].whole)
        told = marks(got, at.store)
        assert isinstance(told[0], Complete)
        assert not told[0].whole
        assert at.anew_ms
        assert told[-1].cursor.time_ms - at.anew_ms >= (refilling.AFTER_S - 0.5) * 1000
        assert (got.of("user/since"), got.of("user/old")) == ([{"n": 2}] * 2, [{"n": 1}] * 2)
        await alice.publish(Draft("user/new", {"n": 3}))
        await tail.until(lambda g: g.of("user/new") == [{"n": 3}])
        (notice,) = tail.of("broker/s0/notice")
        assert notice["kind"] == "older"
        assert "is an older copy: it ends with row" in notice["message"]
    k.servers.stop()
    k.servers.start()
    assert (await attached_again(bob, "")).store == at.store, "it is found once"
    again = await k.bus(k.made.identity("operator/bob"))
    async with reading(again, "user/") as got:
        assert got.completes[-1].whole


@on_nats
async def test_a_reader_that_is_ahead_of_its_store_reads_that_anew_though_no_gate_has_noted_anything(k: Kept) -> None:
    """As where all of a machine is put back, with what its gate had noted."""
    alice, bob = await k.bus(k.identities["operator/alice"]), await k.bus(k.identities["operator/bob"])
    await alice.publish(Draft("user/first", {"n": 1}))
    await k.gates.close()
    copy(k)
    k.gates.open()
    store = (await attached_again(bob, "")).store
    for n in range(40):
        await alice.publish(Draft("user/signal", {"n": n}))
    async with (
        reading(bob, "user/", conflate=True, bookmarks=True) as got,
        reading(bob, "user/", start=Start.HISTORY) as tail,
    ):
        await tail.until(lambda g: g.of("user/signal"))
        ahead = (await alice.publish(Draft("user/last", {}))).cursor.row
        await got.until(lambda g: marks(g, store) and marks(g, store)[-1].cursor.row >= ahead)
        await k.gates.close()
        (k.servers.directory / "gate0" / ENDS).unlink(missing_ok=True)
        put_back(k)
        k.gates.open()
        assert (await attached_again(bob, "")).store == store
        await got.until(lambda g: marks(g, store)[-1].cursor.row < ahead)
        await alice.publish(Draft("user/new", {"n": 3}))
        await got.until(lambda g: g.of("user/new") == [{"n": 3}])
        await tail.until(lambda g: g.of("user/new") == [{"n": 3}])
