"""The container manager: one per node; makes of slot facts containers with agents in them (A1, A5, R5).

Rule 1: it reads what is addressed to its node, and tombstones; the topic of a slot of which anything is here is followed
    by the agent of its container (A1). Of each slot the greatest fact counts, in whatever order facts come.
Rule 2: what is in the node's directory at its start is taken over; a manager's death changes nothing. Of a container that
    was cleared away, what is left is kept, and offered (`left`).
Rule 3: absence orders nothing: a container that no fact asks for is told as an orphan, and kept.
Rule 4: after each attachment it re-offers the facts it acts on. By what else it knows a fact may come to nothing here: a
    greater one of its slot, also of one of which nothing is left, or a tombstone. That is offered to a store that is not
    whole, which may lack it, and where such a fact has come: who says the next one counts on from it (R3).
Rule 5: who addresses a fact to this node believes that something of the slot is here; where nothing is, and nothing is to
    be, it says so: its last word may be of a container that went with its directory. So it does where a word of this node
    stands on the bus (`former`): of the slot no fact may be known any more, and an older copy of a store has what was here
    before. What still runs of the slot is ended first (`strays`).
Rule 6: what a service that has ended left in the node's data directory goes when an operator says so (`purging`).
Rule 7: an agent that hangs (`hearing`) is ended, to be started again; what it runs goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

from dsmt.agents.node.abandoned import Abandoned
from dsmt.agents.node.clearing import clear
from dsmt.agents.node.container_keeper import ContainerKeeper
from dsmt.agents.node.former import FormerStatuses
from dsmt.agents.node.hearing import HEAR_EACH_S, Hearing
from dsmt.agents.node.left import LeftContainer
from dsmt.agents.node.purging import Purging
from dsmt.agents.node.status_publisher import StatusPublisher
from dsmt.agents.node.strays import Strays
from dsmt.agents.node.unmade import Unmade
from dsmt.agents.rules.container import CONFIG, LEFT, NodeConfig
from dsmt.agents.rules.reconcile import is_to_be_made
from dsmt.agents.rules.register import Register
from dsmt.agents.shared.kept import own
from dsmt.agents.shared.surroundings import NodeSurroundings
from dsmt.agents.shared.unforeseen import as_failed
from dsmt.errors import FailedError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.fold import Fold
from dsmt.event.kinds.realm import PURGES
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import readable
from dsmt.event.slots import SlotKey, index_of
from dsmt.event.status import Layer, State
from dsmt.event.topic import PATTERNS_MOST
from dsmt.logs import Logger
from dsmt.ports.bus import Arrived, Complete, Delivery, Interest, Notice
from dsmt.ports.files import Files
from dsmt.ports.listening import listen
from dsmt.ports.realm import KEY_ENDED

TOMBSTONES: Final = "tombstone/service/"
RENEW_EACH_S: Final = 3600.0
PATIENCE_S: Final = 20.0
"""How long agents may take to stop their instances when the node is ended, unless told otherwise."""


class ContainerManager:
    """A node's manager. `run` returns after `shutdown`; cancelled, it leaves all agents running."""

    def __init__(self, config: NodeConfig, deps: NodeSurroundings) -> None:
        self._config = config
        self._deps = deps
        self._keepers: dict[SlotKey, ContainerKeeper] = {}
        self._running: dict[SlotKey, asyncio.Task[None]] = {}
        self._known: dict[SlotKey, Register] = {}
        """What is known of the slots of which there is, or was to be, a container here."""
        self._refused: set[SlotKey] = set()
        """Those of which a fact came last that counts for nothing here (rule 4)."""
        self._fold = Fold()
        """What every slot fact and tombstone amount to that came here: what was hidden once never begins again."""
        self._left: dict[SlotKey, LeftContainer] = {}
        """Those of which only that is here what is left of a container that was cleared away."""
        self._group: asyncio.TaskGroup | None = None
        self._hearing = Hearing(config.node, deps.bus)
        self._former = FormerStatuses(config.node, deps.bus)
        self._purging = Purging(deps.data, stands=self._stands, free=self._create, kept=self._cannot_make)
        self._unmade = Unmade(config, deps)
        self._strays = Strays(self._end_strays, self._not_here, self._looked_for)
        self._abandoned = Abandoned(deps.bus, self._disowned, self._take_fact, self._abandon)
        self._ended = asyncio.Event()
        self._closing = False
        self._store = ""
        """The store that was read last: another one may know nothing of what was said."""

    def __repr__(self) -> str:
        return f"<ContainerManager {self._config.node}: {len(self._keepers)} containers>"

    @property
    def slots(self) -> tuple[SlotKey, ...]:
        """The slots of which this node has a container."""
        return tuple(sorted(self._keepers))

    async def run(self) -> None:
        """Manage the node's containers until `shutdown` or cancellation."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for slot in self._found():
                self._keep(slot)
            self._deps.bus.on_attached(self._offer)
            self._offer()
            interest = Interest(self._patterns(), inbox=True, conflate=True, signals=False)
            listening = listen(self._deps.bus, interest, self._take)
            mine = (self._beat(), self._renew(), self._end_hung())
            works = (listening, *mine, self._strays.run(), self._purging.run(), self._abandoned.run())
            background = [group.create_task(work) for work in works]
            await self._ended.wait()
            for one in (*background, *self._running.values()):
                one.cancel()

    async def shutdown(self, patience_s: float = PATIENCE_S) -> None:
        """End the node: have every agent stop its instance; kill what does not in time; then `run` returns.

        What cannot be killed keeps no other one from being ended, nor the node: it would neither end nor go on.
        """
        self._closing = True
        waiting = [self._running[slot] for slot, keeper in self._keepers.items() if keeper.close()]
        if waiting:
            await asyncio.wait(waiting, timeout=patience_s)
        for slot, keeper in list(self._keepers.items()):
            self._running[slot].cancel()
            try:
                await keeper.kill()
            except Exception as error:  # noqa: BLE001 - see above
                why = as_failed(error)
                Logger(node=self._config.node).error("cannot be ended", slot=str(slot), code=why.code, reason=str(why))
        self._ended.set()

    def _patterns(self) -> tuple[str, ...]:
        """What is to be subscribed to; of what was left, which has no agent, also where its slot is by now."""
        always = (TOMBSTONES, PURGES, *self._hearing.patterns, *self._former.patterns)
        return (*always, *(slot.topic for slot in sorted(self._left)[: PATTERNS_MOST - len(always)]))

    # -- containers

    def _found(self) -> list[SlotKey]:
        """The slots of the containers that are in the node's directory.

        What is less than one goes, but for what is left of one that was cleared away: that stays until it is known where
        the slot is.
        """
        files, found = self._deps.files, []
        for service in _names(files, "containers"):
            for component in _names(files, f"containers/{service}"):
                for name in _names(files, f"containers/{service}/{component}"):
                    index = index_of(name)
                    if index is None:  # somebody else's: a copy that an operator has made
                        continue
                    slot = SlotKey(service, component, index)
                    if _is_container(files, slot):
                        found.append(slot)
                    elif LEFT.issuperset(_names(files, slot.directory)):
                        self._left[slot] = LeftContainer.read(slot, self._greatest(slot), files, self._deps.bus)
                    else:
                        clear(files, slot)
        return found

    def _keep(self, slot: SlotKey) -> None:
        """Keep a container from now on."""
        if self._group is None or self._closing:
            return
        self._left.pop(slot, None)
        self._unmade.over(slot)
        self._keepers[slot] = keeper = ContainerKeeper(slot, self._greatest(slot), self._config, self._deps)
        self._running[slot] = self._group.create_task(self._until_gone(keeper))

    async def _until_gone(self, keeper: ContainerKeeper) -> None:
        await keeper.run()
        if self._closing:
            return
        del self._keepers[keeper.slot], self._running[keeper.slot]
        self._former.ended(keeper.slot)
        self._purging.look()
        self._create(keeper.slot)

    def _create(self, slot: SlotKey) -> None:
        """Make a container of a slot that has none, if its greatest fact asks for one; after a look for strays."""
        if slot in self._strays or self._purging.defers(slot):
            return
        known = self._greatest(slot)
        if known.held is None or known.buried:
            del self._known[slot]
            return
        fact = readable(Slot, known.held.event.data)
        if fact is not None and is_to_be_made(self._config.node, fact, data_key=self._config.data_key):
            self._keep(slot)

    def _cannot_make(self, slot: SlotKey, error: FailedError) -> None:
        held = self._greatest(slot).held
        if held is not None and self._is_given(slot):
            self._unmade.tell(slot, held, error)

    def _stands(self, slot: SlotKey) -> int | None:
        """The epoch of the fact by which there is a container of a slot; None where there is none."""
        keeper = self._keepers.get(slot)
        if keeper is None:
            return None
        return 0 if keeper.signed is None else keeper.signed.event.epoch or 0

    def _is_given(self, slot: SlotKey) -> bool:
        """Whether the greatest fact known of a slot has it here; one that cannot be read may (A14)."""
        known = self._known.get(slot)
        if known is None or known.held is None or known.buried:
            return False
        fact = readable(Slot, known.held.event.data)
        return fact is None or fact.wanted_on == self._config.node

    def _not_here(self, slots: Iterable[SlotKey]) -> list[SlotKey]:
        """Those of which nothing is here, nor is to be: they are to be elsewhere, or nowhere (rule 5)."""
        if self._closing:
            return []
        return [slot for slot in slots if slot not in self._keepers and not self._is_given(slot)]

    async def _end_strays(self, slots: Collection[SlotKey]) -> None:
        await self._deps.clear([self._deps.files.below(slot.directory, made=False).root for slot in slots])

    def _looked_for(self, slot: SlotKey, cause: EventId | None) -> None:
        """Nothing of a slot runs here any more, if there is a cause to say so; what was asked for meanwhile is made now."""
        self._create(slot)
        if cause is not None and self._not_here([slot]):
            self._say_gone(slot, cause)

    def _tell_gone(self, slot: SlotKey, cause: EventId) -> None:
        """Say that nothing of a slot is here, when that is so (rule 5)."""
        if self._not_here([slot]):
            self._strays.add(slot, cause)

    def _say_gone(self, slot: SlotKey, cause: EventId) -> None:
        known = self._known.get(slot)
        held = None if known is None else known.held
        voice = StatusPublisher(self._deps.bus, slot, self._config, Layer.CONTAINER)
        self._unmade.over(slot)
        voice.resume(State.DESELECTED, said=False)
        generation = 0 if held is None else held.event.version or 0
        voice.tell(State.GONE, cause=(cause,), generation=generation)
        self._former.ended(slot)

    # -- facts

    def _greatest(self, slot: SlotKey) -> Register:
        return self._known.setdefault(slot, Register(slot.topic, self._deps.is_disowned, self._fold))

    def _take(self, delivery: Delivery) -> None:
        self._hearing.take(delivery)
        former = self._former.take(delivery)
        match delivery:
            case Arrived(signed):
                self._take_fact(signed)
            case Complete(cursor, whole):
                if not whole:
                    self._offer_refusing(self._known.keys() - self._keepers.keys())
                self._take_complete(known=whole and self._store in ("", cursor.store))
                self._store = cursor.store
                if whole:
                    self._clear_left()
            case Notice(type="dsmt.notice.namesake"):
                for keeper in self._keepers.values():
                    keeper.again()
            case Notice(type=kind) if kind == KEY_ENDED:
                self._exhume()
            case _:
                pass
        for slot, said in former.items():
            self._tell_gone(slot, said)

    def _take_fact(self, signed: SignedEvent) -> None:
        slot = SlotKey.of_topic(signed.event.topic)
        if slot is not None:
            self._take_slot(slot, signed)
        elif signed.event.ends:
            self._take_tombstone(signed)
        elif signed.event.topic.startswith(PURGES):
            self._purging.take(signed)

    def _take_slot(self, slot: SlotKey, signed: SignedEvent) -> None:
        """A slot fact; the greatest counts (rule 1)."""
        known, keeper, left = self._greatest(slot), self._keepers.get(slot), self._left.get(slot)
        if keeper is None:
            known.expire(self._deps.bus.now_ms())
        if not (known.take(signed) if keeper is None else keeper.take(signed)):
            if known.held is None or known.held.id != signed.id:
                self._refused.add(slot)
                self._offer_refusing({slot})
                return
            if left is None or left.heard:
                return
        if left is not None:
            left.heard = True
        self._refused.discard(slot)
        if keeper is None:
            self._create(slot)
            self._tell_gone(slot, signed.id)

    def _take_tombstone(self, signed: SignedEvent) -> None:
        """Facts have been buried: what stands here by one of them is an orphan (rule 3)."""
        self._fold.take(signed)
        for keeper in self._keepers.values():
            keeper.buried()

    def _exhume(self) -> None:
        """A key has ended: what its tombstones hid orders again, unless somebody else's hides it (J3)."""
        self._fold.exhume(self._deps.is_disowned)
        self._abandoned.ended()
        for known in self._known.values():
            known.stand()
        for keeper in self._keepers.values():
            keeper.buried()

    def _disowned(self) -> list[SlotKey]:
        """The slots of which a fact counts here that nobody believes any more."""
        return sorted(slot for slot, known in self._known.items() if known.is_disowned and not known.buried)

    def _abandon(self, slot: SlotKey) -> None:
        """Nobody has said again what counts here of a slot: it orders nothing any more."""
        self._greatest(slot).abandon()
        if (keeper := self._keepers.get(slot)) is not None:
            keeper.buried()

    def _take_complete(self, *, known: bool) -> None:
        """All facts have come; say everything again where it may not be `known`."""
        for keeper in self._keepers.values():
            if not known:
                keeper.again()
            if keeper.acts_on is None:
                keeper.orphaned()

    def _clear_left(self) -> None:
        """All facts have come: what is left of a container goes where it is over."""
        now_ms = self._deps.bus.now_ms()
        for slot in [slot for slot, left in self._left.items() if left.is_over(self._greatest(slot), now_ms)]:
            clear(self._deps.files, slot)
            del self._left[slot]

    def _offer(self) -> None:
        """Re-offer the facts that this node acts on, or did before it was ended (rules 2 and 4)."""
        held = [signed for keeper in self._keepers.values() if (signed := keeper.acts_on) is not None]
        for slot, left in self._left.items():
            held += left.offers(self._greatest(slot), self._deps.bus.now_ms())
        if held:
            self._deps.bus.offer(held)
        self._offer_refusing(self._refused)

    def _offer_refusing(self, slots: Collection[SlotKey]) -> None:
        if found := [signed for slot in sorted(slots) for signed in self._refusing(slot)]:
            self._deps.bus.offer(found)

    def _refusing(self, slot: SlotKey) -> list[SignedEvent]:
        """What a fact of a slot may come to nothing by: the tombstone of its service, and the greatest fact known."""
        known = self._greatest(slot)
        facts = (self._fold.get(f"{TOMBSTONES}{slot.service}"), None if known.buried else known.held)
        now_ms = self._deps.bus.now_ms()
        return [signed for signed in facts if signed is not None and not signed.event.is_dead(now_ms)]

    # -- time

    async def _beat(self) -> None:
        """Vouch for all that this node has said."""
        topic = f"node/{self._config.node}/heartbeat"
        while True:
            self._deps.bus.heartbeat(topic, self._config.heartbeat_s)
            await asyncio.sleep(self._config.heartbeat_s)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EACH_S)
            for keeper in self._keepers.values():
                keeper.renew()

    async def _end_hung(self) -> None:
        """End each agent that hangs (rule 7)."""
        while True:
            await asyncio.sleep(HEAR_EACH_S)
            keepers = {slot.agent(self._config.node): keeper for slot, keeper in self._keepers.items()}
            mute = [agent for agent, keeper in keepers.items() if keeper.is_mute]
            for agent in self._hearing.hung(self._deps.clock.boottime(), mute):
                if agent in keepers:
                    keepers[agent].end_hung()


def _names(files: Files, path: str) -> list[str]:
    """The names in a directory; none where they cannot be read: what is wrong with one keeps no other one waiting (C13)."""
    try:
        return files.names(path)
    except FailedError:
        return []


def _is_container(files: Files, slot: SlotKey) -> bool:
    """Whether there is a container; where nobody can tell its keeper says why."""
    try:
        return own(files, f"{slot.directory}/{CONFIG}") is not None
    except FailedError:
        return True
