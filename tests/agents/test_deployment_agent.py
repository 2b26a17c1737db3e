"""The deployment agent as a whole, in the simulator's time, over a bus and a machine in memory."""

import asyncio

import pytest

from dsmt.agents.rules.container import EXIT_RECREATE, RECORD
from dsmt.agents.rules.record import carried, dump_record, load_record
from dsmt.errors import FailedError
from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import CHECKED
from .world import WEB, Site


@in_virtual_time
async def test_a_new_slot_is_installed_started_ready_and_served() -> None:
    site = Site(Realm())
    slot = site.place()
    agent = site.start()
    await site.until("running")
    assert site.states() == ["requested", "initiated", "instantiated", "running"]
    (program,) = site.machine.alive
    assert program.launch.argv == ("sleep", "forever")
    port = program.launch.env["PORT_HTTP"]
    assert 20000 <= int(port) < 30000
    assert program.launch.env["PORT"] == port
    assert program.launch.env["DSMT_INSTANCE"] == "web/app/0"
    assert program.launch.env["PATH"] == "/bin"
    assert "SECRET" not in program.launch.env
    assert site.endpoint() is None
    await site.realm.until(lambda: site.health() == "none")
    assert site.endpoint() == {"address": "127.0.0.1", "ports": {"http": int(port)}, "generation": 1, "ready": True}
    first = next(s for s in site.realm.log if s.event.source == "agent/n1/web/app/0")
    assert first.event.cause == (slot.id,)
    agent.kill()


@in_virtual_time
async def test_a_death_after_a_healthy_run_is_answered_before_anything_is_said() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(site.good)
    (program,) = site.machine.alive
    site.logs.write("stderr", "the last words\n")
    before = len(site.realm.log)
    found = []
    publish = site.realm.publish
    site.realm.publish = lambda signed: (found.append((len(site.machine.alive), site.kept_pid())), publish(signed))  # type: ignore[method-assign]
    program.end(Exit(None, 9))
    await site.realm.until(lambda: site.states()[-1] == "running" and "failed" in site.states())
    (new,) = site.machine.alive
    assert new is not program
    assert found[0] == (1, new.identity.pid), "started first, then written down, then told"
    told = [s.event for s in site.realm.log[before:] if s.event.type == "dsmt.status"]
    assert [e.data["state"] for e in told] == ["failed", "instantiated", "running"]
    failed, *after = told
    assert failed.data["reason"]["code"] == "run.signal"
    assert failed.data["reason"]["signal"] == "SIGKILL"
    assert "the last words" in failed.data["reason"]["last_output"]
    assert failed.data["last_exit"]["signal"] == "SIGKILL"
    assert all(e.cause == (failed.id,) for e in after)
    assert after[-1].data["restarts"] == 1
    assert after[-1].data["last_exit"]["reason"]["code"] == "run.signal"
    assert site.machine.alive[0].launch.env == program.launch.env
    agent.kill()


@in_virtual_time
async def test_a_program_that_never_lives_backs_off_escalates_and_is_parked() -> None:
    site = Site(Realm())
    site.place()
    site.machine.steps["sleep"] = Exit(1, None)
    agent = site.start()
    codes = []
    while True:
        status = await agent.wait()
        codes.append(status.code)
        assert status.code == EXIT_RECREATE
        record = load_record(site.files.read(f"{site.slot.directory}/{RECORD}"))
        assert record is not None
        site.files.write(f"{site.slot.directory}/{RECORD}", dump_record(carried(record)))
        site.files.remove(f"{site.slot.directory}/files")
        agent = site.start()
        if len(codes) == 2:
            break
    await site.realm.until(lambda: site.statuses()[-1]["parked"], 1000)
    last = site.statuses()[-1]
    assert last["state"] == "failed"
    assert last["reason"]["code"] == "run.flapping"
    assert last["reason"]["step"] == "move"
    assert last["next_try_ms"] is not None
    failed = [s for s in site.statuses() if s["state"] == "failed"]
    steps = [s["reason"]["step"] for s in failed]
    assert steps == ["restart"] * 5 + ["reinstall"] * 2 + ["recreate"] * 2 + ["move"]
    tries = len(site.machine.programs)
    await site.realm.until(lambda: len(site.machine.programs) > tries, 700)
    agent.kill()


@in_virtual_time
async def test_what_cannot_be_started_counts_its_failures_as_restarts_and_keeps_the_reason_while_it_is_tried_again() -> None:
    site = Site(Realm())
    site.place()
    site.machine.wrong = FailedError(
        "start.cannot_exec", "sleep in .: not found", program="sleep", dir=".", error="not found"
    )
    agent = site.start()
    await site.realm.until(lambda: len([s for s in site.statuses() if s["state"] == "failed"]) == 4)
    told = site.statuses()
    assert [(s["restarts"], s["failures"]) for s in told if s["state"] == "failed"] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    trying = [s for s in told if s["state"] == "initiated" and s["attempt"] > 1]
    assert all(s["last_exit"]["reason"]["code"] == "start.cannot_exec" for s in trying)
    agent.kill()


@in_virtual_time
async def test_what_was_parked_is_tried_when_its_machine_has_been_started_anew() -> None:
    site = Site(Realm())
    site.place(WEB + "    restart: {park: {after: 2}}\n")
    site.machine.wrong = FailedError("start.cannot_exec", "not found", program="sleep", dir=".", error="not found")
    agent = site.start()
    await site.realm.until(lambda: bool(site.statuses()) and site.statuses()[-1]["parked"])
    await asyncio.sleep(1)
    agent.kill()
    site.machine.wrong = None
    site.machine.reboot()
    agent = site.start()
    await site.until("running", 60.0)
    agent.kill()


@pytest.mark.parametrize(("code", "who"), [(3, "you"), (0, "dsmt")])
@in_virtual_time
async def test_of_what_has_failed_and_is_never_tried_again_only_an_operator_acts(code: int, who: str) -> None:
    site = Site(Realm())
    site.place(WEB + "    restart: never\n")
    agent = site.start()
    await site.until("running")
    site.machine.alive[0].end(Exit(code, None))
    await site.until("failed")
    why = site.statuses()[-1]["reason"]
    assert (why["code"], why["who"], why["next"]) == ("run.exited", who, "dsmt retry web/app/0")
    agent.kill()


@in_virtual_time
async def test_a_killed_agent_is_followed_by_one_that_takes_the_program_over() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    agent.kill()
    site.realm.up.clear()
    agent = site.start()
    said = len(site.realm.log)
    await site.realm.until(lambda: len(site.realm.log) >= said + 3)
    assert len(site.machine.programs) == 1
    assert site.state() == "running"
    assert site.endpoint()["ready"]
    site.machine.alive[0].end(Exit(3, None))
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    assert site.statuses()[-1]["last_exit"]["code"] == 3
    agent.kill()


@in_virtual_time
async def test_what_nothing_checks_is_taken_over_as_what_nothing_checks() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    topic = site.slot.on("health", site.node)
    await site.realm.until(lambda: site.health() == "none")
    await asyncio.sleep(60)
    agent.kill()
    said = len(site.realm.told(topic))
    agent = site.start()
    await site.realm.until(lambda: len(site.realm.told(topic)) > said)
    assert [one["health"] for one in site.realm.told(topic)[said:]] == ["none"]
    assert site.endpoint()["ready"]
    agent.kill()


@in_virtual_time
async def test_what_is_parked_is_parked_in_the_words_of_the_next_agent_with_the_same_reason() -> None:
    site = Site(Realm())
    site.machine.steps["sleep"] = Exit(0, None)
    site.place(WEB + "    restart: {escalate: [{restart: 2}]}\n")
    agent = site.start()
    await site.realm.until(lambda: site.statuses() and site.statuses()[-1]["parked"])
    await asyncio.sleep(1)
    agent.kill()
    before = site.statuses()
    agent = site.start()
    await site.realm.until(lambda: len(site.statuses()) > len(before), 60)
    for name in ("state", "parked", "next_try_ms", "reason", "failures", "last_exit"):
        assert site.statuses()[-1][name] == before[-1][name], name
    assert site.statuses()[-1]["parked"]
    agent.kill()


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("checked", [True, False])
@in_virtual_time
async def test_who_goes_into_the_background_is_told_to_stay_in_the_foreground(code: int, *, checked: bool) -> None:
    site = Site(Realm())
    site.machine.steps["sleep"] = Exit(code, None)
    site.checks.passed = False
    site.place((CHECKED if checked else WEB) + "    restart: {escalate: [{restart: 2}]}\n")
    agent = site.start()
    await site.realm.until(lambda: site.statuses() and site.statuses()[-1]["parked"])
    told = [one["reason"] for one in site.statuses() if one["state"] == "failed"]
    assert {one["code"] for one in told} == {"start.exited" if checked else "run.exited", "run.flapping"}
    assert {one["message"].endswith("`run` must stay in the foreground") for one in told} == {code == 0}
    last = f"the last time: {told[-2]['message'].split(';')[0].split(' after ')[0]}"
    assert last in told[-1]["message"], "what fails again and again is told with how it failed"
    agent.kill()


@pytest.mark.parametrize("code", [0, 1])
@in_virtual_time
async def test_what_ends_with_0_again_and_again_is_told_how_that_is_allowed(code: int) -> None:
    site = Site(Realm())
    site.place(WEB + "    restart: {escalate: [{restart: 2}]}\n")
    agent = site.start()
    while not (site.statuses() and site.statuses()[-1]["parked"]):
        if site.machine.alive:
            await asyncio.sleep(3)  # of virtual time
            site.machine.alive[0].end(Exit(code, None))
        await asyncio.sleep(0.1)
    told = [one["reason"]["message"] for one in site.statuses() if one["state"] == "failed"]
    assert [one.endswith("needs `restart: on_failure`") for one in told] == [False] * (len(told) - 1) + [code == 0]
    agent.kill()


@in_virtual_time
async def test_a_program_that_died_while_no_agent_lived_is_told_and_started_again() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    agent.kill()
    site.machine.alive[0].end(Exit(7, None))
    agent = site.start()
    await site.realm.until(lambda: len(site.machine.alive) == 1)
    failed = [s for s in site.statuses() if s["state"] == "failed"]
    assert failed[-1]["reason"]["code"] == "run.exited"
    assert failed[-1]["reason"]["exit_code"] == 7
    await site.until("running")
    agent.kill()
