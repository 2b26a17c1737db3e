"""Life: one run of an instance's program, from its start to its end.

Rule 1: every transition is in TRANSITIONS; an input that the table does not list for a state changes nothing.
Rule 2: the machine owns no clock and no process: what is to be done comes back as effects, and as `due` when to call
    `timer`.
Rule 3: what ends unasked has failed; so has what is condemned (not live, or not ready in time), when it is ended for that.
    Supervision says what follows in the same step. What was asked to end never fails.
Rule 4: a stop goes one way: not served for `delay`, asked by its command, signalled, and after `grace` killed. Whatever
    became of the program, its whole tree is killed at last; what does not die is killed again each `STUCK_S`.
Rule 5: a start is soon over: who wants to stop what is being started waits for that.
Rule 6: supervision hears when it is ready and when it is not: a restart is soon for what was healthy.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from dsmt.agents.rules.supervision import Supervision, Verdict

STUCK_S: Final = 10.0


class State(Enum):
    """Where a run is."""

    STARTING = "starting"
    STARTED = "started"
    """It runs, and its start-up phase is not over."""
    RUNNING = "running"
    READY = "ready"
    CONDEMNED = "condemned"
    """It runs, and is to be ended as failed."""
    WITHDRAWN = "withdrawn"
    """Nobody is sent to it any more; `delay` passes."""
    ASKED = "asked"
    """Its stop command runs."""
    SIGNALLED = "signalled"
    """It was told by a signal; `grace` passes."""
    KILLED = "killed"
    """Its whole tree is being killed."""
    STUCK = "stuck"
    """Something of it does not die."""
    ENDED = "ended"


class Input(Enum):
    """What can happen to it."""

    STARTED = "started"
    NOT_STARTED = "not started"
    UP = "up"
    READY = "ready"
    UNREADY = "unready"
    CONDEMN = "condemn"
    EXIT = "exit"
    STOP = "stop"
    FAIL = "fail"
    TIMER = "timer"
    ANSWERED = "answered"
    GONE = "gone"
    STAYS = "stays"


TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (State.STARTING, Input.STARTED): State.STARTED,
    (State.STARTING, Input.NOT_STARTED): State.ENDED,
    (State.STARTED, Input.UP): State.RUNNING,
    (State.STARTED, Input.CONDEMN): State.CONDEMNED,
    (State.STARTED, Input.EXIT): State.ENDED,
    (State.STARTED, Input.STOP): State.WITHDRAWN,
    (State.RUNNING, Input.READY): State.READY,
    (State.RUNNING, Input.CONDEMN): State.CONDEMNED,
    (State.RUNNING, Input.EXIT): State.ENDED,
    (State.RUNNING, Input.STOP): State.WITHDRAWN,
    (State.READY, Input.READY): State.READY,
    (State.READY, Input.UNREADY): State.RUNNING,
    (State.READY, Input.CONDEMN): State.CONDEMNED,
    (State.READY, Input.EXIT): State.ENDED,
    (State.READY, Input.STOP): State.WITHDRAWN,
    (State.CONDEMNED, Input.EXIT): State.ENDED,
    (State.CONDEMNED, Input.STOP): State.WITHDRAWN,
    (State.CONDEMNED, Input.FAIL): State.WITHDRAWN,
    (State.WITHDRAWN, Input.TIMER): State.ASKED,
    (State.ASKED, Input.ANSWERED): State.SIGNALLED,
    (State.SIGNALLED, Input.EXIT): State.KILLED,
    (State.SIGNALLED, Input.TIMER): State.KILLED,
    (State.KILLED, Input.GONE): State.ENDED,
    (State.KILLED, Input.STAYS): State.STUCK,
    (State.STUCK, Input.TIMER): State.KILLED,
}
ALIVE: Final = frozenset({State.STARTED, State.RUNNING, State.READY, State.CONDEMNED})
"""It runs, and nobody has asked it to end."""


class Failed(msgspec.Struct, frozen=True):
    """It has failed: write down and say what supervision has decided."""

    verdict: Verdict


class RunStopCommand(msgspec.Struct, frozen=True):
    """Run its stop command; `answered` says that this is over."""


class Signal(msgspec.Struct, frozen=True):
    """Send it a signal."""

    number: int


class Kill(msgspec.Struct, frozen=True):
    """Kill its whole tree; `killed` says what is left of it."""


class Stays(msgspec.Struct, frozen=True):
    """Say that this process of it does not die."""

    pid: int


Effect = Failed | RunStopCommand | Signal | Kill | Stays


class StopWay(msgspec.Struct, frozen=True):
    """How a program wants to be ended. `asks`: it has a stop command."""

    delay_s: float
    asks: bool
    signal: int
    grace_s: float


class Life:
    """One run. Times are boot-time seconds; `jitter` is in [-`supervision.JITTER`, `supervision.JITTER`]."""

    def __init__(self, supervision: Supervision, state: State = State.STARTING) -> None:
        self.state = state
        self.due: float | None = None
        """When `timer` has something to do; None when it has not."""
        self.overdue = False
        """It was killed because its grace was over."""
        self._supervision = supervision
        self._way = StopWay(0.0, asks=False, signal=0, grace_s=0.0)

    def __repr__(self) -> str:
        return f"<Life {self.state.value} due={self.due}>"

    @property
    def alive(self) -> bool:
        """Whether it runs and nobody has asked it to end."""
        return self.state in ALIVE

    def started(self) -> None:
        """Its driver has started it."""
        if self._pass(Input.STARTED):
            self._supervision.started()

    def not_started(self) -> None:
        """Its driver could not start it: that is a step that failed, as an installation is."""
        self._pass(Input.NOT_STARTED)

    def up(self) -> None:
        """Its start-up phase is over."""
        self._pass(Input.UP)

    def ready(self, now: float) -> None:
        """It may be served (rule 6)."""
        if self._pass(Input.READY):
            self._supervision.healthy(now)

    def unready(self) -> None:
        """It may not be served."""
        if self._pass(Input.UNREADY):
            self._supervision.unhealthy()

    def condemn(self) -> None:
        """It is not live, or was not ready in time."""
        self._pass(Input.CONDEMN)

    def exit(self, now: float, *, jitter: float, clean: bool = False) -> list[Effect]:
        """Its own process has ended; `clean` is a success (rules 3, 4)."""
        unasked = self.alive
        if not self._pass(Input.EXIT):
            return []
        self.due = None
        return [*self._failed(now, jitter, clean=clean), Kill()] if unasked else [Kill()]

    def stop(self, way: StopWay, now: float) -> list[Effect]:
        """It is not wanted any more (rule 4)."""
        return self._withdraw(way, now) if self._pass(Input.STOP) else []

    def fail(self, way: StopWay, now: float, *, jitter: float) -> list[Effect]:
        """What is condemned is ended now (rule 3)."""
        return [*self._failed(now, jitter), *self._withdraw(way, now)] if self._pass(Input.FAIL) else []

    def timer(self, now: float) -> list[Effect]:
        """The time is `now`."""
        before = self.state
        if self.due is None or now < self.due or not self._pass(Input.TIMER):
            return []
        self.due = None
        if self.state is State.ASKED:
            return [RunStopCommand()] if self._way.asks else self.answered(now)
        self.overdue = self.overdue or before is State.SIGNALLED
        return [Kill()]

    def answered(self, now: float) -> list[Effect]:
        """Its stop command is over, however it ended."""
        if not self._pass(Input.ANSWERED):
            return []
        self.due = now + self._way.grace_s
        return [Signal(self._way.signal)]

    def killed(self, left: tuple[int, ...], now: float) -> list[Effect]:
        """Its tree was killed; `left` are the pids that do not die."""
        if not left:
            self._pass(Input.GONE)
            return []
        if not self._pass(Input.STAYS):
            return []
        self.due = now + STUCK_S
        return [Stays(left[0])]

    def _pass(self, what: Input) -> bool:
        """Take a transition of the table; whether there is one (rule 1)."""
        after = TRANSITIONS.get((self.state, what))
        if after is not None:
            self.state = after
        return after is not None

    def _failed(self, now: float, jitter: float, *, clean: bool = False) -> list[Effect]:
        return [Failed(self._supervision.failed(now, jitter=jitter, clean=clean))]

    def _withdraw(self, way: StopWay, now: float) -> list[Effect]:
        self._way, self.due = way, now + way.delay_s
        return self.timer(now)
