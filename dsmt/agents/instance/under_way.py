"""Under way: a step of the spec is written down before it is done, for it may be what ends the agents that do it (C13)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dsmt.agents.instance.context import Context
from dsmt.agents.rules import after
from dsmt.agents.rules.acts import Goal
from dsmt.event.reason import failed


@contextlib.contextmanager
def under_way(context: Context, step: str, wanted: Goal, changes: after.Changes | None = None) -> Iterator[None]:
    """A block that is a step of what is wanted; `changes` are written with it. It is over when the block ends, however.

    Raises `FailedError` where the agents that did it have ended in it, one after the other.
    """
    memory = context.memory
    doing = after.doing(memory.record, f"{step} {wanted.install_key} {wanted.run_key}")
    memory.save(**(changes or {}), **doing)
    over = after.did()
    try:
        if doing["cut"] >= after.CUT_MOST:
            over = after.cut_off()
            raise failed("install.cut", step=step, target=str(context.config.slot))
        yield
    finally:
        memory.note(**over)
