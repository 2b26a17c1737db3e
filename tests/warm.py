"""Commands of dsmt, each a process forked from one that has imported it: the import is nine tenths of what most take.

Rule 1: a command runs as `python -m dsmt` does, in a session of its own, with its own arguments, environment, directory and
    pipes. Nothing else of who forked it is open in it. What an interpreter says while it is taken apart is not heard: a test
    of that, of signals, terminals, closed pipes or the time of a start has a process that begins anew.
Rule 2: what an interpreter reads before its first line (`PYTHON...`, the locale) is that of who forks: other is refused.
Rule 3: a command ends when who has run it does not wait any more; all end with who has started the one that forks them.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, NoReturn

import msgspec

from dsmt.system.fork import read_annotations

ROOMS: Final = ("dsmt.cli", "dsmt.operations", "dsmt.programs")
"""What is imported, with all that it imports."""
MOST: Final = 1 << 16
"""What a pipe takes before anybody reads it, in bytes."""
MOST_ASKED: Final = 1 << 18
"""What a command may be asked with: its arguments, its environment and its directory."""

Ended = subprocess.CompletedProcess[bytes]


# --- who asks ------------------------------------------------------------------------------------------------------------

BEGAN: Final = {name: value for name, value in os.environ.items() if not name.startswith("DSMT_")}
"""What those that fork have as their environment, whatever a test has set since."""


class Asked(NamedTuple):
    """A command that runs: what it prints, what it complains of, and its exit code once it has one."""

    out: BinaryIO
    err: BinaryIO
    code: BinaryIO


class Warm:
    """One that forks commands, for this process. `within` goes before its argv: what it forks is there, too."""

    def __init__(self, within: tuple[str, ...]) -> None:
        self._asks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asks.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_ASKED)
        argv = [*within, sys.executable, __file__, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,  # of another kind than a command's, an interpreter makes other streams
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=BEGAN,
                cwd="/",
                start_new_session=True,
            )

    def end(self) -> None:
        self._asks.close()
        self._process.communicate(timeout=10)

    @contextmanager
    def begun(self, arguments: Sequence[str], env: Mapping[str, str], stdin: bytes) -> Iterator[Asked]:
        """A command that runs no longer than the block."""
        about = json.dumps([arguments, dict(env), str(Path.cwd())]).encode()
        assert len(about) <= MOST_ASKED
        assert len(stdin) <= MOST
        assert _read_at_start(env) == _read_at_start(BEGAN), "this needs an interpreter of its own"
        pipes = [os.pipe() for _ in range(3)]
        with ExitStack() as ours:
            theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
            typed, out, err = (
                ours.enter_context(os.fdopen(*one))
                for one in ((pipes[0][1], "wb", 0), (pipes[1][0], "rb", 0), (pipes[2][0], "rb", 0))
            )
            waits, told = socket.socketpair()
            with waits, told:
                code = ours.enter_context(os.fdopen(waits.detach(), "rb", 0))
                try:
                    socket.send_fds(self._asks, [about], [told.fileno(), *theirs])
                finally:
                    for one in theirs:
                        os.close(one)
            with typed, suppress(BrokenPipeError):
                typed.write(stdin)
            yield Asked(out, err, code)


_warm: dict[tuple[str, ...], Warm] = {}


def run(*arguments: str, env: Mapping[str, str], stdin: bytes = b"", seconds: float = 90.0) -> Ended:
    """Run one command to its end. Raises `subprocess.TimeoutExpired`."""
    with warm().begun(arguments, env, stdin) as asked:
        return _of(arguments, _all_of(asked, arguments, seconds))


async def run_beside(
    *arguments: str, env: Mapping[str, str], stdin: bytes = b"", within: Sequence[str] = (), seconds: float = 90.0
) -> Ended:
    """The same, while the loop goes on, at a place that `within` tells. Raises `TimeoutError`."""
    with warm(within).begun(arguments, env, stdin) as asked:
        async with asyncio.timeout(seconds):
            return _of(arguments, await asyncio.gather(*map(_whole, asked)))


def text(done: Ended) -> subprocess.CompletedProcess[str]:
    """What a command has printed, as text."""
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def warm(within: Sequence[str] = ()) -> Warm:
    """The one that forks at a place."""
    if tuple(within) not in _warm:
        _warm[tuple(within)] = Warm(tuple(within))
    return _warm[tuple(within)]


def end_within() -> None:
    """End those that fork elsewhere than here."""
    for within in [one for one in _warm if one]:
        _warm.pop(within).end()


@atexit.register
def _end_all() -> None:
    while _warm:
        _warm.popitem()[1].end()


def _of(arguments: Sequence[str], told: Sequence[bytes]) -> Ended:
    out, err, code = told
    assert code, f"what forks commands is gone: {err!r}"
    return Ended(["dsmt", *arguments], int(code), out, err)


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LC_", "LANG"))}


def _all_of(asked: Asked, arguments: Sequence[str], seconds: float) -> list[bytes]:
    """What comes of each until it is closed."""
    deadline = time.monotonic() + seconds
    told = {one.fileno(): b"" for one in asked}
    with selectors.DefaultSelector() as selector:
        for one in told:
            selector.register(one, selectors.EVENT_READ)
        while selector.get_map():
            if (left := deadline - time.monotonic()) < 0:
                raise subprocess.TimeoutExpired(["dsmt", *arguments], seconds)
            for key, _ in selector.select(left):
                piece = os.read(key.fd, MOST)
                told[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
    return [*told.values()]


async def _whole(pipe: BinaryIO) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(pipe.fileno()), "rb", 0)
    )
    try:
        return await reader.read()
    finally:
        transport.close()


# --- who forks -----------------------------------------------------------------------------------------------------------


class Forking:
    """Forks a process for each command that is asked for, and tells who waits for it how it has ended."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked, self._selector = asked, selectors.DefaultSelector()
        self._selector.register(asked, selectors.EVENT_READ)
        self._running: dict[int, tuple[int, socket.socket]] = {}
        """By what tells the end of a process: the process, and who waits for it."""

    def run(self) -> list[str]:
        """The arguments of a command, in the process that is to be it."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._asked:
                    about, fds, _, _ = socket.recv_fds(self._asked, MOST_ASKED, 4)
                    if not about:
                        self._end()
                    pid = os.fork()
                    if pid == 0:
                        self._close()
                        return _become(about, fds)
                    self._begun(pid, fds)
                elif key.data is None:
                    self._ended(key.fd)
                elif key.data in self._running:  # nobody waits any more
                    self._selector.unregister(key.fileobj)
                    os.kill(self._running[key.data][0], signal.SIGKILL)

    def _close(self) -> None:
        self._selector.close()
        self._asked.close()
        for tells, (_, waits) in self._running.items():
            os.close(tells)
            waits.close()

    def _end(self) -> NoReturn:
        for pid, _ in self._running.values():
            os.kill(pid, signal.SIGKILL)
        sys.exit(0)

    def _begun(self, pid: int, fds: list[int]) -> None:
        waits, tells = socket.socket(fileno=fds[0]), os.pidfd_open(pid)
        for one in fds[1:]:
            os.close(one)
        self._running[tells] = (pid, waits)
        self._selector.register(tells, selectors.EVENT_READ)
        self._selector.register(waits, selectors.EVENT_READ, tells)

    def _ended(self, tells: int) -> None:
        pid, waits = self._running.pop(tells)
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(tells)
        os.close(tells)
        with suppress(KeyError):
            self._selector.unregister(waits)
        with waits, suppress(OSError):
            waits.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(about: bytes, fds: list[int]) -> list[str]:
    arguments, env, directory = json.loads(about)
    os.setsid()
    for number, one in enumerate(fds[1:]):
        os.dup2(one, number)
    for one in fds:
        os.close(one)
    os.chdir(directory)
    sys.path[0] = directory
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    return [str(one) for one in arguments]


def _import_all() -> None:
    for room in ROOMS:
        for module in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
            importlib.import_module(module.name)
    read_annotations(msgspec.Struct)
    gc.freeze()


def _run() -> NoReturn:
    """Be `python -m dsmt`, up to where an interpreter takes its modules apart, which is twice as long as most commands."""
    code: object = None
    try:
        runpy.run_module("dsmt", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - the outermost frame of this process
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    atexit.unregister(_end_all)
    sys.path[0] = str(Path.cwd())
    _import_all()
    sys.argv[1:] = Forking(socket.socket(fileno=int(sys.argv[1]))).run()
    _run()
