"""Limits of a program: they hold before its first instruction, and harm neither it nor its agent."""

import asyncio
import os
import resource
import signal
import subprocess
import sys

import pytest

from dsmt.agents.drivers.limits import ProgramLimits
from dsmt.agents.drivers.process import ProcessDriver
from dsmt.errors import FailedError
from dsmt.ports.processes import Exit
from tests.loops import in_real_time

from .programs import written

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


def agent_like(launch, code, tmp_path, **limits):
    """Start a program from a process of its own, as an agent does, and wait for it: what it holds stays with it."""
    program = f"""
import asyncio, sys
from dsmt.agents.drivers.process import ProcessDriver
from dsmt.ports.driver import Launch

async def main():
    ended = await (await ProcessDriver().start({launch(code, limits=limits)!r})).wait()
    assert ended.code == 0, ended

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=tmp_path, env=dict(os.environ))


LIMITED = "import resource as r; print([r.getrlimit(k) for k in (r.RLIMIT_NOFILE, r.RLIMIT_NPROC, r.RLIMIT_AS)])"


@pytest.mark.parametrize("files", [100, 300], ids=["set by prlimit", "held by the agent"])
def test_limits_hold_before_the_programs_first_instruction_and_cannot_be_raised(launch, said, tmp_path, files):
    agent_like(launch, LIMITED, tmp_path, files=files, pids=50, memory=1 << 30, cpu=1, disk=1)
    assert said() == f"[({files}, {files}), (50, 50), ({1 << 30}, {1 << 30})]\n"


def test_limits_are_never_above_those_that_hold_already(launch, said, tmp_path):
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    agent_like(launch, LIMITED, tmp_path, files=files * 2)
    assert said().startswith(f"[({files}, {files}), ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
def test_a_program_that_changes_its_user_at_once_starts_each_time_with_its_limits(launch, said, tmp_path):
    argv = ("setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "ulimit -Hn; ulimit -n")
    for files in (65536 // 64, 100):
        for _ in range(10):
            (tmp_path / "out").unlink(missing_ok=True)
            agent_like(lambda _, limits: launch(argv=argv, limits=limits), "", tmp_path, files=files, pids=4096)
            assert said() == f"{files}\n{files}\n"


def test_an_agent_that_must_hold_more_than_it_has_left_ends_so_that_its_successor_can(monkeypatch):
    ended = []

    def refuse(_kind, _limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append((pid, number)))
    ProgramLimits._hold(resource.RLIMIT_NOFILE, 12345)
    assert ended == [(os.getpid(), signal.SIGKILL)]


def test_a_limit_that_holds_already_needs_no_other_program_to_be_set(launch, monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (100, 100))
    monkeypatch.setenv("PATH", str(tmp_path))
    limits = ProgramLimits()
    assert limits.prepare(launch("pass", limits={"files": 100, "memory": 1 << 30})) == ()
    with pytest.raises(FailedError, match=r"prlimit\(1\) is missing"):
        limits.prepare(launch("pass", limits={"files": 50}))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda d: d / "missing", "not found"),
        (lambda d: d, "a directory"),
        (lambda d: written(d / "plain", "#!/bin/sh", 0o644), "not executable"),
        (lambda d: written(d / "noise", "noise", 0o755), "wrong machine type"),
        (lambda d: written(d / "lost", "#!/no/such", 0o755), "interpreter"),
    ],
)
def test_a_program_with_limits_that_cannot_be_executed_says_why_as_any_other(launch, tmp_path, make, word):
    argv = [str(make(tmp_path))]

    async def main():
        for limits in ({}, {"files": 100}):
            with pytest.raises(FailedError, match=word) as caught:
                await ProcessDriver().start(launch(argv=argv, limits=limits))
            assert caught.value.code == "start.cannot_exec"

    asyncio.run(main())


@in_real_time
async def test_memory_beyond_the_limit_is_not_given(launch):
    code = """
            try:
                bytearray(2 << 30)
            except MemoryError:
                raise SystemExit(9)
        """
    before = resource.getrlimit(resource.RLIMIT_AS)
    instance = await ProcessDriver().start(launch(code, limits={"memory": 1 << 30}))
    assert resource.getrlimit(resource.RLIMIT_AS) == before, "its agent goes on with what it needs"
    assert await instance.wait() == Exit(9, None)
