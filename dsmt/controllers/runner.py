"""The runner: the loop in which a controller's decisions meet time and the bus.

Rule 1: it folds whatever arrives, and decides only where the view ends at a fresh bookmark (R7, A4): when something
    changed, or a wake is due. What it published it sees again as facts, and has no other memory of it than `ECHO_S`
    of patience.
Rule 2: of the controllers with the highest ruleset the one of rank r for a service waits r x `RANK_S` before it says
    what it wants said; mostly somebody else has then said it. Those below that ruleset only watch (A10).
Rule 3: each batch that said something is followed by decision events that name its inputs and products (H2).
Rule 4: what is decided is sent in the same turn. What a stopped controller had stamped and not sent would come late, and
    win over what others said meanwhile: of two siblings the earlier wins (A3).
Rule 5: after it attached to another broker, or to one that has another store than before, it folds anew from there: its
    view is what one store held.
Rule 6: what cannot be said, or is not taken, is complained of and tried again after `ECHO_S`; all else goes on (A14).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from dsmt.controllers.agenda import Agenda
from dsmt.controllers.completeness import Completeness, Place
from dsmt.controllers.decide import RULESET, Scope, decide
from dsmt.controllers.intents import Decided, Intent
from dsmt.controllers.ranking import live_controllers, rank, subject_of
from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.event.envelope import EventId
from dsmt.event.records import ControllerState, Decision, to_data
from dsmt.ports.bus import Arrived, Bookmark, Bus, Complete, Delivery, Draft, Emission, Interest, Notice
from dsmt.ports.clock import Clock
from dsmt.view import PATTERNS, Fleet, View
from dsmt.view.liveness import dead_after_ms

TICK_S: Final = 0.25
RANK_S: Final = 0.15
ECHO_S: Final = 5.0
"""How long after publishing a fact it is not published again, though it has not come back."""
HEARTBEAT_S: Final = 30.0
RENEW_S: Final = 12 * 3600.0
"""The state is said again after half its time to live."""
PRODUCED_MOST: Final = 1_000
"""Ids that one decision event names, so that it fits into an event; a larger batch has several."""


class ControllerRunner:
    """One controller. `run` runs until it is cancelled.

    `version` and `pid` are told in its state; `ruleset` is that of `decide`. `complain` hears of facts that did not get out.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        *,
        version: str,
        pid: int | None = None,
        ruleset: int = RULESET,
        complain: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self.view = View()
        self.decisions = 0
        self.watching = False
        """Whether a controller of a higher ruleset is live, so that this one only watches."""
        self._bus, self._clock = bus, clock
        self._name = bus.source.removeprefix("controller/")
        self._version, self._pid, self._ruleset, self._complain = version, pid, ruleset, complain
        self._gate = Completeness(clock.boottime())
        self._agenda = Agenda()
        self._broker = self._store = ""
        self._could_accuse = False
        self._wanted: dict[str, float] = {}
        """By topic, since when (boot time) something is wanted there."""
        self._echoes: dict[str, tuple[int, float]] = {}
        """By topic, the version that was published, and until when (boot time) its return is awaited; oldest first."""
        self._said: ControllerState | None = None
        self._said_at = 0.0

    async def run(self) -> None:
        """Control, until cancelled."""
        interest = Interest(PATTERNS, conflate=True, signals=False, bookmarks=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(group))
            group.create_task(self._beat())
            async with self._bus.subscribe(interest) as deliveries:
                async for batch in deliveries:
                    self._fold(batch)
                    self._turn(group)

    # --- what arrives --------------------------------------------------------------------------------------------

    def _fold(self, batch: Sequence[Delivery]) -> None:
        now = self._clock.boottime()
        for delivery in batch:
            match delivery:
                case Arrived(signed=signed):
                    if self.view.apply(signed):
                        self._gate.folded()
                        self._look_for_quarantine(signed.event.topic)
                case Complete(cursor=cursor, whole=whole) | Bookmark(cursor=cursor, whole=whole):
                    self._store = cursor.store
                    self._gate.bookmark(Place(cursor.store, cursor.row), now, whole=whole)
                case Notice(type="dsmt.notice.reconnected", fields=fields):
                    self._attached(str(fields["broker"]), str(fields["store"]), now)
                case Notice():
                    pass

    def _look_for_quarantine(self, topic: str) -> None:
        why = self.view.quarantined.get(topic)
        if why is not None:
            self._complain(f"the fact on {topic} cannot be read and is left alone: {why}")

    def _attached(self, broker: str, store: str, now: float) -> None:
        if store != self._store:
            self.view, self._agenda = View(), Agenda()
        self._broker, self._store = broker, store
        self._gate.attached(now)
        self._said = None

    # --- turns ---------------------------------------------------------------------------------------------------

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._turn(group)
            wake = self._agenda.wake_ms
            until = TICK_S if wake is None else (wake - self._bus.now_ms()) / 1000
            await asyncio.sleep(min(TICK_S, max(0.005, until)))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._say_state(counting=True)
            self._bus.heartbeat(f"controller/{self._name}/heartbeat", HEARTBEAT_S)

    def _turn(self, group: asyncio.TaskGroup) -> None:
        """Decide if the view may be decided on, and something asks for it."""
        now = self._clock.boottime()
        self._gate.beat(now, TICK_S)
        place = self._gate.place(now)
        if place is None or not self._bus.attached:
            return
        self._broker = self._broker or self._bus.broker
        self._say_state()
        now_ms = self._bus.now_ms()
        self.view.expire(now_ms)
        fleet = Fleet(self.view, now_ms, self._broker)
        controllers = live_controllers(fleet)
        self.watching = any(number > self._ruleset for number in controllers.values())
        if self.watching:
            self._agenda = Agenda()
            return
        may_accuse = self._gate.may_accuse(now, dead_after_ms(len(self.view.nodes)) / 1000)
        if may_accuse != self._could_accuse:
            self._could_accuse = may_accuse
            self._agenda.ask("")
        self._miss_echoes(now)
        dirty = self.view.take_dirty()
        if not dirty and not self._agenda.due(now_ms):
            return
        scope = self._agenda.scope(self.view, dirty, now_ms)
        decided = decide(self.view, now_ms, may_accuse=may_accuse, broker=self._broker, scope=scope)
        self._agenda.note(decided, scope)
        peers = [name for name, number in controllers.items() if number == self._ruleset]
        due = self._due(decided, scope, peers, now)
        if due:
            self._publish(group, due, self._inputs(place, now_ms, may_accuse=may_accuse), now)

    def _due(self, decided: Decided, scope: Scope | None, peers: Sequence[str], now: float) -> list[Intent]:
        """Rule 2: what to say now.

        All that is wanted is looked at again next time, also what is on its way: it takes room where others could go,
        and who replays the decision sees it wanted, too.
        """
        topics = {intent.topic for intent in decided.intents}
        for topic in [t for t in self._wanted if t not in topics]:
            kind, _, rest = topic.partition("/")
            if scope is None or kind != "service" or scope.get(rest.split("/")[0], ()) is None:
                del self._wanted[topic]
        due = []
        for intent in decided.intents:
            subject = subject_of(intent.topic)
            since = self._wanted.setdefault(intent.topic, now)
            self._ask(intent.topic)
            waits = now < since + RANK_S * rank(subject, self._name, peers)
            if not waits and not self._awaits_echo(intent, now):
                due.append(intent)
        return due

    def _miss_echoes(self, now: float) -> None:
        """What did not come back in time is looked at again: it may have been refused, or lost."""
        while self._echoes:
            topic, (version, until) = next(iter(self._echoes.items()))
            if now < until:
                return
            del self._echoes[topic]
            winner = self.view.winner(topic)
            if winner is None or (winner.event.version or 0) < version:
                self._ask(topic)

    def _ask(self, topic: str) -> None:
        kind, name = subject_of(topic).split("/")
        self._agenda.ask(name if kind == "service" else "")

    def _awaits_echo(self, intent: Intent, now: float) -> bool:
        version, until = self._echoes.get(intent.topic, (0, 0.0))
        return intent.next_version <= version and now < until

    # --- saying --------------------------------------------------------------------------------------------------

    def _inputs(self, place: Place, now_ms: int, *, may_accuse: bool) -> Decision:
        return Decision(
            store=place.store,
            row=place.row,
            view_digest=self.view.digest,
            now_ms=now_ms,
            ruleset=self._ruleset,
            broker=self._broker,
            may_accuse=may_accuse,
            produced=(),
        )

    def _publish(self, group: asyncio.TaskGroup, intents: Sequence[Intent], inputs: Decision, now: float) -> None:
        emissions: list[Emission] = []
        for intent in intents:
            draft = Draft(
                intent.topic,
                intent.data,
                subject=intent.subject,
                cause=intent.cause,
                to=intent.to,
                replaces=intent.replaces,
                version=intent.next_version,
            )
            self._wanted.pop(intent.topic, None)
            self._echoes.pop(intent.topic, None)
            self._echoes[intent.topic] = (intent.next_version, now + ECHO_S)
            try:
                emissions.append(self._bus.emit(draft))
            except InputError as error:
                self._complain(f"{intent.because}, but that cannot be said on {intent.topic}: {error}")
        ids: list[EventId] = [emission.id for emission in emissions if emission.id is not None]
        for first in range(0, len(ids), PRODUCED_MOST):
            named = tuple(map(str, ids[first : first + PRODUCED_MOST]))
            data = to_data(inputs) | {"produced": list(named)}
            self._bus.emit(Draft(f"controller/{self._name}/decision", data, subject=self._name))
        if not emissions:
            return
        self._bus.flush()
        self.decisions += 1
        group.create_task(self._await_answers(emissions))

    async def _await_answers(self, emissions: Sequence[Emission]) -> None:
        for emission in emissions:
            try:
                await emission.acknowledged()
            except (RefusedError, FailedError) as error:
                self._complain(f"{emission.id} was refused or dropped: {error}")

    def _say_state(self, *, counting: bool = False) -> None:
        """Say who this controller is, at the start, when that changes, and now and then how much it decided."""
        now = self._clock.boottime()
        decisions = self.decisions if counting or self._said is None else self._said.decisions
        state = ControllerState(version=self._version, ruleset=self._ruleset, pid=self._pid, decisions=decisions)
        if state == self._said and now < self._said_at + RENEW_S:
            return
        self._said, self._said_at = state, now
        self._bus.emit(Draft(f"controller/{self._name}/state", to_data(state), subject=self._name))
