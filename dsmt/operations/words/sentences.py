"""Sentences: an event in the words that an operator reads; subject and predicate. Pure.

Rule 1: `subject(event)` and `predicate(event)` together are one sentence: `web/app/2` `is ready on m2`.
Rule 2: what cannot be read, and topics of services' and operators' own, are shown as they are.
Rule 3: `needs_a_person` says whether somebody may have to act; `severity` how bad it is.
Rule 4: a sentence is short, active and in the present tense; what only programs need (attachment and incarnation
    numbers) is left to JSON.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event
from dsmt.event.kinds.instance import Status
from dsmt.event.phrases import cut
from dsmt.event.records import from_data, readable
from dsmt.event.registry import row_of
from dsmt.operations.words.event_objects import plain

_LONGEST: Final = 100
_WITH_REASONS: Final = frozenset({"dsmt.status", "dsmt.slot", "dsmt.health"})
_ALARMS: Final = frozenset({"gap", "equivocation", "clone", "damaged", "older"})
"""Faults of the stream that need a person; `clock` also tells that a clock is right again."""

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
        return f"broker/{levels[3]}" if event.type == "dsmt.broker.withheld" else "/".join(levels[:2])
    return "/".join(levels[1:]) if levels[0] == "tombstone" else event.topic


def predicate(event: Event) -> str:
    """What an event says of its subject, in one line."""
    row = row_of(event.topic)
    if row is None or row.record is None or row.says is None:
        return _raw(event.data)
    try:
        record = from_data(row.record, event.data)
    except UnusableEventError:
        return f"cannot be read: {_raw(event.data)}"
    return row.says(event, record)


def sentence(event: Event) -> str:
    """One sentence."""
    return f"{subject(event)} {predicate(event)}"


def needs_a_person(event: Event) -> bool:
    """Whether somebody may have to act on it."""
    if event.type == "dsmt.node.verdict":
        return event.data.get("state") == "dead"
    if event.type == "dsmt.keeper":
        return True
    if event.type == "dsmt.notice":
        return event.data.get("kind") in _ALARMS
    reason = event.data.get("reason") if event.type in _WITH_REASONS and not _ended_well(event) else None
    return isinstance(reason, dict) and reason.get("who") == "you"


def severity(event: Event) -> Severity:
    """How bad it is: `bad` may need a person, `warning` mends itself, `good` is what was wanted."""
    if needs_a_person(event):
        return "bad"
    if event.type == "dsmt.session":
        return "warning" if event.data.get("state") == "silent" else ""
    if _ended_well(event):
        return ""
    if event.type in _WITH_REASONS and (event.data.get("reason") is not None or event.data.get("state") == "failed"):
        return "warning"
    return "good" if event.type == "dsmt.health" and event.data.get("health") != "unready" else ""


def _ended_well(event: Event) -> bool:
    """Whether it says that a program has ended with 0, and is not to be run again."""
    if event.type != "dsmt.status" or event.data.get("state") != "failed":
        return False
    status = readable(Status, event.data)
    return status is not None and status.ended_well


def _raw(data: dict[str, Any]) -> str:
    return cut(msgspec.json.encode(plain(data)).decode(), _LONGEST)
