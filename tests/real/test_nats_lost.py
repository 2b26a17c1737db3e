"""The disks of a realm's NATS servers are lost while it runs: it is as before again, and nothing runs twice (A4, R5)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.nats.older import ENDS
from dsmt.errors import TransportError
from dsmt.operations.connection import connect
from dsmt.operations.read.realm.sight import look
from dsmt.ports.bus import Draft
from tests.real.fleet import Fleet, eventually, fleet
from tests.real.seat import dsmt
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("nats-realm")]
SOON_S = 60.0


def spec(name: str, instances: int, begun: Path) -> str:
    """A service whose instances write down that they have begun."""
    return f"""\
service: {name}
components:
  app:
    instances: {instances}
    run: [sh, -c, "echo $$ >> {begun}/{name}; exec sleep 100000"]
    health: {{readiness: {{exec: ["true"], interval: 500ms}}}}
"""


def begun(directory: Path) -> dict[str, list[int]]:
    """Which programs of each service have ever begun."""
    return {one.name: sorted(int(pid) for pid in one.read_text().split()) for one in directory.iterdir()}


async def all_begun(made: Fleet, written: Path, service: str) -> dict[str, list[int]]:
    """The same once all of a service have written that: each counts as running a moment before it has."""
    own = set(made.pids(service).values())
    await eventually(f"what {service} writes", lambda: own.issubset(begun(written).get(service, ())))
    return begun(written)


def play(directory: Path, scenario: Callable[[Fleet, Path], Awaitable[None]], **wanted: int) -> None:
    async def within() -> None:
        (directory / "begun").mkdir()
        async with fleet(directory, engine="nats", **wanted) as made:
            await scenario(made, directory / "begun")

    asyncio.run(within())


def lose_disks(made: Fleet, servers: Iterable[str], *others: tuple[str, str, str]) -> None:
    """Servers die with their disks, and some other processes with them."""
    processes = [*(("brokers", one, "nats_server") for one in servers), *others]
    found = [made.record(*one) for one in processes]
    for one in found:
        os.kill(one.pid, signal.SIGSTOP)  # else it may write in what is being removed
    for one in servers:
        shutil.rmtree(made.home.part("brokers", one) / "jetstream")
    for one in found:
        os.kill(one.pid, signal.SIGKILL)


def put_back(made: Fleet, copy: Path) -> None:
    """The only server dies, and its disk is as it was when the copy was made."""
    store, server = made.home.part("brokers", "b1") / "jetstream", made.record("brokers", "b1", "nats_server")
    os.kill(server.pid, signal.SIGSTOP)
    shutil.rmtree(store)
    shutil.copytree(copy, store)
    os.kill(server.pid, signal.SIGKILL)


async def noted(made: Fleet) -> None:
    """Wait until the gate of the only server has noted where its store ends now."""
    file = made.home.part("brokers", "b1") / ENDS
    stored = (await made.connection.bus.publish(Draft("user/test/noted", {}))).cursor
    await eventually("what the gate notes", lambda: int(file.read_text().split()[1]) >= stored.row)


async def let_in(made: Fleet) -> None:
    """Wait until a command is let in, and say something."""
    async with connect(made.home.operator(), made.home.realm(), patience_s=SOON_S) as connection:
        await connection.bus.publish(Draft("user/test/again", {}))


async def whole_again(made: Fleet, nodes: int) -> None:
    """Wait until controllers may decide, on all that there is, and all nodes are there."""

    async def is_whole() -> bool:
        sight = await look(made.connection.bus)
        return sight.whole and sum(sight.fleet.state(node) == "alive" for node in sight.view.nodes) == nodes

    await told(is_whole, "that all is whole", SOON_S)


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Processes stand still within the block."""
    stand = list(pids)
    for pid in stand:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stand:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_realm_whose_only_server_has_lost_its_disk_is_as_before_and_nothing_runs_twice(tmp_path: Path) -> None:
    async def scenario(made: Fleet, written: Path) -> None:
        for name in ("kept", "gone"):
            await made.apply(spec(name, 3, written))
            await made.ready(name, 3)
        await dsmt(made.home.root, "remove", "gone", "--yes", "--wait=60s")
        programs, before = made.pids("kept"), await all_begun(made, written, "kept")
        others = [("controllers", name, "controller") for name in made.home.names("controllers")]
        for n, lost in enumerate((others, [])):
            with stopped(made.processes_of_node("n3")):
                lose_disks(made, ["b1"], *lost)
                await let_in(made)
            await whole_again(made, 3)
            await made.apply(spec(f"new{n}", 3, written))
            await made.ready(f"new{n}", 3)
            after = await all_begun(made, written, f"new{n}")
            assert after == {**before, f"new{n}": sorted(made.pids(f"new{n}").values())}
            assert made.pids("kept") == programs
            before = after
        listed = (await dsmt(made.home.root, "status", "--json")).json
        assert {one["service"] for one in listed["services"]} == {"kept", "new0", "new1"}
        assert not any(seen.signed.event.topic.endswith("/verdict") for seen in made.watch.seen)

    play(tmp_path, scenario, nodes=3)


def test_what_was_so_when_an_older_copy_of_the_only_server_is_put_back_is_so_again(tmp_path: Path) -> None:
    async def scenario(made: Fleet, written: Path) -> None:
        await made.apply(spec("kept", 3, written))
        await made.ready("kept", 3)
        server, copy = made.record("brokers", "b1", "nats_server"), tmp_path / "copy"
        with stopped([server.pid]):
            shutil.copytree(made.home.part("brokers", "b1") / "jetstream", copy)
        await dsmt(made.home.root, "scale", "kept", "4", "--wait=60s")
        await dsmt(made.home.root, "stop", "kept/app/0", "--wait=60s")
        await dsmt(made.home.root, "nodeset", "set", "good", "minus(all_nodes, failed)")
        await made.apply(spec("new", 2, written))
        await made.ready("new", 2)
        before, programs = await all_begun(made, written, "new"), {one: made.pids(one) for one in ("kept", "new")}
        shown = (await dsmt(made.home.root, "ps", "--json")).json
        await noted(made)
        put_back(made, copy)
        await let_in(made)
        await whole_again(made, 3)

        async def is_shown() -> bool:
            return alike((await dsmt(made.home.root, "ps", "--json")).json) == alike(shown)

        await told(is_shown, "that all is shown as it is", SOON_S)
        assert "good" in (await dsmt(made.home.root, "nodeset", "list")).out
        assert {one: made.pids(one) for one in ("kept", "new")} == programs
        assert await all_begun(made, written, "new") == before

    play(tmp_path, scenario, nodes=3)


def alike(rows: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
    """How each instance is, on which node, and its pid."""
    return {(row["instance"], row["state"], row["node"], row["pid"]) for row in rows}


def test_three_servers_that_have_all_lost_their_disks_get_streams_when_an_operator_says_so_and_not_before(
    tmp_path: Path,
) -> None:
    async def scenario(made: Fleet, written: Path) -> None:
        await made.apply(spec("kept", 2, written))
        await made.ready("kept", 2)
        programs, before = made.pids("kept"), await all_begun(made, written, "kept")
        servers = made.home.names("brokers")
        logs = [made.home.part("brokers", one) / "broker.log" for one in servers]
        lose_disks(made, servers)
        await eventually("that each gate says why", lambda: all("has no stream H-test" in one.read_text() for one in logs))
        with pytest.raises(TransportError, match="let nobody in") as kept_out:
            async with connect(made.home.operator(), made.home.realm()):
                pass
        assert "broker.log beside each says so" in kept_out.value.next
        asked = made.home.part("brokers", servers[1]) / "anew"
        asked.touch()
        lose_disks(made, servers)
        await let_in(made)
        assert not asked.exists()
        await whole_again(made, 2)
        await made.apply(spec("new", 2, written))
        await made.ready("new", 2)
        assert await all_begun(made, written, "new") == {**before, "new": sorted(made.pids("new").values())}
        assert made.pids("kept") == programs

    play(tmp_path, scenario, nodes=2, brokers=3)
