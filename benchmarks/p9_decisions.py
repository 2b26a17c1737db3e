"""P9: what a decision costs a controller, by the number of nodes and of those that are dead. No peer decides so; CPU time.

The view is folded from facts as a controller's is, and looked at as a runner looks: at what changed, and when that is due.
Signatures are hashes here: what they cost is apart (`make bench ONLY=P6`).
"""

from __future__ import annotations

import gc
import time
from typing import Final

from benchmarks.rows import Row, median, percentile, row
from dsmt.controllers.agenda import Agenda
from dsmt.controllers.decide import decide
from dsmt.event.status import State
from dsmt.view import SlotKey
from tests.controllers.build import Realm, check, web

SIZES: Final = (300, 1000, 3000)
EACH: Final = 5
"""Instances for each node."""
SERVICE: Final = 100
LOOKS: Final = 300


def run() -> list[Row]:
    """A status, by size and by how many nodes are dead; a node's death; a look at everything."""
    rows = []
    gc.disable()
    try:
        for size in SIZES:
            rows += _of(size, dead=0, road="closed")
        for road in ("closed", "silent"):
            rows += _of(1000, dead=300, road=road)
    finally:
        gc.enable()
        gc.collect()
    return rows


class Watched:
    """A realm, and a controller that looks at it."""

    def __init__(self, nodes: int) -> None:
        self.realm = Realm(*(f"n{i}" for i in range(nodes)))
        self.agenda = Agenda()
        for number in range(nodes * EACH // SERVICE):
            self.realm.apply(web(SERVICE, service=f"s{number}"))
        self.realm.settle()
        self.settle()

    def look(self) -> tuple[float, bool]:
        """Decide once: CPU seconds, and whether anything was decided."""
        realm = self.realm
        scope = self.agenda.scope(realm.view, realm.view.take_dirty(), realm.now_ms)
        began = time.process_time()
        decided = decide(
            realm.view, realm.now_ms, may_accuse=True, broker="b1", scope=scope, before=self.agenda.brake, check=check
        )
        took = time.process_time() - began
        self.agenda.note(decided, scope)
        realm.publish(decided.intents)
        return took, bool(decided.intents)

    def settle(self) -> None:
        """Until nothing is decided any more."""
        for _ in range(50):
            if not self.look()[1]:
                return
            self.realm.obey()
            self.realm.after(1)

    def die(self, node: str, road: str) -> float:
        """A node's sessions close and it is judged: CPU seconds of the decision that follows."""
        self.realm.close(node)
        self.realm.verdict(node, road=road)
        return self.look()[0]

    def status(self, number: int) -> float:
        """An instance says its status again: CPU seconds of the decision that follows."""
        services = len(self.realm.view.services)
        key = SlotKey(f"s{number % services}", "app", number % SERVICE)
        slot = self.realm.view.slot(key)
        if slot is not None and slot.fact is not None and slot.fact.record.node is not None:
            self.realm.status(key, slot.fact.record.node, State.RUNNING)
        self.realm.after(0.01)
        return self.look()[0]


def _of(nodes: int, *, dead: int, road: str) -> list[Row]:
    watched = Watched(nodes)
    deaths = []
    for number in range(dead or 10):
        deaths.append(watched.die(f"n{number}", road))
        if number % 10 == 9:
            watched.settle()
    statuses = [watched.status(number) for number in range(LOOKS)]
    size = f"{nodes} nodes, {nodes * EACH} instances, {dead or 10} dead ({road})"
    return [
        _row("P9 status", size, statuses, bar_us=200.0),
        _row("P9 node death", size, deaths, bar_us=1000.0),
    ]


def _row(figure: str, size: str, samples: list[float], *, bar_us: float) -> Row:
    high = percentile(0.99)(samples) * 1e6
    note = f"p50 {median(samples) * 1e6:.0f}, max {max(samples) * 1e6:.0f}, {len(samples)} decisions"
    return row(figure, size, unit="us p99", ours=high, bar=f"<= {bar_us:g} us", holds=high <= bar_us, note=note)
