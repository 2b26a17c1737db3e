"""The screens of `dsmt plan` and `dsmt diff`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import msgspec

from dsmt.cli.printing import fitted, one_line, page, table
from dsmt.event.phrases import counted, some
from dsmt.operations.read.ahead.planning import ApplyPlan, Difference
from dsmt.operations.read.ahead.trial import Unplaced
from dsmt.operations.read.rows.revisions import was_refused
from dsmt.spec.changes import Change
from dsmt.spec.quantities import format_duration

SAME_MOST = 3
"""Services up to which one that does not differ is told by itself."""
_LONGEST = 44
_CONTEXT = 12
"""Characters of what is equal that are shown on both sides of what differs."""


def screens(plans: Sequence[ApplyPlan], files: Sequence[str]) -> str:
    """Plans as people read them; the last line does all of them, or none."""
    source = f"     (file {files[0]})" if len(files) == 1 else ""
    same = [plan.service for plan in plans if not _changes_any(plan) and not plan.warnings]
    named = set(same) if len(plans) > SAME_MOST else set()
    told = [_screen(plan, source) for plan in plans if plan.service not in named]
    told += [f"nothing differs of {counted(len(same), 'service')}: {some(same)}"] * bool(named)
    steps = sum(len(plan.steps) for plan in plans)
    changed = sum(map(_changes_any, plans))
    if changed:
        ids = [f"--plan {plan.id}" for plan in plans]
        of = f" of {counted(changed, 'service')}" if changed > 1 else ""
        told.append(f"{counted(steps, 'step')}{of}.  dsmt apply {' '.join((shlex.join(files), *ids))}")
    return "\n\n".join(told)


def _changes_any(plan: ApplyPlan) -> bool:
    return bool(plan.changes) or plan.base_revision != plan.revision


def _screen(plan: ApplyPlan, source: str) -> str:
    base = f"r{plan.base_revision} -> r{plan.revision}" if plan.base_revision else f"new: r{plan.revision}"
    lines = [f"{plan.service}  {base}{source}"]
    warnings = [f"  warning  {warning}" for warning in plan.warnings]
    if not _changes_any(plan):
        return page([*lines, "", "nothing differs.", *_unplaced(plan.unplaced), *warnings])
    lines += _changes(plan.changes)
    if plan.steps:
        header = ("STEP", "INSTANCE", "WHAT", "NODE", "BECAUSE")
        laid = [
            ((str(n), one.instance.partition("/")[2], one.action, one.node or "-", one.because), ())
            for n, one in enumerate(plan.steps, 1)
        ]
        lines += ["", *(f"  {line}" for line in table(header, laid).splitlines())]
    lines += _unplaced(plan.unplaced)
    told = [f"never fewer than {plan.min_ready} ready; about {format_duration(plan.estimate_s)}"] * bool(plan.base_revision)
    lines += ["", *(f"  {said}" for said in (*told, *plan.promises))]
    return page([*lines, *warnings])


def _unplaced(found: Sequence[Unplaced]) -> list[str]:
    """Instances that have no place, those of one reason in one line, and what you can do about it."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for one in found:
        why = one.reason
        told = ("", "") if why is None else (f": {why.message}", why.next if why.who == "you" else "")
        by_reason.setdefault(told, []).append(one.instance)
    lines = []
    for (message, advice), names in by_reason.items():
        lines += ["", f"  {some(names)} will not run{message}", *([f"    you: {advice}"] * bool(advice))]
    return lines


def difference(found: Difference) -> str:
    """The screen of `dsmt diff`."""
    base = f"r{found.base_revision}" if found.base_revision else "not applied"
    denied, refused = found.refused, []
    if denied is not None:
        why = "" if denied.reason is None else f": {one_line(denied.reason.message)}"
        refused = [f"  {was_refused(denied)}{why}"]
    if not found.changes:
        return page([f"{found.service}  {base}  nothing differs", *refused])
    return page([f"{found.service}  {base}", *refused, *_changes(found.changes)])


def _changes(changes: Sequence[Change]) -> list[str]:
    lines: list[str] = []
    component = None
    for change in changes:
        if change.component != component:
            component = change.component
            lines += ["", f"  {component or '(service)'}"]
        lines += _change(change)
    return lines


def _change(change: Change) -> list[str]:
    if not change.key:
        return [f"  {'+' if change.old is None else '-'} the component"]
    if change.old is None:
        return [f"  + {change.key:<20} {fitted(_shown(change.new), _LONGEST)}"]
    if change.new is None:
        return [f"  - {change.key:<20} {fitted(_shown(change.old), _LONGEST)}"]
    after = "" if change.action in ("none", "rescale") else f"      {change.action}"
    old, new = _shown(change.old), _shown(change.new)
    if old == new:
        return [f"  ~ {change.key:<20} {old}, changed{after}"]
    if len(old) + len(new) <= _LONGEST:
        return [f"  ~ {change.key:<20} {old} -> {new}{after}"]
    old, new = _apart(old, new)
    return [f"  ~ {change.key}{after}", f"      was  {old}", f"      now  {new}"]


def _shown(value: Any) -> str:
    text = one_line(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:8]
    return text


def _apart(old: str, new: str) -> tuple[str, str]:
    """Two long texts without most of what they have in common, so that what differs is seen."""
    ahead = _alike(old, new)
    behind = _alike(old[ahead:][::-1], new[ahead:][::-1])
    return _around(old, ahead, behind), _around(new, ahead, behind)


def _alike(a: str, b: str) -> int:
    """How many characters two texts have in common from their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _around(text: str, ahead: int, behind: int) -> str:
    start, end = max(0, ahead - _CONTEXT), min(len(text), len(text) - behind + _CONTEXT)
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
