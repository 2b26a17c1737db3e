"""Where and how the steps of an instance run, what they leave, and what is told of them."""

import asyncio
from typing import Any

import pytest

from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.output import Output
from dsmt.agents.instance.present import Present
from dsmt.agents.rules.container import FILES, RECORD
from dsmt.agents.rules.launching import place_of
from dsmt.agents.rules.output_trimming import look_again_s
from dsmt.agents.rules.record import InstanceRecord, dump_record
from dsmt.agents.rules.supervision import RestartHistory
from dsmt.errors import TransportError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.status import State
from dsmt.ports.processes import Exit
from dsmt.spec.records import LogRotation
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .memory_machine import MemoryFiles
from .sights import CHECKED, served
from .world import WEB, Site

FETCHES = WEB.replace("    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    run:")


async def failed(site: Site, text: str) -> Any:
    """Why an instance of this fails."""
    site.place(text)
    agent = site.start()
    await site.until("failed", 60)
    agent.kill()
    return site.statuses()[-1]["reason"]


@in_virtual_time
async def test_a_step_that_hangs_is_ended_at_its_limit() -> None:
    site = Site(Realm())
    reason = await failed(site, WEB + "    install: hang\n    install_timeout: 20s\n")
    assert reason["code"] == "install.command"
    assert "a kill by dsmt, at its limit of 20s" in reason["message"]
    assert site.machine.alive == []


@in_virtual_time
async def test_who_does_not_bring_an_artifact_in_time_is_named() -> None:
    site = Site(Realm())
    site.artifacts.takes_s = 3000.0
    reason = await failed(site, FETCHES + "    install_timeout: 20s\n")
    assert reason["code"] == "fetch.unreachable"
    assert "depot:aa" in reason["message"]
    assert "not here in 20s" in reason["message"]


@in_virtual_time
async def test_what_keeps_an_artifact_from_coming_is_told_as_one_that_may_come_another_time() -> None:
    site = Site(Realm())
    site.artifacts.wrong = TransportError("bus.unreachable", "no broker answers")
    reason = await failed(site, FETCHES)
    assert reason["code"] == "fetch.unreachable"
    assert "depot:aa" in reason["message"]
    assert "no broker answers" in reason["message"]


@in_virtual_time
async def test_the_last_words_of_a_step_are_none_of_the_step_before() -> None:
    site = Site(Realm())
    site.machine.steps["prepare"] = Exit(4, None)
    site.logs.write("install", "said when it was installed before")
    assert (await failed(site, WEB + "    install: prepare\n"))["last_output"] == ""


@in_virtual_time
async def test_last_words_that_are_no_text_are_told_as_far_as_they_are() -> None:
    site = Site(Realm())
    site.machine.steps["prepare"] = Exit(4, None)
    written = site.logs.content
    site.machine.moment = lambda: written.update({site.logs.path("install"): b"no: \xff!"})  # type: ignore[assignment]
    assert (await failed(site, WEB + "    install: prepare\n"))["last_output"] == "no: \ufffd!"


@in_virtual_time
async def test_an_update_is_installed_while_what_runs_holds_its_port() -> None:
    site = Site(Realm())
    fetches = FETCHES.replace("http: auto", "http: 8080") + CHECKED.removeprefix(WEB)
    agent = site.start()
    await served(site, fetches)
    site.assign(site.spec(fetches.replace("a" * 64, "b" * 64), version=2), version=2)
    await site.realm.until(lambda: len(site.artifacts.installed) == 2, 60)
    assert "failed" not in site.states()
    agent.kill()


@in_virtual_time
async def test_at_what_rate_output_is_written_is_seen_from_one_look_to_the_next() -> None:
    site = Site(Realm())
    output = Output(site.logs, Memory(MemoryFiles(), "b1"), Present())
    bounds = LogRotation(size_bytes=1000, keep=1, rate_bytes=0)
    assert output.trim(bounds, 100.0) == look_again_s(0.0, 0, 1000)
    site.logs.write("stdout", "x" * 500)
    assert output.trim(bounds, 101.0) == look_again_s(1.0, 500, 1000) == 2.0


@in_virtual_time
async def test_install_runs_where_it_installs_to_and_configure_where_the_program_will() -> None:
    site = Site(Realm())
    site.machine.steps |= {"fill": Exit(0, None), "prepare": Exit(0, None)}
    site.place(WEB + "    directory: made/by/install\n    install: fill\n    configure: prepare\n")
    agent = site.start()
    await site.until("running")
    place = f"{site.files.root}/{site.slot.directory}/{place_of(site.record().install_key)}"
    fill, prepare, program = (one.launch for one in site.machine.programs)
    assert fill.directory == place
    assert prepare.directory == program.directory == f"{place}/made/by/install"
    for step, launch in (("install", fill), ("configure", prepare)):
        assert launch.stdout == launch.stderr == site.logs.path(step)
    agent.kill()


@pytest.mark.parametrize("image", ["", "docker.io/library/debian@sha256:" + "a" * 64])
@in_virtual_time
async def test_a_step_runs_as_whom_and_in_what_the_program_does(image: str) -> None:
    site = Site(Realm())
    process = site.machine.drivers
    site.machine.drivers = lambda owner: {"podman": process(owner)["process"]} | process(owner)  # type: ignore[method-assign]
    site.machine.steps["fill"] = Exit(0, None)
    about = f"    image: '{image}'\n" if image else "    user: web\n"
    site.place(f"{WEB}{about}    data: true\n    install: fill\n")
    agent = site.start()
    await site.until("running")
    fill, program = (one.launch for one in site.machine.programs)
    assert (fill.user, fill.image) == (program.user, program.image) == ("" if image else "web", image)
    assert fill.mounts == program.mounts
    assert len(fill.mounts) == 2
    agent.kill()


@pytest.mark.parametrize("user", ["", "    user: web\n"])
@in_virtual_time
async def test_a_template_is_filled_in_and_other_files_are_not(user: str) -> None:
    site = Site(Realm())
    port = "content: 'port {port.http}'"
    files = f"{{to: a, {port}, template: true}}, {{to: b, {port}}}, {{to: c, content: ''}}"
    agent = site.start()
    program = await served(site, f"{CHECKED}{user}    files: [{files}]\n")
    below = f"{site.slot.directory}/{place_of(site.record().install_key)}"
    assert site.files.read(f"{below}/a") == f"port {program.launch.env['PORT']}".encode()
    assert site.files.read(f"{below}/b") == b"port {port.http}"
    assert site.files.read(f"{below}/c") == b""
    agent.kill()


@in_virtual_time
async def test_of_installations_that_follow_each_other_the_one_that_runs_stays() -> None:
    site = Site(Realm())
    text = FETCHES + "    files: [{to: conf, content: A}]\n"
    site.place(text)
    agent = site.start()
    await site.until("running")
    (first,) = site.files.names(f"{site.slot.directory}/{FILES}")
    site.assign(site.spec(text.replace("a" * 64, "b" * 64), version=2), version=2)
    await site.realm.until(lambda: site.state() == "running" and site.statuses()[-1]["generation"] == 2)
    await asyncio.sleep(1)
    (second,) = site.files.names(f"{site.slot.directory}/{FILES}")
    assert f"{FILES}/{second}" == place_of(site.record().install_key)
    assert first != second
    agent.kill()


def test_times_of_before_a_boot_mean_nothing_after_it_and_what_was_said_stays() -> None:
    exited = LastExit(code=3, signal=None, at_ms=1, ran_s=2.0, reason=None)
    record = InstanceRecord(
        boot="b1",
        state=State.FAILED,
        generation=4,
        attempt=2,
        restarts=5,
        last_exit=exited,
        began_s=70.0,
        not_before_s=90.0,
        finished=True,
        history=RestartHistory(failures=3, first_failure=80.0),
        parked=True,
    )
    files = MemoryFiles()
    files.write(RECORD, dump_record(record))
    same, after = Memory(files, "b1"), Memory(files, "b2")
    assert (same.rebooted, same.record) == (False, record)
    assert after.rebooted
    assert after.record.history == RestartHistory()
    assert (after.record.not_before_s, after.record.began_s, after.record.finished) == (0.0, 0.0, False)
    said = after.last_status("n1", 5.0)
    assert said is not None
    assert (said.state, said.generation, said.restarts, said.last_exit) == (State.FAILED, 4, 5, exited)
    assert not said.parked, "all is tried anew"
    before = same.last_status("n1", 5.0)
    assert before is not None
    assert before.parked


@pytest.mark.parametrize(("more", "writes"), [("", False), ("    install: fill\n", True), ("fetches", True)])
@in_virtual_time
async def test_what_is_installed_is_on_the_disk_before_it_is_remembered_as_that(more: str, writes: bool) -> None:
    site = Site(Realm())
    site.machine.steps["fill"] = Exit(0, None)
    known: list[tuple[Any, int]] = []
    site.files.on_sync.append(lambda: known.append((site.record().installed, len(site.machine.programs))))
    site.place(FETCHES if more == "fetches" else WEB + more)
    agent = site.start()
    await site.until("running")
    assert known == ([((), int("install" in more))] if writes else []), "all that it runs has ended"
    assert site.record().installed
    agent.kill()
