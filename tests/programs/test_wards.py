"""Wards: what a dead node has left behind, and until when that is looked for."""

from __future__ import annotations

import os
import selectors
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.rules.container import RECORD
from dsmt.agents.rules.record import InstanceRecord, OutgoingCopy, dump_record
from dsmt.ports.driver import Handle
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs import children, containers, wards
from dsmt.programs.anew import NOTHING
from dsmt.programs.kept_programs import KeptPrograms
from dsmt.programs.spawner import Spawner
from dsmt.programs.wards import BEGIN_AGAIN_S, GRACE_S, LOOK_AGAIN_S, WardRemains, Wards, remains_of
from dsmt.programs.watches import Watches
from dsmt.system.clock import LinuxClock
from dsmt.system.processes import Request
from dsmt.system.procfs import identity_of


def test_a_dead_node_is_looked_at_until_two_looks_find_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    now, late = [100.0], ProcessIdentity(7, 1, "b")
    looks: list[set[ProcessIdentity]] = [set(), {late}, set(), set()]
    killed: list[tuple[ProcessIdentity, int]] = []
    monkeypatch.setattr(wards, "process_of", lambda *_: None)
    monkeypatch.setattr(wards, "remains_of", lambda _: WardRemains(lives=False, forked=looks.pop(0)))
    monkeypatch.setattr(wards, "send_signal", lambda who, number: killed.append((who, number)))
    with selectors.DefaultSelector() as selector:
        at = Wards(["/node"], Watches(selector), lambda: now[0], begin=lambda _: pytest.fail("nothing of it lives"))
        at.tick()
        assert (len(looks), at.due) == (4, 100.0 + GRACE_S), "another spawner may come first"
        while at.due is not None:
            now[0] = at.due
            at.tick()
    assert (looks, killed) == ([], [(late, signal.SIGKILL)]), "who was being forked is missed by the first look"
    assert now[0] == pytest.approx(100.0 + GRACE_S + 3 * LOOK_AGAIN_S)


def test_a_node_that_nobody_keeps_and_of_which_something_lives_is_begun_again_each_5_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, begun = [100.0], list[float]()
    monkeypatch.setattr(wards, "process_of", lambda *_: None)
    monkeypatch.setattr(wards, "remains_of", lambda _: WardRemains(lives=True, forked=set()))
    with selectors.DefaultSelector() as selector:
        at = Wards(["/node"], Watches(selector), lambda: now[0], begin=lambda _: begun.append(now[0]))
        while len(begun) < 3:
            assert at.due is not None
            now[0] = at.due
            at.tick()
        at.release("/node")
        assert at.due is None, "it is being removed"
    first = 100.0 + GRACE_S
    assert begun == pytest.approx([first, first + BEGIN_AGAIN_S, first + 2 * BEGIN_AGAIN_S])


@pytest.mark.parametrize("alive", [True, False])
def test_a_program_that_lives_has_its_node_begun_again_and_of_a_dead_one_all_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    container = tmp_path / "containers" / "web" / "app" / "0"
    container.mkdir(parents=True)
    (container / RECORD).write_bytes(dump_record(InstanceRecord(boot="b")))
    root, forked = ProcessIdentity(8, 1, "b"), ProcessIdentity(9, 1, "b")
    monkeypatch.setattr(containers, "roots_of", lambda _: [root])
    monkeypatch.setattr(wards, "is_alive", lambda who: alive and who == root)
    monkeypatch.setattr(wards, "bearers", lambda owners: {forked} if str(container) in owners else set())
    monkeypatch.setattr(wards, "Tree", lambda *_, **__: SimpleNamespace(members=lambda: {root}))
    assert remains_of(str(tmp_path)) == (alive, set() if alive else {root, forked})


def test_a_copy_before_that_lives_is_a_program_that_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = tmp_path / "containers" / "web" / "app" / "0"
    container.mkdir(parents=True)
    own = identity_of(os.getpid())
    assert own is not None
    handle = Handle({"pid": own.pid, "started": own.started, "boot": own.boot})
    record = InstanceRecord(boot=own.boot, outgoing=OutgoingCopy(process=handle, ports={}, driver="process"))
    (container / RECORD).write_bytes(dump_record(record))
    monkeypatch.setattr(wards, "bearers", lambda _: pytest.fail("it serves"))
    assert remains_of(str(tmp_path)) == (True, set())


def test_a_monitor_that_lives_has_its_node_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = ProcessIdentity(8, 1, "b")
    monkeypatch.setattr(wards, "process_of", lambda _, program: monitor if program == "node_monitor" else None)
    assert remains_of(str(tmp_path)) == (True, set())


def test_a_node_s_spawner_that_is_started_is_watched_over_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, watched, started = str(tmp_path / "n1"), list[str](), ProcessIdentity(7, 1, "b")
    monkeypatch.setattr(children, "fork", lambda *_: started)
    programs: Any = dict.fromkeys(("spawner", "container_manager"), lambda _directory: 0)
    recorded: Any = SimpleNamespace(find=lambda *_: None)
    watching: Any = SimpleNamespace(add=watched.append)
    at = children.Children(programs, recorded, watching, NOTHING, lambda: None)
    for program in ("container_manager", "spawner"):
        assert at.fork(program, node) == started
    assert watched == [node]


def test_a_node_that_is_removed_is_released_and_a_broker_that_is_kept_is_not() -> None:
    released = list[str]()
    nothing: Any = None
    kept = KeptPrograms((), nothing, nothing, nothing, LinuxClock())
    at: Any = SimpleNamespace(_kept=kept, _wards=SimpleNamespace(release=released.append))
    Spawner._do_request(at, Request("keep", program="broker", directory="/b1"))
    assert (released, [one.directory for one in kept._kept]) == ([], ["/b1"])
    Spawner._do_request(at, Request("release", program="spawner", directory="/n1"))
    assert released == ["/n1"]


def test_an_agent_that_lives_has_its_node_begun_again_and_what_is_forked_there_is_spared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = tmp_path / "containers" / "web" / "app" / "0"
    container.mkdir(parents=True)
    (container / RECORD).write_bytes(dump_record(InstanceRecord(boot="b")))
    monkeypatch.setattr(containers, "living", lambda record: record.endswith("deployment_agent.json") or None)
    monkeypatch.setattr(containers, "roots_of", lambda _: pytest.fail("its agent lives"))
    assert remains_of(str(tmp_path)) == (True, set())
