"""Hearing: whether who speaks of an instance is heard, and what is told of it where not."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.event.reason import Reason, reason
from dsmt.event.status import Layer, Shown, State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.times import span
from dsmt.view import Instance, SlotEntry
from dsmt.view.sessions import word
from dsmt.view.shown import Seen, bars

UNHEARD: Final = "run.unheard"
NEVER_HEARD_MS: Final = 30_000
"""How long an agent that was started may say nothing, before that is told."""


def is_unheard(sight: Sight, instance: Instance | None) -> bool:
    """Whether the source that reports on the program is not heard: what it said last may not be true any more."""
    said = None if instance is None else instance.application
    return said is not None and sight.fleet.is_unheard(said.signed.event.source)


def unheard(sight: Sight, instance: Instance | None) -> Reason | None:
    """That who speaks of what runs is not heard, and since when: a silence, and not what it said last, is the reason."""
    said = None if instance is None else instance.application
    if said is None or not is_unheard(sight, instance):
        return None
    source = said.signed.event.source
    session = word(sight.view.sessions.of[source], sight.fleet.lost_brokers)
    silent_ms = sight.now_ms - (said.time_ms if session is None else session.since_ms)
    why = reason(UNHEARD, time=span(silent_ms), node=source.split("/")[1])
    if session is None or session.state != "unknown":
        return why
    apart = f"its agent is at broker {session.broker}, which is not heard for {span(silent_ms)}: how it is now is not known"
    return msgspec.structs.replace(why, message=apart, next="dsmt brokers", who="world")


def never_heard(sight: Sight, instance: Instance | None, seen: Seen) -> Reason | None:
    """That its agent was started and has said nothing for long: no session tells of who never attached."""
    said = None if seen.status is None else seen.status.record
    if said is None or said.layer is not Layer.AGENT or said.state is not State.RUNNING:
        return None
    own = None if instance is None else instance.application
    silent_ms = sight.now_ms - said.since_ms
    heard = own is not None and own.time_ms >= said.since_ms
    if heard or silent_ms < NEVER_HEARD_MS or sight.fleet.state(said.node) != "alive":
        return None
    why = reason("start.unheard", pid=said.pid, node=said.node, time=span(silent_ms))
    told = sight.passing
    brokers = (told.announced.keys() | told.stats.keys() | {sight.broker}) - told.removed
    if not told.heard or any(told.hears(one, sight.now_ms) for one in brokers):  # without the first it is not known
        return why
    alone = f"{why.message}; no broker is heard, and another agent would not be either"
    return msgspec.structs.replace(why, message=alone, next="dsmt brokers")


def is_agentless(seen: Seen) -> bool:
    """Whether the state that is shown is that its agent cannot be started."""
    return seen.state in (Shown.BACKOFF, Shown.FAILED) and seen.status is not None and bars(seen.status.record)


def without_agent(why: Reason, program: int | None) -> Reason:
    """Why no agent can be begun, and of which program, if one ran, nobody knows how it is."""
    left = f"; nobody watches over its program, which was pid {program}: whether it runs is not known" if program else ""
    return msgspec.structs.replace(why, message=f"its agent cannot be begun: {why.message}{left}")


def last_pid(entry: SlotEntry, node: str | None) -> int | None:
    """The pid of the program that the last agent told of."""
    said = entry.application(node)
    return None if said is None else said.record.pid


def agent_failed(entry: SlotEntry, node: str | None) -> Reason | None:
    """Why its agent ended last, where nothing was said of its program since."""
    instance = None if node is None else entry.instances.get(node)
    said, agent = (None, None) if instance is None else (instance.application, instance.agent)
    last = None if agent is None else agent.record.last_exit
    return last.reason if last is not None and (said is None or said.time_ms <= last.at_ms) else None
