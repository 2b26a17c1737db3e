"""What a machine that is cut off knows of itself (`--local`): rows by what stands in a container, and stops beside them."""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsmt.agents.rules.container import CONFIG, HELD
from dsmt.agents.rules.held_here import load_held
from dsmt.agents.rules.record import InstanceRecord
from dsmt.errors import FailedError, NotFoundError, RefusedError
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.instance import HeldHere, LastExit
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import reason
from dsmt.event.status import Shown, State
from dsmt.operations.local.here import acts, here
from dsmt.operations.local.here.here import Here, MachineState, instance_in, look_here, not_ours
from dsmt.operations.local.here.rows import is_problem_here, row_here, service_here
from dsmt.operations.local.home.home import Home
from dsmt.operations.read.screens.summaries import Service
from dsmt.operations.words.targets import Target
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import RealmConfig
from dsmt.spec.parsing import parse
from dsmt.system.procfs import identity_of
from dsmt.system.users import name_of
from dsmt.trust.keys import SecretKey

from .here import KEY, container, cut_off, record, said

ALIVE = ProcessIdentity(7, 7, "boot")
WEB = "service: web\ncomponents:\n  app:\n    run: ./app\n"
CHECKED = f"{WEB}    ports: {{http: auto}}\n    health: {{tcp: {{port: http}}}}\n"
STOP = HeldHere(id="aa", by="root", at_ms=1_700_000_000_000, reason="disk smokes")


def instance(record: InstanceRecord | None, *, spec: str = WEB, **about: Any) -> Here:
    known: dict[str, Any] = {"slot": None, "held": None, "agents": (ALIVE,), "program": None, "generation": 3}
    return Here(
        node="n1",
        key=KEY,
        directory=Path("/n1"),
        address="192.0.2.1",
        spec=parse(spec, file="test.yaml")[0],
        record=record,
        **{**known, **about},
    )


HANDLE: Any = {"pid": 7}


@pytest.mark.parametrize(
    ("told", "about", "state"),
    [
        (None, {}, Shown.WAITING),
        (record(), {}, Shown.WAITING),
        (record(state=State.INITIATED), {}, Shown.INSTALLING),
        (record(process=HANDLE), {"program": ALIVE}, Shown.STARTING),
        (record(process=HANDLE, started=True), {"program": ALIVE}, Shown.RUNNING),
        (record(process=HANDLE, started=True, asked=True), {"program": ALIVE}, Shown.STOPPING),
        (record(process=HANDLE, started=True, state=State.RUNNING), {}, Shown.LOST),
        (record(state=State.RUNNING), {}, Shown.LOST),
        (record(state=State.STOPPED), {"held": STOP}, Shown.STOPPED),
        (record(state=State.FAILED, parked=True, next_try_ms=1), {}, Shown.PARKED),
        (record(state=State.FAILED, next_try_ms=1), {}, Shown.BACKOFF),
        (record(state=State.FAILED), {}, Shown.FAILED),
    ],
)
def test_what_lives_and_what_was_written_down_says_the_state(
    told: InstanceRecord | None, about: dict[str, Any], state: Shown
) -> None:
    row = row_here(instance(told, **about), 5)
    assert row.state is state
    assert (row.pid is None) is (about.get("program") is None)


@pytest.mark.parametrize(("off_s", "since_ms"), [(0, 60_000), (86_400, 40_000), (-86_400, 40_000), (3, 60_000)])
def test_a_program_runs_for_no_longer_than_it_lives_however_far_this_machine_s_clock_is_off(
    off_s: int, since_ms: int
) -> None:
    """What is written down is of realm time: `ps --local` said 24 h of what was begun a minute ago."""
    start_ms = 1_700_000_000_000
    told = record(process=HANDLE, started=True, since_ms=start_ms + 60_000)
    clock_ms = start_ms + off_s * 1000
    row = row_here(instance(told, program=ALIVE, ran_ms=60_000), clock_ms + 100_000)
    assert row.since == rfc3339((clock_ms if since_ms == 40_000 else start_ms) + since_ms)


@pytest.mark.parametrize(
    ("spec", "ready", "agents", "health"),
    [
        (WEB, True, (ALIVE,), "none"),
        (CHECKED, True, (ALIVE,), "ready"),
        (CHECKED, False, (ALIVE,), "unready"),
        (CHECKED, True, (), "unknown"),
    ],
)
def test_how_well_it_is_nobody_knows_without_its_agent(spec: str, ready: bool, agents: Any, health: str) -> None:
    told = record(process=HANDLE, started=True, ready=ready, ports={"http": 8080})
    row = row_here(instance(told, spec=spec, agents=agents, program=ALIVE), 5)
    assert (row.health, row.agentless, row.ports, row.address) == (health, not agents, {"http": 8080}, "192.0.2.1")
    assert is_problem_here(row) is (health in ("unready", "unknown"))


def test_who_has_stopped_it_here_is_said_as_to_the_realm_and_how_that_ends_here() -> None:
    row = row_here(instance(record(state=State.STOPPED), held=STOP), 5)
    assert row.held is not None
    assert (row.held.by, row.held.reason) == ("root on n1 with --local", "disk smokes")
    assert row.reason is not None
    assert (row.reason.code, row.reason.next) == ("hold.local", "dsmt start web/app/0 --local")


def test_what_an_operator_of_the_realm_has_stopped_is_said_with_its_reason() -> None:
    why = reason("hold.operator", by="alice", time="12:00", their="new disk", target=KEY)
    fact = Slot(node="n1", spec="s", revision=2, desired="stopped", reason=why)
    row = row_here(instance(record(state=State.STOPPED), slot=fact), 5)
    assert row.held is not None
    assert (row.held.reason, row.held.at, row.reason, row.revision) == (why.message, None, why, 2)


def test_a_service_has_the_keys_that_it_has_where_the_realm_is_asked() -> None:
    rows = [row_here(instance(record(process=HANDLE, started=True), program=ALIVE), 5)]
    found = service_here("web", rows, Service.__struct_fields__)
    assert found.keys() == set(Service.__struct_fields__)
    assert (found["service"], found["ready"], found["wanted"], found["by"]) == ("web", 1, None, None)


# --- a home ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return cut_off(tmp_path)


def stop(machine: MachineState, **about: Any) -> Any:
    return asyncio.run(acts.stop_here(machine, Target("web"), reason="disk smokes", **about))


def start(machine: MachineState, **about: Any) -> Any:
    return asyncio.run(acts.start_here(machine, Target("web"), **about))


def test_it_is_found_with_whom_nobody_starts_again(home: Home) -> None:
    machine = look_here(home)
    (one,) = machine.instances
    assert (machine.realm, machine.up, one.key, one.node, one.agents) == ("main", False, KEY, "n1", ())
    assert machine.nodes == {"n1": {"spawner": None, "container_manager": None, "node_monitor": None}}
    with pytest.raises(NotFoundError, match="there is nothing of web/app/9 on n1"):
        look_here(home, Target.parse("web/app/9"))


def test_a_user_that_has_no_name_here_is_told_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_242_424)
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert acts.user() == "4242424"
    assert (
        not_ours(tmp_path, "read").message == f"{tmp_path} cannot be read by 4242424: it belongs to {name_of(os.getuid())}"
    )


def test_a_home_without_a_node_says_where_to_type_it(tmp_path: Path) -> None:
    key = SecretKey(bytes(32)).public
    RealmConfig(name="main", roots=(key,), brokers=(("127.0.0.1:1", key),)).write(tmp_path)
    with pytest.raises(NotFoundError, match="no node has its home"):
        look_here(Home(tmp_path))


def test_what_does_not_run_is_stopped_by_its_file_alone_and_only_once(home: Home) -> None:
    done = stop(look_here(home))
    kept = load_held((container(home) / HELD).read_bytes())
    assert kept is not None
    assert (kept.by, kept.reason, done.instances) == (acts.user(), "disk smokes", ["web/app/0"])
    assert abs(kept.at_ms - time.time_ns() // 1_000_000) < 60_000
    again = stop(look_here(home))
    assert (again.instances, again.unchanged) == ([], ["web/app/0"])
    assert load_held((container(home) / HELD).read_bytes()) == kept


def test_the_agent_of_what_has_ended_by_itself_is_told_and_not_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to stop; and whoever asks for a restart is to find it held."""
    told: list[bool] = []
    monkeypatch.setattr(here, "agents_in", lambda _directory: [identity_of(os.getpid())])
    monkeypatch.setattr(acts, "_poke", lambda _one: told.append((container(home) / HELD).exists()))
    ended = LastExit(code=0, signal=None, at_ms=5, ran_s=1.0, reason=None)
    said(home, state=State.FAILED, finished=True, last_exit=msgspec.to_builtins(ended), process=None)
    assert stop(look_here(home)).instances == ["web/app/0"]
    assert told == [True]
    asyncio.run(acts.start_here(look_here(home), Target("web")))
    assert told == [True, False]


def test_what_runs_with_no_agent_is_not_said_to_be_stopped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "AGENT_S", 0.1)
    own = identity_of(os.getpid())
    said(home, state=State.RUNNING, started=True, driver="process", process=msgspec.to_builtins(own))
    assert look_here(home).instances[0].program == own
    with pytest.raises(FailedError, match="it will not be started again, but its program, pid") as told:
        stop(look_here(home))
    assert told.value.next.startswith(f"kill {os.getpid()}")
    assert (container(home) / HELD).exists()


def test_it_is_let_go_and_nobody_starts_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "AGENT_S", 0.1)
    stop(look_here(home))
    with pytest.raises(FailedError, match="it may run again, and nobody starts it"):
        start(look_here(home))
    assert not (container(home) / HELD).exists()
    assert start(look_here(home)).because == {"web/app/0": "it was not stopped on this machine"}


def test_what_the_realm_has_stopped_is_not_started_here(home: Home) -> None:
    why = reason("hold.operator", by="alice", time="12:00", their="new disk", target=KEY)
    fact = Slot(node="n1", spec="s", revision=2, desired="stopped", reason=why)
    machine = look_here(home)
    theirs = msgspec.structs.replace(machine.instances[0], slot=fact)
    with pytest.raises(RefusedError, match="was stopped by an operator of the realm"):
        start(msgspec.structs.replace(machine, instances=(theirs,)))


def test_who_may_not_write_there_is_told_who_may(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(acts, "write_atomically", denied)
    for owner, advice in (("root", "type it as root"), ("ops", "type it as ops, or as root")):
        monkeypatch.setattr(here, "name_of", lambda _uid, owner=owner: owner)
        with pytest.raises(RefusedError, match="cannot be changed by") as told:
            stop(look_here(home))
        assert told.value.next == advice


@pytest.mark.skipif(os.geteuid() != 0, reason="it is about root")
def test_root_writes_it_as_the_user_of_the_home() -> None:
    with tempfile.TemporaryDirectory(prefix="dsmt-") as directory:
        Path(directory).chmod(0o755)
        made = cut_off(Path(directory))
        for place in (container(made), container(made) / "instance.json"):
            os.chown(place, 65534, 65534)
        stop(look_here(made))
        written = (container(made) / HELD).stat()
        assert (written.st_uid, written.st_gid, written.st_mode & 0o777) == (65534, 65534, 0o600)
        assert os.geteuid() == 0


def test_a_container_that_is_none_any_more_is_nothing(home: Home) -> None:
    (container(home) / CONFIG).unlink()
    assert instance_in("n1", container(home)) is None
    assert look_here(home).instances == ()
