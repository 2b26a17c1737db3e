"""Seeded lives of a realm: everything that a decision reads happens to it, in some order."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from typing import Final

from dsmt.controllers.decide import RULESET
from dsmt.controllers.intents import Decided, Intent
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.controller import Decision
from dsmt.event.kinds.realm import BrakeWord, NodesetFact
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.status import Layer, State
from dsmt.view import SlotKey

from .build import Realm, web

COMPONENTS = (
    "",
    "env: {A: b}",
    "update: {max_parallel: 2, healthy_after: 3s}",
    "update: {order: stop_first, deadline: 20s}",
    "nodes: limit(minus(all_nodes, failed), 4)",
    "nodes: good",
    "ports: {http: 8080}",
    "reserve: {memory: 3GiB}\nspread: none",
    "spread: label:rack",
    "lost_after: 8s\nrestart: {escalate: [restart: 3]}",
    "on_partition: pinned",
    "update: {rollback: false}\nhealth: {exec: ./check}",
)


def shown(intents: tuple[Intent, ...] | list[Intent]) -> list[str]:
    """What intents say, as text that can be compared and hashed."""
    return [
        f"{i.topic} v{i.next_version} {json.dumps(i.data, sort_keys=True)} {i.to} {[*map(str, i.cause)]} {i.because}"
        for i in intents
    ]


class Life:
    """One realm's life by seed."""

    def __init__(self, seed: int, *, nodes: int = 7) -> None:
        self.chance = random.Random(seed)
        self.realm = Realm()
        self.names = [f"n{i}" for i in range(nodes)]
        for i, name in enumerate(self.names):
            self.realm.node(name, labels={"rack": f"r{i % 3}"}, cpus=2 + i % 3)
        self.decisions: list[SignedEvent] = []

    def happen(self) -> str:
        """Something happens; what."""
        self.realm.after(self.chance.choice((0, 0.1, 0.5, 2, 5, 12, 40)))
        events = [self.apply, self.obey, self.obey, self.obey, self.die, self.silence, self.come, self.control, self.status,
                  self.steer, self.sets, self.change, self.orphan]  # fmt: skip
        event: Callable[[], None] = self.chance.choice(events)
        event()
        return event.__name__

    def apply(self) -> None:
        service = self.chance.choice(("web", "db", "batch"))
        instances = self.chance.choice((1, 2, 3, 5, "each_node"))
        component = self.chance.choice(COMPONENTS)
        if instances == "each_node":
            component = self.chance.choice(("", "nodes: good", "nodes: limit(minus(all_nodes, failed), 4)"))
        removed = self.chance.random() < 0.15 and service in self.realm.view.services
        self.realm.apply(web(instances, service=service, component=component), removed=removed)

    def obey(self) -> None:
        for key in self.keys():
            if self.chance.random() < 0.8:
                self.realm._obey(key)

    def keys(self) -> list[SlotKey]:
        services = sorted(self.realm.view.services.items())
        return [SlotKey(name, *place) for name, entry in services for place in sorted(entry.slots)]

    def open_nodes(self) -> list[str]:
        return [name for name in self.names if name in self.realm.view.nodes and not self.realm.dead(name)]

    def die(self) -> None:
        for name in self.chance.sample(self.open_nodes(), min(len(self.open_nodes()), self.chance.choice((1, 1, 1, 2, 4)))):
            self.realm.close(name)

    def silence(self) -> None:
        alive = self.open_nodes()
        fallen = self.chance.sample(alive, min(len(alive), self.chance.choice((1, 1, 3))))
        self.realm.silence(*fallen)
        self.realm.after(3)
        for name in fallen:
            for other in alive:
                if other not in fallen:
                    self.realm.probe(name, other, self.chance.choice(("failed", "failed", "passed")))

    def come(self) -> None:
        for name in self.names:
            if name in self.realm.view.nodes and self.realm.dead(name) and self.chance.random() < 0.5:
                self.realm.attach(name)

    def control(self) -> None:
        self.realm.control_node(
            self.chance.choice(self.names), self.chance.choice(("active", "active", "draining", "excluded"))
        )

    def status(self) -> None:
        keys = [key for key in self.keys() if (slot := self.realm.view.slot(key)) and slot.fact and slot.fact.record.node]
        if keys:
            key = self.chance.choice(keys)
            slot = self.realm.view.slot(key)
            assert slot is not None
            assert slot.fact is not None
            node = slot.fact.record.node or ""
            state = self.chance.choice((State.FAILED, State.RUNNING, State.INITIATED))
            self.realm.status(key, node, state, parked=state is State.FAILED and self.chance.random() < 0.6)
            if self.chance.random() < 0.4:
                self.realm.health(key, node, self.chance.choice(("ready", "unready")))

    def steer(self) -> None:
        if not self.keys():
            return
        key = self.chance.choice(self.keys())
        match self.chance.randrange(4):
            case 0:
                self.realm.hold(key)
            case 1:
                self.realm.control(key)
            case 2:
                self.realm.control(key, restart=self.chance.randrange(1, 5))
            case _:
                self.realm.control(key, move=self.chance.choice(self.names))

    def sets(self) -> None:
        expression = self.chance.choice(("all_nodes", "union(n1, n2, n3)", "minus(all_nodes, n4)", "good"))
        self.realm.say("operator/alice", "nodeset/good", NodesetFact(expression=expression, by="alice"))

    def change(self) -> None:
        node = self.chance.choice(self.names)
        if self.chance.random() < 0.3:
            brake = BrakeWord(held=self.chance.random() < 0.5, released_ms=self.realm.now_ms, by="alice", reason="")
            self.realm.say("operator/alice", "config/brake", brake)
        else:
            self.realm.attributes(node, memory_bytes=self.chance.choice((2, 8, 16)) * 2**30, labels={"rack": "r1"})

    def orphan(self) -> None:
        key = SlotKey(self.chance.choice(("web", "old")), "app", self.chance.randrange(3))
        node = self.chance.choice(self.names)
        orphan = self.realm.view.slot(key).empty
        self.realm.status(key, node, State.INSTALLED, layer=Layer.CONTAINER, generation=3, orphan=orphan)

    # --- deciding, as a runner would -----------------------------------------------------------------------------

    def decide(self, decided: Decided, *, controller: str = "c1") -> None:
        """Publish what was decided, and the decision."""
        row, digest = len(self.realm.rows), self.realm.view.digest
        produced = self.realm.publish(decided.intents, controller=controller)
        if produced:
            decision = Decision(
                store="s1",
                row=row,
                view_digest=digest,
                now_ms=self.realm.now_ms,
                ruleset=RULESET,
                broker=self.realm.broker,
                may_accuse=True,
                produced=tuple(str(event.id) for event in produced),
            )
            self.decisions.append(self.realm.say(f"controller/{controller}", f"controller/{controller}/decision", decision))

    def live(self, steps: int) -> Iterator[list[str]]:
        """Let so many things happen, deciding after each; what was decided."""
        for _ in range(steps):
            self.happen()
            decided = self.realm.decide()
            yield shown(decided.intents)
            self.decide(decided)


EACH_NODE: Final = (
    "",
    "nodes: good",
    "data: true",
    "env: {A: c}",
    "ports: {http: 8080}",
    "update: {order: stop_first, deadline: 20s}",
    "nodes: limit(minus(all_nodes, failed), 3)",
    "restart: {escalate: [restart: 3]}\nnodes: minus(all_nodes, failed)",
)
CHECKED: Final = "ports: {http: auto}\nhealth: {http: {port: http}}\n"
KEPT: Final = (
    "data: true",
    "data: true\nnodes: good",
    "data: true\nenv: {A: b}",
    "env: {A: c}\nupdate: {deadline: 20s, healthy_after: 2s}",
    CHECKED + "update: {deadline: 20s, healthy_after: 2s}",
    CHECKED + "update: {rollback: false, deadline: 20s}\nenv: {A: d}",
    "restart: {escalate: [restart: 3]}\nnodes: minus(all_nodes, failed)",
)


class FullLife(Life):
    """A life with more kinds of components, with data, checks and keys, and an operator who says more."""

    def __init__(self, seed: int, *, nodes: int = 7) -> None:
        super().__init__(seed, nodes=nodes)
        self.applied: dict[str, str] = {}

    def happen(self) -> str:
        self.realm.after(self.chance.choice((0, 0.1, 0.5, 2, 5, 12, 40)))
        events = [self.apply, self.obey, self.obey, self.obey, self.obey, self.die, self.silence, self.come, self.control,
                  self.status, self.status, self.steer, self.steer, self.sets, self.change, self.orphan, self.rekey,
                  self.scale, self.scale, self.health, self.endpoint, self.say_good, self.say_good]  # fmt: skip
        event: Callable[[], None] = self.chance.choice(events)
        event()
        return event.__name__

    def apply(self) -> None:
        service, each = self.chance.choice(("web", "db", "batch")), self.chance.random() < 0.4
        removed = self.chance.random() < 0.1 and service in self.realm.view.services
        instances = "each_node" if each else self.chance.choice((0, 1, 2, 3, 5))
        text = web(instances, service=service, component=self.chance.choice(EACH_NODE if each else COMPONENTS + KEPT))
        if self.chance.random() < 0.3:
            text += f"  side:\n    run: ./side\n    instances: {self.chance.choice((1, 2))}\n"
        self.applied[service] = text
        self.realm.apply(text, removed=removed)

    def scale(self) -> None:
        for service, text in sorted(self.applied.items()):
            if self.chance.random() < 0.5 and "each_node" not in text:
                count = self.chance.choice((0, 1, 2, 3, 4))
                self.applied[service] = re.sub(r"instances: \d+", f"instances: {count}", text, count=1)
                self.realm.apply(self.applied[service])

    def rekey(self) -> None:
        self.realm.attributes(self.chance.choice(self.names), key=self.chance.choice(("k1", "k2")))

    def health(self) -> None:
        for key, node in self.placed():
            if self.chance.random() < 0.6:
                since_ms = self.realm.now_ms - self.chance.choice((0, 3000, 20000))
                self.realm.health(key, node, self.chance.choice(("ready", "ready", "unready")), since_ms=since_ms)

    def endpoint(self) -> None:
        for key, node in self.placed():
            generation = self.realm.view.slot(key).fact.version - self.chance.randrange(2)
            self.realm.endpoint(key, node, generation=generation, ready=self.chance.random() < 0.7)

    def say_good(self) -> None:
        """Agents say which revision was good, and how it is: some run, some are parked or have ended well."""
        for key, node in self.placed():
            if self.chance.random() < 0.6:
                continue
            told = self.realm.view.slot(key).fact.record
            state = self.chance.choice((State.RUNNING, State.RUNNING, State.FAILED))
            parked, ended = False, None
            if state is State.FAILED and self.chance.random() < 0.6:
                parked = True
            elif state is State.FAILED:
                how = {"code": 0, "signal": None, "at_ms": self.realm.now_ms, "ran_s": 2.0, "reason": None}
                ended = how | {"restart": told.restart}
            about = {"good": self.chance.choice(told.revisions), "revision": told.revision, "parked": parked}
            self.realm.status(key, node, state, last_exit=ended, **about)

    def placed(self) -> list[tuple[SlotKey, str]]:
        slots = ((key, self.realm.view.slot(key)) for key in self.keys())
        return [(key, slot.fact.record.node) for key, slot in slots if slot and slot.fact and slot.fact.record.node]

    def steer(self) -> None:
        if not self.keys():
            return
        key = self.chance.choice(self.keys())
        slot = self.realm.view.slot(key)
        before = SlotControl() if slot is None or slot.control is None else slot.control.record
        match self.chance.randrange(6):
            case 0:
                self.realm.hold(key)
            case 1:
                self.realm.control(key)
            case 2:
                self.realm.control(key, restart=before.restart + 1)
            case 3:
                self.realm.control(key, move=self.chance.choice(self.names))
            case 4:
                self.realm.control(key, move="", accept_data_loss=self.chance.random() < 0.5)
            case _:
                self.realm.control(key, move=self.chance.choice(self.names), accept_data_loss=True)


def fingerprint(seeds: range, steps: int = 60) -> str:
    """A hash of all that is decided in some lives."""
    digest = hashlib.sha256()
    for seed in seeds:
        for said in Life(seed).live(steps):
            digest.update(json.dumps(said).encode())
    crowd = Realm("n1", "n2")
    crowd.apply(web(1_000))
    for _ in range(3):
        digest.update(json.dumps(shown(crowd.step())).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.stdout.write(fingerprint(range(6)))
