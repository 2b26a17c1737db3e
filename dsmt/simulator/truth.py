"""Truth: what a realm has signed and acknowledged, held against what the simulated machines know.

Rule 1: what was acknowledged is in the store that acknowledged it; only a disk may lose it.
Rule 2: a program that is said to run, with a pid, was started on that node for that slot; one that runs has a pid.
Rule 3: nothing goes back to a revision that never ran.
Rule 4: a node that was excluded gets nothing more.
Rule 5: a slot that was to be moved has been there, or elsewhere, since it was said (`moves`).
"""

from __future__ import annotations

from typing import Final

from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import Status
from dsmt.event.records import from_data
from dsmt.event.status import State
from dsmt.simulator.fleet import SimFleet
from dsmt.simulator.moves import moved_as_asked

RAN_S: Final = 0.5
"""How long a program of a revision must have run somewhere for it to be said that it worked once."""
HEARD_S: Final = 5.0
"""How long controllers may take to hear of an operator's word."""


def kept(fleet: SimFleet) -> list[str]:
    """Every acknowledged event is in one of the brokers' stores (rule 1)."""
    held = {signed.id for store in fleet.stores for _, signed in fleet.rows(store)}
    lost = [str(one.id) for one in fleet.world.said or () if one.acked is not None and one.id and one.id not in held]
    return [f"D1: {name} was acknowledged, and is in no store" for name in lost]


def true_words(fleet: SimFleet) -> list[str]:
    """Every signed status of a program that runs names one that was started (rule 2)."""
    lives = {(node.name, life.pid): life.slot for node in fleet.nodes.values() for life in node.host.lives}
    wrong = []
    for _, signed in fleet.rows():
        event = signed.event
        if event.type != "dsmt.status" or not event.topic.endswith("/application"):
            continue
        told = from_data(Status, event.data)
        if told.state is not State.RUNNING:
            continue
        if told.pid is None:
            wrong.append(f"truth: {event.subject} is said to run on {told.node}, without a pid ({signed.id})")
        elif lives.get((told.node, told.pid)) != event.subject:
            wrong.append(f"truth: pid {told.pid} on {told.node} was never {event.subject} ({signed.id})")
    return wrong


def never_ready(fleet: SimFleet) -> list[str]:
    """No slot goes back to a revision of which no program ever ran (rule 3)."""
    ran = {
        (life.slot.split("/")[0], life.revision)
        for node in fleet.nodes.values()
        for life in node.host.lives
        if min(life.ended, fleet.world.loop.time()) - life.began >= RAN_S
    }
    specs = {str(s.id): s.event.data["spec"] for _, s in fleet.rows() if s.event.type == "dsmt.service.spec"}
    wrong = []
    for slot, signed, node in fleet.named_in_turn():
        data = signed.event.data
        spec = specs.get(data["spec"])
        if spec is None or (data.get("reason") or {}).get("code") != "rollout.rolled_back":
            continue
        service, component, _ = slot.split("/")
        revision = spec["components"][component]["env"].get("REVISION", "")
        if (service, revision) not in ran:
            wrong.append(f"O2: {slot} went back to revision {revision} on {node}, which never ran ({signed.id})")
    return wrong


def placed_on_excluded(fleet: SimFleet) -> list[str]:
    """No slot comes to a node that was excluded when it did, by the fact that each follows (rule 4)."""
    named: dict[EventId, str | None] = {}
    wrong = []
    start_ms = fleet.world.now_ms - fleet.world.loop.time() * 1000
    for slot, signed, node in fleet.named_in_turn():
        named[signed.id] = node
        before = None if signed.event.replaces is None else named.get(signed.event.replaces)
        since = fleet.will.excluded_s.get(node or "")
        if node == before or since is None or signed.event.data["desired"] == "gone":
            continue
        if signed.event.time_ms - start_ms > (since + HEARD_S + 10) * 1000:
            wrong.append(f"12.2: {slot} came to {node}, which is excluded ({signed.id})")
    return wrong


def all_true(fleet: SimFleet) -> list[str]:
    """All of it."""
    return [*kept(fleet), *true_words(fleet), *never_ready(fleet), *placed_on_excluded(fleet), *moved_as_asked(fleet)]
