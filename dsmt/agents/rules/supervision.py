"""Supervision: when a failed instance is tried again, how, and when it is parked (`restart` of a service file).

Rule 1: the first delay is `first`; where that is not given there is none after a run that was healthy, and else it is
    `GROWTH_FROM_S`. Each further one is `factor` times the last, at most `cap`; the caller brings the jitter.
Rule 2: failures are forgotten when an instance was healthy for `reset`, or 10 times its last delay if that is longer.
Rule 3: the n-th failure takes the step of `escalate` that n falls into. The first failure behind the last step, or behind
    the `park.after`-th failure, parks it: it is tried again each `retry`, and at once when its cause changes.
Rule 4: the step `move` is another's to take: here it parks, and says that it asks for another node.
Rule 5: never silent, never for good: every verdict but `Finished` ends in another try.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from dsmt.spec.records import EscalationStep, Park, RestartPolicy

GROWTH_FROM_S: Final = 0.1
"""What delays grow from when the first one is 0 or not given, in seconds."""
JITTER: Final = 0.2
"""The share of a delay by which the caller's jitter may move it, up and down."""
_LARGEST_EXPONENT: Final = 64

UNKNOWN_POLICY: Final = RestartPolicy(
    when="always",
    first_s=None,
    factor=2,
    cap_s=60,
    reset_s=60,
    escalate=(EscalationStep(action="restart", times=10),),
    park=Park(after=10, retry_s=600),
)
"""For what runs while its spec is not known."""

Action = Literal["restart", "reinstall", "recreate"]
Answer = Action | Literal["move"]


class TryAgain(msgspec.Struct, frozen=True):
    """Try again after `delay_s`, with this action; it is try `attempt` of `tries` before it is parked."""

    action: Action
    delay_s: float
    attempt: int
    tries: int


class Parked(msgspec.Struct, frozen=True):
    """Wait for a cause to change, or `retry_s`; `move` asks for another node. `span_s` is since the first failure."""

    retry_s: float
    failures: int
    span_s: float
    move: bool


class Finished(msgspec.Struct, frozen=True):
    """The policy wants no further try."""


Verdict = TryAgain | Parked | Finished


def tries_of(policy: RestartPolicy) -> int:
    """How many failures are answered before it is parked."""
    return min(policy.park.after, sum(step.times for step in policy.escalate))


def leaves(policy: RestartPolicy, *, clean: bool) -> bool:
    """Whether what has ended by itself is not run again."""
    return policy.when == "never" or (policy.when == "on_failure" and clean)


def step_after(policy: RestartPolicy, failures: int) -> Answer | None:
    """The step that answers the last of so many failures; None when it is parked (rule 3)."""
    passed = 0
    if failures <= policy.park.after:
        for step in policy.escalate:
            passed += step.times
            if failures <= passed:
                return step.action
    return None


class RestartHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives the agent; times are boot-time seconds, so it is worthless after a reboot."""

    failures: int = 0
    first_failure: float = 0.0
    last_delay_s: float = 0.0
    parked: bool = False
    recent: tuple[float, ...] = ()


class Supervision:
    """One instance's restart policy at work. `now` is boot-time seconds, `jitter` in [-`JITTER`, `JITTER`]."""

    def __init__(self, policy: RestartPolicy, history: RestartHistory | None = None) -> None:
        self.policy = policy
        self.history = history or RestartHistory()
        self.healthy_since: float | None = None
        """Since when the present run has been ready; None when it is not."""
        self._was_healthy = False

    def __repr__(self) -> str:
        return f"<Supervision {self.history}>"

    @property
    def tries(self) -> int:
        """How many failures are answered before it is parked."""
        return tries_of(self.policy)

    def recent(self, now: float) -> int:
        """Failures within the last 10 minutes."""
        return sum(1 for when in self.history.recent if now - when <= 600.0)

    def started(self) -> None:
        """A run has begun."""
        self.healthy_since = None
        self._was_healthy = False

    def taken_back(self, history: RestartHistory) -> None:
        """A run goes on that was let go; it had failed as often as it had then."""
        self.history = history
        self.started()

    def healthy(self, now: float) -> None:
        """The instance is ready."""
        self._was_healthy = True
        if self.healthy_since is None:
            self.healthy_since = now

    def unhealthy(self) -> None:
        """The instance is not ready any more."""
        self.healthy_since = None

    def failed(self, now: float, *, jitter: float, clean: bool = False) -> Verdict:
        """A run has ended by itself, or an installation or start has failed. `clean` is an exit that is a success."""
        self._forget_if_stable(now)
        policy, history = self.policy, self.history
        if leaves(policy, clean=clean):
            self.started()
            return Finished()
        delay = self._delay(history.failures, jitter)
        self.history = RestartHistory(
            failures=history.failures + 1,
            first_failure=history.first_failure if history.failures else now,
            last_delay_s=delay,
            parked=False,
            recent=(*history.recent[-15:], now),
        )
        self.started()
        return self._verdict(now, delay)

    def cause_changed(self) -> None:
        """What it waits for may have changed: a new generation, an operator's word. All is forgotten."""
        self.history = RestartHistory(recent=self.history.recent)

    def _forget_if_stable(self, now: float) -> None:
        since = self.healthy_since
        if since is not None and now - since >= max(self.policy.reset_s, 10 * self.history.last_delay_s):
            self.cause_changed()

    def _delay(self, before: int, jitter: float) -> float:
        """The delay after a failure before which there were `before` others."""
        given = self.policy.first_s
        first = given if given is not None else (0.0 if self._was_healthy else GROWTH_FROM_S)
        if before == 0:
            return min(first, self.policy.cap_s)
        exponent = min(before if first > 0 else before - 1, _LARGEST_EXPONENT)
        grown: float = (first or GROWTH_FROM_S) * self.policy.factor**exponent
        return min(self.policy.cap_s, grown * (1 + jitter))

    def _verdict(self, now: float, delay: float) -> Verdict:
        number = self.history.failures
        step = step_after(self.policy, number)
        if step is not None and step != "move":
            return TryAgain(step, delay, number, self.tries)
        moving = any(one.action == "move" for one in self.policy.escalate)
        self.history = msgspec.structs.replace(self.history, parked=True)
        return Parked(self.policy.park.retry_s, number, now - self.history.first_failure, moving)
