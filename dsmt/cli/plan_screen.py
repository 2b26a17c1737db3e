"""The screen of `dsmt plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dsmt.cli.printing import counted, one_line, page, table
from dsmt.operations.read.planning import Difference, Plan
from dsmt.spec.changes import Change
from dsmt.spec.quantities import format_duration

_LONGEST = 44


def screen(plan: Plan, files: str) -> str:
    """A plan as people read it."""
    base = f"r{plan.base_revision} -> r{plan.revision}" if plan.base_revision else f"new: r{plan.revision}"
    lines = [f"{plan.service}  {base}     (file {files})"]
    warnings = [f"  warning  {warning}" for warning in plan.warnings]
    if not plan.changes and plan.base_revision == plan.revision:
        return page([*lines, "", "nothing differs.", *warnings])
    lines += _changes(plan.changes)
    if plan.steps:
        header = ("STEP", "INSTANCE", "WHAT", "NODE", "BECAUSE")
        laid = [
            ((str(n), one.instance, one.action, one.node or "-", one.because), ()) for n, one in enumerate(plan.steps, 1)
        ]
        lines += ["", *(f"  {line}" for line in table(header, laid).splitlines())]
    for one in plan.unplaced:
        lines += [
            "",
            f"  {one.instance} has no place" + (f": {one_line(one.reason.message)}" if one.reason is not None else ""),
        ]
    if plan.base_revision:
        lines += ["", f"  never fewer than {plan.min_ready} ready; about {format_duration(plan.estimate_s)}"]
    lines += warnings
    return page([*lines, "", f"{counted(len(plan.steps), 'step')}.  dsmt apply {files} --plan {plan.id}"])


def difference(found: Difference) -> str:
    """The screen of `dsmt diff`."""
    base = f"r{found.base_revision}" if found.base_revision else "not applied yet"
    if not found.changes:
        return f"{found.service}  {base}  nothing differs"
    return page([f"{found.service}  {base}", *_changes(found.changes)])


def _changes(changes: Sequence[Change]) -> list[str]:
    lines: list[str] = []
    component = None
    for change in changes:
        if change.component != component:
            component = change.component
            lines += ["", f"  {component or '(service)'}"]
        lines.append(_change(change))
    return lines


def _change(change: Change) -> str:
    if not change.key:
        return f"  {'+' if change.old is None else '-'} the component"
    if change.old is None:
        return f"  + {change.key:<20} {_shown(change.new)}"
    if change.new is None:
        return f"  - {change.key:<20} {_shown(change.old)}"
    after = "" if change.action in ("none", "rescale") else f"      {change.action}"
    return f"  ~ {change.key:<20} {_shown(change.old)} -> {_shown(change.new)}{after}"


def _shown(value: Any) -> str:
    text = one_line(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:8]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
