"""A record that is lost, or cannot be written: who runs is found all the same, and recorded as soon as that can be."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from dsmt.ports.processes import ProcessIdentity
from dsmt.programs import running
from dsmt.programs.configuration import ATTACHED
from dsmt.programs.recorded import Recorded
from dsmt.programs.running import Attached
from dsmt.system.processes import SpawnedProcesses
from dsmt.system.procfs import identity_of, is_alive
from dsmt.system.records import process_of
from tests.loops import in_real_time
from tests.programs.spawned import Node, kill
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


def lose(directory: str) -> Path:
    """Have a directory take no records, as on a disk that is read-only; what is in the way."""
    place = Path(directory) / "run"
    shutil.rmtree(place)
    place.write_text("")
    return place


async def begun(node: Node) -> tuple[ProcessIdentity, ProcessIdentity, ProcessIdentity]:
    """The spawner and its two programs, once each has written its own record."""
    for program in ("container_manager", "node_monitor"):
        await until(lambda program=program: "started" in node.log(program))  # type: ignore[misc]
    await node.answers()
    return await node.up()


@in_real_time
async def test_records_that_are_lost_are_put_back_and_name_who_runs(node: Node) -> None:
    node.start()
    before = await begun(node)
    shutil.rmtree(Path(node.directory) / "run")
    assert await node.up() == before
    await until(lambda: "did not name pid" in node.log("spawner"))


@in_real_time
async def test_who_has_no_record_is_taken_over_by_the_next_spawner_and_not_started_a_second_time(node: Node) -> None:
    node.start()
    spawner, manager, monitor = await begun(node)
    container = node.container("c", "idle")
    agent = (await SpawnedProcesses(node.directory).start_agent(container)).identity
    node.seen.add(agent)
    await until(lambda: "started" in node.log("containers/c/deployment_agent"))
    hindered = [lose(node.directory), lose(container)]
    kill(spawner)
    await until(lambda: not is_alive(spawner))
    following = node.start()
    await node.answers()
    assert (await SpawnedProcesses(node.directory).start_agent(container)).identity == agent
    assert {manager, monitor, agent} <= set(filter(is_alive, node.seen))
    for place in hindered:
        place.unlink()
    assert await node.up() == (following, manager, monitor)
    assert "(pid" not in node.log("spawner"), "nobody has ended"


def test_nothing_is_put_back_through_a_link_that_a_program_has_put_in_the_place_of_its_container(tmp_path: Path) -> None:
    elsewhere, container, node = tmp_path / "elsewhere", tmp_path / "container", tmp_path / "node"
    elsewhere.mkdir()
    node.mkdir()
    container.symlink_to(elsewhere)
    own = identity_of(os.getpid())
    assert own is not None
    Recorded().tick(1.0, [("deployment_agent", str(container), own), ("node_monitor", str(node), own)])
    assert not list(elsewhere.iterdir())
    assert process_of(node, "node_monitor") == own


def test_who_is_attached_writes_that_as_soon_as_the_disk_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "NOTE_AGAIN_S", 0.01)
    own, place = identity_of(os.getpid()), tmp_path / "run"

    async def main() -> None:
        place.write_text("")
        attached = Attached(tmp_path)
        attached.note()
        attached.note()
        assert process_of(tmp_path, ATTACHED) is None
        place.unlink()
        await until(lambda: process_of(tmp_path, ATTACHED) == own)

    asyncio.run(main())
