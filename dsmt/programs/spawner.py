"""Spawner: the small parent of a node's processes: forks them warm, sees how they end, and keeps two of them alive.

Rule 1: synchronous, one thread, no event loop, no ZeroMQ context: what is forked from here starts clean.
Rule 2: it is a subreaper: orphans of its children become its own, and it remembers how the last 1024 ended.
Rule 3: the programs that it keeps alive are started, started again and ended by the rules of `kept_programs`.
Rule 4: one spawner for a directory (`spawner.lock`); a second one exits with code 0, or has the first end, to `replace` it.
Rule 5: SIGTERM or SIGINT ends the kept programs (SIGKILL after 3 s), then it; agents and services run on.
Rule 6: `start` is idempotent (`children`).
Rule 7: `anew` has it begin anew in this very process (`anew`); those that it keeps run on.
Rule 8: that there is no descriptor or no memory for a moment ends it never: what is due is tried again (`again`).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from dsmt.errors import UNDECODABLE, DsmtError, InputError
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.again import SCARCE, Again, why
from dsmt.programs.anew import ENDING, NOTHING, SpawnerState, begin_anew, past_of
from dsmt.programs.children import Children
from dsmt.programs.kept_programs import Keep, KeptPrograms
from dsmt.programs.recorded import Recorded, own_identity, say
from dsmt.programs.recorded import record as write_down
from dsmt.programs.wards import Wards
from dsmt.programs.watches import Watches
from dsmt.system.clock import LinuxClock
from dsmt.system.fork import Main, load
from dsmt.system.processes import SOCKET, Request, lock_of_former
from dsmt.system.procfs import become_subreaper, boot
from dsmt.system.records import record_path, take_lock
from dsmt.system.seqpacket import MessageSocket

PROGRAMS: Final[Mapping[str, str]] = {
    "container_manager": "dsmt.programs.container_manager:main",
    "node_monitor": "dsmt.programs.node_monitor:main",
    "deployment_agent": "dsmt.programs.deployment_agent:main",
}
"""Every program it can fork: `module:function`, imported before the first fork."""

KEPT: Final = (Keep("container_manager"), Keep("node_monitor"))
"""The programs of the node itself, which it keeps alive."""


class Spawner:
    """The spawner of one directory; `run` returns when it was told to stop."""

    def __init__(
        self,
        directory: str,
        programs: Mapping[str, Main],
        kept: Sequence[Keep],
        lock: int,
        nodes: Sequence[str],
        *,
        past: SpawnerState,
    ) -> None:
        self._directory, self._lock = directory, lock
        self.anew = ""  # the Python with which to go on when `run` has returned
        self._clock = LinuxClock()
        self._selector = selectors.DefaultSelector()
        self._wakeups = socket.socketpair()
        self._watches = Watches(self._selector)
        self._wards = Wards(nodes, self._watches, self._clock.boottime, begin=self._begin_node)
        self._again, self._recorded = Again(say), Recorded()
        self.children = Children(programs, self._recorded, self._wards, past, self._close)
        every = [Keep(program, where or directory) for program, where in kept]
        self._kept = KeptPrograms(every, self.children, self._recorded, self._watches, self._clock)
        self._catch_signals()
        self._socket = MessageSocket(directory, SOCKET, self._selector, self._answer)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until it is to begin anew."""
        write_down(record_path(self._directory, "spawner"), own_identity())
        self._kept.reap()
        self._serve()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # from now on these wait for the next spawner (sigprocmask(2))
        self._again.all((partial(self._on_signals, self._wakeups[0]),))
        self._serve()  # told to end just before, it does

    def _serve(self) -> None:
        while not (self.anew or (self._kept.stopping and not self._kept.running)):
            self._again.all((*self._kept.ticks(), self._wards.tick, self._look))
            self._again.all([key.data for key, _events in self._selector.select(self._timeout())])

    def _look(self) -> None:
        """See whether the socket and the records are in their place."""
        now = self._clock.boottime()
        if told := self._socket.tick(now):
            say(told)
        self._recorded.tick(now, self._all())

    def _timeout(self) -> float:
        """Seconds until something is due."""
        looks = (self._wards.due, self._socket.due, self._recorded.due, *self._kept.dues)
        return max(0.0, min(due for due in looks if due is not None) - self._clock.boottime())

    def _stop(self) -> None:
        """Ask the kept programs to end (rule 5)."""
        self.anew = ""
        self._kept.stop()

    def _begin_anew(self, python: str) -> None:
        """The spawner that this Python has installed goes on in our place (rule 7)."""
        if self._kept.stopping or not os.access(python, os.X_OK):
            raise InputError("spawner.request", f"{python!r} is no program that can go on here, or nothing is to")
        self.anew = python

    def _begin_node(self, directory: str) -> None:
        """Start the spawner of a node that is half dead; where that fails it is tried again (`wards`)."""
        say(f"the spawner and the manager of {directory} have ended, and more of it lives: it is begun again")
        with suppress(DsmtError, *SCARCE):
            self.children.fork("spawner", directory)

    # -- signals and clients

    def _catch_signals(self) -> None:
        """Have signals wake the loop as bytes on a socket pair."""
        read, write = self._wakeups
        read.setblocking(False)
        write.setblocking(False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._on_signals(read))

    def _on_signals(self, read: socket.socket) -> None:
        """Signals have come."""
        with suppress(BlockingIOError):
            numbers = set(read.recv(4096))
            if numbers & ENDING:
                self._stop()
        self._kept.reap()

    def _answer(self, message: bytes) -> bytes:
        """Do what a client asks; what prevents it is an answer too."""
        try:
            told = self._do_request(msgspec.json.decode(message, type=Request))
        except UNDECODABLE as error:
            told = {"error": {"code": "spawner.request", "message": f"not understood: {error}"}}
        except SCARCE as error:
            told = {"error": {"code": "start.driver", "message": f"the spawner could not: {why(error)}"}}
        except DsmtError as error:
            told = {"error": {"code": error.code, "message": error.message}}
        return msgspec.json.encode(told)

    def _do_request(self, request: Request) -> dict[str, Any]:
        match request.op:
            case "start":
                forked = self.children.fork(request.program, request.directory, request.record)
                return dict(msgspec.to_builtins(forked))
            case "keep":
                self._kept.keep(request.program, request.directory)
            case "release":  # a node is released only
                self._wards.release(request.directory)
                self._kept.release(request.program, request.directory)
            case "status":
                self._kept.reap()
                return self.children.status(ProcessIdentity(request.pid, request.started, boot()))
            case "ping":
                self._kept.heard(ProcessIdentity(request.pid, request.started, boot()))
            case "list":
                return {"processes": self._list()}
            case "anew":
                self._begin_anew(request.python)
        return {}

    def _all(self) -> list[tuple[str, str, ProcessIdentity]]:
        """Itself, the kept programs and its other children: program, directory and process."""
        kept = self._kept.running
        others = {who: (one.name, one.directory) for who, one in self.children.forked.items() if who not in kept}
        every = {own_identity(): ("spawner", self._directory), **kept, **others}
        return [(program, directory, who) for who, (program, directory) in every.items()]

    def _list(self) -> list[dict[str, Any]]:
        """The same, as it is answered."""
        return [{"program": name, "directory": at, **msgspec.to_builtins(who)} for name, at, who in self._all()]

    def _close(self) -> None:
        """Close everything, in each child after its fork."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._socket.close()
        for wakeup in self._wakeups:
            wakeup.close()
        self._watches.close()
        os.close(self._lock)


def main(
    directory: str,
    programs: Mapping[str, str] = PROGRAMS,
    kept: Sequence[Keep] = KEPT,
    *,
    lock: int | None = None,
    past: SpawnerState = NOTHING,
    nodes: Sequence[str] = (),
    replace: bool = False,
) -> int:
    """Be the spawner of a directory until told to stop; the exit code.

    `lock` is the lock, if it was inherited; `past` is what the one before in this process knew; `nodes` are the directories
    of nodes to watch over (`dsmt.programs.wards`); `replace`: in the place of one that is there.
    """
    where = os.path.abspath(directory)
    os.makedirs(where, mode=0o700, exist_ok=True)
    if lock is None:
        lock = lock_of_former(where) if replace else take_lock(where)
    if lock is None:
        say(f"{where} has a spawner already; nothing to do")
        return 0
    with suppress(PermissionError):  # we lead a session already
        os.setsid()
    try:
        loaded = load(programs)
        become_subreaper()
        spawner = Spawner(where, loaded, kept, lock, nodes, past=past)
        spawner.run()
        if spawner.anew:
            begin_anew([spawner.anew, "-m", "dsmt.programs.spawner", where], lock, spawner.children.past())
    except DsmtError as error:
        say(str(error))
        return error.exit
    return 0


if __name__ == "__main__":
    place, held, memory = (*sys.argv[1:], "", "")[:3]  # the descriptors of the lock, and of a past
    sys.exit(main(place, lock=int(held) if held else None, past=past_of(int(memory)) if memory else NOTHING))
