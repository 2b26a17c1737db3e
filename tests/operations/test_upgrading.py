"""When what a node runs is begun anew: none before the next manager is attached, so that the node lives meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsmt.errors import FailedError, TransportError
from dsmt.operations.local.home import steadiness
from dsmt.operations.local.home.addresses import free_port
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.steadiness import ENDS, check_programs, follows, stays
from dsmt.operations.local.processes import keeping
from dsmt.operations.local.up import upgrading
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import ATTACHED, BrokerFile, RealmConfig
from dsmt.simulator.engine.run import run
from dsmt.system.procfs import identity_of, is_alive
from dsmt.system.records import record_path, write_record
from tests.waiting import until


def test_a_keeper_is_started_once_one_that_is_just_ending_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then that has the lock, and answers nobody."""
    starts = list[str]()

    class Silent:
        def __init__(self, _directory: str) -> None:
            pass

        async def request(self, _message: object) -> dict[str, object]:
            if len(starts) < 3:
                raise TransportError("spawner.gone", "it does not answer")
            return {}

    monkeypatch.setattr(keeping, "write_kept", lambda _home: None)
    monkeypatch.setattr(keeping, "start_spawner", lambda directory, _argv: starts.append(directory))
    monkeypatch.setattr(keeping, "SpawnedProcesses", Silent)
    asyncio.run(keeping.start_keeper(Home(tmp_path)))
    assert starts == [str(tmp_path / "keeper")] * 3


def test_no_monitor_and_no_agent_is_ended_before_the_next_manager_is_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, node = [], Home(tmp_path).part("nodes", "n1")
    container = node / "containers" / "web" / "app" / "0"
    process_of = upgrading.process_of

    def counted(directory: Path, program: str) -> ProcessIdentity | None:
        asked.append(program)
        return process_of(directory, program)

    def record(directory: Path, program: str, pid: int) -> ProcessIdentity:
        identity = identity_of(pid)
        assert identity is not None
        write_record(record_path(str(directory), program), identity)
        return identity

    monkeypatch.setattr(upgrading, "process_of", counted)
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleeps) as agent, subprocess.Popen(sleeps) as before, subprocess.Popen(sleeps) as monitor:
        former = record(container, "deployment_agent", agent.pid)
        while time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") <= former.started + 1:
            pass  # what starts from now on is younger
        manager = subprocess.Popen(sleeps)

        async def main() -> None:
            ended = record(node, "container_manager", before.pid), record(node, "node_monitor", monitor.pid)
            record(node, ATTACHED, before.pid)
            replacing = asyncio.create_task(upgrading._replace_programs(node, *ended))
            await until(lambda: not is_alive(ended[0]) and asked.count("container_manager") > 2)
            record(node, "container_manager", manager.pid)
            await until(lambda: asked.count(ATTACHED) > 2)
            assert is_alive(ended[1])
            record(node, ATTACHED, manager.pid)
            await until(lambda: not is_alive(ended[1]))
            assert is_alive(former)
            record(node, "node_monitor", os.getpid())
            await until(lambda: not is_alive(former))
            replacing.cancel()

        try:
            asyncio.run(main())
        finally:
            for one in (agent, before, monitor, manager):
                one.kill()
                one.wait()


def test_agents_of_before_stay_where_the_next_manager_ends_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is installed is broken: who ends them now has nobody who starts the next ones, and says that all is well."""
    node = Home(tmp_path).part("nodes", "n1")
    monkeypatch.setattr(upgrading, "FOLLOW_S", 0.2)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as agent:
        former = identity_of(agent.pid)
        assert former is not None
        write_record(record_path(str(node / "containers" / "web" / "app" / "0"), "deployment_agent"), former)
        (node / "container_manager.log").write_text("Traceback (most recent call last):\nRuntimeError: broken build\n")
        try:
            with pytest.raises(
                FailedError, match=r"manager of node n1 ends again and again .*: RuntimeError: broken build;"
            ):
                asyncio.run(upgrading._replace_programs(node, None, None))
            assert is_alive(former)
        finally:
            agent.kill()
            agent.wait()


def test_a_broker_that_ends_again_and_again_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    directory = home.part("brokers", "b1")
    realm = RealmConfig(name="r", roots=(bytes(32),), brokers=())
    BrokerFile(realm=realm, address=f"127.0.0.1:{free_port()}").write(directory)
    starts = iter(ProcessIdentity(pid=number, started=number, boot="b") for number in range(1, 100))
    monkeypatch.setattr(upgrading, "process_of", lambda _directory, _program: next(starts))
    with pytest.raises(FailedError, match="broker b1 ends again and again") as failed:
        asyncio.run(upgrading._check_broker(home, "b1"))
    assert str(directory / "broker.log") in failed.value.next


def test_a_broker_that_cannot_begin_for_its_disk_got_full_meanwhile_is_not_said_to_be_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no room to say so: who upgraded was told to install the dsmt that ran before."""
    home = Home(tmp_path)
    directory = home.part("brokers", "b1")
    realm = RealmConfig(name="r", roots=(bytes(32),), brokers=())
    BrokerFile(realm=realm, address=f"127.0.0.1:{free_port()}").write(directory)
    starts = iter(ProcessIdentity(pid=number, started=number, boot="b") for number in range(1, 100))
    monkeypatch.setattr(upgrading, "process_of", lambda _directory, _program: next(starts))
    monkeypatch.setattr(steadiness.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(FailedError, match=f"broker b1 cannot begin: the disk of {directory} is full; ") as failed:
        asyncio.run(upgrading._check_broker(home, "b1"))
    assert failed.value.next == "free space there, and type it again"


def test_who_is_only_slow_stays() -> None:
    one = ProcessIdentity(pid=1, started=1, boot="b")

    async def never() -> bool:
        return False

    assert asyncio.run(stays(lambda: one, never, patience_s=0.1))
    assert not asyncio.run(stays(lambda: None, never, patience_s=0.1))


def test_who_has_ended_no_more_than_a_few_times_and_then_does_what_it_is_there_for_stays() -> None:
    starts = [ProcessIdentity(pid=number, started=number, boot="b") for number in range(ENDS)]
    seen, left = list[ProcessIdentity | None]([None]), iter([None, *starts])

    async def there() -> bool:
        return seen[-1] is starts[-1]

    def look() -> ProcessIdentity | None:
        seen.append(next(left))
        return seen[-1]

    assert asyncio.run(stays(look, there, patience_s=10))


def test_no_node_is_begun_anew_where_a_broker_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keeper").mkdir()
    done, nobody = list[str](), SimpleNamespace(controllers=list, bridges=list, brokers=list)
    monkeypatch.setattr(Home, "names", lambda _home, kind: [kind])
    monkeypatch.setattr(Home, "realm", lambda _home: RealmConfig(name="r", roots=(bytes(32),), brokers=()))
    monkeypatch.setattr(upgrading, "Parts", lambda *_: nobody)

    def act(name: str, *, fails: bool = False) -> None:
        async def acts(*_: object) -> None:
            done.append(name)
            assert (tmp_path / "keeper" / upgrading.BEGUN_ANEW).exists(), "it is noted before anything has ended"
            if fails:
                raise FailedError("upgrade.broken", "it ends again and again")

        monkeypatch.setattr(upgrading, name, acts)

    for name in ("end_program", "end", "start_keeper", "_replace_node", "start_all"):
        act(name)
    act("_check_broker", fails=True)
    with pytest.raises(FailedError, match="again and again"):
        asyncio.run(upgrading._replace_all(Home(tmp_path), lambda _: None))
    assert done[-2:] == ["start_keeper", "_check_broker"]


def test_a_manager_that_is_begun_again_as_its_spawner_is_asked_is_not_taken_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of before, as who had died: it is ended, and who follows it is waited for."""
    former, again, replaced = ProcessIdentity(7, 1, "b"), ProcessIdentity(8, 2, "b"), list[ProcessIdentity | None]()
    runs = {"container_manager": former}

    async def request(_spawner: object, _request: object) -> None:
        runs["container_manager"] = again

    async def replace(_directory: Path, manager: ProcessIdentity | None, _monitor: ProcessIdentity | None) -> None:
        replaced.append(manager)

    monkeypatch.setattr(upgrading.SpawnedProcesses, "request", request)
    monkeypatch.setattr(upgrading, "process_of", lambda _directory, program: runs.get(program))
    monkeypatch.setattr(upgrading, "_replace_programs", replace)
    asyncio.run(upgrading._replace_node(Home(tmp_path), "n1"))
    assert replaced == [again]


def test_nothing_is_ended_of_what_something_else_keeps_where_a_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, done = Home(tmp_path), list[str]()
    node = home.part("nodes", "n1")
    own = identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(node), "spawner"), own)
    monkeypatch.setattr(Home, "names", lambda _home, kind: ["n1"] if kind == "nodes" else [])
    monkeypatch.setattr(Home, "realm", lambda _home: RealmConfig(name="r", roots=(bytes(32),), brokers=()))

    def full(path: str, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    async def begun(_home: Home, name: str) -> None:
        done.append(name)

    monkeypatch.setattr(upgrading, "write_atomically", full)
    monkeypatch.setattr(upgrading, "_replace_node", begun)
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(upgrading.upgrade(home, lambda _: None))
    assert not done


@pytest.mark.parametrize(
    ("named", "lives", "begins", "stays_"),
    [
        ([], False, False, True),  # who starts them is slow
        ([1], True, False, True),  # it is slow itself
        ([1], False, False, False),
        ([1], False, True, False),  # it had begun, and has ended
        ([1, 2, 3, 4], True, False, False),  # the last one had just begun
        ([1], True, True, True),
        ([], False, True, True),  # its slot has left
    ],
)
def test_who_follows_stays_unless_it_ends_and_ends(
    monkeypatch: pytest.MonkeyPatch, named: list[int], *, lives: bool, begins: bool, stays_: bool
) -> None:
    monkeypatch.setattr(steadiness, "is_alive", lambda _: lives)
    monkeypatch.setattr(steadiness, "time", SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time()))
    seen, left = set[ProcessIdentity](), iter(named)

    def look() -> set[ProcessIdentity]:
        number = next(left, None)
        if number is not None:
            seen.clear()
            seen.add(ProcessIdentity(pid=number, started=number, boot="b"))
        return seen.copy()

    assert run(follows(look, lambda: begins, patience_s=0.3, lives_s=0.05)) == stays_


def test_what_ends_its_process_by_its_import_or_hangs_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(check_programs("spawner"))
    monkeypatch.setattr(steadiness, "TRIED", "another word")
    with pytest.raises(FailedError, match="a program ends by its import; nothing was ended"):
        asyncio.run(check_programs("spawner"))
    monkeypatch.setattr(steadiness, "TRIAL_S", 0.01)
    with pytest.raises(FailedError, match="its programs have not begun within"):
        asyncio.run(check_programs("spawner"))
