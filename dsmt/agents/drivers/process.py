"""Process driver: runs a program as a plain process in a session of its own, with resource limits.

Rule 1: a start is vfork and exec with nothing of ours run between, so what is slow is only the kernel; limits hold
        before the program's first instruction (`dsmt.agents.drivers.limits`). Who becomes another user is forked (2 ms).
Rule 2: the agent is a subreaper: whatever an instance forks stays among the agent's descendants.
Rule 3: what belongs to an instance is told by session, ancestry and mark (`dsmt.system.process_tree`), so the agent's other
        children, health checks and install commands, are never killed for it.
Rule 4: an instance that outlived its agent is the spawner's child; how it ended is asked there.
Rule 5: when an instance is gone at adoption, what it left in its session is killed at once: only its pid names that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

import msgspec

from dsmt.agents.drivers.descriptors import environment_with, giving, prefix_of
from dsmt.agents.drivers.limits import ProgramLimits, check_program
from dsmt.errors import FailedError, InputError
from dsmt.event.reason import failed
from dsmt.ports.driver import Handle, Launch
from dsmt.ports.processes import UNSEEN, Exit, ProcessIdentity
from dsmt.system.failures import DISK_IS_FULL, no_space
from dsmt.system.marks import bearers, bearing, borne_by, make_mark, number_of, numbers_of
from dsmt.system.process_tree import Orphans, Tree, kill_owned
from dsmt.system.procfs import (
    UNREACHED,
    become_subreaper,
    identity_of,
    is_alive,
    send_signal,
    stat_of,
    with_all_below,
)
from dsmt.system.users import Account, account_of, becoming, check_way, environment_of, users_here
from dsmt.system.watch import Ask, ProcessWatch, nobody, watch

_WRONG: Final[Mapping[int, str]] = {
    errno.ENOENT: "not found",
    errno.ENOTDIR: "not found",
    errno.EACCES: "not executable",
    errno.EPERM: "not executable",
    errno.EISDIR: "not executable",
    errno.ENOEXEC: "wrong machine type, or not a program",
    errno.ELIBBAD: "wrong machine type, or not a program",
    errno.ELOOP: "its links form a circle",
    errno.ETXTBSY: "being written to",
}
"""What the errno of a failed exec means to a person; all others are the driver's failure, not the program's."""

_numbers = count(1)

_CAP_SYS_ADMIN: Final = 21
_CAP_SYS_RESOURCE: Final = 24


class ProcessInstance:
    """A running program with all that it forked; fulfils the port `Instance`."""

    def __init__(self, watched: ProcessWatch, mark: int, *, ours: bool, lived: int = 0) -> None:
        self._watch = watched
        self._lived = lived
        self._mark = mark
        self._ours = ours
        self._tree: Tree | None = None

    @property
    def handle(self) -> Handle:
        """Its process: the pid with its start time and the boot."""
        return Handle(msgspec.to_builtins(self._watch.identity))

    @property
    def pid(self) -> int:
        """The number of the program's own process."""
        return self._watch.pid

    async def wait(self) -> Exit:
        """Wait for the end of the program's own process."""
        return await self._watch.wait()

    def look(self) -> None:
        """Note who belongs to the program's tree now; nothing happens when the program is gone."""
        if self._watch.ended is None:
            self._whole.look()

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group; nothing happens when it is gone, or another user's."""
        if self._watch.ended is None and (self._ours or is_alive(self._watch.identity)):
            self.look()
            with contextlib.suppress(*UNREACHED):
                os.killpg(self.pid, number)

    async def kill(self, *, deadline: float) -> tuple[int, ...]:
        """SIGKILL the whole tree and wait until none of it is left; the pids that do not die in time."""
        return await self._whole.kill(deadline=deadline, root=self._watch)

    @property
    def _whole(self) -> Tree:
        """Its tree, with all that was seen of it; not made before it is looked at, for a start waits for nothing."""
        if self._tree is None:
            self._tree = Tree(self._watch.identity, self._mark, ours=self._ours, lived=self._lived)
        return self._tree


class ProcessDriver:
    """The `Driver` port over plain processes. Needs a running event loop.

    `owner` is the absolute directory of the agent's container: it outlives the agent and is unique on the machine. It
    is part of every mark, so that a later agent knows what an earlier one left; empty, nothing is known. `ask` tells
    how adopted instances ended (`SpawnedProcesses.ended`).
    """

    def __init__(self, owner: str = "", ask: Ask = nobody) -> None:
        if owner and not os.path.isabs(owner):
            raise InputError("driver.owner", f"{owner!r} is not an absolute directory, so it is not unique on this machine")
        self._owner = owner
        self._ask = ask
        self._prefix = make_mark(owner, 0)[:-1]
        self._inherits = False
        self._limits = ProgramLimits()
        self._orphans = Orphans()

    @property
    def fence(self) -> str:
        """`none`: the program outlives its agent (rule C5)."""
        return "none"

    @property
    def enforces(self) -> tuple[str, ...]:
        """`files` and `memory` (address space of each process); `pids` unless the kernel exempts this user.

        RLIMIT_NPROC counts the processes of a user; root and holders of CAP_SYS_RESOURCE or CAP_SYS_ADMIN are not held
        to it (setrlimit(2)).
        """
        return ("files", "memory") if _is_exempt() else ("pids", "files", "memory")

    @property
    def users(self) -> tuple[str, ...]:
        """As whom it can run programs: `any`, or this user's names."""
        return users_here()

    def available(self) -> str:
        """Empty: every Linux runs processes."""
        return ""

    async def prepare(self, launch: Launch) -> None:
        """Refuse what a plain process cannot have; it sees the whole machine, so nothing is to be mounted."""
        if launch.image:
            raise failed("start.driver", driver="process", error=f"a plain process has no image ({launch.image})")

    async def start(self, launch: Launch) -> ProcessInstance:
        """Start a program; returns when it has exec'd, in the same turn. Raises `FailedError` with a `start.` code."""
        if not self._inherits:
            become_subreaper()
            self._inherits = True
        mark = f"{self._prefix}{next(_numbers)}"
        pid = _exec(launch, mark, self._limits)
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise failed("start.driver", driver="process", error=f"pid {pid} was reaped by somebody else") from error
        except OSError as error:  # nobody would see its end
            _undo(pid)
            raise _not_started(launch, error) from error
        self._orphans.start()
        return ProcessInstance(ProcessWatch(pid, descriptor, ask=self._ask), number_of(mark), ours=True)

    async def adopt(self, handle: Handle) -> ProcessInstance | None:
        """Take over an instance that an earlier agent started; None when it is gone (rule 5)."""
        identity = self.root(handle)
        if identity is None:
            return None
        watched = watch(identity, self._ask) if is_alive(identity) else None
        if watched is None:
            _end_session(identity, self._owner)
            return None
        mark = borne_by(identity.pid)
        stat, own = stat_of(identity.pid), identity_of(os.getpid())
        ours = stat is not None and stat.parent == os.getpid()
        return ProcessInstance(watched, mark, ours=ours, lived=0 if own is None else own.started)

    async def ended(self, handle: Handle) -> Exit:
        """How an instance ended, as the spawner remembers it (rule 4)."""
        identity = self.root(handle)
        return UNSEEN if identity is None else await self._ask(identity)

    async def clear(self, *, deadline: float, spared: Sequence[Handle] = ()) -> tuple[int, ...]:
        """SIGKILL all that was started for this owner, and wait for its end; the pids that do not die in time.

        What bears the mark of a `spared` program lives on.
        """
        if not self._owner:
            return ()
        living = [one for one in map(self.root, spared) if one is not None and is_alive(one)]
        marks = {number for one in living for number in numbers_of(one.pid)}
        return await kill_owned(self._owner, deadline=deadline, spared=marks)

    def root(self, handle: Handle) -> ProcessIdentity | None:
        """The program's own process; None when the handle is none of this driver's."""
        try:
            return msgspec.convert(handle, ProcessIdentity)
        except msgspec.ValidationError:
            return None


def _end_session(gone: ProcessIdentity, owner: str) -> None:
    """SIGKILL what is left in the session of an instance that died unwatched, and bears its owner's mark.

    The mark is asked for because the session's number may be another's by now. `clear` finds what has left it.
    """
    if identity_of(gone.pid) is not None or not owner:
        return
    own = (stat_of(member.pid) for member in bearers((owner,)))
    left = {stat.pid for stat in own if stat is not None and stat.session == gone.pid}
    for member in with_all_below(left):  # while who bears a mark lives, what is below it is known
        send_signal(member, signal.SIGKILL)


def _exec(launch: Launch, mark: str, limits: ProgramLimits) -> int:
    """Fork and exec; the pid. Raises `FailedError`: `start.cannot_exec` or `start.driver`."""
    account = account_of(launch.user)
    if account is not None:
        check_way(launch.directory, account)
    try:
        with contextlib.ExitStack() as logs:
            out = _open_log(launch.stdout, logs, account)
            err = out if launch.stderr == launch.stdout else _open_log(launch.stderr, logs, account)
            if launch.descriptors:
                check_program(launch)
            words = limits.prepare(launch)
            marked = logs.enter_context(bearing(mark))
            child = subprocess.Popen(
                (*words, *prefix_of(launch.descriptors), *launch.argv),
                cwd=launch.directory,
                env={**environment_of(launch.user), **launch.env, **environment_with(launch.descriptors), **marked},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                **becoming(account),
                **giving(launch.descriptors),
            )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise _not_started(launch, error) from error
    child.returncode = 0  # or Popen would reap it and warn; the instance's watch does that
    return child.pid


def _undo(pid: int) -> None:
    """End what has just been started."""
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _open_log(path: str, logs: contextlib.ExitStack, account: Account | None) -> int:
    """A log file for appending, closed here when the program has its own copy.

    Its directory stays ours, so a user's program can neither rename it nor put a link there; it may open it again.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise _no_log(path, error) from error
    logs.callback(os.close, descriptor)
    if account is not None:
        os.fchown(descriptor, account.uid, account.gid)
    return descriptor


def _no_log(path: str, error: OSError) -> FailedError:
    """Why a log of a program cannot be opened. Whose node it is, the caller adds."""
    if error.errno in DISK_IS_FULL:
        return no_space(path, 0, error)
    said = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
    return failed("start.driver", advice="see to it on <node>", driver="process", error=said)


def _not_started(launch: Launch, error: Exception) -> FailedError:
    """Why a program did not start, in the words of the reason list."""
    program = launch.argv[0] if launch.argv else ""
    named = getattr(error, "filename", None)
    wrong = _WRONG.get(error.errno or 0) if isinstance(error, OSError) else None
    if wrong is None:
        return failed("start.driver", driver="process", error=f"{program}: {error}")
    if named == launch.directory and program != launch.directory:
        wrong = f"the directory is {wrong}"
    elif wrong == "not executable" and os.path.isdir(os.path.join(launch.directory, program)):
        wrong = "a directory"
    elif wrong == "not found" and os.path.exists(os.path.join(launch.directory, program)) and "/" in program:
        wrong = "not found: the interpreter that its first line names, or its loader"
    return failed("start.cannot_exec", program=program, dir=launch.directory, error=wrong)


def _is_exempt() -> bool:
    """Whether the kernel does not hold this user to RLIMIT_NPROC."""
    if os.getuid() == 0:
        return True
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
    return bool(effective & (1 << _CAP_SYS_RESOURCE | 1 << _CAP_SYS_ADMIN))
