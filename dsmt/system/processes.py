"""Processes of a node: the spawner as its clients see it, and how it is kept alive.

Rule 1: a request is one JSON message on a SOCK_SEQPACKET connection of its own, the answer another one.
Rule 2: the socket is reached through its directory's descriptor: a unix address holds only 108 bytes (unix(7)).
Rule 3: how a process ended is told by its parent only. A spawner's memory ends with it: then nobody knows.
Rule 4: a spawner that has answered nothing `HUNG_ASKS` times in a row hangs, and is killed by who watches it (C15): what it
    kept runs on, and is taken over by the next. Who cannot ask it knows nothing of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, Never

import msgspec

from dsmt.agents.rules.keeping import Keeping, Policy
from dsmt.errors import FailedError, TransportError
from dsmt.ports.processes import UNSEEN, Exit, Process, ProcessIdentity
from dsmt.system.fork import open_log
from dsmt.system.marks import unmarked
from dsmt.system.procfs import identity_of, is_alive, send_signal
from dsmt.system.records import has_lock, process_of, record_path, take_lock, write_record
from dsmt.system.seqpacket import MESSAGE_LIMIT
from dsmt.system.watch import ProcessWatch, watch

SOCKET: Final = "spawner.sock"
PATIENCE_S: Final = 10.0
"""How long an answer may take: a fork on a starved machine included."""

ASK_S: Final = 10.0
"""How often who watches a spawner asks it whether it is there."""

HUNG_ASKS: Final = 3

ANEW_S: Final = 5.0
"""How long a spawner that begins anew in its own process may take to answer (C18)."""

REPLACED_S: Final = 20.0
"""How long who is to replace a spawner waits for its end: what that keeps is killed after 3 s."""

ASK_AGAIN_S: Final = 0.02

_SILENT: Final = frozenset({errno.EAGAIN, errno.ENOTCONN})
"""What connecting to a socket fails with whose owner takes no connections."""

PAUSE_S: Final = 0.1
"""How long who watches a spawner waits before it starts another, also after a long life."""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a spawner is asked. `start`, `keep` and `release` have program and directory (`start` a record too).

    `status` has the pid and start of whom it asks about, `ping` those of who asks, `anew` the Python with which to go on.
    """

    op: Literal["start", "keep", "release", "status", "ping", "list", "anew"]
    program: str = ""
    directory: str = ""
    record: str = ""
    pid: int = 0
    started: int = 0
    python: str = ""


def ignored(_dead: ProcessIdentity, _now: ProcessIdentity) -> None:
    """Tell nobody that a spawner was replaced."""


class SpawnedProcesses:
    """The `Processes` port: talks to the spawner of a node's directory."""

    def __init__(self, node_directory: str) -> None:
        self._directory = os.path.abspath(node_directory)
        self._watches: dict[ProcessIdentity, ProcessWatch] = {}

    async def start_agent(self, directory: str) -> Process:
        """Start the deployment agent of the container in `directory` (absolute), or find the one that runs there.

        Raises `TransportError` (`spawner.gone`) when no spawner answers, `FailedError` when it could not.
        """
        answer = await self.request(Request("start", "deployment_agent", directory))
        identity = msgspec.convert(answer, ProcessIdentity)
        process = self._watch(identity)
        return process if process is not None else _Ended(identity, await self.ended(identity))

    def find(self, identity: ProcessIdentity) -> Process | None:
        """The process if it still lives, else None. Never another one with the same pid."""
        return self._watch(identity) if is_alive(identity) else None

    async def ended(self, identity: ProcessIdentity) -> Exit:
        """How a process ended that the spawner forked or inherited; `Exit(None, None)` when it does not know.

        One that lives and is not there yet is asked again for `ANEW_S`. Never raises: an `Ask` of `dsmt.system.watch`.
        """
        deadline = time.monotonic() + ANEW_S
        while True:
            try:
                answer = await self.request(Request("status", pid=identity.pid, started=identity.started))
                break
            except (TransportError, FailedError):
                if time.monotonic() > deadline or spawner_of(self._directory) is None:
                    return UNSEEN
                await asyncio.sleep(ASK_AGAIN_S)
        return Exit(answer.get("code"), answer.get("signal"))

    async def request(self, request: Request) -> dict[str, Any]:
        """Ask the spawner one thing. Raises `TransportError` (`spawner.gone`) or the `FailedError` it answers."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                raw = await _exchange(self._directory, msgspec.json.encode(request))
        except OSError as error:  # TimeoutError is one
            raise TransportError(
                "spawner.gone",
                f"the spawner of {self._directory} does not answer: {error.strerror or 'no answer in time'}",
                next="It is being restarted; try again",
            ) from error
        answer: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        if "error" in answer:
            raise FailedError(answer["error"]["code"], answer["error"]["message"])
        return answer

    async def is_silent(self) -> bool:
        """Whether the spawner takes a question and does not answer it (rule 4). It hears so that we are there."""
        try:
            own = identity_of(os.getpid())
            await self.request(Request("ping", pid=os.getpid(), started=0 if own is None else own.started))
        except TransportError as error:
            why = error.__cause__
            return isinstance(why, TimeoutError) or (isinstance(why, OSError) and why.errno in _SILENT)
        except (FailedError, OSError):  # it answers; or we have no descriptor left to ask with
            return False
        return False

    def _watch(self, identity: ProcessIdentity) -> ProcessWatch | None:
        """One watch for each process, however often it is asked for."""
        known = self._watches.get(identity)
        if known is not None:
            return known
        self._watches = {who: one for who, one in self._watches.items() if one.ended is None}
        made = watch(identity, self.ended)
        if made is not None:
            self._watches[identity] = made
        return made


class _Ended:
    """A process that had ended, and was reaped, before it could be watched."""

    def __init__(self, identity: ProcessIdentity, ended: Exit) -> None:
        self.identity = identity
        self._ended = ended

    async def wait(self) -> Exit:
        """How it ended."""
        return self._ended

    def signal(self, number: int) -> None:
        """Do nothing: it is gone."""

    def handles(self, _number: int) -> bool:
        """It is gone."""
        return True


async def _exchange(directory: str, message: bytes) -> bytes:
    """One message to the spawner and its answer. Raises OSError."""
    loop = asyncio.get_running_loop()
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, f"/proc/self/fd/{descriptor}/{SOCKET}")
            await loop.sock_sendall(connection, message)
            answer = await loop.sock_recv(connection, MESSAGE_LIMIT)
    finally:
        os.close(descriptor)
    if not answer:
        raise ConnectionResetError(None, "it closed the connection")
    return answer


_HELPS: Final = {
    errno.EACCES: "see to its owner and mode, then try again",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then try again",
    errno.ENFILE: "see who has so many files open, then try again",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or end some, then try again",
    errno.ENOSPC: "free space there, then try again",
    errno.EROFS: "have that disk writable, then try again",
}
"""What to do about what the machine refuses."""


def spawner_of(directory: str) -> ProcessIdentity | None:
    """The living spawner of a node's directory."""
    return process_of(directory, "spawner")


def lock_of_former(directory: str) -> int | None:
    """The directory's lock when the spawner that is there has ended, as it is told to; None when it does not."""
    told, deadline = None, time.monotonic() + REPLACED_S
    while (lock := take_lock(directory)) is None and time.monotonic() < deadline:
        former = spawner_of(directory)
        if former is not None and former != told:
            told = former
            with suppress(OSError):  # it has ended
                send_signal(former, signal.SIGTERM)
        time.sleep(ASK_AGAIN_S)
    return lock


def start_spawner(directory: str, argv: Sequence[str] | None = None) -> ProcessIdentity | None:
    """Start the spawner of a directory, detached: its own session, its output in `<directory>/spawner.log`.

    It has the directory's lock and its record from its birth. None when there is one already, or one is on its way.
    `argv` is another command, the keeper's; its last argument is the lock's descriptor. Raises `FailedError`.
    """
    where = os.path.abspath(directory)
    command = list(argv) if argv is not None else [sys.executable, "-m", "dsmt.programs.spawner", where]
    try:
        os.makedirs(where, mode=0o700, exist_ok=True)
        lock = take_lock(where)
        if lock is None:
            return None
        try:
            child = _detach([*command, str(lock)], open_log(where, "spawner"), lock)
        finally:
            os.close(lock)
    except OSError as error:
        said = f"cannot start the spawner of {where}: {error}"
        raise FailedError("start.driver", said, next=_HELPS.get(error.errno or 0, "see to that, then try again")) from error
    identity = identity_of(child)
    if identity is None:
        raise FailedError("start.driver", "the spawner was reaped by somebody else", pid=child)
    with suppress(OSError):  # a full disk takes no records: it writes its own, or says that it cannot
        write_record(record_path(where, "spawner"), identity)
    return identity


def _detach(command: Sequence[str], log: int, lock: int) -> int:
    """Start a program that outlives us, in a session of its own, and hand a lock down to it; its pid. Raises OSError.

    `log` is open, and is closed here.
    """
    with open(log, "ab") as output, unmarked() as environment:  # a service's program may be who starts it
        child = subprocess.Popen(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(lock,),
        )
    child.returncode = 0  # or Popen would reap it and warn; a watch does that
    return child.pid


async def watch_spawner(
    directory: str,
    argv: Sequence[str] | None = None,
    *,
    pause_s: float = PAUSE_S,
    ask_s: float = ASK_S,
    replaced: Callable[[ProcessIdentity, ProcessIdentity], object] = ignored,
) -> Never:
    """Keep a spawner alive in a directory until cancelled: its death is answered by a new one (`dsmt.agents.rules.keeping`).

    One that hangs is killed (rule 4). Each start waits `pause_s`: who ends a node kills its spawner first and us right
    after, and a spawner that we had started in between would bring the node back. `replaced` is told of who has died and
    of whom we started in its place. Where the directory was moved or removed none is started: nobody would look there.
    """
    loop = asyncio.get_running_loop()
    keeping = Keeping(Policy(pause_s=pause_s), now=loop.time())
    dead: ProcessIdentity | None = None
    locked = has_lock(directory)
    while True:
        await asyncio.sleep(0 if keeping.due is None else keeping.due - loop.time())
        if not keeping.tick(loop.time()):
            continue
        try:
            known = spawner_of(directory)
            gone = locked and not has_lock(directory)
            identity = known or (None if gone else start_spawner(directory, argv))
            locked = locked or has_lock(directory)
            watched = None if identity is None else watch(identity)
        except (FailedError, OSError):  # a full table of processes or files: later
            known = identity = watched = None
        if identity is None or watched is None:
            keeping.start_failed(loop.time())
            continue
        keeping.started(loop.time())
        if dead is not None and known is None:
            replaced(dead, identity)
        await _ended_or_killed(directory, watched, ask_s)
        dead = identity
        keeping.ended(loop.time())


async def keep_asking(directory: str, *, ask_s: float = ASK_S) -> Never:
    """Let a spawner know that we are there until cancelled, and do nothing else: for a monitor, and who ends a node."""
    asking = SpawnedProcesses(directory)
    while True:
        await asking.is_silent()
        await asyncio.sleep(ask_s)


async def _ended_or_killed(directory: str, watched: ProcessWatch, ask_s: float) -> None:
    """Wait for a spawner's end, and kill it when it hangs (rule 4)."""
    asking, silent = SpawnedProcesses(directory), 0
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(ask_s):
                await watched.wait()
                return
        silent = silent + 1 if await asking.is_silent() else 0
        if silent >= HUNG_ASKS:
            watched.signal(signal.SIGKILL)
