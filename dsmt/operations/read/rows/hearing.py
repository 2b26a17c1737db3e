"""Hearing: whether who speaks of an instance is heard, and what is told of it where not."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.event.reason import Reason, reason
from dsmt.event.status import Layer, State
from dsmt.operations.read.rows.seen_instance import SeenInstance
from dsmt.operations.words.times import span

UNHEARD: Final = "run.unheard"
NEVER_HEARD_MS: Final = 30_000
"""How long an agent that was started may say nothing, before that is told."""


def unheard(one: SeenInstance) -> Reason | None:
    """That who speaks of what runs is not heard, and since when: a silence, and not what it said last, is the reason."""
    sight, said = one.sight, one.application
    if said is None or not one.is_unheard:
        return None
    source = said.signed.event.source
    session = sight.fleet.word_of(source)
    silent_ms = sight.now_ms - (said.time_ms if session is None else session.since_ms)
    why = reason(UNHEARD, time=span(silent_ms), node=source.split("/")[1])
    if session is None or session.state != "unknown":
        return why
    apart = f"its agent is at broker {session.broker}, which is not heard for {span(silent_ms)}: how it is now is not known"
    return msgspec.structs.replace(why, message=apart, next="dsmt brokers", who="world")


def hanging(one: SeenInstance, why: Reason) -> Reason:
    """Why an instance is lost, and what helps where its node lives and its agent does not come back: it may not die."""
    sight, said = one.sight, one.application
    session = None if said is None else sight.fleet.word_of(said.signed.event.source)
    if said is None or session is None or session.state == "unknown" or sight.fleet.state(said.record.node) != "alive":
        return why
    elsewhere = f"; to have it elsewhere: dsmt move {one.key}"
    moves = one.spec is not None and not one.spec.each_node and sight.home_of(one.key) is None
    advice = f"see whether its agent hangs there, as on a disk that does not answer: {why.next}{elsewhere if moves else ''}"
    return msgspec.structs.replace(why, next=advice, who="you")


def never_heard(one: SeenInstance) -> Reason | None:
    """That its agent was started and has said nothing for long: no session tells of who never attached."""
    sight, own, said = one.sight, one.application, None if one.status is None else one.status.record
    if said is None or said.layer is not Layer.AGENT or said.state is not State.RUNNING:
        return None
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


def without_agent(why: Reason, program: int | None) -> Reason:
    """Why no agent can be begun, and of which program, if one ran, nobody knows how it is."""
    left = f"; nobody watches over its program, which was pid {program}: whether it runs is not known" if program else ""
    return msgspec.structs.replace(why, message=f"its agent cannot be begun: {why.message}{left}")


def agent_failed(one: SeenInstance) -> Reason | None:
    """Why its agent ended last, where nothing was said of its program since."""
    said, agent = one.application, None if one.instance is None else one.instance.agent
    last = None if agent is None else agent.record.last_exit
    return last.reason if last is not None and (said is None or said.time_ms <= last.at_ms) else None
