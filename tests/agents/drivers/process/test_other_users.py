"""What a program has started may be another user's (su, sudo): the kernel lets nobody but root signal that."""

import asyncio
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dsmt.agents.drivers.process import ProcessDriver
from dsmt.system.marks import bearing, make_mark
from dsmt.system.procfs import identity_of, is_alive, send_signal

from .programs import handle_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.usefixtures("leaves_nothing"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

NOBODY = 65534
FORKS = """
import os, time
if os.fork() == 0:
    time.sleep(600)
print("forked", flush=True)
input()
"""


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def as_nobody(work: Callable[[], Coroutine[Any, Any, object]]) -> str:
    """Do something as another user, in a process of its own; what it has raised."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            asyncio.run(work())
        except BaseException:  # noqa: BLE001 - the outermost frame of this process
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        raised = told.read()
    os.waitpid(pid, 0)
    return raised


def started(owner: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A program of root's, and its child."""
    with bearing(make_mark(owner, 1)) as marked:
        argv, pipe = (sys.executable, "-c", FORKS), subprocess.PIPE
        program = subprocess.Popen(argv, env={**env, **marked}, stdin=pipe, stdout=pipe, start_new_session=True)
    assert program.stdout is not None
    assert program.stdout.readline() == b"forked\n"
    return program


def ended(program: subprocess.Popen[bytes]) -> None:
    """Wait for its end; its child may still write."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.close()
    program.stdout.close()
    program.wait()


def test_another_users_process_that_a_dead_program_has_left_keeps_no_agent_from_beginning(tmp_path, leaves_nothing):
    program = started(str(tmp_path), leaves_nothing)
    leader = identity_of(program.pid)
    ended(program)

    async def adopts() -> None:
        assert await ProcessDriver(str(tmp_path)).adopt(handle_of(leader)) is None

    try:
        assert as_nobody(adopts) == ""
    finally:
        os.killpg(leader.pid, signal.SIGKILL)


def test_a_program_that_is_another_users_is_told_as_one_that_does_not_die_and_costs_no_descriptor(tmp_path, leaves_nothing):
    program = started(str(tmp_path), leaves_nothing)
    leader = identity_of(program.pid)

    async def ends() -> None:
        instance = await ProcessDriver(str(tmp_path)).adopt(handle_of(leader))
        assert instance is not None
        instance.signal(signal.SIGTERM)
        before = descriptors()
        for _ in range(5):
            assert leader.pid in await instance.kill(deadline=0.05)
            assert leader.pid in await ProcessDriver(str(tmp_path)).clear(deadline=0.05)
        assert descriptors() == before

    try:
        assert as_nobody(ends) == ""
        assert is_alive(leader)
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        ended(program)


def test_a_signal_to_another_users_process_is_no_failure_of_who_sends_it(leaves_nothing):
    async def sends() -> None:
        own = identity_of(os.getppid())
        assert own is not None
        send_signal(own, signal.SIGURG)

    assert as_nobody(sends) == ""
