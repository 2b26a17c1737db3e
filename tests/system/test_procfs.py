"""What /proc says of a process's environment, also while it is being replaced (execve(2))."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dsmt.errors import FailedError
from dsmt.system import procfs
from dsmt.system.marks import UNMARKED, bearers
from dsmt.system.process_tree import Tree

MARK = "DSMT_TREE"


@contextmanager
def begun(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has left execve behind."""
    with subprocess.Popen(["/bin/sleep", "60"], env=env) as program:
        try:
            deadline = time.monotonic() + 20
            while not procfs.words_of(program.pid) and time.monotonic() < deadline:
                pass
            yield program
        finally:
            program.kill()


@pytest.fixture
def asleep() -> Iterator[subprocess.Popen[bytes]]:
    """A program that carries a mark."""
    with begun({MARK: "a#1"}) as program:
        yield program


def within_exec(monkeypatch: pytest.MonkeyPatch, looks: int) -> list[str]:
    """For so many looks at an environment a process has none, and no arguments, as within execve; what was read."""
    real, read = procfs._content_of, list[str]()

    def content_of(pid: int, what: str) -> bytes:
        read.append(what)
        return b"" if read.count("environ") <= looks else real(pid, what)

    monkeypatch.setattr(procfs, "_content_of", content_of)
    return read


def test_the_mark_of_who_is_within_execve_is_found_when_it_is_there(
    asleep: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = within_exec(monkeypatch, looks=3)
    assert procfs.environment_value(asleep.pid, MARK) == "a#1"
    assert read.count("environ") == 4


def test_the_mark_of_who_leaves_execve_between_two_looks_is_found(
    asleep: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = procfs._content_of
    looks = iter([b""])
    monkeypatch.setattr(
        procfs, "_content_of", lambda pid, what: real(pid, what) if what != "environ" else next(looks, real(pid, what))
    )
    assert procfs.environment_value(asleep.pid, MARK) == "a#1"


def test_who_never_has_an_environment_is_not_waited_for_for_long(
    asleep: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = within_exec(monkeypatch, looks=1000)
    assert procfs.environment_value(asleep.pid, MARK) is None
    assert read.count("environ") == 1 + procfs.EXEC_LOOKS


def test_a_program_that_was_started_with_no_environment_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with begun({}) as bare:
        monkeypatch.setattr(procfs.time, "sleep", lambda _: pytest.fail("it has arguments: it is not within execve"))
        assert procfs.environment_value(bare.pid, MARK) is None


def test_who_has_ended_and_is_not_reaped_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["/bin/true"], env={MARK: "a#1"})
    try:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        monkeypatch.setattr(procfs.time, "sleep", lambda _: pytest.fail("it has ended: it is not within execve"))
        assert procfs.environment_value(ended.pid, MARK) is None
    finally:
        ended.wait()


def test_a_process_handles_a_signal_from_when_it_has_a_handler_for_it_and_nobody_waits_for_one_that_is_gone() -> None:
    code = "import signal, sys; sys.stdin.readline(); signal.signal(signal.SIGURG, print); print('has', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert not procfs.handles(program.pid, signal.SIGURG)
        program.stdin.write("go on\n")
        program.stdin.flush()
        assert program.stdout.readline() == "has\n"
        assert procfs.handles(program.pid, signal.SIGURG)
        assert not procfs.handles(program.pid, signal.SIGUSR1)
        program.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 20
        while procfs.handles(program.pid, signal.SIGURG) and time.monotonic() < deadline:
            pass
        assert not procfs.handles(program.pid, signal.SIGURG), "who is stopped acts on nothing"
        program.send_signal(signal.SIGCONT)
        program.stdin.write("end\n")
        program.stdin.flush()
        program.wait(20)
        assert procfs.handles(program.pid, signal.SIGURG)


def test_what_the_kernel_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not the parent of its programs' orphans would not know of them."""

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(procfs, "call", refused)
    with pytest.raises(FailedError, match="the kernel refused prctl 36: Operation not permitted"):
        procfs.become_subreaper()


def test_who_is_hidden_from_us_is_not_there_and_the_others_are_found(
    asleep: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc that is mounted with `hidepid=1` hides whose user we are not, and lists them."""
    real = open

    def hiding(path: Any, *args: Any, **more: Any) -> Any:
        if str(path).startswith("/proc/1/"):
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        return real(path, *args, **more)

    monkeypatch.setattr("builtins.open", hiding)
    assert procfs.identity_of(1) is None
    own = procfs.identity_of(asleep.pid)
    assert own is not None
    assert Tree(own, UNMARKED, ours=False).members() == {own}
    assert own in bearers(["a"])
