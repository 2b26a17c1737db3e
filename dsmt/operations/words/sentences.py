"""Sentences: an event in the words that an operator reads; subject and predicate. Pure.

Rule 1: `subject(event)` and `predicate(event)` together are one sentence: `web/app/2` `is ready on m2`.
Rule 2: what cannot be read, and topics of services' and operators' own, are shown as they are.
Rule 3: `needs_a_person` says whether somebody may have to act; `severity` how bad it is.
Rule 4: a sentence is short, active and in the present tense; what only programs need (attachment and incarnation
    numbers) is left to JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event import records as r
from dsmt.event.envelope import Event
from dsmt.event.reason import Reason
from dsmt.event.registry import lookup
from dsmt.event.status import Layer, State
from dsmt.operations.words.event_objects import plain
from dsmt.spec.quantities import size_in_words

_LONGEST: Final = 100
_WITH_REASONS: Final = frozenset({"dsmt.status", "dsmt.slot", "dsmt.health"})
_ALARMS: Final = frozenset({"gap", "equivocation", "dropped"})

Severity = Literal["bad", "warning", "good", ""]


def subject(event: Event) -> str:
    """What an event is about, as targets are written: `web/app/2`, `node/m3`, `web`."""
    levels = event.topic.split("/")
    if levels[0] == "node" and len(levels) > 3 and levels[2] == "agent":
        return "/".join(levels[3:6])
    if levels[0] == "service" and len(levels) >= 5 and levels[2] != "barrier":
        return "/".join((levels[1], levels[3], levels[4]))
    if levels[0] == "service":
        return levels[1]
    if event.type == "dsmt.session":
        return "/".join(levels[3:])
    if levels[0] == "source":
        return "/".join(levels[1:])
    if event.type == "dsmt.trust.revoked" and isinstance(event.data.get("name"), str) and event.data["name"]:
        return str(event.data["name"])
    if levels[0] in ("node", "broker", "controller", "nodeset", "config"):
        return "/".join(levels[:2])
    return "/".join(levels[1:]) if levels[0] == "tombstone" else event.topic


def predicate(event: Event) -> str:
    """What an event says of its subject, in one line."""
    match = lookup(event.topic)
    say = _SAYINGS.get(event.type)
    if match is None or match.row.record is None or say is None:
        return _raw(event.data)
    try:
        record = r.from_data(match.row.record, event.data)
    except UnusableEventError:
        return f"cannot be read: {_raw(event.data)}"
    return say(event, record)


def sentence(event: Event) -> str:
    """One sentence."""
    return f"{subject(event)} {predicate(event)}"


def speaker(source: str) -> str:
    """Who said it, in short: `agent m2`, `c1`, `broker/b1`, `alice`."""
    role, _, rest = source.partition("/")
    if role == "agent":
        return f"agent {rest.split('/')[0]}"
    if role == "operator":
        return person(rest)
    return rest if role in ("controller", "node") else source


def person(name: str) -> str:
    """An operator's name, without the part that tells apart what runs in several terminals."""
    return name.removeprefix("operator/").split(".", 1)[0]


def needs_a_person(event: Event) -> bool:
    """Whether somebody may have to act on it."""
    if event.type == "dsmt.node.verdict":
        return event.data.get("state") == "dead"
    if event.type == "dsmt.keeper":
        return True
    if event.type == "dsmt.notice":
        return event.data.get("kind") in _ALARMS
    reason = event.data.get("reason") if event.type in _WITH_REASONS else None
    return isinstance(reason, dict) and reason.get("who") == "you"


def severity(event: Event) -> Severity:
    """How bad it is: `bad` may need a person, `warning` mends itself, `good` is what was wanted."""
    if needs_a_person(event):
        return "bad"
    if event.type == "dsmt.session":
        return "warning" if event.data.get("state") == "silent" else ""
    if event.type in _WITH_REASONS and (event.data.get("reason") is not None or event.data.get("state") == "failed"):
        return "warning"
    return "good" if event.type == "dsmt.health" and event.data.get("health") != "unready" else ""


def _raw(data: dict[str, Any]) -> str:
    text = msgspec.json.encode(plain(data)).decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def quoted(reason: str | None) -> str:
    """What somebody gave as a reason, as it stands behind what he did; nothing for none."""
    return f': "{reason}"' if reason else ""


def _why(reason: Reason | None) -> str:
    return "" if reason is None else f": {reason.message}"


def _status(event: Event, said: r.Status) -> str:
    where = f"on {said.node}"
    what = {Layer.CONTAINER: "container", Layer.AGENT: "agent"}.get(said.layer)
    if what is not None:
        text = f"{what} {where} is {said.state}"
        return text + (f", pid {said.pid}" if said.pid else "") + _why(said.reason) + _orphan(said)
    pid = f", pid {said.pid}" if said.pid else ""
    match said.state:
        case State.REQUESTED:
            text = f"begins {where}, generation {said.generation}"
        case State.INITIATED:
            text = f"installs {where}"
        case State.INSTANTIATED:
            text = f"starts {where}{pid}"
        case State.RUNNING:
            text = f"runs {where}{pid}"
        case State.FAILED:
            text = f"failed {where}{_why(said.reason)}{_next_try(event, said)}"
        case State.TERMINATED:
            text = f"stops {where}"
        case State.STOPPED:
            text = f"is stopped {where}{_why(said.reason)}"
        case _:
            text = f"is {said.state} {'from' if said.state is State.GONE else 'on'} {said.node}"
    return text + _orphan(said)


def _orphan(said: r.Status) -> str:
    return ", with no slot fact" if said.orphan else ""


def _next_try(event: Event, said: r.Status) -> str:
    if said.parked:
        return "; parked"
    if said.next_try_ms is None:
        return ""
    wait = max(0.0, (said.next_try_ms - event.time_ms) / 1000)
    return "; dsmt tries again at once" if wait < 0.05 else f"; next try in {wait:.3g} s"


def _slot(event: Event, slot: r.Slot) -> str:
    generation = f"generation {event.version}"
    if slot.desired == "gone":
        return f"is to end, {generation}"
    if slot.node is None:
        return f"has no node{_why(slot.reason)}"
    if slot.desired == "stopped":
        return f"is to stop on {slot.node}, {generation}{_why(slot.reason)}"
    before = f"; {slot.previous.node} keeps its copy until then" if slot.previous is not None else ""
    return f"is to run on {slot.node}, {generation}, r{slot.revision}{before}{_why(slot.reason)}"


def _control(_: Event, will: r.SlotControl) -> str:
    moves = "" if will.move is None else f"is to move{f' to {will.move}' if will.move else ''}, "
    if will.hold is not None:
        return f"{moves}is held stopped by {person(will.hold.by)}{quoted(will.hold.reason)}"
    restart = f"restart {will.restart}, " if will.restart else ""
    return f"{moves or 'is to run, '}{restart}says {person(will.by) or 'nobody'}{quoted(will.reason)}"


_CLOSED: Final = {"peer": "the peer closed it", "timeout": "it timed out"}


def _session(event: Event, said: r.Session) -> str:
    broker = event.topic.split("/")[1]
    if said.state == "open":
        return f"is connected to {broker}"
    if said.state == "silent":
        return f"is silent at {broker}"
    return f"is disconnected from {broker} ({_CLOSED.get(said.how or '', f'{broker} closed it')})"


def _spec(event: Event, fact: r.SpecFact) -> str:
    verb = "is removed" if fact.removed else f"is r{event.version}, applied"
    return f"{verb} by {person(fact.by)}{quoted(fact.reason)}"


def _health(_: Event, said: r.Health) -> str:
    word = {"ready": "is ready", "unready": "is not ready", "none": "is up"}[said.health]
    return f"{word}: {said.evidence or said.check if said.reason is None else said.reason.message}"


def _endpoint(event: Event, said: r.Endpoint) -> str:
    node = event.topic.rsplit("/", 1)[1]
    if not said.ready:
        return f"is no longer served on {node}"
    ports = " ".join(f"{name}:{port}" for name, port in said.ports.items())
    return f"is served on {node} at {said.address} {ports}".rstrip()


def _node_control(_: Event, will: r.NodeControl) -> str:
    verb = {"active": "is in use", "draining": "drains", "excluded": "is excluded"}[will.mode]
    return f"{verb}, says {person(will.by)}{quoted(will.reason)}"


def _attributes(_: Event, told: r.NodeAttributes) -> str:
    free = f"{size_in_words(told.memory_free_bytes)} of {size_in_words(told.memory_bytes)} memory free"
    return f"has {told.cpus} cores, {free}, load {told.load:.1f}"


def _command(_: Event, told: r.Command) -> str:
    their = told.arguments.get("reason")
    return f"gets {told.verb} from {speaker(told.asker)}{quoted(their if isinstance(their, str) else '')}"


def _probe(event: Event, said: r.Probe) -> str:
    observer = event.topic.rsplit("/", 1)[1]
    if said.result == "failed":
        return f"did not answer a probe from {observer}: {said.reason}"
    took = "" if said.round_trip_s is None else f" in {said.round_trip_s * 1000:.1f} ms"
    return f"answered a probe from {observer}{took}"


def _brake(_: Event, told: r.Brake) -> str:
    verb = "is held: nothing is replaced" if told.held else "is released"
    return f"{verb}, says {person(told.by)}{quoted(told.reason)}"


def _clock(event: Event, told: r.ClockWord) -> str:
    broker = event.topic.rsplit("/", 1)[1]
    return f"the clock of {broker}'s machine, {told.ahead_s:+.1f} s, is right, says {person(told.by)}{quoted(told.reason)}"


def _lines(_: Event, told: r.LogLines) -> str:
    if len(told.lines) > 1:
        return f"wrote {len(told.lines)} lines, the last: {told.lines[-1]}"
    return f"wrote: {told.lines[0]}" if told.lines else "wrote nothing more"


def keeper_died(said: r.KeeperReplaced) -> str:
    """What happened to a keeper."""
    return f"its keeper, pid {said.died}, had died; pid {said.pid} took its place"


def _revoked(event: Event, said: r.Revoked) -> str:
    key = "" if said.name else f" {event.topic.split('/')[2]}"
    return f"has its key{key} revoked by {person(said.by)}{quoted(said.reason)}"


_SAYINGS: Final[Mapping[str, Callable[[Event, Any], str]]] = {
    "dsmt.heartbeat": lambda _, said: f"is alive: #{said.sequence}, lag {said.lag_s * 1000:.0f} ms",
    "dsmt.node.attributes": _attributes,
    "dsmt.node.probe": _probe,
    "dsmt.node.verdict": lambda _, said: f"{'is dead' if said.state == 'dead' else 'has left'}: {said.message}",
    "dsmt.node.control": _node_control,
    "dsmt.controller.state": lambda _, said: f"is up: version {said.version}, ruleset {said.ruleset}",
    "dsmt.session": _session,
    "dsmt.broker.stats": lambda _, said: f"holds {said.facts} facts, {said.events} events, {said.sessions} connections",
    "dsmt.notice": lambda _, said: f"reports {said.kind}: {said.message}",
    "dsmt.keeper": lambda _, said: f"{keeper_died(said)} ({said.directory})",
    "dsmt.trimmed": lambda _, said: f"drops {said.count} old rows of {said.budget}, from #{said.first} to #{said.last}",
    "dsmt.source.started": lambda _, said: f"starts, version {said.version}",
    "dsmt.service.spec": _spec,
    "dsmt.nodeset": lambda _, said: f"is {said.expression}, says {person(said.by)}{quoted(said.reason)}",
    "dsmt.slot.control": _control,
    "dsmt.slot": _slot,
    "dsmt.status": _status,
    "dsmt.progress": lambda _, said: f"{said.step}: {said.done}{f' of {said.total}' if said.total else ''} {said.unit}",
    "dsmt.command": _command,
    "dsmt.health": _health,
    "dsmt.endpoint": _endpoint,
    "dsmt.log": _lines,
    "dsmt.decision": lambda _, said: f"decides {len(said.produced)} facts at row {said.row} of {said.broker}",
    "dsmt.trust.revoked": _revoked,
    "dsmt.tombstone": lambda _, said: f"has ended, says {person(said.by)}{quoted(said.reason)}",
    "dsmt.config.brake": _brake,
    "dsmt.config.clock": _clock,
}
