"""Acts: stop and start what runs on this machine, with no bus: by a file beside it, which its agent obeys (rule A24).

Rule 1: the stop is on the disk before anybody is told of it; who is interrupted afterwards has stopped it all the same.
Rule 2: it is done when its agent has done it. Where no agent lives, that is said: nothing is begun any more, and what runs
    is left to who typed this.
Rule 3: who is root changes a home as the user to whom it belongs: that user's agent reads what was written at once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from dsmt.agents.rules.after import ended
from dsmt.agents.rules.container import HELD, POKE
from dsmt.agents.rules.held_here import dump_held
from dsmt.errors import FailedError, RefusedError, TimedOutError
from dsmt.event.kinds.instance import HeldHere
from dsmt.event.phrases import quoted, some
from dsmt.event.status import State
from dsmt.operations.local.here.here import Here, MachineState, instance_in, not_ours
from dsmt.operations.words.targets import Target
from dsmt.operations.words.telling import Tell, silent
from dsmt.operations.write.controlling import Done
from dsmt.system.files import write_atomically
from dsmt.system.procfs import send_signal
from dsmt.system.users import name_of

LOOK_S: Final = 0.05
AGENT_S: Final = 5.0
"""So long an agent has to be there: one that has ended is followed by another one at once."""
BEGIN_S: Final = 30.0
"""So long an agent has to begin what is let go, where nobody says how long to wait; or to end what nobody knows."""


async def stop_here(
    machine: MachineState, target: Target, *, reason: str, limit_s: float | None = None, tell: Tell = silent
) -> Done:
    """Stop what is here of a target, and keep it stopped; wait until it has ended.

    Raises `RefusedError` for another user's home, `FailedError` where nobody ends it, and `TimedOutError`.
    """
    todo = [one for one in machine.instances if one.held is None]
    for one in todo:
        held = HeldHere(id=os.urandom(8).hex(), by=user(), at_ms=time.time_ns() // 1_000_000, reason=reason)
        _change(one.directory, partial(_write, content=dump_held(held)))
        _poke(one)
    most = max((_ends_s(one) for one in machine.instances), default=0.0) + AGENT_S
    await _until(machine.instances, _has_ended, "stopped", most if limit_s is None else limit_s, tell)
    same = {str(one.key): f"stopped by {one.held.by}{quoted(one.held.reason)}" for one in machine.instances if one.held}
    return Done(action="stop", target=str(target), instances=_names(todo), unchanged=list(same), because=same)


async def start_here(
    machine: MachineState, target: Target, *, waits: bool = False, limit_s: float | None = None, tell: Tell = silent
) -> Done:
    """Let what was stopped so run again; wait until it was begun, or if one `waits` for that, until it is ready.

    Raises `RefusedError` for another user's home and where the realm holds all of it, `FailedError`, and `TimedOutError`.
    """
    todo = [one for one in machine.instances if one.held is not None]
    same = {str(one.key): _not_held(one) for one in machine.instances if one.held is None}
    theirs = [one for one in machine.instances if one.held is None and one.slot is not None and one.slot.held]
    if theirs and not todo:
        said = f"{some(_names(theirs))} was stopped by an operator of the realm, and not on this machine"
        raise RefusedError("local.held", said, next=f"dsmt start {target}, where a broker answers")
    for one in todo:
        _change(one.directory, lambda place: (place / HELD).unlink(missing_ok=True))
        _poke(one)
    most = limit_s if limit_s is not None else float("inf") if waits else BEGIN_S
    await _until(todo, _is_ready if waits else _has_begun, "ready" if waits else "begun", most, tell)
    return Done(action="start", target=str(target), instances=_names(todo), unchanged=list(same), because=same)


def user() -> str:
    """Who types this: the user, and as whom where that is another one."""
    name = name_of(os.geteuid())
    before = os.environ.get("SUDO_USER", "")
    return name if before in ("", name) else f"{before} as {name}"


def _names(those: Iterable[Here]) -> list[str]:
    return [str(one.key) for one in those]


def _not_held(one: Here) -> str:
    if one.slot is not None and one.slot.held:
        return f"an operator of the realm has stopped it: dsmt start {one.key}, where a broker answers"
    return "it was not stopped on this machine"


def _write(directory: Path, content: bytes) -> None:
    write_atomically(str(directory / HELD), content)


def _change(directory: Path, change: Callable[[Path], object]) -> None:
    try:
        with _as_owner(directory):
            change(directory)
    except PermissionError as error:
        raise not_ours(directory, "changed") from error


@contextmanager
def _as_owner(directory: Path) -> Iterator[None]:
    """Let root be whom a directory belongs to (rule 3)."""
    owned, own = directory.stat(), (os.geteuid(), os.getegid())
    if own[0] != 0:
        yield
        return
    os.setegid(owned.st_gid)
    os.seteuid(owned.st_uid)
    try:
        yield
    finally:
        os.seteuid(own[0])
        os.setegid(own[1])


def _poke(one: Here) -> None:
    for agent in one.agents:
        send_signal(agent, POKE)


def _ends_s(one: Here) -> float:
    """How long its program may take to end."""
    return BEGIN_S if one.component is None else one.component.stop.most_s


def _has_ended(one: Here) -> bool:
    is_told = not one.agents or one.record is None or one.record.state in (State.STOPPED, State.GONE) or _rests(one)
    return one.program is None and is_told


def _rests(one: Here) -> bool:
    """Whether it has ended by itself, so that there is nothing to stop."""
    policy = None if one.component is None else one.component.restart
    return one.record is not None and ended(one.record, None, policy) is not None


def _has_begun(one: Here) -> bool:
    is_kept = one.slot is not None and one.slot.desired != "running"
    return is_kept or (one.record is not None and one.record.state is not State.STOPPED)


def _is_ready(one: Here) -> bool:
    record = one.record
    return record is not None and ((one.program is not None and record.ready) or record.ended_well)


async def _until(those: Iterable[Here], done: Callable[[Here], bool], word: str, limit_s: float, tell: Tell) -> None:
    """Look until all is done. Raises `FailedError` where no agent does it, and `TimedOutError`."""
    left, began = list(those), time.monotonic()
    while True:
        now = [seen for one in left if (seen := instance_in(one.node, one.directory)) is not None]
        left = [one for one in now if not done(one)]
        for one in left:  # also one whose agent has begun since
            _poke(one)
        if not left:
            return
        waited = time.monotonic() - began
        alone = [one for one in left if not one.agents]
        if alone and waited > min(AGENT_S, limit_s):
            raise _unwatched(alone, word)
        if waited > limit_s:
            said = f"{some(_names(left))} not {word} after {limit_s:g} s; it goes on"
            raise TimedOutError("wait.timeout", said, next=f"dsmt ps {left[0].key} --local shows how far it is")
        tell(f"{some(_names(left))} not {word} yet")
        await asyncio.sleep(LOOK_S)  # what others write has no event


def _unwatched(alone: list[Here], word: str) -> FailedError:
    """That no agent lives that could do it."""
    first = alone[0]
    pid = None if first.program is None else first.program.pid
    nobody = f"no agent of {some(_names(alone))} lives on {first.node}"
    if word != "stopped":
        said = f"{nobody}: it may run again, and nobody starts it"
        return FailedError("local.unwatched", said, next="dsmt up, or systemctl start what keeps this node")
    said = f"{nobody}: it will not be started again, but its program, pid {pid}, still runs"
    return FailedError("local.unwatched", said, next=f"kill {pid}, or dsmt up: the next agent ends it")
