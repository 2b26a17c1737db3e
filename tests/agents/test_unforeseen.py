"""What nobody foresaw in a step, and what cannot be removed: neither stops an agent (C13)."""

import asyncio
import signal
from typing import Any

import pytest

from dsmt.agents.instance.installing import Installer
from dsmt.agents.instance.running import Runner
from dsmt.agents.rules import after
from dsmt.agents.rules.container import EXIT_GONE
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .memory_machine import Program
from .sights import CHECKED, command
from .world import WEB, Site


def codes(site: Site) -> list[str]:
    """Of which reasons was told."""
    return [status["reason"]["code"] for status in site.statuses() if status.get("reason") is not None]


@pytest.mark.parametrize("step", ["install", "configure", "start", "uninstall"])
def test_what_nobody_foresaw_in_a_step_is_that_steps_failure_and_the_agent_goes_on(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the agent would crash at it, be started again and crash again, for ever: nothing is parked, refused or moved."""

    async def fails(*_: Any, **__: Any) -> None:
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "nobody foresaw it")

    async def main() -> None:
        told = list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        site = Site(Realm())
        site.place(WEB + "    uninstall: clear it\n    restart: {park: {after: 2}}\n")
        agent = site.start()
        if step == "uninstall":
            await site.until("running")
        where = Runner if step == "start" else Installer
        monkeypatch.setattr(where, step, fails)
        if step == "uninstall":
            site.assign(site.spec_of(), version=2, desired="gone")
            assert (await agent.wait()).code == EXIT_GONE
            assert (site.state(), site.statuses()[-1]["reason"]["code"]) == ("gone", "stop.leftover")
            assert [type(error) for error in told] == [UnicodeDecodeError]
            return
        await site.realm.until(lambda: bool(site.statuses()) and site.statuses()[-1]["parked"])
        said = site.statuses()[-1]["reason"]
        assert (said["code"], "UnicodeDecodeError" in said["message"]) == ("dsmt.bug", True)
        assert {type(error) for error in told} == {UnicodeDecodeError}
        monkeypatch.undo()
        command(site, "RETRY", generation=1)
        await site.until("running")
        assert agent.alive
        agent.kill()

    run(main())


def test_what_nobody_foresaw_in_the_start_that_follows_a_death_at_once_is_that_starts_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> Program:
        raise OSError(24, "Too many open files")

    async def main() -> None:
        told = list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        site = Site(Realm())
        site.place(CHECKED)
        agent = site.start()
        await site.realm.until(lambda: site.health() == "ready")
        monkeypatch.setattr(site.machine, "start", fails)
        site.machine.alive[0].end(Exit(1, None))
        await site.realm.until(lambda: "dsmt.bug" in codes(site))
        monkeypatch.undo()
        await site.realm.until(lambda: site.health() == "ready" and site.state() == "running")
        assert agent.alive
        assert {type(error) for error in told} == {OSError}
        agent.kill()

    run(main())


def test_what_nobody_foresaw_in_a_stop_command_does_not_end_the_agent_and_the_signal_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        site = Site(Realm())
        site.place(WEB + "    stop: {command: end it}\n")
        agent = site.start()
        await site.until("running")
        monkeypatch.setattr(Installer, "command", fails)
        site.assign(site.spec_of(), version=2, desired="gone")
        assert (await agent.wait()).code == EXIT_GONE
        assert site.machine.programs[-1].signals == [signal.SIGTERM]
        assert codes(site) == ["dsmt.bug"]

    run(main())


@in_virtual_time
async def test_what_is_to_be_gone_is_gone_though_its_files_cannot_be_removed() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    stuck = f"{site.files.below(site.slot.directory).root}/files/mounted"
    site.files.content[stuck] = b"x"
    site.files.stuck.add(stuck)
    site.assign(site.spec_of(), version=2, desired="gone")
    assert (await agent.wait()).code == EXIT_GONE
    assert (site.state(), site.statuses()[-1]["reason"]["code"]) == ("gone", "node.files")


@pytest.mark.parametrize("step", ["install", "configure"])
@in_virtual_time
async def test_a_step_that_ends_the_agents_which_do_it_has_failed(step: str) -> None:
    """It may kill its parent, or take all the memory that there is: nobody would ever be told, and nothing refused."""
    site = Site(Realm())
    site.place(WEB + f"    {step}: end it\n    restart: {{park: {{after: 2}}}}\n")
    started = len(site.machine.programs)
    for _ in range(after.CUT_MOST):
        agent = site.start()
        await site.realm.until(lambda: len(site.machine.alive) == 1)
        agent.kill()
        await site.realm.until(lambda: not site.machine.alive)
    assert len(site.machine.programs) == started + after.CUT_MOST
    last = site.start()
    await site.until("failed")
    said = site.statuses()[-1]["reason"]
    assert (said["code"], said["message"]) == (
        "install.cut",
        f"{step} is cut off again and again, each time by the end of the agent that does it",
    )
    await site.realm.until(lambda: len(site.machine.alive) == 1)
    last.kill()
    await site.realm.until(lambda: not site.machine.alive)
    last = site.start()
    await site.realm.until(lambda: site.states().count("failed") == 2)
    assert site.statuses()[-1]["reason"]["code"] == "install.cut", "and has failed at each further end"
    last.kill()


def step_in(site: Site, step: str) -> Any:
    """Whether the command of a step runs."""
    return lambda: any(program.launch.stdout.endswith(f"/{step}.log") for program in site.machine.alive)


@pytest.mark.parametrize("step", ["stop", "uninstall"])
@in_virtual_time
async def test_what_is_to_be_gone_is_gone_though_a_step_on_the_way_ends_the_agents_which_do_it(step: str) -> None:
    site = Site(Realm())
    site.place(WEB + {"stop": "    stop: {command: end it}\n", "uninstall": "    uninstall: end it\n"}[step])
    agent = site.start()
    await site.until("running")
    site.assign(site.spec_of(), version=2, desired="gone")
    for _ in range(after.CUT_MOST):
        await site.realm.until(step_in(site, step))
        agent.kill()
        agent = site.start()
    assert (await agent.wait()).code == EXIT_GONE
    assert (site.state(), site.machine.alive) == ("gone", [])
    said = [status["reason"] for status in site.statuses() if status.get("reason") is not None]
    cut = f"{step} is cut off again and again, each time by the end of the agent that does it"
    assert any(cut in one["message"] for one in said)


@in_virtual_time
async def test_a_start_that_ends_the_agents_which_do_it_has_failed() -> None:
    """What is started may kill its parent before that has written down whom it has started."""
    site = Site(Realm())
    site.place(WEB + "    restart: {park: {after: 2}}\n")
    site.machine.starting_s = 1.0
    for starts in range(1, after.CUT_MOST + 1):
        agent = site.start()
        await site.realm.until(lambda starts=starts: site.machine.starts == starts)
        agent.kill()
    agent = site.start()
    await site.until("failed")
    assert site.statuses()[-1]["reason"]["code"] == "install.cut"
    agent.kill()
    await site.realm.until(lambda: not agent.alive)
    agent = site.start()
    await site.until("running", 60)
    assert (site.record().doing, site.record().cut) == ("", 0)
    agent.kill()


@in_virtual_time
async def test_configuring_what_is_taken_back_is_given_up_where_it_ends_the_agents_which_do_it() -> None:
    site = Site(Realm())
    text = WEB + "    configure: end it\n    update: {order: start_first}\n"
    site.machine.steps["end"] = Exit(0, None)
    site.place(text)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    old = site.spec_of()
    new = site.spec(text.replace("sleep forever", "sleep longer"), version=2)
    site.assign(new, version=2)
    await site.realm.until(lambda: site.record().outgoing is not None)
    del site.machine.steps["end"]
    site.assign(old, version=3)
    for _ in range(after.CUT_MOST):
        await site.realm.until(step_in(site, "configure"))
        agent.kill()
        agent = site.start()
    await site.realm.until(lambda: site.record().outgoing is None)
    assert len(site.machine.alive) == 1
    agent.kill()
