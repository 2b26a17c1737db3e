"""One container of a node: its agent that dies again and again, and what that leaves when the node ends."""

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.node.clearing import clear
from dsmt.agents.node.container_keeper import ContainerKeeper
from dsmt.agents.node.hearing import HUNG_AFTER_MS
from dsmt.agents.node.status_publisher import StatusPublisher
from dsmt.agents.rules.container import CONFIG, EXIT_STOPPED, FILES, IDENTITY, OUTCOME, PROCESS, RECORD, TOLD, AgentOutcome
from dsmt.agents.rules.container import SLOT as FACT
from dsmt.agents.rules.supervision import GROWTH_FROM_S
from dsmt.errors import FailedError
from dsmt.event.reason import failed
from dsmt.event.slots import SlotKey
from dsmt.event.status import State
from dsmt.ports.processes import UNSEEN, Exit
from dsmt.simulator.engine.run import run
from tests.loops import in_virtual_time

from .managed import SLOT, Managed
from .memory_machine import MemoryFiles
from .world import AgentProcess, Agents


@in_virtual_time
async def test_an_agent_that_dies_as_soon_as_it_lives_is_not_started_again_at_once() -> None:
    at = Managed()
    at.start()
    at.site.place()
    loop, agents, pauses = asyncio.get_running_loop(), at.node.agents.started, list[float]()
    await at.realm.until(lambda: bool(agents))
    for count in range(1, 8):
        died = loop.time()
        agents[-1].process.kill()
        await at.realm.until(lambda count=count: len(agents) > count)
        pauses.append(round(loop.time() - died, 1))
    assert min(pauses) > 0
    at.end()


@in_virtual_time
async def test_an_agent_that_has_lived_well_is_followed_at_once_however_often_one_has_died() -> None:
    at = Managed()
    at.start()
    at.site.place()
    loop, agents = asyncio.get_running_loop(), at.node.agents.started
    await at.realm.until(lambda: bool(agents))
    for count in range(1, 8):
        await asyncio.sleep(60)
        died = loop.time()
        agents[-1].process.kill()
        await at.realm.until(lambda count=count: len(agents) > count)
        assert loop.time() - died < GROWTH_FROM_S / 2
    at.end()


@in_virtual_time
async def test_what_keeps_one_instance_from_being_ended_keeps_no_other_one_nor_the_node_s_end() -> None:
    at = Managed()
    drivers, refused = at.node.machine.drivers, set[str]()

    def driving(place: str) -> Any:
        if place in refused:
            raise FailedError("node.files", "too many open files")
        return drivers(place)

    at.node.machine.drivers = driving  # type: ignore[method-assign]
    process, stubborn = at.start(), at.site.spec("service: web\ncomponents:\n  app:\n    run: sleep stubborn\n")
    other = at.node.agents.site(SlotKey("web", "app", 1))
    for site in (at.site, other):
        site.assign(stubborn)
        await site.until("running")
    refused.add(f"/n1/{SLOT.directory}")
    assert at.manager is not None
    process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown(patience_s=0.1)))  # type: ignore[union-attr]
    assert (await asyncio.wait_for(process.wait(), 60)).code == 0
    assert [program.owner for program in at.node.machine.alive] == [f"/n1/{SLOT.directory}"]
    at.end()


@in_virtual_time
async def test_shutdown_ends_what_an_agent_had_started_and_not_written_down() -> None:
    at = Managed()
    process = at.start()
    at.site.place()
    await at.site.until("running")
    (program,) = at.node.machine.alive
    at.node.machine.start(program.owner, program.launch)
    assert at.manager is not None
    process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown()))  # type: ignore[union-attr]
    assert (await process.wait()).code == 0
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_an_agent_that_is_ended_so_that_another_follows_it_has_not_failed_and_the_next_one_that_dies_has() -> None:
    at = await Managed.running()
    agents, files = at.node.agents.started, at.site.files.below(at.site.slot.directory)
    for told in ([], ["failed"]):
        if not told:
            files.write(OUTCOME, AgentOutcome.FOLLOWED.encode())
        count, said = len(agents), len(at.states("agent"))
        agents[-1].process.kill()
        await at.realm.until(lambda count=count: len(agents) > count and at.states("agent")[-1] == "running")
        assert [state for state in at.states("agent")[said:] if state == "failed"] == told
        await at.realm.until(lambda: files.read(OUTCOME) is None)
    at.end()


def test_an_agent_that_has_ended_says_how_and_one_that_could_not_be_begun_says_nothing_of_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By that who decides knows whether its program may run (A8): it was begun, and nobody heard of it."""
    write, is_full = MemoryFiles.write, [True]

    def full(files: MemoryFiles, path: str, content: bytes, *, mode: int = 0o600) -> None:
        if path == IDENTITY and is_full[0]:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=path, free="0")
        write(files, path, content, mode=mode)

    async def main() -> None:
        at = Managed()
        monkeypatch.setattr(MemoryFiles, "write", full)
        at.start()
        at.site.place()
        await at.realm.until(lambda: at.states("agent")[-1:] == ["failed"])
        assert at.told("agent")[-1]["last_exit"] is None
        is_full[0] = False
        await at.site.until("running")
        files = at.site.files.below(at.site.slot.directory)
        files.remove(IDENTITY)
        is_full[0] = True
        at.node.agents.started[-1].process.kill()
        for reason in ("run.signal", "fetch.no_space"):
            await at.realm.until(lambda code=reason: (at.told("agent")[-1]["reason"] or {}).get("code") == code)
            assert at.told("agent")[-1]["last_exit"] is not None
        at.end()

    run(main())


def test_nothing_of_a_container_is_left_when_it_is_said_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for that may look into its directory, or end the machine."""
    tell, left = StatusPublisher.tell, list[list[str]]()

    async def main() -> None:
        at = await Managed.running()

        def told(voice: StatusPublisher, state: State, **about: Any) -> None:
            if state is State.GONE:
                left.append([path for path in at.node.files.content if SLOT.directory in path])
            tell(voice, state, **about)

        monkeypatch.setattr(StatusPublisher, "tell", told)
        at.site.assign(at.site.spec_of(), version=2, desired="gone")
        await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
        assert left == [[], []]
        at.end()

    run(main())


@pytest.mark.parametrize("again", [False, True])
@in_virtual_time
async def test_a_container_of_which_something_cannot_be_removed_is_gone_and_says_what_is_left(again: bool) -> None:
    at = await Managed.running()
    stuck = f"/n1/{SLOT.directory}/files/mounted"
    at.node.files.content[stuck] = b"x"
    at.node.files.stuck.add(stuck)
    at.site.assign(at.site.spec_of(), version=2, desired="gone")
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    said = at.told("container")[-1]
    assert (said["state"], said["reason"]["code"]) == ("gone", "node.files")
    assert "mounted cannot be removed" in said["reason"]["message"]
    assert [path for path in at.node.files.content if SLOT.directory in path] == [stuck]
    if again:  # what is placed there later begins beside it
        at.site.assign(at.site.spec_of(), version=3)
        await at.site.until("running")
    else:  # and it goes with the next manager, once it can
        at.node.files.stuck.clear()
        assert at.process is not None
        at.process.kill()
        at.start()
        await at.realm.until(lambda: stuck not in at.node.files.content)
    at.end()


@in_virtual_time
async def test_a_container_that_is_made_anew_beside_what_cannot_be_removed_begins_all_the_same() -> None:
    at = await Managed.running()
    stuck = f"/n1/{SLOT.directory}/files/mounted"
    at.node.files.content[stuck] = b"x"
    at.node.files.stuck.add(stuck)
    agents, files = at.node.agents.started, at.site.files.below(at.site.slot.directory)
    files.write(OUTCOME, AgentOutcome.RECREATE.encode())
    agents[-1].process.kill()
    await at.realm.until(lambda: len(agents) == 2)
    await at.site.until("running")
    assert "failed" not in at.states("container")
    at.end()


def test_what_makes_a_container_one_goes_first_and_last_what_its_program_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that cannot be removed, or who removes it is killed, it is no container any more."""
    files, gone, remove = MemoryFiles(), list[str](), MemoryFiles.remove

    def noted(where: MemoryFiles, path: str) -> None:
        gone.append(path.removeprefix(f"{SLOT.directory}/"))
        remove(where, path)

    for name in (RECORD, FILES + "/program", CONFIG, FACT, "a.log"):
        files.write(f"{SLOT.directory}/{name}", b"x")
    monkeypatch.setattr(MemoryFiles, "remove", noted)
    assert clear(files, SLOT) is None
    assert (gone[0], gone[4]) == (CONFIG, FILES)


def test_who_dies_while_a_container_is_made_anew_is_followed_by_one_that_makes_it_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What says so goes last."""
    write, remove, told, gone = MemoryFiles.write, MemoryFiles.remove, list[bytes | None](), list[str]()

    async def main() -> None:
        at = await Managed.running()
        agents, files = at.node.agents.started, at.site.files.below(at.site.slot.directory)

        def noted(where: MemoryFiles, path: str, content: bytes, *, mode: int = 0o600) -> None:
            if path == RECORD and not told:
                told.append(files.read(OUTCOME))
            write(where, path, content, mode=mode)

        def removed(where: MemoryFiles, path: str) -> None:
            gone.append(path)
            remove(where, path)

        files.write(OUTCOME, AgentOutcome.RECREATE.encode())
        files.write("written by its program", b"")
        monkeypatch.setattr(MemoryFiles, "write", noted)
        monkeypatch.setattr(MemoryFiles, "remove", removed)
        agents[-1].process.kill()
        await at.realm.until(lambda: len(agents) == 2)
        assert told == [AgentOutcome.RECREATE.encode()]
        assert "written by its program" in gone
        assert gone.index(OUTCOME) == len(gone) - 1
        at.end()

    run(main())


def test_what_nobody_foresaw_in_one_container_keeps_no_other_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start_agent(_agents: Agents, _directory: str) -> AgentProcess:
        raise IndexError("nobody foresaw it")

    async def main() -> None:
        told = list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        at = Managed()
        at.start()
        start = Agents.start_agent
        monkeypatch.setattr(Agents, "start_agent", start_agent)
        at.site.place()
        await at.realm.until(lambda: "failed" in at.states("agent"))
        said = at.told("agent")[-1]["reason"]
        assert (said["code"], "IndexError" in said["message"]) == ("dsmt.bug", True)
        assert at.process is not None
        assert at.process.alive
        monkeypatch.setattr(Agents, "start_agent", start)
        await at.site.until("running")
        assert {type(error) for error in told} == {IndexError}
        at.end()

    run(main())


@pytest.mark.parametrize("name", [CONFIG, OUTCOME, PROCESS, IDENTITY, FACT, RECORD])
def test_what_a_program_has_put_in_the_place_of_a_file_of_ours_goes_and_the_next_manager_goes_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it keep any other container waiting: the manager dies at nothing that stands there."""
    read = MemoryFiles.read

    def is_a_pipe(files: MemoryFiles, path: str) -> bytes | None:
        if (found := read(files, path)) == b"PIPE":
            raise failed("node.files", path=path, done="read", error="it is no file", other=True)
        return found

    async def main() -> None:
        monkeypatch.setattr(MemoryFiles, "read", is_a_pipe)
        at = await Managed.running()
        assert at.process is not None
        at.process.kill()
        at.node.agents.started[-1].process.kill()
        at.node.files.content[f"/n1/{SLOT.directory}/{name}"] = b"PIPE"
        process = at.start()
        await at.realm.until(lambda: len(at.node.agents.started) == 2 and b"PIPE" not in at.node.files.content.values())
        await at.realm.until(lambda: len(at.node.machine.alive) == 1 and at.site.state() == "running")
        assert process.alive
        at.end()

    run(main())


def test_what_cannot_be_read_for_a_moment_is_not_removed_and_is_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may have no descriptor left."""
    read, failing = MemoryFiles.read, [True]

    def has_no_descriptor(files: MemoryFiles, path: str) -> bytes | None:
        if failing[0] and path in (CONFIG, OUTCOME, PROCESS, IDENTITY):
            raise failed("node.files", path=path, done="read", error="too many open files", other=False)
        return read(files, path)

    async def main() -> None:
        at = await Managed.running()
        before = {path: content for path, content in at.node.files.content.items() if SLOT.directory in path}
        assert at.process is not None
        at.process.kill()
        monkeypatch.setattr(MemoryFiles, "read", has_no_descriptor)
        process = at.start()
        await at.realm.until(lambda: at.states("agent")[-1] == "failed" or at.states("container")[-1] == "failed")
        assert {path for path in before if path not in at.node.files.content} == set()
        failing[0] = False
        await at.realm.until(lambda: at.states("agent")[-1] == "running")
        assert process.alive
        assert (len(at.node.agents.started), len(at.node.machine.programs)) == (1, 1)
        at.end()

    run(main())


def test_a_record_that_cannot_be_read_before_any_fact_has_come_ends_no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    read = MemoryFiles.read

    def is_closed(files: MemoryFiles, path: str) -> bytes | None:
        if path in (RECORD, FACT, TOLD):
            raise failed("node.files", path=path, done="read", error="permission denied", other=False)
        return read(files, path)

    async def main() -> None:
        at = await Managed.running()
        assert at.process is not None
        at.process.kill()
        monkeypatch.setattr(MemoryFiles, "read", is_closed)
        process = at.start()
        monkeypatch.setattr(at.node.agents, "start_agent", None)  # the one that runs is taken over
        await asyncio.sleep(30)
        assert (process.alive, at.site.state()) == (True, "running")
        at.end()

    run(main())


@in_virtual_time
async def test_who_finds_no_record_ends_what_runs_here_before_it_begins_another_one() -> None:
    """A program may remove all that is in its container's directory: what it has started is nobody's then."""
    at = await Managed.running()
    (program,) = at.node.machine.alive
    for path in [path for path in at.node.files.content if SLOT.directory in path]:
        del at.node.files.content[path]
    at.node.agents.started[-1].process.kill()
    await at.realm.until(lambda: len(at.node.machine.programs) == 2 and len(at.node.machine.alive) == 1)
    assert program not in at.node.machine.alive
    at.end()


@pytest.mark.parametrize(
    ("hung", "ended", "watched", "code"),
    [
        (True, Exit(None, signal.SIGKILL), True, "run.watchdog"),
        (True, UNSEEN, True, "run.watchdog"),
        (True, Exit(1, None), True, "dsmt.bug"),
        (False, Exit(1, None), True, "dsmt.bug"),
        (False, Exit(EXIT_STOPPED, None), True, "run.exited"),
        (False, UNSEEN, False, "run.vanished"),
    ],
    ids=["it hung", "it hung, unseen", "it hung, and failed", "it failed", "it stopped", "it vanished"],
)
def test_why_an_agent_has_ended_is_told_by_how_it_did(hung: bool, ended: Exit, watched: bool, code: str) -> None:
    own: Any = SimpleNamespace(_hung=hung, slot=SLOT, _config=SimpleNamespace(node="n1"), _files=SimpleNamespace(root="/c"))
    why = ContainerKeeper._why_ended(own, ended, 2.0, watched=watched)
    assert why.code == code
    assert code != "run.watchdog" or f" {round(HUNG_AFTER_MS / 1000)}s " in why.message
