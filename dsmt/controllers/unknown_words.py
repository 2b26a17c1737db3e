"""Unknown words: a slot whose fact or status refers to what this view lacks is left alone until that has come (rule A4).

Rule 1: its fact follows a later word than is known, or a status follows a later fact: two brokers may bring a fact, and the
    word for which it was said, in either order, and a status before the fact.
Rule 2: what does not come within `UNKNOWN_MS` of what follows it is not waited for.
"""

from __future__ import annotations

from typing import Final

from dsmt.controllers.placement import Chooser
from dsmt.controllers.plan import Outcome
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.order import MAX_STEP
from dsmt.view import Fleet, Held, SlotEntry

UNKNOWN_MS: Final = 60_000
"""How long after a fact the word for which it was said may come."""


def waits_for_word(fleet: Fleet, slot: SlotEntry, spec: Held[SpecFact], chooser: Chooser | None) -> Outcome | None:
    """When to look again at a slot whose fact or status refers to a word that this view lacks; None if nothing is missing.

    `chooser` is of its component, if that is wanted.
    """
    fact = slot.fact
    if fact is None:
        return None
    told = fact.record
    is_later = (
        (fact.signed.event.epoch or 0, told.spec_version) > (spec.signed.event.epoch or 0, spec.version)
        or slot.follows_later_control
        or told.node_words_ms > fleet.node_words_ms
    )
    since = fact.time_ms if told.spec_version and is_later else 0
    obeyed = _obeyed_later(slot, fact)
    if obeyed:
        obeyed = min(obeyed, max(_not_followed(fleet, fact, slot, spec, chooser), default=obeyed))
    until = max(since, obeyed) + UNKNOWN_MS
    return Outcome.look_again(until) if fleet.now_ms < until else None


def _obeyed_later(slot: SlotEntry, fact: Held[Slot]) -> int:
    """Since when a later fact of a slot was obeyed than the one that is known (realm ms); 0 where none was.

    Those are believed that the fact names, and no time that is later than their word: any other key would hold back others'
    repair, and a time that is to come for ever.
    """
    own = (slot.instances[node] for node in fact.record.nodes if node in slot.instances)
    words = (held for instance in own for held in instance.statuses if not held.record.orphan)
    later = (held for held in words if fact.version < held.record.generation < fact.version + MAX_STEP)
    since = (min(held.record.taken_ms or held.record.since_ms, held.time_ms) for held in later)
    return max((at for at in since if at >= fact.time_ms), default=0)


def _not_followed(
    fleet: Fleet, fact: Held[Slot], slot: SlotEntry, spec: Held[SpecFact], chooser: Chooser | None
) -> list[int]:
    """When what is asked of a slot, and its fact does not follow yet, was said (realm ms); or that its node is lost.

    By then a fact that was obeyed is known, if there is one: who goes on to say so holds up nothing that was asked for.
    Most words on nodes ask nothing of it: they are none of these, for its fact is not said anew for them.
    """
    told, control, node = fact.record, slot.control, fact.record.node
    found = [spec.time_ms] if spec.version > told.spec_version else []
    found += [control.time_ms] if control is not None and control.version > told.control_version else []
    if node is None:
        return found
    asked_ms = 0
    if (drain := fleet.drain_of(node)) is not None:
        asked_ms = drain.time_ms
    elif chooser is not None and chooser.misfit_to_stay(node) is not None:
        asked_ms = chooser.sets_ms
    found += [asked_ms] if asked_ms > told.node_words_ms else []
    return found + ([fleet.lost_since(node)] if fleet.is_lost(node) else [])
