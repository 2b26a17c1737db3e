"""The disk of a node is full: its agents obey all the same, say what is so, and write it down when there is room."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from dsmt.agents.rules.container import OUTCOME, PROCESS, SLOT, SPEC
from dsmt.agents.shared.kept import kept
from dsmt.agents.shared.patient import AGAIN_S
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.reason import failed
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run
from tests.loops import in_virtual_time

from .managed import Managed
from .memory_bus import Realm
from .memory_machine import MemoryFiles
from .sights import CHECKED
from .world import Site

FILED = CHECKED.replace("    run:", "    files: [{to: conf, content: first}]\n    run:")


class FullDisk(MemoryFiles):
    full = False
    broken = False
    """It fails, and is not full."""

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        if self.full and self.broken:
            raise failed("node.files", path=path, done="written", error="input/output error", other=False)
        if self.full:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=path, free="0")
        super().write(path, content, mode=mode)


class NoRoom(MemoryFiles):
    """A disk on which not even a directory can be made."""

    full = True

    def below(self, path: str, *, made: bool = True) -> MemoryFiles:
        if self.full and made:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=path, free="0")
        return super().below(path, made=made)


def with_disk(site: Site) -> FullDisk:
    disk, deps = FullDisk(site.disk, f"/n1/{site.slot.directory}"), site.deps

    def on_it() -> InstanceSurroundings:
        return replace(deps(), files=disk, quick=disk)

    site.deps = on_it  # type: ignore[method-assign]
    return disk


async def filled() -> tuple[Site, FullDisk, SignedEvent, Any]:
    """A site whose instance is ready, and whose disk is full since; its spec, and its agent."""
    site = Site(Realm())
    disk = with_disk(site)
    spec = site.spec(FILED)
    site.assign(spec)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "ready")
    disk.full = True
    return site, disk, spec, agent


def healths(site: Site) -> list[Any]:
    return site.realm.told(site.slot.on("health", site.node))


def kept_in(site: Site, path: str) -> SignedEvent | None:
    return kept(site.files.below(site.slot.directory), path, site.bus)


@pytest.mark.parametrize("broken", [False, True])
@in_virtual_time
async def test_what_is_told_to_stop_on_a_full_disk_stops_and_the_fact_is_written_when_there_is_room(broken: bool) -> None:
    site, disk, spec, agent = await filled()
    disk.broken = broken
    fact = site.assign(spec, version=2, desired="stopped")
    await site.until("stopped", 30)
    assert not site.machine.alive
    disk.full = False
    await site.realm.until(lambda: (one := kept_in(site, SLOT)) is not None and one.id == fact.id, 5)
    agent.kill()


@pytest.mark.parametrize("broken", [False, True])
@in_virtual_time
async def test_what_is_to_be_gone_from_a_full_disk_ends_and_its_agent_with_it_when_there_is_room(broken: bool) -> None:
    site, disk, spec, agent = await filled()
    disk.broken = broken
    site.assign(spec, version=2, node="n2")
    await site.until("gone", 30)
    assert not site.machine.alive
    assert agent.alive
    disk.full = False
    await site.realm.until(lambda: not agent.alive, 5)
    assert site.files.below(site.slot.directory).read(OUTCOME) == b"gone"


@in_virtual_time
async def test_a_spec_that_waits_for_room_is_not_written_any_more_when_its_slot_has_left() -> None:
    site, disk, _, agent = await filled()
    spec = site.spec(FILED.replace("first", "second"), version=2)
    site.assign(spec, version=2, revision=2)
    await site.realm.until(lambda: reason_of(site) == "fetch.no_space", 30)
    site.assign(spec, version=3, node="n2")
    await site.until("gone", 30)
    disk.full = False
    await site.realm.until(lambda: not agent.alive, 5)
    assert kept_in(site, SPEC) is None


@pytest.mark.parametrize("broken", [False, True])
@in_virtual_time
async def test_what_crashes_on_a_full_disk_is_started_again_for_its_record_is_there(broken: bool) -> None:
    site, disk, _, agent = await filled()
    disk.broken = broken
    for _ in range(3):
        begun = len(site.machine.programs)
        site.machine.alive[0].end(Exit(1, None))
        await site.realm.until(lambda begun=begun: len(site.machine.programs) > begun, 60)
    await site.realm.until(lambda: site.health() == "ready", 60)
    agent.kill()


@in_virtual_time
async def test_a_revision_for_which_there_is_no_room_is_not_said_to_run() -> None:
    site, disk, _, agent = await filled()
    begun = len(site.machine.programs)
    spec = site.spec(FILED.replace("first", "second"), version=2)
    site.assign(spec, version=2, revision=2)
    await site.realm.until(lambda: reason_of(site) == "fetch.no_space", 30)
    assert [one["generation"] for one in healths(site) if one["health"] == "ready"] == [1]
    assert len(site.machine.programs) == begun
    disk.full = False
    await site.realm.until(lambda: healths(site)[-1]["generation"] == 2 and site.health() == "ready", 120)
    await site.realm.until(lambda: (one := kept_in(site, SPEC)) is not None and one.id == spec.id, 5)
    agent.kill()


@in_virtual_time
async def test_what_comes_back_to_a_full_disk_before_it_could_leave_runs_again() -> None:
    site, disk, _, agent = await filled()
    spec = site.spec(CHECKED, version=2)
    site.assign(spec, version=2, revision=2)
    await site.realm.until(lambda: site.health() == "ready" and healths(site)[-1]["generation"] == 2, 120)
    site.assign(spec, version=3, revision=2, node="n2")
    await site.until("gone", 30)
    site.assign(spec, version=4, revision=2)
    await site.realm.until(lambda: site.health() == "ready" and healths(site)[-1]["generation"] == 4, 120)
    disk.full = False
    await asyncio.sleep(2 * AGAIN_S)
    assert agent.alive
    assert site.files.below(site.slot.directory).read(OUTCOME) is None
    agent.kill()


def reason_of(site: Site) -> str | None:
    reason = site.statuses()[-1].get("reason")
    return None if reason is None else str(reason["code"])


def test_a_disk_with_no_room_for_who_an_agent_is_names_nobody_who_was_it_before(monkeypatch: pytest.MonkeyPatch) -> None:
    write, full = MemoryFiles.write, [False]

    def wrote(files: MemoryFiles, path: str, content: bytes, *, mode: int = 0o600) -> None:
        if full[0] and path == PROCESS:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=path, free="0")
        write(files, path, content, mode=mode)

    async def main() -> None:
        monkeypatch.setattr(MemoryFiles, "write", wrote)
        at = await Managed.running()
        agents, files = at.node.agents.started, at.site.files.below(at.site.slot.directory)
        assert files.read(PROCESS) is not None
        full[0] = True
        agents[-1].process.kill()
        await at.realm.until(lambda: len(agents) == 2 and at.states("agent")[-1] == "running")
        assert files.read(PROCESS) is None
        at.end()

    run(main())


@in_virtual_time
async def test_a_manager_whose_disk_has_no_room_for_a_container_says_so_and_makes_it_when_there_is() -> None:
    at = Managed()
    full = NoRoom(at.node.files.content, at.node.files.root)
    at.node.files = at.node.agents.files = full
    at.start()
    at.site.place()
    await at.realm.until(lambda: at.states("container")[-1:] == ["failed"])
    assert at.told("container")[-1]["reason"]["code"] == "fetch.no_space"
    assert at.process is not None
    assert at.process.alive, "it keeps what else there is"
    full.full = False
    await at.site.until("running")
    at.end()
