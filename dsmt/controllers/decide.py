"""Decide: from a view and a time to the facts that move what is observed toward what is desired (rule R6).

Rule 1: it reads facts, the time, and what a decision event records beside them (the attached broker, `may_accuse`);
    nothing else; and it changes nothing but its own plan.
Rule 2: verdicts on nodes come first, and are facts before anything follows from them.
Rule 3: where the whole realm is to be looked at, a decision does so for so many slots (`most`), in the order of the names
    of services, and says which is the first that is left. What it says of those before that one is what a look at all says.
Rule 4: `RULESET` is raised whenever the same inputs may give another decision; a test hashes golden ones (H4).
"""

from __future__ import annotations

from typing import Final

from dsmt.controllers.brake import brake
from dsmt.controllers.intents import Decided
from dsmt.controllers.look import EVERYTHING, Look
from dsmt.controllers.node_failure import verdicts
from dsmt.controllers.plan import Plan
from dsmt.controllers.service import decide_service
from dsmt.trust.keys import verify
from dsmt.trust.proven import Verify
from dsmt.view import Fleet, View

RULESET: Final = 44


def decide(
    view: View,
    now_ms: int,
    *,
    may_accuse: bool,
    broker: str = "",
    look: Look = EVERYTHING,
    check: Verify = verify,
) -> Decided:
    """The intents, in the order in which they are to be published, and when to look again.

    `may_accuse`: whether the reader has watched long enough to judge by silence (A4, iii). `broker`: the one that the
    reader is attached to (F1). `check` verifies the signatures of those who answered probes (F4).
    """
    fleet = Fleet(view, now_ms, broker)
    intents, wake = verdicts(fleet, may_accuse=may_accuse, check=check)
    held = brake(fleet)
    look = look.under(held)
    realm = [at for at in (wake, held.wake_ms) if at is not None]
    wakes = {"": min(realm)} if realm else {}
    look_at_all, no_place = set(), set()
    plan, left, looked = Plan(fleet, held), None, 0
    for name in look.services(view):
        entry = view.services.get(name)
        if entry is None:
            continue
        if look.most is not None and look.is_in_rest(name):
            if looked >= look.most:
                left = name
                break
            looked += 1 + len(entry.slots)
        outcome = decide_service(plan, entry, look.places(name))
        intents += outcome.intents
        if outcome.wakes:
            wakes[name] = min(outcome.wakes)
        if outcome.look_at_all:
            look_at_all.add(name)
        if outcome.no_place:
            no_place.add(name)
    return Decided(tuple(intents), wakes, frozenset(look_at_all), frozenset(no_place), held, look, left)
