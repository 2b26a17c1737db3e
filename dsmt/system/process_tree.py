"""Process tree: which processes belong to an instance, and their end.

Rule 1: to a tree belong its root; whose parent belongs to it; who is in a session that the root, or a member that was
        seen, leads; who bears the tree's mark (`marks`), wherever it was forked to since; and who
        was seen in it once, for good: nobody is signalled before somebody has looked. The session of a leader that is
        gone counts among our own descendants, and while somebody lives in it who was there when the leader lived: the
        number is not given away before. Elsewhere it may be another's by now.
Rule 2: by its mark a tree can be told from all other children of the same parent: health checks, install commands,
        another instance.
Rule 3: who leaves the session, takes off both forms of the mark *and* is orphaned before anybody has looked has escaped:
        nobody does that by accident, and only a pid namespace (driver `bubblewrap`) holds that one.
Rule 4: a look can miss who is being forked meanwhile: it is repeated while it finds somebody new, and killing until two
        looks in a row find nobody. Who is to be killed is stopped first, so that nobody forks between a look and its death;
        whatever goes wrong meanwhile, nobody is left stopped. It takes no more descriptors for many than for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Container
from typing import Final

from dsmt.ports.processes import ProcessIdentity
from dsmt.system.marks import UNMARKED, bearers, numbers_of
from dsmt.system.procfs import (
    UNREACHED,
    Stat,
    boot,
    children,
    descendants,
    identity_of,
    is_alive,
    open_pidfd,
    pids,
    stat_of,
)
from dsmt.system.watch import ProcessWatch, watch

LOOKS: Final = 8
"""How often is looked again at most for who is new, before a signal: a storm of forks is not waited for."""


class Tree:
    """The processes of one instance.

    `ours` says that this process started the root and is a subreaper: then all of the tree are its descendants,
    and no other process need be looked at. `mark` is the number of its mark, or `UNMARKED`. `lived` is a start time
    (of /proc/PID/stat) at which the root still lived.
    """

    def __init__(self, root: ProcessIdentity, mark: int, *, ours: bool, lived: int = 0) -> None:
        self.root = root
        self._lived = lived
        self.mark = mark
        self._ours = ours
        self._seen: dict[int, ProcessIdentity] = {root.pid: root} if root.boot == boot() else {}
        self._leaders = dict(self._seen)
        """Of those, who led a session when they were seen."""

    def members(self) -> set[ProcessIdentity]:
        """The living processes of the tree."""
        numbers = descendants(os.getpid()) if self._ours else pids()
        stats = {stat.pid: stat for number in numbers if (stat := stat_of(number)) is not None}
        stats.pop(os.getpid(), None)
        sessions = {pid for pid, leader in self._leaders.items() if self._leads(pid, leader, stats)}
        belonging: dict[int, bool] = {}
        for stat in sorted(stats.values(), key=lambda stat: (stat.started, stat.pid)):  # parents before their children
            self._judge(stat, stats, sessions, belonging)
        found = {stat for stat in stats.values() if belonging[stat.pid] and not stat.dead}
        members = {stat.pid: ProcessIdentity(stat.pid, stat.started, boot()) for stat in found}
        self._seen |= members
        self._leaders |= {stat.pid: members[stat.pid] for stat in found if stat.session == stat.pid}
        return set(members.values())

    def _leads(self, pid: int, leader: ProcessIdentity, stats: dict[int, Stat]) -> bool:
        """Whether the session of this number is still that of a leader that was seen (rule 1)."""
        now = identity_of(pid)
        if now is not None or self._ours:
            return now in (leader, None)
        lived = self._lived if leader == self.root else 0
        return any(
            stat.started <= lived or self._seen.get(stat.pid) == ProcessIdentity(stat.pid, stat.started, boot())
            for stat in stats.values()
            if stat.session == pid
        )

    def look(self) -> None:
        """See who belongs to the tree now, before the first signal (rules 1, 4)."""
        _look_again(self.members, lambda _new: None)

    def _judge(self, stat: Stat, stats: dict[int, Stat], sessions: set[int], belonging: dict[int, bool]) -> bool:
        """Whether a process belongs to the tree (rule 1), and note it."""
        known = belonging.get(stat.pid)
        if known is not None:
            return known
        belonging[stat.pid] = False
        parent = stats.get(stat.parent)
        belongs = (
            self._seen.get(stat.pid) == ProcessIdentity(stat.pid, stat.started, boot())
            or stat.session in sessions
            or (parent is not None and self._judge(parent, stats, sessions, belonging))
            or (self.mark != UNMARKED and self.mark in numbers_of(stat.pid))
        )
        belonging[stat.pid] = belongs
        return belongs

    async def kill(self, *, deadline: float, root: ProcessWatch | None = None) -> tuple[int, ...]:
        """SIGKILL all of the tree and wait for its end, at most `deadline` seconds; the pids that do not die.

        `root` is the watch that reaps the tree's root, if there is one.
        """
        return await _kill_until_none(self.members, deadline, root)


async def kill_owned(*owners: str, deadline: float, spared: Container[int] = ()) -> tuple[int, ...]:
    """SIGKILL all that any agent of these owners (containers' directories) started; the pids that do not die.

    The trees with the `spared` marks live on.
    """
    return await _kill_until_none(lambda: bearers(owners, spared), deadline)


async def _kill_until_none(
    look: Callable[[], set[ProcessIdentity]], deadline: float, root: ProcessWatch | None = None
) -> tuple[int, ...]:
    """SIGKILL whom `look` finds until it finds nobody (rule 4); the pids that do not die within `deadline` seconds.

    `root` is the watch of one of them that somebody else waits for.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline
    victims: set[ProcessIdentity] = set()

    def stop(new: set[ProcessIdentity]) -> None:
        victims.update(new)
        _signal_all(new, signal.SIGSTOP)

    try:
        empty_looks = 0
        while empty_looks < 2:
            members = _look_again(look, stop)
            empty_looks = 0 if members else empty_looks + 1
            _signal_all(members, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await _all_ended(members, root)
            if members and loop.time() >= until:
                break
    except BaseException:
        _signal_all(victims, signal.SIGKILL)
        raise
    _reap_all({victim for victim in victims if root is None or victim.pid != root.pid})
    return tuple(sorted(victim.pid for victim in victims if is_alive(victim)))


def _look_again(
    look: Callable[[], set[ProcessIdentity]], seen: Callable[[set[ProcessIdentity]], None]
) -> set[ProcessIdentity]:
    """All whom `look` finds until it finds nobody new; `seen` hears of each who is (rule 4)."""
    known: set[ProcessIdentity] = set()
    for _ in range(LOOKS):
        new = look() - known
        if not new:
            break
        seen(new)
        known |= new
    return known


def _signal_all(members: set[ProcessIdentity], number: int) -> None:
    """Signal each of these very processes, as far as they are there; the first error is raised when all were tried.

    Who became another user's is not ours to signal: it is told as one that does not die.
    """
    errors: list[OSError] = []
    for member in members:
        try:
            descriptor = open_pidfd(member)
        except OSError as error:
            errors.append(error)
            continue
        if descriptor is not None:
            with contextlib.suppress(*UNREACHED):
                signal.pidfd_send_signal(descriptor, number)
            os.close(descriptor)
    if errors:
        raise errors[0]


async def _all_ended(members: set[ProcessIdentity], root: ProcessWatch | None) -> None:
    """Wait for the end of all members, one after the other."""
    for member in members:
        watched = root if root is not None and member.pid == root.pid else watch(member)
        if watched is not None:
            try:
                await watched.wait()
            finally:
                if watched is not root:  # one that does not die is looked at again, and again
                    watched.leave()


def _reap_all(victims: set[ProcessIdentity]) -> None:
    """Reap those that became our children only when their parent died."""
    for victim in victims:
        stat = stat_of(victim.pid)
        if stat is not None and stat.dead and stat.started == victim.started and stat.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(victim.pid, os.WNOHANG)


class Orphans:
    """Reaps what this process inherits as a subreaper and nobody waits for.

    A dead child is taken for an orphan when two sweeps in a row find it unreaped: who starts a process
    itself waits for it much sooner.
    """

    PERIOD: Final = 10.0

    def __init__(self) -> None:
        self._dead: set[ProcessIdentity] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sweep each `PERIOD` seconds on the running loop, from now on."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.PERIOD, self._again)

    def sweep(self) -> None:
        """Reap the dead children that the sweep before saw dead as well."""
        stats = [stat for pid in children(os.getpid()) if (stat := stat_of(pid)) is not None and stat.dead]
        dead = {ProcessIdentity(stat.pid, stat.started, boot()) for stat in stats}
        _reap_all(dead & self._dead)
        self._dead = dead - self._dead

    def _again(self) -> None:
        """Sweep and wait for the next time, whatever keeps it from being done now."""
        self._timer = None
        try:
            self.sweep()
        finally:
            self.start()
