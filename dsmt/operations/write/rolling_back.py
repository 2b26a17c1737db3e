"""Rolling back: an earlier revision, said again as a new one.

Rule 1: what was there before stays in the history: a rollback is a revision like any other, and can be rolled back.
Rule 2: it is said which artifacts are gone, and not refused: nodes may have kept them.
Rule 3: to what runs nothing nobody goes back but by its number: it would end the service.
Rule 4: who rolls a rollback back is told so: two may have typed the same at once, or one it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from dsmt.errors import FailedError, NotFoundError, TransportError
from dsmt.event.kinds.service import SpecFact
from dsmt.event.phrases import whose
from dsmt.operations.read.realm.sight import look_at
from dsmt.operations.read.rows.past import ServicePast, past
from dsmt.operations.read.rows.revisions import refused, same
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.write.applying import current, said_now, say_spec, unchanged
from dsmt.ports.bus import Bus
from dsmt.spec.plain import from_plain
from dsmt.spec.records import ServiceSpec
from dsmt.view import ServiceEntry

BACK: Final = "back to r"
"""With what the reason of a rollback begins."""


async def rollback(bus: Bus, service: str, to: int | None, *, by: str, reason: str) -> Applied:
    """Apply an earlier revision again: `to`, else the last good one that runs something, else the one before what stands.

    One that was refused is gone back to only by its name. Raises `NotFoundError` when there is none.
    """
    sight = await look_at(bus, service)
    _, fact = current(sight, service)
    told = await past(bus, sight, service)
    number = _chosen(service, fact, told) if to is None else to
    if number not in told.specs:
        known = ", ".join(f"r{one}" for one in sorted(told.specs))
        said = f"the history has no r{number} of {service}"
        raise NotFoundError("revision.unknown", said, next=f"it has {known}: dsmt history {service}")
    before = told.specs[number]
    spec = from_plain(before.spec)  # one that nobody can read is not applied
    standing = sight.view.services[service].spec
    denied = refused(sight.view.services[service]) is not None
    stays = denied and standing is not None and bool(same(fact, str(standing.id), before.spec, ()))
    if before.spec == fact.spec and not denied:
        return unchanged(sight, service, 0 if standing is None else standing.version)
    why = f"{BACK}{number}" + (f": {reason}" if reason else "")
    again = msgspec.structs.replace(before, by=by, reason=why, removed=False)
    twice = _twice(sight.view.services[service], service) if to is None else []
    revision = await say_spec(bus, sight, again, service)
    heeded = _heeded(service, number, told, named=to is not None, stays=stays)
    done = said_now(spec, revision, sight.view.epoch(f"service/{service}/spec"))
    return msgspec.structs.replace(done, again=number, warnings=[*twice, *heeded, *await _lacking(bus, spec, number)])


async def _lacking(bus: Bus, spec: ServiceSpec, number: int) -> list[str]:
    """What is said of artifacts that no broker has any more: what is used by no revision that stands is let go of."""
    artifacts = [one for component in spec.components.values() for one in component.artifacts if one.origin == "depot"]
    gone = []
    for digest, name in {one.sha256: one.url.removeprefix("depot:") for one in artifacts if one.sha256 is not None}.items():
        with suppress(FailedError, TransportError):  # it is rolled back all the same
            try:
                await anext(bus.get_blob(bytes.fromhex(digest)), None)
            except NotFoundError:
                gone.append(name)
    if not gone:
        return []
    said = f"r{number} names {', '.join(gone)}, which is in the depot no more: it is not installed where no node has kept it"
    return [f"{said}; next: apply its file again, with that"]


def _twice(entry: ServiceEntry, service: str) -> list[str]:
    """What is said of a rollback that stood, and is rolled back by no number (rule 4)."""
    if entry.spec is None or not entry.spec.record.reason.startswith(BACK):
        return []
    number, fact = entry.spec.version, entry.spec.record
    by = whose(fact.by, entry.spec.id.source, fact.reason)
    return [f"r{number} was a rollback itself, by {by}; dsmt rollback {service} --to {number} is the way back to it"]


def _heeded(service: str, number: int, told: ServicePast, *, named: bool, stays: bool) -> list[str]:
    """What is to be heeded of a revision that is applied again: whether it was refused, or never good."""
    if named and told.was_refused(number) and not told.was_good(number):
        why = told.refusal(told.said[number])
        then = "it stays so, for only the number of instances is another one" if stays else "it is tried again"
        return [f"r{number} was refused when it was applied{f': {why}' if why else ''}; {then}"]
    if named or told.was_good(number):
        return []
    never = f"no revision before was good in each component: this is r{number} again, the one before"
    return [f"{never}; dsmt history {service} lists the others"]


def _chosen(service: str, fact: SpecFact, told: ServicePast) -> int:
    """The revision to go back to where none is named."""
    others = [number for number, one in told.specs.items() if one.spec != fact.spec and not one.removed and _runs(one.spec)]
    earlier = [number for number in others if not told.was_refused(number)]
    good = [number for number in earlier if told.was_good(number)]
    in_part = [number for number in earlier if told.was_good(number, in_part=True)]
    chosen = max(good or in_part or earlier, default=None)
    if chosen is None:
        said = f"the history has no other good revision of {service}; nothing was done"
        raise NotFoundError("revision.none", said, next=f"dsmt history {service}")
    return chosen


def _runs(spec: Mapping[str, Any]) -> bool:
    """Whether a revision wants an instance; of one that nobody can read, which others refuse, that is not asked."""
    components = spec.get("components")
    if not isinstance(components, Mapping) or not all(isinstance(one, Mapping) for one in components.values()):
        return True
    return any(one.get("instances", 1) != 0 for one in components.values())
