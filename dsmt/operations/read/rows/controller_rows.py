"""Controller rows: controllers as `controllers` shows them, and whether any of them decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from dsmt.controllers.loop.ranking import live_controllers
from dsmt.operations.read.realm.passing import CONTROLLER_EACH_S
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.names import natural

UNDECIDED: Final = "its broker was lost a moment ago: whether it is alive is not known yet"


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """The controller that decides by the highest ruleset, what that is, and the ruleset of who only watches it."""

    controller: str
    ruleset: int
    own: int

    def __str__(self) -> str:
        return f"{self.controller} decides by later rules: ruleset {self.ruleset}, and not {self.own}"


class Controller(msgspec.Struct, frozen=True, kw_only=True):
    """One controller. `lag_s` is how late its own loop was when it was heard last; where it is null, `lag_why` says why.

    One `in_doubt` is not known to be alive, and not known to be gone: its broker was lost a moment ago, as that of a node
    that counts as alive (F1). One that `watches` decides nothing, for another one has a higher ruleset (A10).
    """

    controller: str
    alive: bool
    pid: int | None
    version: str
    lag_s: float | None
    decisions: int
    lag_why: str | None = None
    in_doubt: bool = False
    watches: Watched | None = None


def controller_rows(sight: Sight) -> list[Controller]:
    """The controllers whose state is known, by name, but those that went with their node, which they are named after."""
    found, rulesets = [], live_controllers(sight.fleet)
    for name, held in sorted(sight.view.controllers.items(), key=lambda one: natural(one[0])):
        said = sight.fleet.word_of(f"controller/{name}")
        alive = said is not None and said.state == "open"
        in_doubt = said is not None and sight.fleet.in_grace(said)
        if not alive and sight.fleet.state(name) == "left":
            continue
        heard = sight.passing.heard.get(f"controller/{name}")
        told = held.record
        pid = said.held.record.pid if said is not None and alive else told.pid
        found.append(
            Controller(
                controller=name,
                alive=alive,
                pid=pid if alive else None,
                version=told.version,
                lag_s=None if heard is None or not alive else heard[1].lag_s,
                decisions=told.decisions,
                lag_why=_no_lag(alive=alive, in_doubt=in_doubt, heard=heard is not None),
                in_doubt=in_doubt,
                watches=_watched(name, rulesets),
            )
        )
    return found


def nobody_decides(found: Iterable[Controller]) -> bool:
    """Whether none of some controllers is alive, and none is in doubt."""
    return not any(one.alive or one.in_doubt for one in found)


def is_undecided(sight: Sight) -> bool:
    """Whether there are controllers, and none of them is alive to act on anything."""
    known = controller_rows(sight)
    return bool(known) and nobody_decides(known)


def _watched(name: str, rulesets: Mapping[str, int]) -> Watched | None:
    """Whom a living controller only watches; None for others. `rulesets` are those of all that live."""
    own, latest = rulesets.get(name), max(rulesets.values(), default=0)
    if own is None or own == latest:
        return None
    leads = min((one for one, ruleset in rulesets.items() if ruleset == latest), key=natural)
    return Watched(controller=leads, ruleset=latest, own=own)


def _no_lag(*, alive: bool, in_doubt: bool, heard: bool) -> str | None:
    if in_doubt:
        return UNDECIDED
    if not alive:
        return "it is not alive"
    return None if heard else f"its first heartbeat has not come yet (one every {CONTROLLER_EACH_S} s)"
