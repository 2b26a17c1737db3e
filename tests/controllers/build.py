"""A realm in a test's hands: signed facts made quickly, folded into a view, decided on, and obeyed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dsmt.controllers.decide import decide
from dsmt.controllers.intents import Decided, Intent
from dsmt.controllers.loop.agenda import Agenda
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.instance import Endpoint, Health, Status
from dsmt.event.kinds.node import DriverAttributes, NodeAttributes, NodeControl, NodeVerdict, Probe
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, Slot, SlotControl
from dsmt.event.registry import lookup
from dsmt.event.status import Layer, State
from dsmt.operations.read.rows.revisions import following
from dsmt.spec.plain import to_plain
from dsmt.trust.probing import Answered, answer, request
from dsmt.view import SlotKey, View

from .files import read
from .signing import START_MS, HashSigner, check, signed


def spec(text: str) -> dict[str, Any]:
    """A service file as the `spec` of its fact."""
    return to_plain(read(text))


def web(instances: int | str = 3, *, service: str = "web", component: str = "", head: str = "") -> str:
    """A small service file; `component` is put below its component `app`, `head` at the top."""
    below = "".join(f"    {line}\n" for line in component.splitlines())
    return f"service: {service}\n{head}components:\n  app:\n    run: ./app\n    instances: {instances}\n{below}"


class Realm:
    """A realm of one or more brokers, controller `c1`, operator `alice`, and nodes; `rows` is the store of a broker."""

    def __init__(self, *nodes: str, brokers: tuple[str, ...] = ("b1",)) -> None:
        self.view = View()
        self.now_ms = START_MS
        self.rows: list[tuple[int, SignedEvent]] = []
        self.broker = brokers[0]
        self._sequences: dict[str, int] = {}
        self._attachments: dict[str, int] = {}
        for node in nodes:
            self.node(node)

    # --- saying --------------------------------------------------------------------------------------------------

    def say(self, source: str, topic: str, record: msgspec.Struct | dict[str, Any], **about: Any) -> SignedEvent:
        """Publish a fact; shared ones follow the winner."""
        match = lookup(topic)
        assert match is not None
        if match.row.shared:
            about.setdefault("epoch", self.view.epoch(topic))
        if match.row.shared and "version" not in about:
            winner = self.view.winner(topic)
            about["version"] = 1 if winner is None else (winner.event.version or 0) + 1
            about["replaces"] = None if winner is None else winner.id
        self._sequences[source] = sequence = self._sequences.get(source, 0) + 1
        about.setdefault("time_ms", self.now_ms)
        about.setdefault("ttl", match.row.ttl_ms)
        event = signed(source, topic, record, sequence=sequence, counter=sequence % 65536, **about)
        self.rows.append((len(self.rows) + 1, event))
        self.view.apply(event)
        return event

    def after(self, seconds: float) -> Realm:
        """Time passes."""
        self.now_ms += round(seconds * 1000)
        self.view.expire(self.now_ms)
        return self

    # --- nodes ---------------------------------------------------------------------------------------------------

    def node(self, name: str, *, attach: bool = True, broker: str | None = None, **attributes: Any) -> None:
        """A node with its manager and monitor attached."""
        self.attributes(name, **attributes)
        if attach:
            self.attach(name, broker=broker)

    def attributes(self, name: str, **attributes: Any) -> SignedEvent:
        known: dict[str, Any] = {
            "cpus": 4,
            "memory_bytes": 8 * 2**30,
            "memory_free_bytes": 6 * 2**30,
            "disk_bytes": 100 * 2**30,
            "disk_free_bytes": 50 * 2**30,
            "load": 0.5,
            "address": "192.0.2.1",
            "version": "0.1",
            "boot_id": "b",
            "drivers": {"process": DriverAttributes(fence="none", enforces=("memory",))},
        }
        return self.say(f"monitor/{name}", f"node/{name}/attributes", NodeAttributes(**(known | attributes)))

    def controller(self, name: str, *, ruleset: int = 6) -> None:
        """A controller attaches, and says how it is."""
        self.session(f"controller/{name}", "open")
        state = ControllerState(version="0.1", ruleset=ruleset, pid=5, decisions=1)
        self.say(f"controller/{name}", f"controller/{name}/state", state)

    def attach(self, name: str, *, broker: str | None = None, sources: Iterable[str] = (), number: int = 0) -> None:
        """All of a node's sources attach, anew if they were; with the next number, or with this one if it is greater."""
        for source in sources or (f"node/{name}", f"monitor/{name}"):
            self._attachments[source] = max(self._attachments.get(source, 0) + 1, number)
            self.session(source, "open", broker=broker)

    def session(
        self,
        source: str,
        state: str,
        *,
        how: str | None = None,
        broker: str | None = None,
        attachment: int | None = None,
        since_ms: int | None = None,
        incarnation: int = START_MS,
        pid: int = 1,
        **more: Any,
    ) -> SignedEvent:
        """A broker's word on a source's newest attachment."""
        at = broker or self.broker
        if attachment is not None:
            self._attachments[source] = attachment
        record = SessionFact(
            attachment=self._attachments.setdefault(source, 1),
            state=state,  # type: ignore[arg-type]
            how=how,  # type: ignore[arg-type]
            since_ms=self.now_ms if since_ms is None else since_ms,
            incarnation=incarnation,
            pid=pid,
            version="0.1",
            address="192.0.2.1",
            **more,
        )
        return self.say(f"broker/{at}", f"broker/{at}/session/{source}", record)

    def close(self, *names: str, how: str = "peer", broker: str | None = None) -> None:
        """All sessions of nodes end."""
        for name in names:
            for source in sorted(self.view.nodes[name].sources):
                self.session(source, "closed", how=how, broker=broker)

    def silence(self, *names: str, broker: str | None = None) -> None:
        """Nodes fall silent now: their broker says so 3 s later, with the time of the last word."""
        for name in names:
            for source in sorted(self.view.nodes[name].sources):
                self.session(source, "silent", broker=broker, since_ms=self.now_ms)

    def probe(self, node: str, observer: str, result: str, **about: Any) -> SignedEvent:
        """A probe; one that passed carries the node's own answer of now, unless `about` says otherwise."""
        nonce = b"n" * 16
        if result == "passed":
            told = answer(request(nonce), HashSigner(), HashSigner.public, node, Answered(1, self.now_ms))
            about = {"nonce": nonce, "answer": told} | about
        record = Probe(result=result, reason="", round_trip_s=None, **about)  # type: ignore[arg-type]
        return self.say(f"monitor/{observer}", f"node/{node}/probe/{observer}", record)

    def verdict(self, node: str, *, road: str = "closed", since_ms: int | None = None, state: str = "dead") -> SignedEvent:
        """A verdict, without any road having been walked."""
        sources = self.view.nodes[node].sources
        record = NodeVerdict(
            state=state,  # type: ignore[arg-type]
            road=road,  # type: ignore[arg-type]
            attachments={source: sources[source].attachment for source in sources},
            evidence=(),
            message="as a test says",
            since_ms=self.now_ms if since_ms is None else since_ms,
        )
        return self.say("controller/c2", f"node/{node}/verdict", record)

    def control_node(self, node: str, mode: str) -> SignedEvent:
        record = NodeControl(mode=mode, by="alice", reason="kernel 6.8")  # type: ignore[arg-type]
        return self.say("operator/alice", f"node/{node}/control", record)

    # --- services ------------------------------------------------------------------------------------------------

    def apply(self, text: str, *, removed: bool = False) -> SignedEvent:
        """An operator applies a service file."""
        fact = SpecFact(spec=(plain := spec(text)), by="alice", reason="a test", removed=removed)
        record = following(self.view.services.get(plain["service"]), fact)
        return self.say("operator/alice", f"service/{plain['service']}/spec", record)

    def control(self, key: SlotKey, **will: Any) -> SignedEvent:
        """An operator's will for one slot; a move has the next number."""
        held = None if (entry := self.view.slot(key)) is None else entry.control
        will.setdefault("move_number", (0 if held is None else held.record.move_number) + ("move" in will))
        record = SlotControl(by="alice", reason="a test", **will)
        return self.say("operator/alice", f"service/{key.service}/control/{key.component}/{key.index}", record)

    def hold(self, key: SlotKey) -> SignedEvent:
        return self.control(key, hold=Hold(by="alice", at_ms=self.now_ms, reason="a test"))

    def status(
        self,
        key: SlotKey,
        node: str,
        state: State = State.RUNNING,
        *,
        generation: int | None = None,
        layer: Layer = Layer.APPLICATION,
        alone: bool = False,
        **about: Any,
    ) -> SignedEvent:
        """One layer's word on a slot's instance on a node; its node says what is there, too, unless it is `alone`."""
        entry = self.view.slot(key)
        is_there = entry is not None and node in entry.holders
        if layer is Layer.APPLICATION and not alone and is_there is (state is State.GONE):
            below = State.GONE if state is State.GONE else State.INSTALLED
            self.status(key, node, below, layer=Layer.CONTAINER, generation=generation)
        held = 0 if entry is None or entry.fact is None else entry.fact.version
        record = Status(
            state=state,
            layer=layer,
            node=node,
            generation=held if generation is None else generation,
            attempt=about.pop("attempt", 1),
            since_ms=about.pop("since_ms", self.now_ms),
            emit_rate_s=30.0,
            **about,
        )
        source = f"node/{node}" if layer is not Layer.APPLICATION else agent(key, node)
        topic = f"service/{key.service}/status/{key.component}/{key.index}/{node}/{layer}"
        return self.say(source, topic, record)

    def health(self, key: SlotKey, node: str, health: str, **about: Any) -> SignedEvent:
        entry = self.view.slot(key)
        assert entry is not None
        assert entry.fact is not None
        told = {"health": health, "generation": entry.fact.version, "check": "http", "evidence": "", "failures": 0}
        record = Health(**{**told, "since_ms": self.now_ms, **about})  # type: ignore[arg-type]
        topic = f"service/{key.service}/health/{key.component}/{key.index}/{node}"
        return self.say(agent(key, node), topic, record)

    def endpoint(self, key: SlotKey, node: str, *, generation: int, ready: bool = True) -> SignedEvent:
        """Where a copy of a generation is reached."""
        record = Endpoint(address="192.0.2.1", ports={"http": 8080}, generation=generation, ready=ready)
        topic = f"service/{key.service}/endpoint/{key.component}/{key.index}/{node}"
        return self.say(agent(key, node), topic, record)

    def obey(self) -> None:
        """All nodes that are not dead do what the slot facts say, at once."""
        for service, entry in sorted(self.view.services.items()):
            for place in sorted(entry.slots):
                self._obey(SlotKey(service, *place))

    def _obey(self, key: SlotKey) -> None:
        slot = self.view.slot(key)
        if slot is None or slot.fact is None:
            return
        fact = slot.fact.record
        node = fact.node if fact.desired != "gone" else None
        for other in slot.holders:
            if other != node and not self.dead(other):
                self.status(key, other, State.GONE)
        if node is None or self.dead(node):
            return
        wanted = State.RUNNING if fact.desired == "running" else State.STOPPED
        there = slot.instances.get(node)
        told = None if there is None or there.application is None else there.application.record
        if told is None or told.state != wanted or told.generation != slot.fact.version:
            self._begin(key, node, fact.spec)
            self.status(key, node, wanted)

    def _begin(self, key: SlotKey, node: str, spec_id: str) -> None:
        """What is checked is unready until the first check: its agent says so."""
        component = self.view.services[key.service].component_of(key.component, spec_id)
        slot = self.view.slot(key)
        known = None if slot is None or node not in slot.instances else slot.instances[node].health
        if component is None or component.health is None or slot is None or slot.fact is None:
            return
        if known is None or known.record.generation < slot.fact.version:
            self.health(key, node, "unready")

    def dead(self, node: str) -> bool:
        sources = self.view.nodes[node].sources.values()
        return all(s.newest is not None and s.newest[1].record.state != "open" for s in sources)

    # --- deciding ------------------------------------------------------------------------------------------------

    def decide(self, *, may_accuse: bool = True, **about: Any) -> Decided:
        self.view.expire(self.now_ms)
        return decide(self.view, self.now_ms, may_accuse=may_accuse, broker=self.broker, **({"check": check} | about))

    def publish(self, intents: Iterable[Intent], *, controller: str = "c1") -> list[SignedEvent]:
        """A controller publishes what was decided."""
        return [
            self.say(
                f"controller/{controller}",
                intent.topic,
                intent.data,
                version=intent.next_version,
                epoch=intent.epoch or self.view.epoch(intent.topic),
                replaces=None if intent.replaces is None else intent.replaces.id,
                cause=intent.cause,
                to=intent.to,
                ttl=intent.ttl_ms,
            )
            for intent in intents
        ]

    def step(self, *, may_accuse: bool = True) -> list[Intent]:
        """Decide once and publish that; what was said."""
        intents = list(self.decide(may_accuse=may_accuse).intents)
        self.publish(intents)
        return intents

    def settle(self, *, seconds: float = 0.0, obey: bool = True, most: int = 200) -> list[Intent]:
        """Decide, publish and obey until nothing is decided any more; with `seconds`, time passes at each step.

        What is due only in an hour or later is not waited for.
        """
        said: list[Intent] = []
        for _ in range(most):
            new = self.step()
            said += new
            if not new and (not seconds or (self.decide().wake_ms or self.now_ms + 3_600_000) >= self.now_ms + 3_600_000):
                return said
            if obey:
                self.obey()
            self.after(seconds)
        raise AssertionError(f"no rest after {most} steps; last: {[i.because for i in new]}")

    # --- looking -------------------------------------------------------------------------------------------------

    def slot(self, index: int = 0, *, service: str = "web", component: str = "app") -> Slot:
        entry = self.view.slot(SlotKey(service, component, index))
        assert entry is not None and entry.fact is not None  # noqa: PT018
        return entry.fact.record

    def generation(self, index: int = 0) -> int:
        entry = self.view.slot(key(index))
        assert entry is not None and entry.fact is not None  # noqa: PT018
        return entry.fact.version

    def nodes_of(self, service: str = "web") -> list[str | None]:
        """The nodes of a service's slots that are not gone, in order."""
        slots = sorted(self.view.services[service].slots.items())
        facts = [slot.fact.record for _, slot in slots if slot.fact is not None]
        return [fact.node for fact in facts if fact.desired != "gone"]


class Attentive:
    """A controller that looks at what changed, and when something is due, as a runner does; and at nothing else."""

    def __init__(self, realm: Realm) -> None:
        self.realm, self.agenda = realm, Agenda(again_ms=None)

    def look(self) -> list[Intent]:
        """Decide until nothing is decided any more; what was said."""
        realm, said = self.realm, []
        for _ in range(50):
            realm.view.expire(realm.now_ms)
            dirty = realm.view.take_dirty()
            if not dirty and not self.agenda.due(realm.now_ms):
                break
            look = self.agenda.look(realm.view, dirty, realm.now_ms)
            decided = realm.decide(look=look)
            self.agenda.note(decided)
            realm.publish(decided.intents)
            said += decided.intents
        return said

    def watch(self, seconds: float, *, step: float = 1.0, obey: bool = True) -> list[Intent]:
        """Look on while time passes; what was said."""
        said = []
        for _ in range(round(seconds / step)):
            said += self.look()
            if obey:
                self.realm.obey()
            self.realm.after(step)
        return said + self.look()

    def overlooked(self) -> list[str]:
        """What a look at everything decides now; nothing, as this one has just looked."""
        return [intent.because for intent in self.realm.decide().intents]


def key(index: int = 0, *, service: str = "web", component: str = "app") -> SlotKey:
    return SlotKey(service, component, index)


def agent(key: SlotKey, node: str) -> str:
    """The source of an instance's deployment agent."""
    return f"agent/{node}/{key.service}/{key.component}/{key.index}"
