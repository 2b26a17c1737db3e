"""The process driver starts real programs, and says why one cannot be started."""

import asyncio
import errno
import gc
import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from dsmt.agents.drivers import MAKERS
from dsmt.agents.drivers.process import ProcessDriver
from dsmt.agents.rules.endings import of_error
from dsmt.errors import FailedError
from dsmt.ports.driver import Driver, Instance, Launch
from dsmt.ports.processes import Exit
from dsmt.system.procfs import identity_of, is_alive
from dsmt.system.watch import nobody
from tests.loops import in_real_time

from .programs import who

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


@in_real_time
async def test_the_table_names_the_driver_and_it_fulfils_the_port(launch, cleanup):
    driver: Driver = MAKERS["process"]("/containers/web", nobody)
    assert driver.fence == "none"
    assert {"files", "memory"} <= set(driver.enforces) <= {"files", "memory", "pids"}
    instance: Instance = await driver.start(launch("raise SystemExit(3)"))
    cleanup.append(who(instance))
    assert await asyncio.gather(instance.wait(), instance.wait()) == [Exit(3, None)] * 2
    assert await instance.kill(deadline=5) == ()
    instance.signal(signal.SIGTERM)


def test_a_program_gets_its_directory_environment_logs_and_session(launch, tmp_path, said):
    (tmp_path / "out").write_text("kept\n")

    async def main():
        code = """
            import os, sys
            fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1]
            print(os.getcwd(), os.environ["NAME"], os.getsid(0) == os.getpid(), fds, sys.stdin.read() == "")
            print("to the other", file=sys.stderr)
        """
        instance = await ProcessDriver().start(launch(code, env={"NAME": "value"}))
        assert await instance.wait() == Exit(0, None)

    asyncio.run(main())
    assert said() == f"kept\n{tmp_path} value True [0, 1, 2] True\n"
    assert (tmp_path / "err").read_text() == "to the other\n"


def test_what_a_program_writes_nobody_else_on_its_machine_may_read(launch, tmp_path):
    async def main():
        assert await (await ProcessDriver().start(launch("print('a secret')"))).wait() == Exit(0, None)

    asyncio.run(main())
    assert [(tmp_path / log).stat().st_mode & 0o777 for log in ("out", "err")] == [0o640, 0o640]


def test_one_log_may_serve_both_outputs(launch, tmp_path, said):
    async def main():
        plain = launch("import sys; print('a', flush=True); print('b', file=sys.stderr, flush=True); print('c')")
        one = Launch(plain.argv, plain.directory, plain.env, plain.stdout, plain.stdout)
        assert await (await ProcessDriver().start(one)).wait() == Exit(0, None)

    asyncio.run(main())
    assert said() == "a\nb\nc\n"


def _write(path: Path, content: bytes, mode: int) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda here: "./nothing", "not found"),
        (lambda here: "no-such-program-anywhere", "not found"),
        (lambda here: _write(here / "plain", b"#!/bin/sh\n", 0o644), "not executable"),
        (str, "a directory"),
        (lambda here: _write(here / "text", b"\x00\x01 not a program", 0o755), "wrong machine type"),
        (lambda here: _write(here / "script", b"#!/no/such/interpreter\n", 0o755), "interpreter"),
    ],
)
def test_a_program_that_cannot_be_executed_says_why(launch, tmp_path, make, word):
    program = make(tmp_path)

    async def main():
        with pytest.raises(FailedError) as caught:
            await ProcessDriver().start(launch(argv=[program, "argument"]))
        assert caught.value.code == "start.cannot_exec"
        assert caught.value.message.startswith(f"{program} in {tmp_path}: ")
        assert word in caught.value.message
        assert caught.value.next == "correct `run` or `directory`, or `chmod +x`"

    asyncio.run(main())


@in_real_time
async def test_a_missing_directory_is_told_as_such(launch, tmp_path):
    plain = launch("pass")
    with pytest.raises(FailedError) as caught:
        await ProcessDriver().start(Launch(plain.argv, str(tmp_path / "gone"), plain.env, plain.stdout, plain.stderr))
    assert caught.value.code == "start.cannot_exec"
    assert "the directory is not found" in caught.value.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_that_a_users_program_has_removed_is_told_as_such(launch, tmp_path):
    async def main():
        with pytest.raises(FailedError) as caught:
            await ProcessDriver().start(replace(launch("pass"), directory=str(tmp_path / "gone"), user="nobody"))
        assert (caught.value.code, "the directory is not found" in caught.value.message) == ("start.cannot_exec", True)

    for above in [one for one in (tmp_path, *tmp_path.parents) if "pytest" in str(one)]:
        above.chmod(above.stat().st_mode | 0o711)
    asyncio.run(main())


def test_a_program_of_which_no_end_could_be_seen_does_not_run(launch, monkeypatch):
    begun, opened = [], os.pidfd_open

    def none_left(pid, *_flags):
        begun.append(identity_of(pid))
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main():
        with pytest.raises(FailedError) as caught:
            await ProcessDriver().start(launch("import time; time.sleep(600)"))
        assert caught.value.code == "start.driver"

    monkeypatch.setattr(os, "pidfd_open", none_left)
    asyncio.run(main())
    monkeypatch.setattr(os, "pidfd_open", opened)
    assert [is_alive(one) for one in begun] == [False]


@in_real_time
async def test_what_is_not_the_programs_fault_is_the_drivers(launch, tmp_path):
    plain = launch("pass")
    for wrong in (
        Launch(plain.argv, plain.directory, plain.env, str(tmp_path / "no" / "out"), plain.stderr),
        Launch((*plain.argv, "x" * (1 << 22)), plain.directory, plain.env, plain.stdout, plain.stderr),
        Launch((*plain.argv, "a\0b"), plain.directory, plain.env, plain.stdout, plain.stderr),
    ):
        with pytest.raises(FailedError) as caught:
            await ProcessDriver().start(wrong)
        assert caught.value.code == "start.driver"


def test_a_log_that_cannot_be_written_is_told_as_that_and_by_its_place(launch, tmp_path, monkeypatch):
    """It was told as something that the program lacks: `the driver process cannot start it: python3: [Errno 2] ...`."""

    def start(number: int) -> FailedError:
        plain = launch("pass")
        gone = str(tmp_path / "gone" / "stdout.log")
        taken = os.open

        def refuse(path, *rest, **others):
            if path == gone:
                raise OSError(number, os.strerror(number), path)
            return taken(path, *rest, **others)

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(FailedError) as caught:
            asyncio.run(ProcessDriver().start(Launch(plain.argv, plain.directory, plain.env, gone, plain.stderr)))
        monkeypatch.setattr(os, "open", taken)
        return caught.value

    place = tmp_path / "gone" / "stdout.log"
    told = of_error(start(errno.ENOENT), "agent", target="web/app/0", node="n1")
    assert told.message == f"the driver process cannot start it: {place} cannot be written: no such file or directory"
    assert told.next == "see to it on n1"
    closed = of_error(start(errno.EROFS), "agent", target="web/app/0", node="n1")
    assert (closed.code, closed.next) == ("fetch.read_only", "see what is wrong with it, and mount it writable")
    assert closed.message == f"{place} on n1 cannot be written: its disk is read-only"
    assert start(errno.ENOSPC).code == "fetch.no_space"


def test_a_program_that_dies_is_replaced_from_the_same_loop_many_times(launch):
    async def main():
        driver = ProcessDriver()
        program = launch(argv=["sleep", "600"])
        instance = await driver.start(program)
        for _ in range(50):
            os.kill(who(instance).pid, signal.SIGKILL)
            assert await instance.wait() == Exit(None, signal.SIGKILL)
            instance = await driver.start(program)
        assert await instance.kill(deadline=10) == ()

    gc.collect()  # what earlier tests have left open
    before = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(main())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
