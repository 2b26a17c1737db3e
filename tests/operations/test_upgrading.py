"""When the agents of a node are begun anew: not before the next manager is attached, so that the node lives meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsmt.errors import TransportError
from dsmt.operations.local import keeping, upgrading
from dsmt.operations.local.home import Home
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import ATTACHED
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


def test_no_agent_is_ended_before_the_next_manager_is_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, asked = Home(tmp_path), []
    node = home.part("nodes", "n1")
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
    with subprocess.Popen(sleeps) as agent:
        former = record(container, "deployment_agent", agent.pid)
        while time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") <= former.started + 1:
            pass  # what starts from now on is younger
        manager = subprocess.Popen(sleeps)

        async def main() -> None:
            before = record(node, "container_manager", os.getpid())
            record(node, ATTACHED, os.getpid())
            replacing = asyncio.create_task(upgrading._replace_agents(home, "n1", before))
            await until(lambda: asked.count("container_manager") > 2)
            record(node, "container_manager", manager.pid)
            await until(lambda: asked.count(ATTACHED) > 2)
            assert is_alive(former)
            record(node, ATTACHED, manager.pid)
            await until(lambda: not is_alive(former))
            replacing.cancel()

        try:
            asyncio.run(main())
        finally:
            for one in (agent, manager):
                one.kill()
                one.wait()
