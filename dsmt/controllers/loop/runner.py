"""The runner: the loop in which a controller's decisions meet time and the bus.

Rule 1: it folds whatever arrives, and decides only where the view ends at a bookmark that covers it, and a token that it
    sent at most a second ago has come back (R7, A4): when something changed, or a wake is due. What it
    published it sees again as facts, and has no other memory of it than `ECHO_S` of patience.
Rule 2: of the controllers with the highest ruleset the one of rank r for a service waits r x `RANK_S` before it says
    what it wants said; mostly somebody else has then said it. Those below that ruleset only watch (A10).
Rule 3: each batch that said something is followed by decision events that name its inputs and products (H2).
Rule 4: what is decided is sent in the same turn, and thrown away when it was stopped meanwhile: all is decided again from
    what it then sees. What a stopped controller had stamped and not sent would come late, and win over what others said
    meanwhile: of two siblings the earlier wins (A3). How long a look may take: see `portion`.
Rule 5: after it attached to another broker, to one that has another store than before, or to a store that ends before
    what was read of it, it folds anew from there: its view is what one store held. What it held before, and the specs that
    slots name beside it (`named`), it brings to that store first (`offering`, R5).
Rule 6: what a revoked key signed, and this controller would leave as it is, it says again with the same content (J3): that
    is no decision, and none is recorded.
Rule 7: what cannot be said, or is not taken, is complained of and tried again after `ECHO_S`; all else goes on (A14).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from dsmt.controllers.decide import RULESET, decide
from dsmt.controllers.intents import Decided, Intent, draft_of
from dsmt.controllers.loop.agenda import Agenda
from dsmt.controllers.loop.completeness import Completeness
from dsmt.controllers.loop.echoes import Echoes
from dsmt.controllers.loop.named import NamedSpecs
from dsmt.controllers.loop.offering import Offering
from dsmt.controllers.loop.portion import Portion
from dsmt.controllers.loop.ranking import live_controllers, rank, subject_of
from dsmt.controllers.loop.resaying import Resaying
from dsmt.controllers.loop.timing import Timing
from dsmt.errors import DsmtError, FailedError, InputError, RefusedError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.controller import ControllerState, Decision
from dsmt.event.records import to_data
from dsmt.ports.bus import (
    Arrived,
    Bookmark,
    Bus,
    Complete,
    Cursor,
    Delivery,
    Draft,
    Emission,
    Interest,
    Reattached,
    Subscription,
)
from dsmt.ports.clock import Clock
from dsmt.trust.keys import verify
from dsmt.trust.proven import Verify
from dsmt.trust.store import TrustStore
from dsmt.view import PATTERNS, Fleet, View
from dsmt.view.following import DeliveryEffect, ViewFollower
from dsmt.view.liveness import dead_after_ms

TICK_S: Final = 0.5
RANK_S: Final = 0.15
HEARTBEAT_S: Final = 30.0
RENEW_MS: Final = 12 * 3_600_000
"""The state is said again after half its time to live, by realm time: where that steps, the state may be dead at once."""
_DECIDE_ANEW: Final = frozenset({"stale", "unanswered"})
"""Another fact was first, or nobody knows whether this one was stored: what is seen next decides (A3)."""
PRODUCED_MOST: Final = 1_000
"""Facts that are said in one turn; the rest in the next."""
NAMED_MOST: Final = 500
"""Facts that one decision event names: their ids begin with the controller's name, however long, and fit into it."""
_Said = tuple[Emission, str]
"""What was said, and on which topic."""


class ControllerRunner:
    """One controller. `run` runs until it is cancelled.

    `version` and `pid` are told in its state; `ruleset` is that of `decide`. `check` verifies the signatures of those who
    answered probes. `trust` knows whose key has ended, and `complain` hears of facts that did not get out.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        trust: TrustStore,
        *,
        version: str,
        pid: int | None,
        complain: Callable[[str], None],
        ruleset: int = RULESET,
        check: Verify = verify,
    ) -> None:
        self.decisions = 0
        self.watching = False
        """Whether a controller of a higher ruleset is live, so that this one only watches."""
        self._group: asyncio.TaskGroup  # of `run`
        self._bus, self._clock = bus, clock
        self._name = bus.source.removeprefix("controller/")
        self._version, self._pid, self._ruleset, self._complain = version, pid, ruleset, complain
        self._resaying = resaying = Resaying(bus.source, trust.disowns, lambda: trust.revocations)
        self._gate, self._timing = Completeness(clock.boottime()), Timing()
        self._agenda, self._portion, self._check = Agenda(), Portion(), check
        self._following = ViewFollower()
        self._offering, self._named = Offering(bus.offer, complain, resaying.is_void, resaying.is_disowned), NamedSpecs()
        self._subscription: Subscription | None = None
        self._broker = ""
        self._could_accuse = False
        self._wanted: dict[str, float] = {}
        """By topic, since when (boot time) something is wanted there."""
        self._echoes = Echoes()
        self._said: ControllerState | None = None
        self._said_ms = 0

    @property
    def view(self) -> View:
        """What it decides on."""
        return self._following.view

    async def run(self) -> None:
        """Control, until cancelled."""
        interest = Interest(PATTERNS, conflate=True, signals=False, bookmarks=True)
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._tick())
            self._group.create_task(self._beat())
            while True:
                async with self._bus.subscribe(interest) as deliveries:
                    self._subscription = deliveries
                    self._turn()
                    async for batch in deliveries:
                        if not self._fold(batch):
                            break
                        self._turn()

    # --- what arrives --------------------------------------------------------------------------------------------

    def _fold(self, batch: Sequence[Delivery]) -> bool:
        """Take in what came; False where all facts are to be read anew: the store ends before what was read, or rule 6."""
        now = self._clock.boottime()
        for delivery in batch:
            held = self.view
            step = self._following.take(delivery)
            match delivery:
                case Arrived(signed=signed) if step is DeliveryEffect.FOLDED:
                    self._gate.folded()
                    self._named.folded(self.view, signed.event.topic)
                    self._look_for_quarantine(signed.event.topic)
                case Complete() | Bookmark() if step is DeliveryEffect.BEHIND:
                    self._begin(now, held)
                    return False
                case Complete() | Bookmark():
                    self._reached(delivery, now)
                case Reattached(broker=broker):
                    self._attached(broker, now, lost=held if step is DeliveryEffect.ANEW else None)
                case _:
                    pass
        if self._resaying.is_misled(self.view, batch, now) or self._timing.is_left(self._bus.now_ms()):
            self._following.begin()
            self._begin(now, View())
            return False
        return True

    def _reached(self, mark: Complete | Bookmark, now: float) -> None:
        """Everything up to a place was read."""
        token = mark.token if isinstance(mark, Bookmark) else None
        self._timing.marked(mark.cursor.time_ms, now)
        self._gate.bookmark(mark.cursor, token, whole=mark.whole)

    def _look_for_quarantine(self, topic: str) -> None:
        why = self.view.quarantined.get(topic)
        if why is not None:
            self._complain(f"the fact on {topic} cannot be read and is left alone: {why}")

    def _begin(self, now: float, lost: View | None) -> None:
        """Read on, or, where what is read now lacks what was read before, fold anew (rule 5)."""
        if lost is not None:
            self._offering.lost(lost, self._named.events())
            self._agenda, self._timing = Agenda(), Timing()
        self._offering.attached()
        self._gate.attached(now)

    def _attached(self, broker: str, now: float, *, lost: View | None) -> None:
        self._begin(now, lost)
        self._broker = broker
        self._said = None

    # --- turns ---------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            self._turn()
            wake = self._agenda.wake_ms
            until = TICK_S if wake is None else (wake - self._now_ms(self._clock.boottime())) / 1000
            await asyncio.sleep(min(TICK_S, max(0.005, until)))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._say_state(counting=True)
            self._bus.heartbeat(f"controller/{self._name}/heartbeat", HEARTBEAT_S)

    def _now_ms(self, now: float) -> int:
        return self._timing.now_ms(now, self._bus.now_ms())

    def _turn(self) -> None:
        """Decide if the view may be decided on, and something asks for it."""
        now = self._clock.boottime()
        self._gate.beat(now, TICK_S)
        token = None if self._subscription is None else self._gate.token(now)
        if self._subscription is not None and token is not None:
            self._subscription.mark(token)
        cursor, early_s = self._gate.cursor(now), self._bus.early_s
        self._offering.look(early_s)
        if cursor is None or not self._bus.attached or not self._offering.is_over(self.view, now, early_s):
            return
        self._broker = self._broker or self._bus.broker
        named = self._named.due(now)
        if named:
            self._group.create_task(self._find(named))
        self._say_state()
        now_ms = self._now_ms(now)
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
        for topic in self._echoes.missed(self.view, now):
            self._ask(topic)
        peers = [name for name, number in controllers.items() if number == self._ruleset]
        self._decide(cursor, now, now_ms, peers, may_accuse=may_accuse)
        self._say_again(now, peers)

    async def _find(self, named: Sequence[EventId]) -> None:
        """Ask for what slots name and the view does not hold."""
        for one in named:
            with suppress(DsmtError):  # one that nobody believes; or it is asked for again
                for signed in await self._bus.fetch([one]):
                    self._named.take(signed)

    def _decide(self, cursor: Cursor, now: float, now_ms: int, peers: Sequence[str], *, may_accuse: bool) -> None:
        dirty = self.view.take_dirty()
        if not dirty and not self._agenda.due(now_ms):
            return
        look = self._agenda.look(self.view, dirty, now_ms, most=self._portion.most)
        decided = decide(self.view, now_ms, may_accuse=may_accuse, broker=self._broker, look=look, check=self._check)
        took_s = self._clock.boottime() - now
        if self._portion.is_too_old(took_s):
            self._agenda = Agenda()
            return
        if look.rest is not None:
            self._portion.took(took_s, ended=decided.left is None)
        self._agenda.note(decided)
        due = self._due(decided, peers, now)
        if due:
            self._publish(due, self._inputs(cursor, now_ms, may_accuse=may_accuse), now)

    def _due(self, decided: Decided, peers: Sequence[str], now: float) -> list[Intent]:
        """Rule 2: what to say now.

        All that is wanted is looked at again next time, also what is on its way: it takes room where others could go,
        and who replays the decision sees it wanted, too.
        """
        topics = {intent.topic for intent in decided.intents}
        for topic in [t for t in self._wanted if t not in topics]:
            kind, name = subject_of(topic).split("/")
            if kind != "service" or decided.is_whole(name):
                del self._wanted[topic]
        due = []
        for intent in decided.intents:
            subject = subject_of(intent.topic)
            since = self._wanted.setdefault(intent.topic, now)
            self._ask(intent.topic)
            waits = now < since + RANK_S * rank(subject, self._name, peers)
            if not waits and not self._echoes.awaits(intent.topic, self._place_of(intent), now):
                due.append(intent)
        return due[:PRODUCED_MOST]

    def _ask(self, topic: str) -> None:
        kind, name = subject_of(topic).split("/")
        self._agenda.ask(name if kind == "service" else "")

    def _epoch(self, intent: Intent) -> int:
        return intent.epoch or self.view.epoch(intent.topic)

    def _place_of(self, intent: Intent) -> tuple[int, int]:
        return self._epoch(intent), intent.next_version

    # --- saying --------------------------------------------------------------------------------------------------

    def _inputs(self, cursor: Cursor, now_ms: int, *, may_accuse: bool) -> Decision:
        return Decision(
            store=cursor.store,
            row=cursor.row,
            view_digest=self.view.digest,
            now_ms=now_ms,
            ruleset=self._ruleset,
            broker=self._broker,
            may_accuse=may_accuse,
            produced=(),
        )

    def _publish(self, intents: Sequence[Intent], inputs: Decision, now: float) -> None:
        said: list[_Said] = []
        for intent in intents:
            self._wanted.pop(intent.topic, None)
            self._echoes.said(intent.topic, self._place_of(intent), now)
            said += self._emit(intent, draft_of(intent, version=intent.next_version, epoch=self._epoch(intent)))
        ids = [str(emission.id) for emission, _ in said if emission.id is not None]
        for first in range(0, len(ids), NAMED_MOST):
            data = to_data(inputs) | {"produced": ids[first : first + NAMED_MOST]}
            self._bus.emit(Draft(f"controller/{self._name}/decision", data, subject=self._name))
        self.decisions += bool(said)
        self._sent(said)

    def _emit(self, intent: Intent, draft: Draft) -> list[_Said]:
        """Say it, if it can be said (rule 7)."""
        try:
            emission = self._bus.emit(draft)
        except InputError as error:
            self._complain(f"{intent.because}, but that cannot be said on {intent.topic}: {error}")
            return []
        self._echoes.sent(intent.topic)
        return [(emission, intent.topic)]

    def _say_again(self, now: float, peers: Sequence[str]) -> None:
        """Rule 6; what it wants to say otherwise, or has just said, stays as decided."""
        besides = {*self._wanted, *self._echoes.topics}
        rank_s = lambda topic: RANK_S * rank(subject_of(topic), self._name, peers)  # noqa: E731 - of a line
        due = self._resaying.due(self.view, now, waits=rank_s, besides=besides)
        self._sent([one for intent in due for one in self._emit(intent, draft_of(intent))])

    def _sent(self, said: Sequence[_Said]) -> None:
        """Have it go out now, and hear what becomes of it."""
        if said:
            self._bus.flush()
            self._group.create_task(self._await_answers(said))

    async def _await_answers(self, said: Sequence[_Said]) -> None:
        for emission, topic in said:
            try:
                await emission.acknowledged()
            except (RefusedError, FailedError) as error:
                if error.code not in _DECIDE_ANEW:
                    self._complain(f"{emission.id} was refused or dropped: {error}")
                elif self._echoes.over(topic):
                    self._ask(topic)
            finally:
                self._echoes.answered(topic)

    def _say_state(self, *, counting: bool = False) -> None:
        """Say who this controller is, at the start, when that changes, and now and then how much it decided."""
        now_ms = self._bus.now_ms()
        decisions = self.decisions if counting or self._said is None else self._said.decisions
        state = ControllerState(version=self._version, ruleset=self._ruleset, pid=self._pid, decisions=decisions)
        if state == self._said and self._said_ms <= now_ms < self._said_ms + RENEW_MS:
            return
        self._said, self._said_ms = state, now_ms
        self._bus.emit(Draft(f"controller/{self._name}/state", to_data(state), subject=self._name))
