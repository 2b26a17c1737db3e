"""What /proc says of processes: who they are, whose children, and what marks they carry (proc(5)).

Rule 1: a pid alone names nobody; a process is its pid with its start time and the boot (`ProcessIdentity`).
Rule 2: a process that is gone, or goes while it is being read, is simply not there: no function raises for it. Nor is one
    there that is hidden from us: /proc may list those of other users and show nothing of them (`hidepid=1`).
Rule 3: whoever is within execve(2) has neither environment nor arguments for a moment, on a busy machine for some ms, though
    who started it has heard already that it runs: its marks are looked for again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Final

import msgspec

from dsmt.errors import FailedError
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.libc import call

_GONE: Final = (FileNotFoundError, ProcessLookupError)
_NOT_SEEN: Final = (*_GONE, PermissionError)
UNREACHED: Final = (ProcessLookupError, PermissionError)
"""What a signal fails with to who is gone, or has become another user's (su(1), sudo(8)): it is none of ours to signal."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
EXEC_LOOKS: Final = 25
EXEC_LOOK_S: Final = 0.002
"""How often, and how long after one another, is looked for the environment of who may be within execve."""
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36


class Stat(msgspec.Struct, frozen=True):
    """The fields of /proc/PID/stat that dsmt reads."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int
    """Clock ticks since boot."""
    threads: int

    @property
    def dead(self) -> bool:
        """Whether it has ended and only waits to be reaped.

        A process whose first thread has ended looks like a zombie, but holds its ports and files until the last one has.
        """
        return self.state in "ZXx" and self.threads <= 1


@cache
def boot() -> str:
    """The boot id of this machine, new at each boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def meminfo() -> dict[str, int]:
    """The machine's memory in bytes, by the names of /proc/meminfo; "MemAvailable" is what could be had without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        lines = file.read().splitlines()
    sizes = (line.replace(":", " ").split() for line in lines if line.endswith(" kB"))
    return {name: int(size) * 1024 for name, size, _unit in sizes}


def stat_of(pid: int) -> Stat | None:
    """The state of a process, also of one that has ended but is not reaped; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except _NOT_SEEN:
        return None
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), int(fields[17]))


def identity_of(pid: int) -> ProcessIdentity | None:
    """Who has this pid now, also when it has ended but is not reaped; None when nobody has."""
    stat = stat_of(pid)
    return None if stat is None else ProcessIdentity(pid, stat.started, boot())


def began_s(identity: ProcessIdentity) -> float:
    """When a process was started, by the boot-time clock."""
    return identity.started / _TICKS


def handles(pid: int, number: int) -> bool:
    """Whether a process would act on a signal: it has a handler (`SigCgt`, proc(5)), and is not stopped; or is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            told = dict(line.split(b":", 1) for line in file)
    except _GONE:
        return True
    if told[b"State"].split()[0] in b"Tt":
        return False
    return bool(int(told[b"SigCgt"], 16) >> (number - 1) & 1)


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether this very process still runs."""
    stat = stat_of(identity.pid)
    return stat is not None and not stat.dead and identity.started == stat.started and identity.boot == boot()


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A pidfd of this very process; None when it is gone. It may have ended and wait to be reaped."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # the number is that of a thread
            return None
        raise
    if identity_of(identity.pid) == identity:
        return descriptor
    os.close(descriptor)
    return None


def send_signal(identity: ProcessIdentity, number: int) -> None:
    """Signal this very process, and no other one with its pid; nothing happens when it is gone, or another user's."""
    descriptor = open_pidfd(identity)
    if descriptor is None:
        return
    try:
        with suppress(*UNREACHED):
            signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def pids() -> list[int]:
    """Every process of the machine (of this pid namespace)."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads, the dead and not reaped among them."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    found += map(int, file.read().split())
            except _NOT_SEEN:
                if not children_are_listed():
                    return [stat.pid for other in pids() if (stat := stat_of(other)) and stat.parent == pid]
    except _NOT_SEEN:
        return []
    return found


@cache
def children_are_listed() -> bool:
    """Whether the kernel has /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)."""
    return os.path.exists("/proc/thread-self/children")


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, as far as nobody between them died: parents before their children."""
    found: dict[int, None] = {}
    waiting = children(pid)
    while waiting:
        found.update(dict.fromkeys(waiting))
        waiting = [child for parent in waiting for child in children(parent) if child not in found]
    return list(found)


def environment_value(pid: int, name: str) -> str | None:
    """A variable of the environment a process was started with; None when it has none or we may not look (rule 3)."""
    content = _content_of(pid, "environ")
    for _ in range(EXEC_LOOKS):
        if content or not _has_program(pid):
            break
        waits = not _content_of(pid, "cmdline")
        if waits:
            time.sleep(EXEC_LOOK_S)
        content = _content_of(pid, "environ")  # it may have left execve since it was looked at
        if not waits:
            break
    _, found, value = (b"\0" + content).partition(b"\0" + name.encode() + b"=")
    return value.partition(b"\0")[0].decode(errors="replace") if found else None


def soft_limit(pid: int, number: int, name: str) -> int | None:
    """A soft limit of a process, by its number, and its name in /proc/PID/limits; None: there is none, or no such process.

    The file tells everybody, but makes the text of all limits for it, which takes ten times as long.
    """
    try:
        soft = resource.prlimit(pid, number)[0]
    except ProcessLookupError:
        return None
    except OSError:  # another user's
        return _told_limit(pid, name)
    return None if soft == resource.RLIM_INFINITY else soft


def _told_limit(pid: int, name: str) -> int | None:
    line = next((line for line in _content_of(pid, "limits").splitlines() if line.startswith(name.encode())), b"")
    words = line[len(name) :].split()
    return int(words[0]) if words and words[0].isdigit() else None


def _has_program(pid: int) -> bool:
    """Whether it has a program: threads of the kernel and the dead have none, which half of all are on a small machine."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return True


def _content_of(pid: int, what: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{what}", "rb") as file:
            return file.read()
    except _NOT_SEEN:
        return b""


def words_of(pid: int) -> list[str]:
    """The words of a process's command line, or of the title that it has set itself; none when we may not look."""
    words = [word.decode(errors="surrogateescape") for word in _content_of(pid, "cmdline").split(b"\0") if word]
    return [*words, *(words[0].split(" ", 1) if words else ())]


def control_groups(pid: int) -> list[str]:
    """The paths of the control groups of a process, one for each hierarchy (cgroups(7)); none when we may not look."""
    return [line.split(":", 2)[2] for line in _content_of(pid, "cgroup").decode(errors="surrogateescape").splitlines()]


def mounts_of(pid: int) -> str:
    """The mounts that a process sees: in another namespace a path is another file's. Empty when we may not look."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")
    return ""


def identities(numbers: Iterable[int]) -> set[ProcessIdentity]:
    """The living processes among some pids."""
    stats = (stat_of(pid) for pid in numbers)
    return {ProcessIdentity(stat.pid, stat.started, boot()) for stat in stats if stat is not None and not stat.dead}


def with_all_below(numbers: set[int]) -> set[ProcessIdentity]:
    """The living processes among some pids, and their living descendants."""
    return identities(numbers.union(*map(descendants, numbers)))


def become_subreaper() -> None:
    """Make this process the parent of its descendants' orphans (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_of(pid: int) -> str:
    """What `ps` and `top` call a process; nothing where it is gone."""
    return _content_of(pid, "comm").decode(errors="surrogateescape").removesuffix("\n")


def name_told(name: str) -> str:
    """What is told of a name that a process gives itself: at most 15 bytes."""
    return name.encode()[:15].decode()


def set_name(name: str) -> None:
    """Set what `ps` and `top` call this process (PR_SET_NAME, prctl(2))."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name_told(name).encode()))


def set_title(title: str) -> None:
    """Write what `ps` shows as this process's command line over the one it inherited, as far as there is room."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    room = end - start - 1  # the last byte stays 0: without it the kernel would read on into the environment
    if start and room > 0:
        ctypes.memmove(start, title.encode()[:room].ljust(room, b"\0"), room)


def _prctl(option: int, value: int | ctypes.c_char_p) -> None:
    """Call prctl(2). Raises `FailedError` with code `start.driver`."""
    try:
        call("prctl", option, value, 0, 0, 0)
    except OSError as error:
        raise FailedError("start.driver", f"the kernel refused prctl {option}: {error.strerror}") from error
