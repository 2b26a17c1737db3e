"""Truth: what a realm has signed and acknowledged, held against what the simulated machines know.

Rule 1: what was acknowledged is in the store that acknowledged it; only a disk may lose it.
Rule 2: a program that is said to run, with a pid, was started on that node for that slot; one that runs has a pid.
Rule 3: nothing goes back to a revision that never ran.
Rule 4: a node that was excluded gets nothing more.
Rule 5: a slot that was to be moved has been there, or elsewhere, since it was said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.instance import Status
from dsmt.event.order import newer
from dsmt.event.records import from_data
from dsmt.event.status import State
from dsmt.simulator.fleet import Fleet

RAN_S: Final = 0.5
"""How long a program of a revision must have run somewhere for it to be said that it worked once."""
HEARD_S: Final = 5.0
"""How long controllers may take to hear of an operator's word."""


def kept(fleet: Fleet) -> list[str]:
    """Every acknowledged event is in one of the brokers' stores (rule 1)."""
    held = {signed.id for store in fleet.stores for _, signed in fleet.rows(store)}
    lost = [str(one.id) for one in fleet.world.said or () if one.acked is not None and one.id and one.id not in held]
    return [f"D1: {name} was acknowledged, and is in no store" for name in lost]


def true_words(fleet: Fleet) -> list[str]:
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


def never_ready(fleet: Fleet) -> list[str]:
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


def placed_on_excluded(fleet: Fleet) -> list[str]:
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


def moved_as_asked(fleet: Fleet) -> list[str]:
    """Every slot that is to exist has been where an operator wanted it moved, if that takes it now, and once (rule 5)."""
    kept_now = {signed.id for _, signed in fleet.rows()}
    asked: dict[str, tuple[SignedEvent, str, str]] = {}
    numbers: dict[tuple[str, int | None], int] = {}
    words: set[EventId] = set()
    last: dict[str, str | None] = {}
    moved: Counter[tuple[str, EventId]] = Counter()
    done: set[tuple[str, int]] = set()
    """By slot, the numbers of moves that were made: what comes from the other side of a partition comes in any order."""
    facts = list(fleet.in_turn("dsmt.slot.control", "dsmt.slot", "dsmt.tombstone"))
    nodes = {signed.id: _node_of(signed) for signed in facts if signed.event.type == "dsmt.slot"}
    for signed in not_lost(facts):
        event, data = signed.event, signed.event.data
        if event.type == "dsmt.tombstone":
            service, ended = event.topic.rpartition("/")[2], event.epoch or 0
            over = [slot for slot in asked if slot.split("/")[0] == service and (asked[slot][0].event.epoch or 0) <= ended]
            asked = {slot: one for slot, one in asked.items() if slot not in over}
            continue
        _, service, _, component, index = event.topic.split("/")
        slot = f"{service}/{component}/{index}"
        if event.type == "dsmt.slot":
            node, before = nodes[signed.id], last.get(slot)
            if event.replaces in nodes:
                before = nodes[event.replaces]
            if slot in asked and node is not None:
                _, to, leaves = asked[slot]
                if node == to or (not to and node != (leaves or before)):
                    del asked[slot]
            if None not in (node, before) and node != before:
                moved.update((slot, cause) for cause in event.cause if cause in words)
                done.add((slot, data.get("move_number", 0)))
            last[slot] = node
            continue
        if data["move"] is not None and data["move_number"] > numbers.get((slot, event.epoch), 0):
            words.add(signed.id)  # another word, such as that it be restarted, may come with a move for a node that died
            numbers[slot, event.epoch] = data["move_number"]
            if signed.id in kept_now and (slot, data["move_number"]) not in done:
                asked[slot] = (signed, data["move"], data.get("leave", ""))
    known = frozenset(fleet.wanted())
    return [
        f"12.2: {slot} was to be moved to {to or 'another node'}, and never was ({signed.id})"
        for slot, (signed, to, _) in asked.items()
        if slot in known and (not to or fleet.will.mode(to) == "active")
    ] + [f"12.2: {slot} was moved {count} times for one word ({word})" for (slot, word), count in moved.items() if count > 1]


def _node_of(fact: SignedEvent) -> str | None:
    """Where a slot is to be, by a fact of it."""
    node: str | None = fact.event.data["node"]
    return node if fact.event.data["desired"] != "gone" else None


def not_lost(facts: Sequence[SignedEvent]) -> Iterator[SignedEvent]:
    """Those that come from the other side of a partition, and lose or are hidden here, are left out (E2)."""
    lost, ended = overruled(facts), dict[str, int]()
    for signed in facts:
        event = signed.event
        if event.type == "dsmt.tombstone":
            service = event.topic.rpartition("/")[2]
            ended[service] = max(event.epoch or 0, ended.get(service, 0))
            yield signed
        elif signed.id not in lost and (event.epoch or 0) > ended.get(event.topic.split("/")[1], -1):
            yield signed


def overruled(facts: Sequence[SignedEvent]) -> set[EventId]:
    """The shared facts in whose place another one of their version stands, and those that follow it (E2)."""
    by_id = {signed.id: signed for signed in facts}
    ends: dict[tuple[str, int | None], SignedEvent] = {}
    for signed in facts:
        place = signed.event.topic, signed.event.epoch
        if place not in ends or newer(signed.event, ends[place].event):
            ends[place] = signed
    stands: dict[tuple[str, int | None, int | None], EventId] = {}
    for end in ends.values():
        one: SignedEvent | None = end
        while one is not None:
            stands[one.event.topic, one.event.epoch, one.event.version] = one.id
            one = None if one.event.replaces is None else by_id.get(one.event.replaces)
    place_of = ((one.id, (one.event.topic, one.event.epoch, one.event.version)) for one in facts)
    return {identity for identity, place in place_of if stands.get(place, identity) != identity}


def all_true(fleet: Fleet) -> list[str]:
    """All of it."""
    return [*kept(fleet), *true_words(fleet), *never_ready(fleet), *placed_on_excluded(fleet), *moved_as_asked(fleet)]
