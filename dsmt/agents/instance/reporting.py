"""Reporting: what a deployment agent says of its instance: statuses, health, endpoint, progress, heartbeats.

Rule 1: what follows from a trigger (a slot fact, a failure, a command) names it as its cause; a failure names the
    status before it, and is the trigger of what comes after.
Rule 2: facts are renewed each half of their time to live, endpoints each third of theirs, and said again to a broker
    that has lost its view; and where realm time was put back: what was said before that may be believed by nobody.
Rule 3: a heartbeat each `EMIT_RATE_S`, and a second after something was said.
Rule 4: a step that takes longer than `TOLD_AFTER_S` is named in the status until it is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from dsmt.agents.rules import endings
from dsmt.errors import DsmtError, FailedError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import Progress, Status, Step
from dsmt.event.reason import Reason, reason
from dsmt.event.records import later, to_data
from dsmt.event.registry import lookup
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer, State
from dsmt.monitors.rules.install import TTL_MS, InstallMonitor, is_due
from dsmt.ports.bus import Bus, Draft, Emission

EMIT_RATE_S: Final = 30.0
SETTLE_S: Final = 1.0
"""How long after something was said a heartbeat vouches for it."""
PROGRESS_EACH_S: Final = 1.0
TOLD_AFTER_S: Final = 5.0
"""How long a step takes before it is said that an agent is at it."""

Cause = EventId | Emission


class Reporter:
    """The mouth of one agent. `told` hears of each status, to keep it in the record."""

    def __init__(self, bus: Bus, slot: SlotKey, node: str, before: Status | None, told: Callable[[Status], None]) -> None:
        self.trigger: tuple[Cause, ...] = ()
        self.said = asyncio.Event()
        self.monitor = InstallMonitor(Layer.APPLICATION, node=node, emit_rate_s=EMIT_RATE_S, before=before)
        self._bus = bus
        self._told = told
        self._slot = slot
        self._node = node
        self._last: Emission | None = None
        self._facts: dict[str, tuple[Draft, int]] = {}
        self._said: dict[str, Emission] = {}
        self._progress_due_ms = 0

    @property
    def state(self) -> State | None:
        """The state said last."""
        return self.monitor.state

    @property
    def is_left_alone(self) -> bool:
        """Whether its last status says that it has failed and is not tried again soon."""
        return self.monitor.status is not None and self.monitor.status.is_left_alone

    def why(self, code: str, /, **fields: Any) -> Reason:
        """A reason of the list about this instance."""
        return reason(code, target=str(self._slot), node=self._node, **fields)

    def why_failed(self, error: FailedError) -> Reason:
        """The reason that an error carries."""
        return endings.of_error(error, "the agent", target=str(self._slot), node=self._node)

    def left_alone(self, why: Reason) -> Reason:
        """The reason of an end after which nothing is tried, as `restart` wants it: of a failure only an operator acts."""
        who = why.who if why.exit_code == 0 else "you"
        return msgspec.structs.replace(why, who=who, next=f"dsmt retry {self._slot}")

    def tell(self, state: State, *, why: Reason | None = None, **about: Any) -> None:
        """Pass to a state, saying each on the way; `about` is any other field of a status."""
        causes = self.trigger
        if state is State.FAILED and self._last is not None:
            causes = (self._last,)
        for status in self.monitor.pass_to(state, self._bus.now_ms(), reason=why, **about):
            self._last = self._say_status(status, causes)
        if state is State.FAILED and self._last is not None:
            self.trigger = (self._last,)

    def note(self, **about: Any) -> None:
        """Say something new about the present state."""
        for status in self.monitor.note(self._bus.now_ms(), **about):
            self._last = self._say_status(status, self.trigger)

    def put_right(self, by_ms: int) -> None:
        """Realm time is later by so much than was guessed: so is what was read here, and is to be said again (J4)."""
        self.monitor.put_right(by_ms)
        if self.monitor.status is not None:
            self._told(self.monitor.status)
        for topic, (draft, said_ms) in self._facts.items():
            right = msgspec.structs.replace(draft, data=later(draft.data, draft.own_times, by_ms))
            self._facts[topic] = (right, said_ms + by_ms)

    def fact(self, kind: str, record: msgspec.Struct, *, own_times: tuple[str, ...] = ()) -> None:
        """Say a fact of this instance here: its `health` or `endpoint`. `own_times` as in a draft."""
        topic = self._slot.on(kind, self._node)
        causes = self.trigger if self._last is None else (self._last,)
        draft = Draft(topic, to_data(record), subject=str(self._slot), cause=causes, own_times=own_times)
        self._facts[topic] = (draft, self._bus.now_ms())
        self._said[kind] = self._emit(draft)

    def progress(self, step: str, done: int, total: int | None) -> None:
        """Say how far an installation is, at most once a second, and at its end."""
        now_ms = self._bus.now_ms()
        if now_ms < self._progress_due_ms and done != total:
            return
        self._progress_due_ms = now_ms + int(PROGRESS_EACH_S * 1000)
        told = Progress(step=step, done=done, total=total, unit="bytes")
        self._bus.emit(
            Draft(self._slot.on("progress", self._node), to_data(told), subject=str(self._slot), cause=self.trigger)
        )

    @contextlib.contextmanager
    def at(self, step: str, limit_s: float) -> Iterator[None]:
        """While an agent is at a step: say so once it takes long, until it is over."""
        told = Step(name=step, since_ms=self._bus.now_ms(), limit_s=limit_s)
        timer = asyncio.get_running_loop().call_later(TOLD_AFTER_S, lambda: self.note(step=told))
        try:
            yield
        finally:
            timer.cancel()
            if self.monitor.status is not None and self.monitor.status.step == told:
                self.note(step=None)

    def again(self, **about: Any) -> None:
        """Say every fact once more (rule 2); `about` is what is known anew of the status."""
        now_ms = self._bus.now_ms()
        for status in self.monitor.again(now_ms, **about):
            self._last = self._say_status(status, self.trigger)
        for topic, (draft, _) in list(self._facts.items()):
            self._facts[topic] = (draft, now_ms)
            self._emit(draft)

    def renew(self) -> None:
        """Say once more what has lived half of its time."""
        for status in self.monitor.renew(self._bus.now_ms()):
            self._say_status(status, self.trigger)
        self.renew_facts()

    def renew_facts(self) -> None:
        """Say health and endpoint once more before they die; nothing while no broker hears."""
        now_ms = self._bus.now_ms()
        for topic, (draft, said_ms) in list(self._facts.items()):
            if self._bus.attached and is_due(said_ms, now_ms, _renewed_after_ms(topic)):
                self._facts[topic] = (draft, now_ms)
                self._emit(draft)

    def beat(self) -> None:
        """Vouch for all that was said."""
        self.said.clear()
        self._bus.heartbeat(self._slot.heartbeat_topic(self._node), EMIT_RATE_S)

    def trigger_ids(self) -> tuple[str, ...]:
        """The trigger as text, for the record; what has no id yet is left out."""
        found = (one if isinstance(one, EventId) else one.id for one in self.trigger)
        return tuple(str(one) for one in found if one is not None)

    async def settled(self) -> None:
        """Wait until the last status is acknowledged, or refused for good."""
        await _answered(self._last)

    async def heard(self, kind: str) -> None:
        """The same, of the fact of a kind that this agent has said."""
        await _answered(self._said.get(kind))

    def _say_status(self, status: Status, cause: tuple[Cause, ...]) -> Emission:
        self._told(status)
        topic = self._slot.status_topic(self._node, Layer.APPLICATION)
        own = tuple(self.monitor.own_times)
        return self._emit(Draft(topic, to_data(status), subject=str(self._slot), cause=cause, own_times=own))

    def _emit(self, draft: Draft) -> Emission:
        self.said.set()
        return self._bus.emit(draft)


async def _answered(said: Emission | None) -> None:
    if said is not None:
        with contextlib.suppress(DsmtError):
            await said.acknowledged()


def _renewed_after_ms(topic: str) -> int:
    """How old a fact may be before it is said again: half of its time to live, a third if that is short."""
    match = lookup(topic)
    ttl_ms = TTL_MS if match is None or match.row.ttl_ms is None else match.row.ttl_ms
    return ttl_ms // 2 if ttl_ms >= TTL_MS else ttl_ms // 3
