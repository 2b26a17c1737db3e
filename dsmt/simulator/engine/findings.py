"""What goes wrong unseen during a run, collected as text, so that it keeps nothing alive.

Rule 1: what a dead or dying process complains of is no finding.
Rule 2: a bare future does not say whose it is, so once a process was killed, bare futures are not heard.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dsmt.simulator.engine.errors import Finding
from dsmt.simulator.engine.handles import OWNER, Owner, SimTask


class Findings:
    """The collector; `items` is in the order of finding, `now` gives the virtual time.

    `after_a_kill`: a process was killed in this run.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.items: list[Finding] = []
        self.after_a_kill = False
        self._now = now
        self._muted = False

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Take nothing meanwhile: a process is dying."""
        was, self._muted = self._muted, True
        try:
            yield
        finally:
            self._muted = was

    def add(self, text: str, owner: Owner | None) -> None:
        """Add a finding about a process (None: the world)."""
        self.items.append(Finding(self._now(), None if owner is None else owner.name, text))

    def complain(self, text: str, owner: Owner | None) -> None:
        """Add a finding, unless it comes from a dead or dying process."""
        if not self._muted and not (owner is not None and owner.dead):
            self.add(text, owner)

    def note_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Take what a finalizer raised, a coroutine never awaited among it (`sys.unraisablehook`)."""
        text = f"{unraisable.err_msg or 'in a finalizer'}: {unraisable.exc_type.__name__}: {unraisable.exc_value}"
        self.complain(text, OWNER.get())

    def note_error(self, context: dict[str, Any]) -> None:
        """Take what asyncio gives to a loop's exception handler."""
        task = context.get("task", context.get("future"))
        text = str(context.get("message"))
        owner = OWNER.get()
        if isinstance(task, SimTask):
            owner = task.owner
            text += f" ({task.get_name()})"
        elif isinstance(task, asyncio.Future) and self.after_a_kill:
            return
        error = context.get("exception")
        if isinstance(error, BaseException):
            text += "\n" + failure_text(error)
        self.complain(text, owner)


def failure_text(error: BaseException) -> str:
    """Return the traceback of an exception as text."""
    return "".join(traceback.format_exception(error)).rstrip()
