"""Endings: how a run ended, why a step failed, and what follows, in the words of the reason list."""

from __future__ import annotations

import re
import signal
from typing import Any, Final

import msgspec

from dsmt.agents.rules.supervision import Finished, TryAgain, Verdict
from dsmt.errors import DsmtError, FailedError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.reason import REASONS, WAITS_FOR_DISK, Reason, filled, reason
from dsmt.ports.processes import Exit
from dsmt.spec.quantities import format_duration

_FLAPS: Final = ("run.", "health.", "start.exited", "start.timeout")
"""What, repeated until it is parked, is flapping; anything else stays its own reason."""
AT_ONCE_S: Final = 1.0
_TAKEN: Final = re.compile(
    r"in use|EADDRINUSE|EWOULDBLOCK|temporarily unavailable|already (running|exists|open|listening|locked)"
    r"|\block(ed|file)?\b",
    re.IGNORECASE,
)
"""What a program writes that finds its port or its lock taken."""
_ONCE_ONLY: Final = frozenset({"start.exited", "start.timeout", "run.exited", "run.flapping"})
"""How a program fails that finds its port or its lock taken by the copy before."""


def words(seconds: float) -> str:
    """A span: `4ms`, `1.5s`, `2m3s`."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 10 else format_duration(float(round(seconds)))


def ending(ended: Exit, ran_s: float, *, started: bool, watched: bool = True) -> tuple[str, dict[str, Any]]:
    """The reason code and its fields for a program that ended by itself.

    `started`: its start-up phase was over. `watched`: somebody was there when it ended.
    """
    if not ended.seen:
        return ("run.unseen", {"time": words(ran_s)}) if watched else ("run.vanished", {})
    took = words(ran_s)
    name = None if ended.signal is None else signal_name(ended.signal)
    if not started:
        how = f"code {ended.code}" if name is None else name
        return "start.exited", {"time": took, "exit_code": ended.code, "signal": name, "code": how}
    if name is not None:
        return "run.signal", {"signal": name, "time": took}
    return "run.exited", {"exit_code": ended.code, "time": took}


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_exit(ended: Exit, ran_s: float, why: Reason | None, at_ms: int, *, restart: int | None = None) -> LastExit:
    """How a run ended, for the status of those after it."""
    name = None if ended.signal is None else signal_name(ended.signal)
    ran_s = round(max(0.0, ran_s), 3)
    return LastExit(code=ended.code, signal=name, at_ms=at_ms, ran_s=ran_s, reason=why, restart=restart)


def follows(verdict: Verdict) -> tuple[str, float | None, bool]:
    """What comes next, in how many seconds (None: never), and whether it is parked.

    The word is the step of escalation: `restart`, `reinstall`, `recreate`, `move`, `park`; empty for never.
    """
    match verdict:
        case TryAgain(action, delay_s):
            return action, delay_s, False
        case Finished():
            return "", None, False
        case parked:
            return "move" if parked.move else "park", parked.retry_s, True


def of_error(error: DsmtError, whose: str, *, target: str, node: str) -> Reason:
    """The reason that an error carries; one that is not in the list is a defect in the program `whose`, and told as such."""
    if not isinstance(error, FailedError) or error.code not in REASONS:
        return reason("dsmt.bug", id=error.code, module=f"{whose}: {error.message}")
    fields = {**error.fields, "target": target, "node": node}
    told = reason(error.code, **fields)
    if error.code in WAITS_FOR_DISK:
        return told  # whose disk it is, only we know
    return msgspec.structs.replace(told, message=error.message, next=filled(error.next, fields) or told.next)


def is_flapping(why: Reason) -> bool:
    """Whether a reason, at its parking, is told as `run.flapping`."""
    return why.code.startswith(_FLAPS)


def beside(why: Reason, written: str) -> Reason:
    """A reason of what failed beside the copy before; where its last words tell of what that holds, with what to do."""
    if why.code not in _ONCE_ONLY or not _TAKEN.search(written):
        return why
    hint = "the copy before runs beside it, and what may run once only needs `update: {order: stop_first}`"
    return msgspec.structs.replace(why, message=f"{why.message}; {hint}")


def in_the_background(why: Reason, verdict: Verdict, last: LastExit | None) -> bool:
    """Whether a program may have gone into the background: it has ended with 0 before it was ready, and is to run on.

    Where nothing checks whether it is ready, it has ended at once.
    """
    at_once = why.code == "run.exited" and last is not None and last.ran_s < AT_ONCE_S
    return (why.code == "start.exited" or at_once) and why.exit_code == 0 and not isinstance(verdict, Finished)


def has_an_end(why: Reason) -> Reason:
    """A reason of what is parked for it ends with 0 each time, with what to do."""
    if why.code != "run.flapping" or why.exit_code != 0:
        return why
    hint = "what is to end by itself needs `restart: on_failure`"
    return msgspec.structs.replace(why, message=f"{why.message}; {hint}")


def foreground(why: Reason) -> Reason:
    """A reason of what may have gone into the background, with what to do."""
    hint = "what goes into the background is ended with it: `run` must stay in the foreground"
    return msgspec.structs.replace(why, message=f"{why.message}; {hint}")


def with_step(why: Reason, step: str) -> Reason:
    """A reason that names what follows, unless it has a step of its own."""
    return why if why.step is not None or not step else msgspec.structs.replace(why, step=step)
