"""The container manager: one per node; makes of slot facts containers with agents in them (DESIGN 6, A1, A5, R5).

Rule 1: of each slot the greatest fact counts, in whatever order facts come.
Rule 2: what is in the node's directory at its start is taken over; a manager's death changes nothing.
Rule 3: absence orders nothing: a container that no fact asks for is told as an orphan, and kept.
Rule 4: after each attachment it re-offers the facts it acts on.
"""

from __future__ import annotations

import asyncio
from typing import Final

from dsmt.agents.container import CONFIG, NodeConfig, SlotName
from dsmt.agents.keeper import Keeper
from dsmt.agents.reconcile import Task, task
from dsmt.agents.surroundings import NodeSurroundings
from dsmt.errors import DsmtError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.order import Key, hides, rank
from dsmt.event.records import Slot, from_data
from dsmt.ports.bus import Arrived, Complete, Interest

SLOTS: Final = "service/+/slot/"
TOMBSTONES: Final = "tombstone/service/"
SUBSCRIBE_AGAIN_S: Final = 5.0
RENEW_EACH_S: Final = 3600.0
PATIENCE_S: Final = 20.0
"""How long agents may take to stop their instances when the node is ended, unless told otherwise."""


class ContainerManager:
    """A node's manager. `run` returns after `shutdown`; cancelled, it leaves all agents running."""

    def __init__(self, config: NodeConfig, around: NodeSurroundings) -> None:
        self._config = config
        self._around = around
        self._keepers: dict[SlotName, Keeper] = {}
        self._running: dict[SlotName, asyncio.Task[None]] = {}
        self._ranks: dict[str, Key] = {}
        self._group: asyncio.TaskGroup | None = None
        self._ended = asyncio.Event()
        self._closing = False
        self._store = ""
        """The store that was read last: another one may know nothing of what was said."""

    def __repr__(self) -> str:
        return f"<ContainerManager {self._config.node}: {len(self._keepers)} containers>"

    @property
    def slots(self) -> tuple[SlotName, ...]:
        """The slots of which this node has a container."""
        return tuple(sorted(self._keepers))

    async def run(self) -> None:
        """Manage the node's containers until `shutdown` or cancellation."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for slot in self._found():
                self._keep(slot)
            self._around.bus.on_attached(self._offer)
            self._offer()
            background = [group.create_task(work) for work in (self._listen(), self._beat(), self._renew())]
            await self._ended.wait()
            for one in (*background, *self._running.values()):
                one.cancel()

    async def shutdown(self, patience_s: float = PATIENCE_S) -> None:
        """End the node: have every agent stop its instance; kill what does not in time; then `run` returns."""
        self._closing = True
        asked = [slot for slot, keeper in self._keepers.items() if keeper.close()]
        waiting = [self._running[slot] for slot in asked if slot in self._running]
        if waiting:
            await asyncio.wait(waiting, timeout=patience_s)
        for slot, keeper in list(self._keepers.items()):
            running = self._running.get(slot)
            if running is not None and not running.done():
                running.cancel()
            await keeper.kill()
        self._ended.set()

    # -- containers

    def _found(self) -> list[SlotName]:
        """The slots of the containers that are in the node's directory; what is less than a container goes."""
        files, found = self._around.files, []
        for service in files.names("containers"):
            for component in files.names(f"containers/{service}"):
                for index in files.names(f"containers/{service}/{component}"):
                    slot = SlotName(service, component, index)
                    if files.read(f"{slot.directory}/{CONFIG}") is None:
                        files.remove(slot.directory)
                    else:
                        found.append(slot)
        return found

    def _keep(self, slot: SlotName, signed: SignedEvent | None = None) -> None:
        """Keep a container from now on."""
        if self._group is None or self._closing:
            return
        keeper = Keeper(slot, self._config, self._around)
        if signed is not None:
            keeper.take(signed)
        self._keepers[slot] = keeper
        if keeper.signed is not None:
            self._ranks.setdefault(slot.topic, rank(keeper.signed.event))
        self._running[slot] = self._group.create_task(self._until_gone(keeper))

    async def _until_gone(self, keeper: Keeper) -> None:
        await keeper.run()
        if self._closing:
            return
        del self._keepers[keeper.slot], self._running[keeper.slot]
        signed = keeper.signed
        if signed is not None and self._task_of(signed, exists=False) is Task.CREATE:
            self._keep(keeper.slot, signed)

    def _task_of(self, signed: SignedEvent, *, exists: bool) -> Task:
        try:
            slot = from_data(Slot, signed.event.data)
        except UnusableEventError:
            return Task.NOTHING
        return task(self._config.node, slot, exists=exists)

    # -- facts

    async def _listen(self) -> None:
        """Take what the bus delivers, for ever."""
        interest = Interest((SLOTS, TOMBSTONES), inbox=True, conflate=True, signals=False)
        while True:
            try:
                async with self._around.bus.subscribe(interest) as batches:
                    async for batch in batches:
                        for delivery in batch:
                            self._take(delivery)
            except DsmtError:
                await asyncio.sleep(SUBSCRIBE_AGAIN_S)

    def _take(self, delivery: object) -> None:
        match delivery:
            case Arrived(signed):
                slot = SlotName.of_topic(signed.event.topic)
                if slot is not None:
                    self._take_slot(slot, signed)
                elif signed.event.buries:
                    self._take_tombstone(signed)
            case Complete(cursor, whole):
                self._take_complete(known=whole and self._store in ("", cursor.store))
                self._store = cursor.store
            case _:
                pass

    def _take_slot(self, slot: SlotName, signed: SignedEvent) -> None:
        """A slot fact; the greatest counts (rule 1)."""
        place = rank(signed.event)
        known = self._ranks.get(slot.topic)
        if known is not None and not place < known:
            return
        self._ranks[slot.topic] = place
        keeper = self._keepers.get(slot)
        if keeper is not None:
            keeper.take(signed)
        elif self._task_of(signed, exists=False) is Task.CREATE:
            self._keep(slot, signed)

    def _take_tombstone(self, signed: SignedEvent) -> None:
        """Facts have been buried: what stands here by one of them is an orphan (rule 3)."""
        for keeper in self._keepers.values():
            if keeper.signed is not None and hides(signed.event, keeper.signed.event):
                keeper.orphaned()

    def _take_complete(self, *, known: bool) -> None:
        """All facts have come; say everything again where it may not be `known`."""
        for keeper in self._keepers.values():
            if not known:
                keeper.again()
            if keeper.signed is None:
                keeper.orphaned()

    def _offer(self) -> None:
        """Re-offer the facts that this node acts on (rule 4)."""
        held = [keeper.signed for keeper in self._keepers.values() if keeper.signed is not None]
        if held:
            self._around.bus.offer(held)

    # -- time

    async def _beat(self) -> None:
        """Vouch for all that this node has said."""
        topic = f"node/{self._config.node}/heartbeat"
        while True:
            self._around.bus.heartbeat(topic, self._config.heartbeat_s)
            await asyncio.sleep(self._config.heartbeat_s)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EACH_S)
            for keeper in self._keepers.values():
                keeper.renew()
