"""Spawner: the small parent of a node's processes: forks them warm, sees how they end, and keeps two of them alive.

Rule 1: synchronous, one thread, no event loop, no ZeroMQ context: what is forked from here starts clean.
Rule 2: it is a subreaper: orphans of its children become its own, and it remembers how the last 1024 ended.
Rule 3: when a kept program is started, started again and ended `dsmt.agents.rules.keeping` decides. One that an earlier
    spawner left alive is watched, not started a second time.
Rule 4: one spawner for a directory (`spawner.lock`); a second one exits with code 0, or has the first end, to `replace` it.
Rule 5: SIGTERM or SIGINT ends the kept programs (SIGKILL after 3 s), then it; agents and services run on.
Rule 6: `start` is idempotent: while the process of the record lives, it is the answer; so is one without (`recorded`).
Rule 7: a kept program that asked, and has ceased to, hangs: it is killed, and so started again (`pings`).
Rule 8: `anew` has it begin anew in this very process (`anew`); those that it keeps run on.
Rule 9: that there is no descriptor or no memory for a moment ends it never: what is due is tried again (`again`).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from dsmt.agents.rules.keeping import Effect, Keeping
from dsmt.errors import UNDECODABLE, DsmtError, InputError
from dsmt.ports.processes import Exit, ProcessIdentity
from dsmt.programs.again import SCARCE, Again, why
from dsmt.programs.anew import ENDING, NOTHING, Family, Forked, Past, begin_anew, past_of
from dsmt.programs.pings import Pings
from dsmt.programs.recorded import Recorded, own_identity, say
from dsmt.programs.recorded import record as write_down
from dsmt.programs.wards import Wards
from dsmt.programs.watches import Watches
from dsmt.system.clock import LinuxClock
from dsmt.system.fork import Main, Program, fork, load
from dsmt.system.processes import SOCKET, Request, lock_of_former
from dsmt.system.procfs import become_subreaper, began_s, boot, identity_of, is_alive, send_signal
from dsmt.system.records import make_lock, record_path, take_lock
from dsmt.system.seqpacket import MessageSocket
from dsmt.system.watch import exit_of

PROGRAMS: Final[Mapping[str, str]] = {
    "container_manager": "dsmt.programs.container_manager:main",
    "node_monitor": "dsmt.programs.node_monitor:main",
    "deployment_agent": "dsmt.programs.deployment_agent:main",
}
"""Every program it can fork: `module:function`, imported before the first fork."""


class Keep(NamedTuple):
    """A program to be kept alive, and its directory; empty for the spawner's own."""

    program: str
    directory: str = ""


KEPT: Final = (Keep("container_manager"), Keep("node_monitor"))
"""The programs of the node itself, which it keeps alive."""


@dataclass(slots=True)
class KeptProgram:
    """A program that is kept alive, and who runs it now."""

    program: str
    directory: str
    keeping: Keeping
    identity: ProcessIdentity | None = None


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
        past: Past,
    ) -> None:
        self._directory = directory
        self._programs = programs
        self.family = Family(past)
        self.anew = ""  # the Python with which to go on when `run` has returned
        self._clock = LinuxClock()
        self._kept = [KeptProgram(one, where or directory, Keeping(now=self._clock.boottime())) for one, where in kept]
        self._selector = selectors.DefaultSelector()
        self._stopping, self._lock = False, lock
        self._wakeups = socket.socketpair()
        self._watches = Watches(self._selector)
        self._wards = Wards(nodes, self._watches, self._clock.boottime, begin=self._begin_node)
        self._pings, self._again, self._recorded = Pings(), Again(say), Recorded()
        self._catch_signals()
        self._socket = MessageSocket(directory, SOCKET, self._selector, self._answer)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until it is to begin anew."""
        write_down(record_path(self._directory, "spawner"), own_identity())
        self._reap()
        self._serve()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # from now on these wait for the next spawner (sigprocmask(2))
        self._again.all((partial(self._on_signals, self._wakeups[0]),))
        self._serve()  # told to end just before, it does

    def _serve(self) -> None:
        while not (self.anew or (self._stopping and all(kept.identity is None for kept in self._kept))):
            self._again.all((self._reap, *(partial(self._tick, kept) for kept in self._kept), self._wards.tick, self._look))
            self._again.all([key.data for key, _events in self._selector.select(self._timeout())])

    def _look(self) -> None:
        """See whether the socket and the records are in their place, and whether somebody hangs."""
        now = self._clock.boottime()
        if told := self._socket.tick(now):
            say(told)
        self._recorded.tick(now, self._all())
        for identity in self._pings.hung(now):
            _send(identity, signal.SIGKILL)

    # -- the kept programs

    def _tick(self, kept: KeptProgram) -> None:
        self._do(kept, kept.keeping.tick(self._clock.boottime()))

    def _do(self, kept: KeptProgram, effects: Sequence[Effect]) -> None:
        """Do what the machine of a kept program asks for."""
        for effect in effects:
            match effect:
                case Effect.START:
                    self._start(kept)
                case Effect.ASK_TO_END:
                    _send(kept.identity, signal.SIGTERM)
                case Effect.KILL:
                    _send(kept.identity, signal.SIGKILL)

    def _start(self, kept: KeptProgram) -> None:
        """Watch the process that a spawner before this one left alive, or fork one."""
        now = self._clock.boottime()
        try:
            identity = self._recorded.find(kept.directory, kept.program)
            if identity is not None and self._watches.begin(identity, partial(self._adopted_ended, identity)) is not None:
                kept.identity = identity
                self._do(kept, kept.keeping.started(now, began=began_s(identity)))
                return
            kept.identity = self._fork(kept.program, kept.directory, "")
            self._do(kept, kept.keeping.started(now))
        except (DsmtError, *SCARCE) as error:
            kept.keeping.start_failed(now)
            say(f"{kept.program} cannot be started: {why(error)}; next try in {kept.keeping.delay:.1f} s")

    def _adopted_ended(self, identity: ProcessIdentity, watch: int) -> None:
        """A kept program that is no child of ours has ended; nobody can say how."""
        self._reap()  # first: where that fails it is tried again
        self._watches.end(watch)
        self._kept_ended(identity)

    def _kept_ended(self, identity: ProcessIdentity) -> None:
        """Who was kept has ended; its machine plans the next start."""
        for kept in self._kept:
            if kept.identity == identity:
                kept.identity = None
                kept.keeping.ended(self._clock.boottime())
                then = "as asked" if self._stopping else f"next start in {kept.keeping.delay:.1f} s"
                say(f"{kept.program} (pid {identity.pid}) ended; {then}")

    def _timeout(self) -> float:
        """Seconds until something is due."""
        looks = (self._wards.due, self._pings.due, self._socket.due, self._recorded.due)
        dues = [due for due in (*looks, *(kept.keeping.due for kept in self._kept)) if due is not None]
        return max(0.0, min(dues) - self._clock.boottime())

    def _stop(self) -> None:
        """Ask the kept programs to end (rule 5)."""
        self._stopping, self.anew = True, ""
        for kept in self._kept:
            self._do(kept, kept.keeping.stop(self._clock.boottime()))

    def _begin_anew(self, python: str) -> dict[str, Any]:
        """The spawner that this Python has installed goes on in our place (rule 8)."""
        if self._stopping or not os.access(python, os.X_OK):
            raise InputError("spawner.request", f"{python!r} is no program that can go on here, or nothing is to")
        self.anew = python
        return {}

    def _begin_node(self, directory: str) -> None:
        """Start the spawner of a node that is half dead; where that fails it is tried again (`wards`)."""
        say(f"the spawner and the manager of {directory} have ended, and more of it lives: it is begun again")
        with suppress(DsmtError, *SCARCE):
            self._fork("spawner", directory, "")

    # -- children

    def _fork(self, name: str, directory: str, record: str) -> ProcessIdentity:
        """Fork a program, or find the one that runs there (rule 6). Raises `InputError`, `FailedError`."""
        main = self._programs.get(name)
        if main is None or not os.path.isabs(directory):
            raise InputError("spawner.request", f"{name!r} in {directory!r} is not a program and an absolute directory")
        record = record or record_path(directory, name)
        children = (identity for identity, child in self.family.children.items() if child.record == record)
        known = self._recorded.find(directory, name, record) or next(children, None)  # a full disk takes no records
        if known is not None:
            return known
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if name == "spawner":
            make_lock(directory)
            self._wards.add(directory)
        identity = fork(Program(name, main, directory, record), self._close)
        write_down(record, identity)
        self.family.children[identity] = Forked(name, directory, record)
        return identity

    def _reap(self) -> None:
        """Reap every dead child, own and inherited, and remember how it ended."""
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if result is None:
                return
            identity = identity_of(result.si_pid)
            os.waitpid(result.si_pid, 0)
            if identity is not None:
                self._remember(identity, exit_of(result))

    def _remember(self, identity: ProcessIdentity, ended: Exit) -> None:
        """Keep how a process ended."""
        program = self.family.ended(identity, ended)
        if program is not None:
            say(f"{program.name} of {program.directory} (pid {identity.pid}) {ended}")
        self._kept_ended(identity)

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
        self._reap()

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
                forked: dict[str, Any] = msgspec.to_builtins(self._fork(request.program, request.directory, request.record))
                return forked
            case "keep" | "release":
                return self._keep(request.program, request.directory, wanted=request.op == "keep")
            case "status":
                return self._status(ProcessIdentity(request.pid, request.started, boot()))
            case "ping":
                return self._heard(ProcessIdentity(request.pid, request.started, boot()))
            case "list":
                return {"processes": self._list()}
            case "anew":
                return self._begin_anew(request.python)

    def _keep(self, program: str, directory: str, *, wanted: bool) -> dict[str, Any]:
        """Keep a program from now on, or end it and keep it no more; a node is released only."""
        now = self._clock.boottime()
        held = [kept for kept in self._kept if (kept.program, kept.directory) == (program, directory)]
        if not wanted:
            self._wards.release(directory)
            for kept in held:
                self._do(kept, kept.keeping.stop(now))
        elif not any(kept.keeping.wanted for kept in held):
            self._kept.append(KeptProgram(program, directory, Keeping(now=now)))
        return {}

    def _heard(self, identity: ProcessIdentity) -> dict[str, Any]:
        """Somebody watches over us; who is kept and ceases to hangs (rule 7)."""
        if any(kept.identity == identity for kept in self._kept):
            self._pings.heard(identity, self._clock.boottime())
        return {}

    def _status(self, identity: ProcessIdentity) -> dict[str, Any]:
        """How a process ended: `{code, signal}`, `{running: true}` or `{unknown: true}`."""
        self._reap()
        ended = self.family.exits.get(identity)
        if ended is None:
            return {"running": True} if is_alive(identity) else {"unknown": True}
        return {"code": ended.code, "signal": ended.signal}

    def _all(self) -> list[tuple[str, str, ProcessIdentity]]:
        """Itself, the kept programs and its other children: program, directory and process."""
        kept = {one.identity: (one.program, one.directory) for one in self._kept if one.identity is not None}
        others = {who: (one.name, one.directory) for who, one in self.family.children.items() if who not in kept}
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
    past: Past = NOTHING,
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
            begin_anew([spawner.anew, "-m", "dsmt.programs.spawner", where], lock, spawner.family.past())
    except DsmtError as error:
        say(str(error))
        return error.exit
    return 0


def _send(identity: ProcessIdentity | None, number: int) -> None:
    """Send a signal to this very process, if there is one. Who is asked in vain is killed, again and again (`keeping`)."""
    with suppress(OSError):
        if identity is not None:
            send_signal(identity, number)


if __name__ == "__main__":
    place, held, memory = (*sys.argv[1:], "", "")[:3]  # the descriptors of the lock, and of a past
    sys.exit(main(place, lock=int(held) if held else None, past=past_of(int(memory)) if memory else NOTHING))
