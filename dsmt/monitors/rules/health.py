"""The health monitor: start-up, readiness and liveness of one run, from what its checks saw (`health` of a service file).

Rule 1: until the start-up check has passed the others do not run; not passed by its deadline is a failed start. What is due
    is tried before that is said: who has stood still himself, over the deadline, has seen nothing.
Rule 2: readiness turns after so many results in a row, either way. Liveness turns to `NotLive`: it is not ready either, and
    is tried on until its owner has it `end`; what passes meanwhile is `Live` again. With no readiness check that makes it
    ready, too, also where it was taken over from one to whom it was not live.
Rule 3: checks that look at the same thing in the same way are tried once, and the result counts for each.
Rule 4: a check that cannot run says nothing of the service: it counts neither way, and is told once.
Rule 5: with no check an instance is ready when it has lived `healthy_after`.
Rule 6: what is wanted done comes back as effects; the machine owns no clock.
Rule 7: while it starts it is tried eagerly: after `EAGER_S`, then twice that, up to the check's own interval.
Rule 8: what runs and is checked by something else from now on (`anew`) is ready when that has passed; it is served
    meanwhile if it was, until readiness fails. Its start is over; but liveness waits until it is ready, or for as long as a
    start may take: it was good by another check. With no readiness check that of the start has to pass.
Rule 9: what keeps it from starting is told after `TOLD_AFTER_S`, and what else is seen then after twice as long each time:
    who waits, or takes the revision back, knows why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from dsmt.spec.health import Check, HealthSpec

FOREVER: Final = float("inf")
EAGER_S: Final = 0.05
TOLD_AFTER_S: Final = 5.0


class Role(StrEnum):
    """What a check is for."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


class Try(msgspec.Struct, frozen=True):
    """One try to make now; its result counts for all of `roles`."""

    roles: tuple[Role, ...]
    check: Check


class Started(msgspec.Struct, frozen=True):
    """The start-up phase is over: the instance runs."""

    evidence: str


class Starting(msgspec.Struct, frozen=True):
    """The start-up check fails, for what it sees now; the start goes on."""

    evidence: str


class Ready(msgspec.Struct, frozen=True):
    """Serve it. `checked` False: there is no check, it has only lived long enough."""

    check: str
    evidence: str
    checked: bool


class Unready(msgspec.Struct, frozen=True):
    """Do not serve it; nothing is restarted. `live`: liveness is checked by something else, and has not turned."""

    check: str
    evidence: str
    failures: int
    live: bool = False


class NotLive(msgspec.Struct, frozen=True):
    """Restart it."""

    check: str
    evidence: str
    failures: int


class Live(msgspec.Struct, frozen=True):
    """It need not be restarted any more."""


class TimedOut(msgspec.Struct, frozen=True):
    """The start has failed: not ready by its deadline. `after_s` is since the start."""

    evidence: str
    after_s: float


class Broken(msgspec.Struct, frozen=True):
    """The check itself cannot run."""

    check: str
    error: str


Effect = Started | Starting | Ready | Unready | NotLive | Live | TimedOut | Broken


@dataclass(slots=True)
class _Count:
    check: Check
    due: float
    good: int = 0
    bad: int = 0
    error: str = ""


class HealthMonitor:
    """The machine of one run. `now` is boot-time seconds.

    `resumed` is given for a run that was taken over: whether it had been ready; its start-up phase is over. `anew`: that
    was by other checks than these (rule 8).
    """

    def __init__(
        self,
        spec: HealthSpec | None,
        *,
        healthy_after_s: float,
        now: float,
        resumed: bool | None = None,
        anew: bool = False,
    ) -> None:
        self._spec = spec
        self._healthy_after_s = healthy_after_s
        self._began = now
        self._started, self._live, self._over = False, True, False
        self._ready: bool | None = None
        self._evidence = "no check has ended yet"
        self._told = ""
        """What was told last of a start that has not passed (rule 9)."""
        self._tell_after_s = TOLD_AFTER_S
        self._counts: dict[Role, _Count] = {}
        self._anew = anew and resumed is True
        startup = None if spec is None else spec.startup
        if resumed is not None:
            self._started = True
            self._ready = None if anew and resumed else resumed
            self._begin_watching(now)
            if anew and spec is not None:
                self._begin_anew(spec, now)
        elif startup is not None:
            self._counts[Role.STARTUP] = _Count(startup, now)

    @property
    def started(self) -> bool:
        """Whether the start-up phase is over."""
        return self._started

    @property
    def is_ready(self) -> bool:
        """Whether it is ready by its present checks or, with none, has lived long enough."""
        return self._ready is True

    @property
    def serves(self) -> bool:
        """Whether it may be served: it is ready, or was by other checks, and these have not said otherwise (rule 8)."""
        return self._ready is not False and (self.is_ready or self._anew)

    def due(self) -> float:
        """When there is something to do next; infinity when there is not."""
        if self._over:
            return FOREVER
        times = [count.due for count in self._counts.values()]
        if not self._started:
            times.append(self._deadline() if Role.STARTUP in self._counts else self._began)
        elif self._ready is not True and not self._counts:
            times.append(self._began + self._healthy_after_s)
        return min(times, default=FOREVER)

    def timer(self, now: float) -> list[Effect]:
        """Time has passed."""
        if self._over:
            return []
        effects: list[Effect] = []
        if not self._started and Role.STARTUP not in self._counts:
            self._started = True
            self._begin_watching(now)
            effects.append(Started("it has no start-up check"))
        elif not self._started and now >= self._deadline() and self._counts[Role.STARTUP].due > now:
            self._over = True
            return [TimedOut(self._evidence, now - self._began)]
        if self._lived_long_enough(now):
            self._ready = True
            effects.append(Ready("none", f"alive for {self._healthy_after_s:g} s; no health check", checked=False))
        return effects

    def _lived_long_enough(self, now: float) -> bool:
        unchecked = self._started and not self._counts and self._ready is not True
        return unchecked and now >= self._began + self._healthy_after_s

    def end(self) -> None:
        """It is being ended: nothing is due any more."""
        self._over = True

    def tries(self, now: float) -> list[Try]:
        """The tries to make now; each must be answered by `result`."""
        due = [(role, count) for role, count in self._counts.items() if count.due <= now and not self._over]
        if len(due) == 2 and _same(due[0][1].check, due[1][1].check):
            found = [Try((due[0][0], due[1][0]), due[0][1].check)]
        else:
            found = [Try((role,), count.check) for role, count in due]
        for _, count in due:
            count.due = FOREVER
        return found

    def result(self, tried: Try, *, passed: bool, evidence: str, broken: bool, now: float) -> list[Effect]:
        """A try has ended."""
        effects: list[Effect] = []
        name = tried.check.how.__struct_config__.tag
        self._evidence = evidence
        for role in tried.roles:
            count = self._counts.get(role)
            if self._over or count is None:
                continue
            count.due = now + _pause(role, count)
            if broken:
                if not effects and count.error != evidence:
                    effects.append(Broken(str(name), evidence))
                count.error = evidence
                continue
            count.error = ""
            count.good, count.bad = (count.good + 1, 0) if passed else (0, count.bad + 1)
            effects += self._judge(role, count, str(name), evidence, now)
        return effects

    def _judge(self, role: Role, count: _Count, name: str, evidence: str, now: float) -> list[Effect]:
        if role is Role.STARTUP:
            return self._judge_start(count, name, evidence, now)
        if role is Role.LIVENESS:
            return self._judge_liveness(count, name, evidence)
        if count.good >= count.check.passes and self._ready is not True and self._live:
            self._ready = True
            live = self._counts.get(Role.LIVENESS)
            if live is not None and live.due != FOREVER:
                live.due = min(live.due, now + live.check.interval_s)
            return [Ready(name, evidence, checked=True)]
        if count.bad >= count.check.failures and self._ready is not False:
            self._ready = False
            live = self._counts.get(Role.LIVENESS)
            return [Unready(name, evidence, count.bad, live is not None and live.check.how != count.check.how)]
        return []

    def _judge_liveness(self, count: _Count, name: str, evidence: str) -> list[Effect]:
        is_alone = Role.READINESS not in self._counts
        was_left = self._ready is False and is_alone and Role.STARTUP not in self._counts
        if count.good and (not self._live or was_left):
            live: list[Effect] = [] if self._live else [Live()]
            self._live, self._ready = True, is_alone
            return [*live, Ready(name, evidence, checked=True)] if is_alone else live
        if count.bad < count.check.failures or not self._live:
            return []
        unready = [] if self._ready is False else [Unready(name, evidence, count.bad)]
        self._live = self._ready = False
        return [*unready, NotLive(name, evidence, count.bad)]

    def _judge_start(self, count: _Count, name: str, evidence: str, now: float) -> list[Effect]:
        if count.good < count.check.passes:
            if now < self._deadline():
                return self._judge_starting(evidence, now - self._began)
            self._over = True
            return [TimedOut(evidence, now - self._began)]
        effects: list[Effect] = [] if self._started else [Started(evidence)]
        self._started = True
        del self._counts[Role.STARTUP]
        self._begin_watching(now)
        readiness = None if self._spec is None else self._spec.readiness
        if readiness is None or readiness.how == count.check.how:
            self._ready = True
            effects.append(Ready(name, evidence, checked=True))
            for watched in self._counts.values():
                watched.due = now + watched.check.interval_s
        return effects

    def _judge_starting(self, evidence: str, after_s: float) -> list[Effect]:
        """Rule 9."""
        if self._started or after_s < self._tell_after_s:
            return []
        before, self._told, self._tell_after_s = self._told, evidence, after_s * 2
        return [] if evidence == before else [Starting(evidence)]

    def _begin_watching(self, now: float) -> None:
        if self._spec is not None:
            checks = ((Role.READINESS, self._spec.readiness), (Role.LIVENESS, self._spec.liveness))
            self._counts = {role: _Count(check, now) for role, check in checks if check is not None}

    def _begin_anew(self, spec: HealthSpec, now: float) -> None:
        """Rule 8."""
        limit = None if spec.startup is None else spec.startup.deadline_s
        live = self._counts.get(Role.LIVENESS)
        if live is not None:
            live.due = now + (limit or 0.0)
        if spec.readiness is None and spec.startup is not None:
            self._counts[Role.STARTUP] = _Count(spec.startup, now)

    def _deadline(self) -> float:
        count = self._counts.get(Role.STARTUP)
        limit = None if count is None else count.check.deadline_s
        return FOREVER if limit is None else self._began + limit


def _pause(role: Role, count: _Count) -> float:
    """How long after a try the next one comes, in seconds (rule 7)."""
    interval = count.check.interval_s
    if role is not Role.STARTUP or count.good:
        return interval
    return min(interval, EAGER_S * 2.0 ** min(count.bad, 16))


def _same(a: Check, b: Check) -> bool:
    """Whether two checks look at the same thing in the same way (rule 3)."""
    return a.how == b.how and a.interval_s == b.interval_s and a.timeout_s == b.timeout_s
