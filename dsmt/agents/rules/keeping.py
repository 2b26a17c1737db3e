"""Keeping: when a program that must live is started, started again, and ended.

Rule 1: every transition is in TRANSITIONS; an input that the table does not list for a state changes nothing.
Rule 2: the machine owns no clock and no process; what is to be done comes back as effects, and when to `tick` as `due`.
Rule 3: what ended after a life of a second or more is started again after the policy's pause (none, for a program);
    after a shorter life, and after a start that failed, with a delay of 0.1 s, doubled up to 5 s.
Rule 4: a process that an earlier keeper left alive is adopted: it counts as started when it began, and is not started anew.
Rule 5: a stop is a request; who has not ended after the policy's patience is killed, and killed again each `KILL_AGAIN_S`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from dsmt.backoff import Backoff


class State(Enum):
    """Where a kept program is."""

    WAITING = "waiting"
    """It does not run, and will be started when `due` has come."""
    STARTING = "starting"
    """`START` was returned, and its outcome is not known yet."""
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Input(Enum):
    """What can happen to it."""

    TICK = "tick"
    STARTED = "started"
    START_FAILED = "start_failed"
    ENDED = "ended"
    STOP = "stop"


class Effect(Enum):
    """What its keeper is to do now."""

    START = "start"
    ASK_TO_END = "ask to end"
    KILL = "kill"


TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (State.WAITING, Input.TICK): State.STARTING,
    (State.WAITING, Input.STARTED): State.RUNNING,
    (State.WAITING, Input.STOP): State.STOPPED,
    (State.STARTING, Input.STARTED): State.RUNNING,
    (State.STARTING, Input.START_FAILED): State.WAITING,
    (State.STARTING, Input.STOP): State.STOPPED,
    (State.RUNNING, Input.ENDED): State.WAITING,
    (State.RUNNING, Input.STOP): State.STOPPING,
    (State.STOPPING, Input.ENDED): State.STOPPED,
    (State.STOPPING, Input.TICK): State.STOPPING,
    (State.STOPPED, Input.STARTED): State.STOPPING,
}

SHORT_LIFE_S: Final = 1.0
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 5.0
KILL_AGAIN_S: Final = 0.05


class Policy(msgspec.Struct, frozen=True):
    """How a program is kept: the pause before a restart after a good life, and how long a stop may take."""

    pause_s: float = 0.0
    patience_s: float = 3.0


USUAL: Final = Policy()


class Keeping:
    """The life of one kept program. Times are boot-time seconds."""

    def __init__(self, policy: Policy = USUAL, *, now: float) -> None:
        self.state = State.WAITING
        self.due: float | None = now
        """When `tick` has something to do; None when it has not."""
        self.delay = 0.0
        """How long the next start waits, or the last one has waited."""
        self._policy = policy
        self._backoff = Backoff(FIRST_DELAY_S, LONGEST_DELAY_S)
        self._began = now

    def __repr__(self) -> str:
        return f"<Keeping {self.state.value} due={self.due}>"

    @property
    def wanted(self) -> bool:
        """Whether it is to run: it was not stopped."""
        return self.state not in (State.STOPPING, State.STOPPED)

    def tick(self, now: float) -> list[Effect]:
        """The time is `now`: start what is due, kill who does not end."""
        if self.due is None or now < self.due or not self._pass(Input.TICK):
            return []
        if self.state is State.STOPPING:
            self.due = now + KILL_AGAIN_S
            return [Effect.KILL]
        self.due = None
        return [Effect.START]

    def started(self, now: float, *, began: float | None = None) -> list[Effect]:
        """It runs, since `began` if it was adopted (rule 4). Who was started while a stop came in is asked to end."""
        if not self._pass(Input.STARTED):
            return []
        self._began = now if began is None else began
        return self._ask_to_end(now) if self.state is State.STOPPING else self._settle()

    def start_failed(self, now: float) -> list[Effect]:
        """It could not be started; try again later (rule 3)."""
        if self._pass(Input.START_FAILED):
            self._wait(now, short=True)
        return []

    def ended(self, now: float) -> list[Effect]:
        """It has ended."""
        if self._pass(Input.ENDED):
            if self.state is State.STOPPED:
                return self._settle()
            self._wait(now, short=now - self._began < SHORT_LIFE_S)
        return []

    def stop(self, now: float) -> list[Effect]:
        """It is not wanted any more."""
        if not self._pass(Input.STOP):
            return []
        return self._ask_to_end(now) if self.state is State.STOPPING else self._settle()

    def _pass(self, what: Input) -> bool:
        """Take a transition of the table; whether there is one (rule 1)."""
        after = TRANSITIONS.get((self.state, what))
        if after is not None:
            self.state = after
        return after is not None

    def _wait(self, now: float, *, short: bool) -> None:
        """Plan the next start (rule 3)."""
        if short:
            self.delay = self._backoff.failed()
        else:
            self._backoff.reset()
            self.delay = self._policy.pause_s
        self.due = now + self.delay

    def _ask_to_end(self, now: float) -> list[Effect]:
        self.due = now + self._policy.patience_s
        return [Effect.ASK_TO_END]

    def _settle(self) -> list[Effect]:
        self.due = None
        return []
