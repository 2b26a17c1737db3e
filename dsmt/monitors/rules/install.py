"""The install monitor: one layer's status, said at each state that is passed (docs/reference/statuses.md, rule B6).

Rule 1: states follow the tables of `dsmt.event.status`; what lies between two states is passed and said, never skipped.
Rule 2: `running`, `failed` and `gone` are never passed on the way to another state: they are said only when they are so.
Rule 3: `attempt` counts the tries of a generation; `since` is when the state was entered.
Rule 4: only the state that is aimed at carries the reason, and only `failed` a next try, or that it is parked: neither
    word outlives its failure. Nor does the step that an agent is at outlive its state.
Rule 5: between changes a status is renewed each half of its time to live, and where realm time was put back; heartbeats
    vouch for it meanwhile.
Rule 6: which of a status's times were read here is known: those that were read before realm time was are put right (J4).
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Any, Final

import msgspec

from dsmt.errors import InputError
from dsmt.event.kinds.instance import Status
from dsmt.event.reason import Reason
from dsmt.event.records import from_data, later, to_data
from dsmt.event.status import Layer, State, transitions

TTL_MS: Final = 24 * 3600 * 1000
TIMES: Final = {name: name for name in ("since_ms", "taken_ms", "next_try_ms")} | {
    "last_exit": "last_exit.at_ms",
    "step": "step.since_ms",
}
"""Where in a status the times are that who says it reads, by the field that holds them."""
_NEVER_PASSED: Final = frozenset({State.RUNNING, State.FAILED, State.GONE})
_TRIES: Final = frozenset({State.SELECTED, State.INSTALLING, State.REQUESTED, State.INITIATED, State.INSTANTIATED})
_ENDS: Final = frozenset({State.FAILED, State.STOPPED, State.GONE, State.DESELECTED, State.INSTALLED})

_DOWN: Final = frozenset({State.TERMINATED, State.STOPPED, State.GONE, State.DESELECTED})
"""On the way down the word nearest to the end is said, on the way up the one nearest to the beginning."""


@lru_cache(maxsize=1024)
def path(layer: Layer, before: State | None, after: State) -> tuple[State, ...]:
    """The states from one (excluded) to another (included), the shortest way by the table and rule 2.

    Raises `InputError` when there is no way.
    """
    table = transitions(layer)
    ways: deque[tuple[State, ...]] = deque(((),))
    seen: set[State | None] = {before}
    while ways:
        way = ways.popleft()
        here = way[-1] if way else before
        for state in reversed(State) if after in _DOWN else State:
            if state not in table.get(here, frozenset()):
                continue
            if state == after:
                return (*way, state)
            if state not in seen and state not in _NEVER_PASSED:
                seen.add(state)
                ways.append((*way, state))
    raise InputError("status.path", f"a {layer} cannot go from {before} to {after}")


def is_due(said_ms: int, now_ms: int, after_ms: int) -> bool:
    """Whether what was said is to be said again: after so long, or where realm time was put back behind it (J4)."""
    return not said_ms <= now_ms < said_ms + after_ms


class InstallMonitor:
    """One layer's machine. `now_ms` is realm time; what is returned is to be published, in order."""

    def __init__(
        self, layer: Layer, *, node: str, emit_rate_s: float, before: Status | None = None, ttl_ms: int = TTL_MS
    ) -> None:
        self.layer = layer
        self.status = before
        self.own_times: set[str] = set()
        """Those of the present status that were read here (rule 6)."""
        self._node = node
        self._emit_rate_s = emit_rate_s
        self._ttl_ms = ttl_ms
        self._said_ms = 0

    def __repr__(self) -> str:
        return f"<InstallMonitor {self.layer} {self.state}>"

    @property
    def state(self) -> State | None:
        """The state said last."""
        return None if self.status is None else self.status.state

    def resume(self, state: State, now_ms: int, **about: Any) -> None:
        """Go on from a state that another one has said."""
        self.status = msgspec.structs.replace(self._first(state, now_ms), **{"attempt": 1, **about})
        self.own_times = {"since_ms"} - about.keys()

    def put_right(self, by_ms: int) -> None:
        """Realm time is later by so much than was guessed: so are the times that were read here (rule 6)."""
        if self.status is not None:
            self.status = from_data(Status, later(to_data(self.status), self.own_times, by_ms))
        self._said_ms += by_ms

    def pass_to(self, state: State, now_ms: int, *, reason: Reason | None = None, **about: Any) -> list[Status]:
        """Go to a state, through those between; to stay is said again only when something about it differs.

        `about` is any of a status's other fields; they hold until they are given anew.
        Raises `InputError` when the table has no way there.
        """
        states = () if state == self.state else path(self.layer, self.state, state)
        said = [self._enter(passed, now_ms, None, about) for passed in states[:-1]]
        if states:
            return [*said, self._enter(states[-1], now_ms, reason, about)]
        return self.note(now_ms, reason=reason, **about)

    def note(self, now_ms: int, **about: Any) -> list[Status]:
        """Say something new about the present state; nothing when nothing is new."""
        if self.status is None:
            return []
        told = msgspec.structs.replace(self.status, **{**about, "taken_ms": self._taken_ms(self.status, now_ms, about)})
        if told == self.status:
            return []
        self._keep(told, now_ms)
        return [told]

    def again(self, now_ms: int, **about: Any) -> list[Status]:
        """Say the present status once more, with what is known anew `about` it: to a broker that may not have it."""
        if self.status is None:
            return []
        told = msgspec.structs.replace(self.status, **about)
        self._keep(told, now_ms)
        return [told]

    def renew(self, now_ms: int) -> list[Status]:
        """Say it once more if half of its time to live has passed (rule 5); what is gone is left to die."""
        if self.status is None or self.state is State.GONE or not is_due(self._said_ms, now_ms, self._ttl_ms // 2):
            return []
        return self.again(now_ms)

    def _enter(self, state: State, now_ms: int, reason: Reason | None, about: dict[str, Any]) -> Status:
        before = self.status or self._first(state, now_ms)
        ended = self.status is None or before.state in _ENDS
        another = about.get("generation", before.generation) != before.generation
        attempt = 1 if another else before.attempt + (1 if ended and state in _TRIES else 0)
        was_down = before.state is State.STOPPED or (reason is not None and reason.code == "node.rebooted")
        taken_ms = self._taken_ms(before, now_ms, about, anew=was_down)
        told = msgspec.structs.replace(
            before,
            **{"step": None, **about},
            state=state,
            since_ms=now_ms,
            reason=reason,
            attempt=attempt,
            taken_ms=taken_ms,
        )
        if state is not State.FAILED:
            told = msgspec.structs.replace(told, parked=False, next_try_ms=None)
        self._keep(told, now_ms)
        return told

    def _keep(self, told: Status, now_ms: int) -> None:
        self.own_times |= {TIMES[name] for name in TIMES if getattr(told, name) != getattr(self.status, name, None)}
        self.status, self._said_ms = told, now_ms

    def _first(self, state: State, now_ms: int) -> Status:
        rate_s = self._emit_rate_s
        return Status(
            state=state, layer=self.layer, node=self._node, generation=0, attempt=0, since_ms=now_ms, emit_rate_s=rate_s
        )

    def _taken_ms(self, before: Status, now_ms: int, about: dict[str, Any], *, anew: bool = False) -> int | None:
        """When the generation was taken that is spoken of, or begun `anew`: only an application is refused by that (A18)."""
        another = about.get("generation", before.generation) != before.generation
        return now_ms if self.layer is Layer.APPLICATION and (another or anew) else before.taken_ms
