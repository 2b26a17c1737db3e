"""Trial: a copy of the live view, in which facts are folded that nobody has signed and nodes do at once what is asked.

Rule 1: nothing of it leaves this process.
Rule 2: a slot fact is followed at once by the status and the health of a node that does all well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from dsmt.controllers.ended import ended_before
from dsmt.controllers.intents import Intent
from dsmt.controllers.pinning import is_replaced
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.kinds.instance import Health, LastExit, Status
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.reason import Reason
from dsmt.event.records import to_data
from dsmt.event.registry import lookup
from dsmt.event.status import Layer, State
from dsmt.view import Fleet, SlotKey, View

MAX_ROUNDS: Final = 2_000
ROUND_MS: Final = 1_000
"""How long it takes until what was decided is done."""
_INCARNATION: Final = 2**52
Wanted = tuple[Intent, Slot]
"""What a controller wants to say of a slot, and the fact that it would be."""


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is done. `action`: `new`, `replace`, `update` (while it runs), `restart`, `move`, `stop`, `remove`."""

    instance: str
    action: str
    node: str | None
    because: str


class Unplaced(msgspec.Struct, frozen=True, kw_only=True):
    """An instance for which there is no place now, and why."""

    instance: str
    reason: Reason | None


class Trial:
    """A view that may be changed, at `now_ms` of its realm time, as seen by a reader attached to `broker`.

    `name` is another one for each trial on one view: what is said in them is told apart by it.
    """

    def __init__(self, view: View, now_ms: int, broker: str, name: str) -> None:
        self.view, self.now_ms, self.broker = view, now_ms, broker
        self._name, self._sequence = name, 0
        self.changed: set[str] = set()
        """The components that run otherwise in a spec that is tried."""

    @property
    def fleet(self) -> Fleet:
        """The nodes at that time."""
        return Fleet(self.view, self.now_ms, self.broker)

    def is_lost(self, node: str) -> bool:
        """Whether a node is dead or has left, as `Fleet` says: a verdict stands."""
        return node in self.view.standing

    def begins(self, slot: Slot) -> bool:
        """Whether the machine where a slot is to be is there to do what is asked; also of one that has no node."""
        return slot.node is None or not (self.is_lost(slot.node) or is_replaced(self.fleet, slot))

    def told(self, key: SlotKey) -> Slot | None:
        """What the fact of a slot says now."""
        return self.view.slot(key).record

    def play(self, wanted: Sequence[Wanted], said: Callable[[], None]) -> None:
        """Have it said, and done; time passes. `said` is called when it is said, and nobody has done it yet."""
        before = [self.told(key_of(intent)) for intent, _ in wanted]
        for intent, _ in wanted:
            self.say("controller/plan", intent.topic, intent.data, version=intent.next_version, cause=intent.cause)
        said()
        for (intent, slot), old in zip(wanted, before, strict=True):
            self._obey(key_of(intent), slot, intent.next_version, old)
        self.now_ms += ROUND_MS

    def finish(self, key: SlotKey) -> None:
        """Have done what the fact of a slot asks for already."""
        entry = self.view.slot(key)
        if entry.fact is not None and entry.fact.record.desired == "running":
            self._obey(key, entry.fact.record, entry.fact.version, None)

    def _obey(self, key: SlotKey, slot: Slot, generation: int, old: Slot | None) -> None:
        """Have nodes do what a slot fact asks for, which was `old` before; nobody hears of what is lost or replaced.

        What has ended with 0 and is not run again is told as ended there.
        """
        if old is not None and old.node is not None and old.node != slot.node and not self.is_lost(old.node):
            self._status(key, old.node, State.GONE, generation)
        if slot.node is None or not self.begins(slot):
            return
        state = {"running": State.RUNNING, "stopped": State.STOPPED, "gone": State.GONE}[slot.desired]
        self._hear(key.agent(slot.node))
        last = self._ended(key, slot, old)
        if last is not None and state is State.RUNNING:
            self._status(key, slot.node, State.FAILED, generation, last_exit=last, good=slot.implements)
            return
        self._status(key, slot.node, state, generation)
        if state is State.RUNNING:
            health = Health(
                health="ready", generation=generation, check="plan", evidence="", failures=0, since_ms=self.now_ms
            )
            self.say(key.agent(slot.node), key.on("health", slot.node), to_data(health))

    def _ended(self, key: SlotKey, slot: Slot, old: Slot | None) -> LastExit | None:
        """How its program has ended that is not run again: elsewhere, or there, and what it is to do is the same still."""
        if slot.ended is not None:
            return LastExit(code=0, signal=None, at_ms=slot.ended.at_ms, ran_s=slot.ended.ran_s, reason=None)
        entry = self.view.slot(key)
        if old is None or (old.node, old.restart) != (slot.node, slot.restart):
            return None
        said = entry.application(slot.node) if ended_before(entry) else None
        return said.record.last_exit if said is not None and key.component not in self.changed else None

    def _hear(self, agent: str) -> None:
        """Have an agent attached again that had ended, where it had been before."""
        known = self.view.sessions.of.get(agent)
        if known is None or known.newest is None or known.newest[1].record.state == "open":
            return
        broker = self.broker.removeprefix("broker/") or known.newest[0]
        held = known.newest[1].record
        again = msgspec.structs.replace(held, state="open", how=None, attachment=held.attachment + 1, since_ms=self.now_ms)
        self.say(f"broker/{broker}", f"broker/{broker}/session/{agent}", to_data(again))

    def _status(
        self,
        key: SlotKey,
        node: str,
        state: State,
        generation: int,
        *,
        last_exit: LastExit | None = None,
        good: Good | None = None,
    ) -> None:
        container = State.GONE if state is State.GONE else State.INSTALLED  # also where one was gone from before
        for layer, source, told in (
            (Layer.CONTAINER, f"node/{node}", container),
            (Layer.APPLICATION, key.agent(node), state),
        ):
            record = Status(
                state=told,
                layer=layer,
                node=node,
                generation=generation,
                attempt=1,
                since_ms=self.now_ms,
                emit_rate_s=30.0,
                last_exit=last_exit if layer is Layer.APPLICATION else None,
                good=good if layer is Layer.APPLICATION else None,
            )
            self.say(source, key.status_topic(node, layer), to_data(record))

    def say(
        self,
        source: str,
        topic: str,
        data: dict[str, Any],
        *,
        version: int | None = None,
        shared: bool = False,
        cause: tuple[EventId, ...] = (),
    ) -> None:
        """Fold a fact that nobody has signed; with `shared` as the next version of its topic."""
        self._sequence += 1
        match = lookup(topic)
        before = self.view.winner(topic)
        if shared:
            version = 1 + (0 if before is None else before.event.version or 0)
        event = Event(
            source=source,
            incarnation=_INCARNATION,
            sequence=self._sequence,
            chain=ChainLink(1, NO_LEAF),
            type="" if match is None else match.row.event_type,
            topic=topic,
            subject=topic,
            cause=cause,
            time=hlc(self.now_ms, self._sequence % 65_536),
            data=data,
            epoch=None if version is None else self.view.epoch(topic),
            version=version,
            replaces=before.id if version is not None and before is not None else None,
        )
        leaf = sha256(f"{self._name} {self._sequence}".encode()).digest()
        self.view.apply(SignedEvent(event, b"", leaf, b""))


def wanted_in(intents: Iterable[Intent]) -> list[Wanted]:
    """Those of a decision's intents that are facts of slots."""
    return [(intent, intent.record) for intent in intents if isinstance(intent.record, Slot)]


def key_of(intent: Intent) -> SlotKey:
    """The slot that an intent on a slot's topic is about."""
    _, service, _, component, index = intent.topic.split("/")
    return SlotKey(service, component, int(index))


def action_of(old: Slot | None, new: Slot) -> str | None:
    """What a slot fact does; None when it only says that there is no place."""
    if new.desired == "gone":
        return "remove"
    if old is None or old.wanted_on is None:
        return "new" if new.node is not None else None
    if new.desired == "stopped":
        return "stop"
    if new.node != old.node:
        return "move"
    return "replace" if new.spec != old.spec else "restart"


def reason_in(intent: Intent) -> str:
    """Why a controller wants it, without what it wants."""
    return intent.because.partition(": ")[2] or intent.because
