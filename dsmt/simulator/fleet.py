"""A fleet: one simulated realm with its brokers, controllers, nodes, an operator and services, made from a seed."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from msgspec.structs import replace

from dsmt.bus.store.sqlite import GIB
from dsmt.event.burst import raws_of
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.status import State
from dsmt.ports.store import Row
from dsmt.simulator.engine.host import Host
from dsmt.simulator.engine.rng import Stream
from dsmt.simulator.members import SimBroker, SimController, SimNode
from dsmt.simulator.operator import SimOperator
from dsmt.simulator.programs import Habits, SimInstance
from dsmt.simulator.stores import SimStore
from dsmt.simulator.will import Will
from dsmt.simulator.world import World
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.trust.revocations import is_void, revoked_by
from dsmt.trust.store import TrustStore
from dsmt.view import Fleet, SlotEntry, SlotKey, View

PAGE: Final = 2000
RECENT: Final = 2000
SKEW_S: Final = 9.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a fleet is. `skewed`: the share of machines whose wall clocks are wrong by up to `SKEW_S`.

    `heartbeat_s` is the managers': in life 1 s; nothing follows from its rate, and one in 4 s makes a run 20 % shorter.
    """

    nodes: int = 100
    services: int = 10
    controllers: int = 3
    instances: tuple[int, int] = (3, 7)
    skewed: float = 0.3
    heartbeat_s: float = 4.0
    habits: Habits = field(default_factory=Habits)
    brokers: int = 1
    store_bytes: int = GIB
    site: int = 0
    """How many of the nodes, and one controller, are at a site that has a broker of its own, a leaf."""


class SimFleet:
    """The realm. `specs` is what was asked for last, by service; `view` folds what `broker` has stored, one that lives."""

    def __init__(self, world: World, scale: Scale) -> None:
        self.world, self.scale = world, scale
        self.stream: Stream = world.stream.stream("fleet")
        self.complaints: list[str] = []
        self.specs: dict[str, dict[str, Any]] = {}
        self.brokers = [
            SimBroker(world, f"b{number}", f"10.0.0.{number}", born=number == 1, store_bytes=scale.store_bytes)
            for number in range(1, scale.brokers + 1)
        ]
        self.broker = self.brokers[0]
        self.leaf = SimBroker(world, "leaf", "10.2.0.1", born=False, leaf=True) if scale.site else None
        if self.leaf is not None:
            self.brokers.append(self.leaf)
        self.controllers = {
            f"c{number}": SimController(world, f"c{number}", f"10.0.1.{number}", self.complaints)
            for number in range(1, scale.controllers + 1)
        }
        self.operator = SimOperator(world, "alice", "10.0.2.1")
        self.nodes = {
            name: SimNode(world, name, f"10.1.{number // 250}.{number % 250}", scale.habits, heartbeat_s=scale.heartbeat_s)
            for number, name in ((number, f"n{number}") for number in range(1, scale.nodes + 1))
        }
        self.site: list[Host] = []
        """The machines of the site but for its broker's: the last nodes, and the last controller."""
        if self.leaf is not None:
            self.site = [node.host for node in list(self.nodes.values())[-scale.site :]]
            self.site.append(list(self.controllers.values())[-1].host)
            world.sites = {host.name: replace(self.leaf.at, leaf=False) for host in self.site}
        for host in world.hosts.values():
            if all(host is not broker.host for broker in self.brokers) and self.stream.chance(scale.skewed):
                host.clock.offset_s = self.stream.uniform(-SKEW_S, SKEW_S)
        self._views: dict[SimStore, tuple[View, int]] = {}
        self._trusts: dict[SimStore, TrustStore] = {}
        """By store, what its rows say of whom nobody believes any more (J3); of stores that end a key."""
        self._held: dict[SimStore, tuple[int, list[tuple[Row, SignedEvent]]]] = {}
        """By store, how many of its rows were gone when it was read, and what it held."""
        self.recent: deque[bytes] = deque(maxlen=RECENT)
        """The digests of the view after each of the last rows that were folded into it."""

    # --- running -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all members, within a second, then apply the services."""
        for broker in self.brokers:
            broker.kept.start()
        self.operator.kept.start()
        if self.leaf is not None:
            self.operator.announce({broker.name: broker.at for broker in self.brokers})
        for controller in self.controllers.values():
            self.world.later(self.stream.uniform(0, 1), controller.kept.start)
        for node in self.nodes.values():
            self.world.later(self.stream.uniform(0, 1), node.start)
        await asyncio.sleep(2)
        for number in range(1, self.scale.services + 1):
            low, high = self.scale.instances
            self.apply(f"s{number}", instances=low + self.stream.below(high - low + 1))

    @property
    def will(self) -> Will:
        """What the operator was told is so."""
        return self.operator.will

    def apply(self, service: str, *, instances: int, revision: int = 1, more: Mapping[str, str] | None = None) -> None:
        """The operator applies a service: see `declare`."""
        self.operator.apply(self.declare(service, instances=instances, revision=revision, more=more))

    def declare(
        self, service: str, *, instances: int, revision: int = 1, more: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """A service, as it is to be: see `spec_of`."""
        plain = self.spec_of(service, instances=instances, revision=revision, more=more)
        self.specs[service] = plain
        return plain

    def spec_of(
        self, service: str, *, instances: int, revision: int = 1, more: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """A service of one component, which differs from service to service, but not by chance.

        `more` are other keys of the component, as they stand in a service file.
        """
        checked = self.stream.stream("service", service).chance(0.7)
        keys = {
            "run": "./app",
            "instances": str(instances),
            "env": f"{{REVISION: '{revision}'}}",
            "update": "{healthy_after: 2s, deadline: 60s}",
            **({"ports": "{http: auto}", "health": "{http: {path: /}}"} if checked else {}),
            **(more or {}),
        }
        lines = [f"service: {service}", "components:", "  app:", *(f"    {key}: {value}" for key, value in keys.items())]
        return to_plain(parse("\n".join(lines), file=f"{service}.yaml")[0])

    def remove(self, service: str) -> None:
        """The operator removes a service."""
        self.specs.pop(service, None)
        self.operator.remove(service)

    async def say_again(self) -> None:
        """The operator says again all that is to be so: what it was told may be lost with a machine."""
        for _ in range(100):  # a process tells the world nothing
            if self.operator.idle:
                break
            await asyncio.sleep(0.25)
        will = self.will
        for service in sorted({*will.specs, *self.view().services}):
            if service in self.specs:
                self.operator.apply(self.specs[service])
            else:
                self.operator.remove(service)
        for slot in list(self.wanted()):
            (self.operator.hold if slot in will.held else self.operator.unhold)(slot)
        for node in self.nodes:
            self.operator.use(node, will.mode(node))

    async def until_settled(self, seconds: float) -> list[str]:
        """Wait until all is as it should be, at most so long; what is not."""
        until = self.world.loop.time() + seconds
        while wrong := self.amiss():
            if self.world.loop.time() >= until:
                return wrong
            await asyncio.sleep(0.25)
        return []

    # --- what is so ----------------------------------------------------------------------------------------------

    def wanted(self) -> Iterator[str]:
        """Every slot that is to exist, as far as the operator was told."""
        return self.will.slots()

    def in_order(self, node: SimNode) -> bool:
        """Whether a node is there for everybody: it has power, a network and what its spawner keeps."""
        host = node.host
        paused = any(process.sim.state == "paused" for process in node.running)
        return host.on and not host.cut and not host.filtered and node.manager.wanted and not paused

    def running(self) -> dict[str, list[str]]:
        """By slot, the nodes on which a program of it runs, as their kernels know it."""
        found: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            for program in node.host.programs.values():
                if isinstance(program, SimInstance) and program.slot:
                    found.setdefault(program.slot, []).append(name)
        return found

    def named(self) -> dict[str, str | None]:
        """By slot, the node that the winner of its facts names; slots that are gone are left out."""
        found = {}
        for service, entry in self.view().services.items():
            for (component, index), slot in entry.slots.items():
                if slot.fact is not None and slot.fact.record.desired != "gone":
                    found[f"{service}/{component}/{index}"] = slot.fact.record.node
        return found

    def moves(self) -> dict[str, int]:
        """By slot, how often its fact came to name another node."""
        found: dict[str, int] = {}
        last: dict[str, str] = {}
        for slot, _, node in self.named_in_turn():
            if node is not None and last.setdefault(slot, node) != node:
                last[slot] = node
                found[slot] = found.get(slot, 0) + 1
        return found

    @property
    def members(self) -> list[Host]:
        """The hosts of its brokers, its controllers and its nodes."""
        members = [one.host for one in self.brokers] + [one.host for one in self.controllers.values()]
        return members + [one.host for one in self.nodes.values()]

    def named_in_turn(self) -> Iterator[tuple[str, SignedEvent, str | None]]:
        """Every slot fact in the order in which a store first had it: its slot, itself, and the node that it names."""
        for signed in self.in_turn("dsmt.slot"):
            _, service, _, component, index = signed.event.topic.split("/")
            yield f"{service}/{component}/{index}", signed, signed.event.data["node"]

    def in_turn(self, *types: str) -> Iterator[SignedEvent]:
        """Every event of these types in the order in which a store first had it."""
        known: set[EventId] = set()
        for store in self.broker.stores:
            for _, signed in self.rows(store):
                if signed.event.type in types and signed.id not in known:
                    known.add(signed.id)
                    yield signed

    def amiss(self) -> list[str]:
        """What is not as the operator was told, and as the winners of its facts name it (12.2)."""
        running, named, wanted = self.running(), self.named(), list(self.wanted())
        wrong = [f"the operator waits: {text}; {self.operator.refused}" for text in self.will.asked[:1]]
        for slot in wanted:
            wrong += self._slot_amiss(slot, running.get(slot, []), named.get(slot))
        known = frozenset(wanted)
        wrong += [f"{slot} runs on {there} and is not wanted" for slot, there in running.items() if slot not in known]
        liveness = Fleet(self.view(), self.world.now_ms, self.broker.name)
        states = {name: liveness.state(name) for name, node in self.nodes.items() if self.in_order(node)}
        return wrong + [f"{name} lives, and is said to be {state}" for name, state in states.items() if state != "alive"]

    def _slot_amiss(self, slot: str, there: list[str], node: str | None) -> list[str]:
        will = self.will
        if slot in will.held or (slot in will.either and not there):
            return [f"{slot} is held, and runs on {there}"] if there else []
        if there != [node]:
            return [f"{slot} runs on {there}, its fact names {node}"]
        wrong = []
        asked = self._asked(slot)
        if asked is not None and (not asked or will.mode(asked) == "active"):
            wrong.append(f"{slot} runs on {node}, and was to be moved to {asked or 'another node'}")
        if will.mode(node or "") == "draining":
            wrong.append(f"{slot} runs on {node}, which is drained")
        if (said := self.said(slot, node or "")) != State.RUNNING:
            wrong.append(f"{slot} runs on {node}, its status there is {said}")
        return wrong

    def _asked(self, slot: str) -> str | None:
        """Where a slot is to be moved that is not done yet, as its facts say it; empty for any other node."""
        entry = self._entry(slot)
        return None if entry is None else entry.move_asked

    def said(self, slot: str, node: str) -> State | None:
        """The state of a slot on a node, as its agent says it."""
        said = self._entry(slot).application(node)
        return None if said is None else said.record.state

    def _entry(self, slot: str) -> SlotEntry:
        return self.view().slot(SlotKey.named(slot))

    @property
    def stores(self) -> list[SimStore]:
        """All stores that the brokers have, or have had."""
        return [store for broker in self.brokers for store in broker.stores]

    # --- history -------------------------------------------------------------------------------------------------

    def held(self, store: SimStore) -> list[tuple[Row, SignedEvent]]:
        """All that a store holds now, in order; each row is read once, unless rows were trimmed meanwhile."""
        gone = store.gone
        known, rows = self._held.get(store, (gone, []))
        if known != gone:
            rows = []
        last = rows[-1][0].row if rows else 0
        if store.head > last:
            new = list(self._read(store, last))
            self._end_keys(store, [signed for _, signed in new])
            rows = [*rows, *new]
        self._held[store] = gone, rows
        return rows

    def rows(self, store: SimStore | None = None) -> Iterator[tuple[int, SignedEvent]]:
        """What a store holds, in order: row and event. None: the one that the broker has now."""
        return ((row.row, signed) for row, signed in self.held(store or self.broker.store))

    def _read(self, store: SimStore, after: int) -> Iterator[tuple[Row, SignedEvent]]:
        while rows := store.rows(after, PAGE):
            after = rows[-1].row
            for row in rows:
                yield row, self.world.reader.read(row.sealed)

    def _end_keys(self, store: SimStore, facts: Sequence[SignedEvent]) -> None:
        """Believe nobody any more whose key these end."""
        for signed in facts:
            if revoked_by(signed.event.topic) is not None:
                self._trusts.setdefault(store, self.world.trust_in_all()).revoke(signed)

    def view(self) -> View:
        """The broker's present store folded, up to now by its realm time: what has expired is gone, as for all readers.

        Where a key has ended, it is folded anew without what is void: so all readers do (J3).
        """
        store = self.broker.store
        view, row = self._views.get(store) or (View(), 0)
        if store.head > row:
            held = self.held(store)
            new = held[bisect_right(held, row, key=_number) :]
            if any(revoked_by(signed.event.topic) for _, signed in new):
                view, new = View(), held
            for one, signed in new:
                row = one.row
                if self.is_void(store, signed):
                    continue
                if view.apply(signed) or not self.recent:
                    self.recent.append(view.digest)
            if store in self._trusts:
                self.recent.append(self._believed(store).digest)
        self._views[store] = (view, row)
        if view.expire(self.broker.now_ms):
            self.recent.append(view.digest)
        return view

    def _believed(self, store: SimStore) -> View:
        """What who has begun since keys ended sees of a store: nothing of what those say of themselves, either."""
        view = View()
        for _, signed in self.held(store):
            if not self.disowns(store, signed):
                view.apply(signed)
        view.expire(self.broker.now_ms)
        return view

    def is_void(self, store: SimStore, signed: SignedEvent) -> bool:
        """Whether nobody who reads a store believes a fact any more, and nobody says it again (J3)."""
        trust = self._trusts.get(store)
        return trust is not None and is_void(signed, trust.disowns)

    def disowns(self, store: SimStore, signed: SignedEvent) -> bool:
        """Whether nobody who reads a store believes an event any more."""
        trust = self._trusts.get(store)
        return trust is not None and trust.disowns(signed)

    def winners(self, store: SimStore) -> list[SignedEvent]:
        """What stands in a store for who comes later."""
        self.held(store)
        stand = (self.world.reader.read(row.sealed) for row in store.rows(0, 1 << 30, winners_only=True))
        return [signed for signed in stand if not self.disowns(store, signed)]

    def digest(self) -> str:
        """A hash over all rows of all stores, in order: what two runs of a seed are compared by."""
        found = blake2b(digest_size=16)
        for store in self.stores:
            rows = [row for row, _ in self.held(store)]
            for row, raw in zip(rows, raws_of(row.sealed for row in rows), strict=True):
                found.update(b"%d %d %s %d\n" % (row.row, row.arrived_ms, row.topic.encode(), len(raw)))
                found.update(raw)
        return found.hexdigest()


def _number(held: tuple[Row, SignedEvent]) -> int:
    return held[0].row
