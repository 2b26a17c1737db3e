"""P9: what a decision costs a controller, by the number of nodes and of those that are dead. No peer decides so; CPU time.

The view is folded from facts as a controller's is, and looked at as a runner looks: at what changed, and when that is due.
Signatures are hashes here: what they cost is apart (`make bench ONLY=P6`).
"""

from __future__ import annotations

import gc
import time
from typing import Final

from benchmarks.rows import Row, median, percentile, row
from benchmarks.sizes import sized
from dsmt.controllers.decide import decide
from dsmt.controllers.loop.agenda import Agenda
from dsmt.event.codec import decode
from dsmt.event.status import State
from dsmt.system.garbage import collect_seldom
from dsmt.view import SlotKey, View
from tests.controllers.build import Realm, web
from tests.controllers.signing import check

SIZES: Final = sized((300, 1000, 3000), (40,))
EACH: Final = 5
"""Instances for each node."""
SERVICE: Final = sized(100, 20)
LOOKS: Final = sized(300, 5)
DEAD: Final = sized((1000, 300), (40, 12))
"""Nodes, and how many of them are dead."""
COLD: Final = sized(10_000, 40)
"""Nodes of the realm that a controller reads from nothing."""
ROLLING: Final = sized(5_000, 100)
"""Instances of the service that gets a new revision."""


def run() -> list[Row]:
    """A status, by size and by how many nodes are dead; a node's death; a new revision; and all from nothing."""
    rows = []
    gc.disable()
    try:
        for size in SIZES:
            rows += _of(size, 0, road="closed")
        for road in ("closed", "silent"):
            rows += _of(*DEAD, road=road)
        rows += [_rolling(), _cold_start()]
    finally:
        gc.enable()
        gc.collect()
    return rows


class Watched:
    """A realm, and a controller that looks at it."""

    def __init__(self, nodes: int, *, service: int = SERVICE) -> None:
        self.realm = Realm(*(f"n{i}" for i in range(nodes)))
        self.agenda = Agenda()
        for number in range(nodes * EACH // service):
            self.realm.apply(web(service, service=f"s{number}"))
        self.realm.settle()
        self.settle()

    def look(self) -> tuple[float, bool]:
        """Decide once: CPU seconds, and whether anything was decided."""
        realm = self.realm
        look = self.agenda.look(realm.view, realm.view.take_dirty(), realm.now_ms)
        began = time.process_time()
        decided = decide(realm.view, realm.now_ms, may_accuse=True, broker="b1", look=look, check=check)
        took = time.process_time() - began
        self.agenda.note(decided)
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


def _of(nodes: int, dead: int, *, road: str) -> list[Row]:
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


def _rolling() -> Row:
    """A service gets a new revision: what a decision costs each time that one of its instances obeys, or time passes."""
    watched = Watched(ROLLING // EACH, service=ROLLING)
    realm = watched.realm
    realm.after(60)
    watched.settle()
    realm.apply(web(ROLLING, service="s0", component="env: {NEW: revision}"))
    watched.look()
    samples: list[float] = []
    while len(samples) < LOOKS:
        took, _ = watched.look()
        samples.append(took)
        before = len(realm.view)
        realm.obey()
        realm.after(0.5 if len(realm.view) == before else 0.05)
    return _row("P9 rolling", f"{ROLLING // EACH} nodes, one service of {ROLLING} instances", samples, bar_us=500.0)


def _cold_start() -> Row:
    """A controller reads a realm from nothing: decoding, folding and the first decision, as its process collects garbage."""
    realm = Watched(COLD).realm
    raws, now_ms = [signed.raw for signed in realm.view.winners()], realm.now_ms
    del realm
    limits = gc.get_threshold()
    collect_seldom()
    gc.enable()
    try:
        began = time.process_time()
        view = View()
        for raw in raws:
            view.apply(decode(raw))
        folded = time.process_time()
        decide(view, now_ms, may_accuse=True, broker="b1", check=check)
        took = time.process_time() - began
    finally:
        gc.disable()
        gc.set_threshold(*limits)
        gc.unfreeze()
    size = f"{COLD} nodes, {COLD * EACH} instances"
    note = f"{len(raws)} facts; decoding and folding {folded - began:.2f}"
    return row("P9 cold start", size, unit="CPU s", ours=took, bar="<= 3 s", holds=took <= 3.0, note=note)


def _row(figure: str, size: str, samples: list[float], *, bar_us: float) -> Row:
    high = percentile(0.99)(samples) * 1e6
    note = f"p50 {median(samples) * 1e6:.0f}, max {max(samples) * 1e6:.0f}, {len(samples)} decisions"
    return row(figure, size, unit="us p99", ours=high, bar=f"<= {bar_us:g} us", holds=high <= bar_us, note=note)
