"""Watches: a program without an event loop is told of the end of others, whoever is their parent (pidfd_open(2))."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from functools import partial

from dsmt.ports.processes import ProcessIdentity
from dsmt.system.procfs import open_pidfd


class Watches:
    """On a selector whose keys' `data` are functions to call."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._descriptors: set[int] = set()

    def begin(self, who: ProcessIdentity, ended: Callable[[int], object]) -> int | None:
        """Call `ended` with the watch as soon as this very process has ended, and until the watch does; None: it is gone."""
        watch = open_pidfd(who)
        if watch is not None:
            self._descriptors.add(watch)
            self._selector.register(watch, selectors.EVENT_READ, partial(ended, watch))
        return watch

    def end(self, watch: int) -> None:
        """Watch no more."""
        self._selector.unregister(watch)
        self._descriptors.discard(watch)
        os.close(watch)

    def close(self) -> None:
        """Close every descriptor and nothing else: also right in a child that inherited them."""
        for watch in self._descriptors:
            os.close(watch)
