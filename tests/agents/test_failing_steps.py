"""Steps that fail, ports that are taken, instances that are not live or never ready."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.agents.rules.container import EXIT_GONE, EXIT_STOPPED
from dsmt.agents.rules.launching import place_of
from dsmt.errors import FailedError
from dsmt.ports.processes import Exit
from dsmt.ports.sockets import FOR_ROOT
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import CHECKED
from .world import WEB, Site


@in_virtual_time
async def test_an_install_that_fails_is_tried_again_and_says_why() -> None:
    site = Site(Realm())
    site.artifacts.wrong = FailedError("fetch.not_found", "depot:aa does not exist (gone)", url="depot:aa")
    site.place(WEB.replace("    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    run:"))
    agent = site.start()
    await site.until("failed")
    reason = site.statuses()[-1]["reason"]
    assert (reason["code"], reason["who"], reason["step"]) == ("fetch.not_found", "you", "restart")
    assert (site.statuses()[-1]["restarts"], site.statuses()[-1]["failures"]) == (0, 1), "no program was begun again"
    site.artifacts.wrong = None
    await site.until("running")
    assert site.realm.told("service/web/progress/app/0/n1")
    agent.kill()


@in_virtual_time
async def test_a_newer_fact_breaks_off_an_installation() -> None:
    site = Site(Realm())
    site.artifacts.takes_s = 3000.0
    spec = site.spec(WEB.replace("    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    run:"))
    site.assign(spec)
    agent = site.start()
    await site.until("initiated")
    site.assign(spec, version=2, desired="gone")
    assert (await agent.wait()).code == EXIT_GONE
    assert not site.machine.programs
    assert asyncio.get_running_loop().time() < 100


@pytest.mark.parametrize(("step", "key"), [("install", "install"), ("configure", "configure")])
@in_virtual_time
async def test_a_step_that_fails_is_told_with_its_last_words(step: str, key: str) -> None:
    site = Site(Realm())
    site.machine.steps["prepare"] = Exit(4, None)
    site.place(WEB + f"    {key}: prepare it\n")
    agent = site.start()
    await site.until("failed")
    reason = site.statuses()[-1]["reason"]
    assert (reason["code"], reason["step"], reason["exit_code"]) == ("install.command", step, 4)
    assert reason["command"] == "prepare it"
    agent.kill()


@in_virtual_time
async def test_a_fixed_port_that_is_taken_names_its_holder_and_is_tried_again() -> None:
    site = Site(Realm())
    site.machine.held[8080] = "pid 41 nginx"
    site.place(WEB.replace("http: auto", "http: 8080"))
    agent = site.start()
    await site.until("failed")
    reason = site.statuses()[-1]["reason"]
    assert reason["code"] == "start.port_in_use"
    assert "pid 41 nginx" in reason["message"]
    site.machine.held.clear()
    await site.until("running")
    agent.kill()


@in_virtual_time
async def test_a_fixed_port_that_only_root_may_have_is_told_as_that_and_nobody_is_to_be_stopped() -> None:
    site = Site(Realm())
    site.machine.held[80] = FOR_ROOT
    site.place(WEB.replace("http: auto", "http: 80"))
    agent = site.start()
    await site.until("failed")
    reason = site.statuses()[-1]["reason"]
    assert (reason["code"], reason["who"]) == ("start.port_denied", "you")
    assert "only root may listen at port 80 on " in reason["message"]
    assert "stop it" not in reason["next"]
    agent.kill()


@in_virtual_time
async def test_an_automatic_port_that_was_taken_meanwhile_is_chosen_anew_and_configured() -> None:
    site = Site(Realm())
    spec = site.spec(WEB + "    configure: prepare {port.http}\n")
    site.machine.steps["prepare"] = Exit(0, None)
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    old = site.machine.alive[0].launch.env["PORT"]
    site.assign(spec, version=2, desired="stopped")
    await site.until("stopped")
    site.machine.held[int(old)] = "pid 2 other"
    site.assign(spec, version=3)
    await site.until("running")
    new = site.machine.alive[0].launch.env["PORT"]
    assert new != old
    configured = [p.launch.argv[1] for p in site.machine.programs if p.launch.argv[0] == "prepare"]
    assert configured[-1] == new
    agent.kill()


@pytest.mark.parametrize("now", [{"address": "192.0.2.9"}, {"labels": {"zone": "b"}}], ids=["address", "label"])
@in_virtual_time
async def test_what_is_started_where_its_node_has_another_address_or_label_is_configured_anew(now: dict[str, Any]) -> None:
    site = Site(Realm())
    content = "{to: conf, template: true, content: 'bind {address} in {node.label.zone}'}"
    site.place(spec := WEB + f"    files: [{content}]\n")
    agent = site.start()
    await site.until("running")
    place = f"{site.slot.directory}/{place_of(site.record().install_key)}"
    assert site.files.read(f"{place}/conf") == b"bind 127.0.0.1 in a"
    agent.kill()
    site.config = replace(site.config, **now)
    agent = site.start()
    site.place(spec, version=2, restart=1)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2 and site.state() == "running")
    zone = site.config.labels["zone"]
    assert site.files.read(f"{place}/conf") == f"bind {site.config.address} in {zone}".encode()
    agent.kill()


@in_virtual_time
async def test_an_instance_that_is_not_live_is_restarted_and_that_is_told() -> None:
    site = Site(Realm())
    site.place(CHECKED)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "ready")
    assert site.endpoint()["ready"]
    site.checks.passed = False
    await site.realm.until(lambda: site.health() == "unready")
    assert not site.endpoint()["ready"]
    assert len(site.machine.programs) == 1
    await site.realm.until(lambda: "failed" in site.states())
    assert [s["reason"]["code"] for s in site.statuses() if s["reason"]] == ["health.not_live"]
    site.checks.passed = True
    await site.realm.until(lambda: site.health() == "ready")
    assert len(site.machine.alive) == 1
    assert len(site.machine.programs) == 2
    agent.kill()


@in_virtual_time
async def test_what_is_ready_and_not_live_is_served_no_more_when_that_is_told() -> None:
    site = Site(Realm())
    each = ", ".join(f"{role}: {{http: {{port: http, path: /{role[0]}}}}}" for role in ("readiness", "liveness"))
    site.place(f"{WEB}    health: {{{each}}}\n")
    checks, run = site.checks, site.checks.run

    async def only_readiness(check: Any, **where: Any) -> Any:
        checks.passed = not dead or check.how.path == "/r"
        return await run(check, **where)

    dead: list[bool] = []
    checks.run = only_readiness  # type: ignore[method-assign]
    agent = site.start()
    await site.realm.until(lambda: site.endpoint() and site.endpoint()["ready"])
    served: list[bool] = []
    publish = site.realm.publish

    def watched(signed: Any) -> None:
        publish(signed)
        if signed.event.type == "dsmt.status" and signed.event.data["state"] == "failed":
            served.append(site.endpoint()["ready"])

    site.realm.publish = watched  # type: ignore[method-assign]
    dead.append(True)
    await site.realm.until(lambda: served)
    assert served == [False]
    assert [one["reason"]["code"] for one in site.statuses() if one["reason"]] == ["health.not_live"]
    agent.kill()


@pytest.mark.parametrize("reboots", [True, False], ids=["its machine", "it and its program"])
@in_virtual_time
async def test_what_was_good_is_remembered_though_nobody_lived_to_say_so_when_it_ended(reboots: bool) -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    await asyncio.sleep(60)
    agent.kill()
    if reboots:
        site.machine.reboot()
    else:
        site.machine.alive[0].end(Exit(None, 9))
    agent = site.start()
    await site.until("failed")
    assert site.statuses()[-1]["good"] == {"spec": str(site.spec_of().id), "revision": 1}
    assert site.statuses()[-1]["restarts"] == (0 if reboots else 1), "that its machine ended is no fault of its own"
    agent.kill()


@pytest.mark.parametrize("ends", ["down", "its machine", "it dies"])
@in_virtual_time
async def test_what_was_ended_with_its_machine_has_its_time_anew_and_what_died_has_not(ends: str) -> None:
    site = Site(Realm())
    site.place(CHECKED)
    site.checks.passed = False
    agent = site.start()
    await site.until("instantiated")
    taken_ms = site.statuses()[-1]["taken_ms"]
    await asyncio.sleep(5)
    match ends:
        case "down":
            site.last.shutdown()
            await site.until("stopped")
        case "its machine":
            agent.kill()
            site.machine.reboot()
        case _:
            agent.kill()
            site.machine.alive[0].end(Exit(None, 9))
    await asyncio.sleep(100)
    before = len(site.statuses())
    site.start()
    await site.realm.until(lambda: "instantiated" in site.states()[before:])
    told = {status["taken_ms"] - taken_ms for status in site.statuses()[before:] if status["state"] != "stopped"}
    assert (min(told) >= 100_000) if ends != "it dies" else told == {0}
    site.process.kill()


@pytest.mark.parametrize("ends", ["it is stopped", "its check fails", "it dies"])
@in_virtual_time
async def test_what_is_good_is_said_when_it_is_so_and_before_anything_speaks_against_it(ends: str) -> None:
    site = Site(Realm())
    site.place(CHECKED)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "ready")
    assert site.good() is None
    await site.realm.until(site.good)
    assert site.states()[-1] == "running"
    before = len(site.realm.log)
    match ends:
        case "it is stopped":
            site.assign(site.spec_of(), version=2, desired="stopped")
        case "its check fails":
            site.checks.passed = False
        case _:
            site.machine.alive[0].end(Exit(None, 9))
    await site.realm.until(lambda: site.health() == "unready")
    told = [signed.event.data for signed in site.realm.log[before:] if signed.event.type == "dsmt.status"]
    assert [one for one in told if one["good"] != {"spec": str(site.spec_of().id), "revision": 1}] == []
    agent.kill()


@in_virtual_time
async def test_what_has_no_check_is_good_once_it_has_lived_for_long_enough_to_be_ready() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    (program,) = site.machine.alive
    program.end(Exit(None, 9))
    await site.realm.until(lambda: "failed" in site.states())
    assert site.statuses()[-1]["good"] == {"spec": str(site.spec_of().id), "revision": 1}
    agent.kill()


@in_virtual_time
async def test_an_instance_that_is_never_ready_is_restarted_at_its_deadline() -> None:
    site = Site(Realm())
    site.checks.passed = False
    site.place(CHECKED)
    agent = site.start()
    topic = site.slot.on("health", site.node)
    await site.realm.until(lambda: len(site.realm.told(topic)) > 1, 7)
    assert site.realm.told(topic)[1]["evidence"].startswith("its start-up check fails: ")
    assert [(one["health"], one["failures"]) for one in site.realm.told(topic)] == [("unready", 0)] * 2
    await site.until("failed")
    assert site.statuses()[-1]["reason"]["code"] == "start.timeout"
    assert 59 < asyncio.get_running_loop().time() < 63
    agent.kill()


@in_virtual_time
async def test_shutdown_stops_the_instance_and_leaves_no_process() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    assert site.last is not None
    site.last.shutdown()
    assert (await agent.wait()).code == EXIT_STOPPED
    assert site.state() == "stopped"
    assert not site.machine.alive
    agent = site.start()
    await site.until("running")
    agent.kill()


@pytest.mark.parametrize("killed", [False, True], ids=["it fails", "its agent is killed"])
@in_virtual_time
async def test_what_is_gone_back_to_is_configured_anew_when_the_next_ones_configure_did_not_end_well(killed: bool) -> None:
    site = Site(Realm())
    site.machine.steps |= {"mine": Exit(0, None)} | ({} if killed else {"other": Exit(1, None)})
    text = WEB + "    update: {order: stop_first}\n    files: [{to: conf, content: of the first}]\n    configure: mine\n"
    site.place(text)
    agent = site.start()
    await site.until("running")
    place = f"{site.slot.directory}/{place_of(site.record().install_key)}"
    other = text.replace("of the first", "of another").replace("mine", "other")
    site.assign(site.spec(other, version=2), version=2)
    await site.realm.until(lambda: any(p.launch.argv[0] == "other" for p in site.machine.programs))
    assert site.files.read(f"{place}/conf") == b"of another"
    if killed:
        agent.kill()
        agent = site.start()
    site.assign(site.spec(text, version=3), version=3)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3 and site.state() == "running")
    assert site.files.read(f"{place}/conf") == b"of the first"
    agent.kill()


@pytest.mark.parametrize(("step", "key"), [("fetch", "artifact"), ("install", "install"), ("configure", "configure")])
@in_virtual_time
async def test_a_step_that_takes_long_is_named_with_when_it_began_until_it_is_over(step: str, key: str) -> None:
    site = Site(Realm())
    site.artifacts.takes_s = 30.0
    value = "{url: 'depot:aa', sha256: " + "a" * 64 + "}" if key == "artifact" else "prepare it"
    site.place(WEB + f"    {key}: {value}\n    install_timeout: 2m\n")
    agent = site.start()
    await site.until("initiated")
    began_ms = site.statuses()[-1]["since_ms"]
    await site.realm.until(lambda: site.statuses()[-1].get("step") is not None)
    told = site.statuses()[-1]
    assert (told["state"], told["step"]) == ("initiated", {"name": step, "since_ms": began_ms, "limit_s": 120.0})
    for program in site.machine.alive:
        program.end(Exit(0, None))
    await site.until("running")
    assert site.statuses()[-1].get("step") is None
    agent.kill()


@in_virtual_time
async def test_an_uninstall_that_takes_long_is_named_while_it_is_wanted_again() -> None:
    site = Site(Realm())
    spec = site.spec(WEB + "    uninstall: clear it\n")
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    site.assign(spec, version=2, desired="gone")
    await site.realm.until(lambda: (site.statuses()[-1].get("step") or {}).get("name") == "uninstall")
    site.assign(spec, version=3)
    await site.until("gone")
    assert site.statuses()[-1].get("step") is None
    assert site.statuses()[-1]["reason"]["code"] == "stop.leftover"
    await site.until("running")
    agent.kill()
