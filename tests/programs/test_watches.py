"""Watches: of whose end a program without an event loop is told."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from pathlib import Path

from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.watches import Watches
from dsmt.system.procfs import identity_of

DEADLINE_S = 30.0


def test_the_end_of_who_is_watched_is_told_until_the_watch_ends_and_who_has_ended_is_not_watched() -> None:
    with (
        selectors.DefaultSelector() as selector,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
    ):
        who = identity_of(child.pid)
        assert who is not None
        watches, told = Watches(selector), list[int]()
        watch = watches.begin(who, told.append)
        assert watch is not None
        assert selector.select(0) == [], "it lives"
        child.communicate(b"\n")
        for _ in range(2):  # what it is told could not be done, perhaps
            ((key, _events),) = selector.select(DEADLINE_S)
            key.data()
        assert told == [watch, watch]
        watches.end(watch)
        assert selector.select(0) == []
        assert watches.begin(who, told.append) is None
        assert not selector.get_map()
        other = os.open("/dev/null", os.O_RDONLY)  # it has the number of the watch that has ended
        assert other == watch
        watches.close()
        os.close(other)  # it is open still


def test_all_watches_are_closed_in_a_child_that_inherits_them() -> None:
    with selectors.DefaultSelector() as selector:
        own = identity_of(os.getpid())
        assert isinstance(own, ProcessIdentity)
        watches = Watches(selector)
        watch = watches.begin(own, print)
        assert watch is not None
        watches.close()
        assert not Path(f"/proc/self/fd/{watch}").exists()
