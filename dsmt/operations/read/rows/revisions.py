"""Revisions: which of a service's revisions runs, and whether the one that stands was refused (rule A18).

Rule 1: who changes how many instances there are, and nothing else, does not ask for anything else to be tried: what was
    refused stays so. Who applies it again as it stands, or changes anything in it, asks for just that.
Rule 2: such a spec names those before it that said the same: the last `SAME_MOST`, for a slot's fact may follow one of them
    that is not known here yet, and all those that slots name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from dsmt.event.kinds.service import SpecFact
from dsmt.event.reason import Reason
from dsmt.operations.read.rows.advice import logs_of_refused
from dsmt.operations.words.targets import Target
from dsmt.spec.governing import Otherwise, as_it_was, otherwise
from dsmt.view import ServiceEntry, SlotKey

SAME_MOST: Final = 8


class RefusedRevision(msgspec.Struct, frozen=True, kw_only=True):
    """What stands was tried and rolled back; `reason` is None where no fact says any more why.

    `revision` is the one in which it was tried: what stands may have another number of instances since, and nothing else.
    """

    revision: int
    reason: Reason | None
    in_part: bool = False
    """An instance runs it all the same."""
    by: list[str] = []
    """The components that have refused it, where others have not; empty where all have."""
    overruled: bool = False
    """What runs has its number, and was overruled by it, which was said on the other side of a partition (E2)."""


def running(entry: ServiceEntry, target: Target | None = None) -> list[int]:
    """The revisions that slots (of a target) run, the newest first; where all are held, those that they would run."""
    slots = [slot for place, slot in entry.slots.items() if target is None or target.takes(SlotKey(entry.name, *place))]
    facts = [slot.fact.record for slot in slots if slot.fact is not None]
    found = {fact.revision for fact in facts if fact.desired == "running"}
    return sorted(found or {fact.revision for fact in facts if fact.desired != "gone"}, reverse=True)


def refused(entry: ServiceEntry) -> RefusedRevision | None:
    """What stands, if it was rolled back, and why."""
    if entry.spec is None or entry.refusal() is None:
        return None
    facts = {place: slot.fact.record for place, slot in entry.slots.items() if slot.fact is not None}
    tried = [facts[name, index].refuses for name, each in entry.refusing.items() for _, index in each]
    number = min((one.revision for one in tried if one is not None), default=entry.spec.version)
    run = {
        (name, fact.revision, entry.says_again(fact.spec)) for (name, _), fact in facts.items() if fact.desired == "running"
    }
    by = sorted(entry.refusing)
    return RefusedRevision(
        revision=number,
        reason=_advised(entry),
        in_part=any(again for _, _, again in run),
        by=by if any(again for name, _, again in run if name not in by) else [],
        overruled=any((revision, again) == (number, False) for _, revision, again in run),
    )


def overtaken(entry: ServiceEntry) -> list[int]:
    """The revisions that slots have instead of what stands, and that were said as it was, or after it.

    Such a one was overruled (E2), or nobody believes it any more (J3): no rollout goes on from there for sure.
    """
    stands = 0 if entry.spec is None else entry.spec.version
    found = {one.revision for one in entry.records if one.desired != "gone" and not entry.says_again(one.spec)}
    return sorted(one for one in found if one >= stands > 0)


def _advised(entry: ServiceEntry) -> Reason | None:
    """Why what stands was refused, with where its last words are."""
    why = entry.refused_because()
    told = [place for place, slot in sorted(entry.slots.items()) if slot.fact is not None and slot.fact.record.reason == why]
    if why is None or not told:
        return why
    return msgspec.structs.replace(why, next=logs_of_refused(SlotKey(entry.name, *told[0]), entry.slots[told[0]]))


def same(before: SpecFact, own: str, spec: Mapping[str, Any], named: Collection[str]) -> tuple[str, ...]:
    """Which specs before it say what a spec says but for how many instances there are (rules 1 and 2); none where it is new.

    `before` is what it follows, whose event's id is `own`, and `named` those that slots name.
    """
    if before.spec == spec or _uncounted(before.spec) != _uncounted(spec):
        return ()
    known = (own, *before.same)
    return tuple(one for at, one in enumerate(known) if at < SAME_MOST or one in named)


def following(entry: ServiceEntry | None, fact: SpecFact) -> SpecFact:
    """A spec that follows what stands: whether it says the same, and what those said that slots may go back to."""
    held = None if entry is None else entry.spec
    if entry is None or held is None or fact.removed or held.record.removed:
        return msgspec.structs.replace(fact, same=(), earlier={})
    named = {one.spec for slot in entry.records for one in slot.revisions if one.revision}
    before, own = held.record, str(held.id)
    return msgspec.structs.replace(
        fact, same=same(before, own, fact.spec, named), earlier=earlier(before, own, fact.spec, named)
    )


def earlier(before: SpecFact, own: str, spec: Mapping[str, Any], named: Iterable[str] | None = None) -> dict[str, Otherwise]:
    """What a spec said otherwise, whose event's id is `own`, and those before it that are `named`, than what follows it."""
    stood, now = before.spec["components"], spec["components"]
    known = before.earlier if named is None else {one: before.earlier.get(one, {}) for one in named}
    found = {one: otherwise(as_it_was(stood, said), now) for one, said in {**known, own: {}}.items()}
    return {one: said for one, said in sorted(found.items()) if said}


def _uncounted(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with no number of instances; one of each node is no number."""
    components = {
        name: one if one.get("instances") is None else {**one, "instances": 1} for name, one in spec["components"].items()
    }
    return {**spec, "components": components}


def names_of(revisions: list[int], denied: RefusedRevision | None) -> str:
    """`r3, r2`; `r3 (overruled)` where another one of the number stands, and was refused."""
    lost = denied.revision if denied is not None and denied.overruled else None
    return ", ".join(f"r{one} (overruled)" if one == lost else f"r{one}" for one in revisions)


def by_component(entry: ServiceEntry) -> dict[str, list[int]]:
    """The revisions that each component runs."""
    names = sorted({component for component, _ in entry.slots})
    found = {name: running(entry, Target(entry.name, name)) for name in names}
    return {name: runs for name, runs in found.items() if runs}


def in_words(
    revisions: list[int], denied: RefusedRevision | None, standing: int, parts: Mapping[str, list[int]] | None = None
) -> str:
    """`r3`; `r3, r2` while one follows the other; `r1, r2 waits`; `r1, r2 refused`; `b r2; a r1 (r2 refused)` in part."""
    if denied is not None and denied.by and parts:
        return _in_part(parts, denied)
    told = names_of(revisions, denied) or f"r{standing}"
    if denied is None and revisions and standing not in revisions:
        return f"{told}, r{standing} waits"
    part = " in part" if denied is not None and denied.in_part else ""
    return told if denied is None else f"{told}, r{denied.revision} refused{part}"


def _in_part(parts: Mapping[str, list[int]], denied: RefusedRevision) -> str:
    """What each component runs, first those that run what others have refused."""
    takes = sorted(parts, key=lambda name: (name in denied.by, name))
    told = ((f"{name} {names_of(parts[name], denied)}", name not in denied.by) for name in takes)
    return "; ".join(said if has else f"{said} (r{denied.revision} refused)" for said, has in told)


def was_refused(denied: RefusedRevision) -> str:
    """`r2 was refused`; `r2 was refused for a` in part."""
    return f"r{denied.revision} was refused{f' for {_and(denied.by)}' if denied.by else ''}"


def refused_and_runs(denied: RefusedRevision, revisions: list[int], parts: Mapping[str, list[int]]) -> tuple[str, str]:
    """What was refused, and what runs: `r2 was refused`, `r1 runs`; `r2 was refused for a, which runs r1`, `b runs r2`.

    `parts` is what each component runs, and `revisions` what all of it does.
    """
    if not denied.by:
        return was_refused(denied), f"{names_of(revisions, denied)} {_run(revisions)}"
    back = [
        f"for {_and(names)}, which {_run(names)} {names_of(list(runs), denied)}"
        for runs, names in _alike({name: parts.get(name, []) for name in denied.by}).items()
    ]
    on = {name: runs for name, runs in parts.items() if name not in denied.by}
    others = (f"{_and(names)} {_run(names)} {names_of(list(runs), denied)}" for runs, names in _alike(on).items())
    return f"r{denied.revision} was refused {', and '.join(back)}", "; ".join(others)


def instead(denied: RefusedRevision, revisions: list[int], parts: Mapping[str, list[int]]) -> str:
    """What runs instead of what was refused: `on r1 (r2 was refused)`; in part `a on r1 (r2 was refused)`."""
    whom = {name: parts.get(name, []) for name in denied.by}
    on = [f"{_and(names)} on {names_of(list(runs), denied)}" for runs, names in _alike(whom).items()]
    return f"{', '.join(on) or f'on {names_of(revisions, denied)}'} (r{denied.revision} was refused)"


def _alike(parts: Mapping[str, list[int]]) -> dict[tuple[int, ...], list[str]]:
    """The components by what they run."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name, runs in sorted(parts.items()):
        found.setdefault(tuple(runs), []).append(name)
    return found


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _run(of: Sequence[Any]) -> str:
    return "run" if len(of) > 1 else "runs"
