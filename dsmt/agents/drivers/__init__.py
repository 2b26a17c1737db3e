"""Drivers: the ways to run an instance's program, bound to the rows of `dsmt.spec.drivers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final, Protocol, cast

from dsmt.agents.rules.record import InstanceRecord
from dsmt.ports.driver import Driver, Handle
from dsmt.ports.processes import ProcessIdentity
from dsmt.spec.drivers import BUILT, DRIVERS
from dsmt.system.watch import Ask, nobody


class LocalDriver(Driver, Protocol):
    """A driver of this machine, whose programs can be ended from outside by who is no agent."""

    def root(self, handle: Handle) -> ProcessIdentity | None:
        """The program's own process, dead or alive; None when the handle names none."""
        ...


Make = Callable[[str, Ask], LocalDriver]


def _adapter(row: str) -> Make:
    module, _, name = row.partition(":")
    return cast("Make", getattr(import_module(module), name))


MAKERS: Final[Mapping[str, Make]] = {word: _adapter(DRIVERS[word].adapter) for word in BUILT}
"""How each driver is made: of `owner`, the directory that an instance keeps through all its agents, and `ask`, which tells
how a process ended that is no child of ours."""


def drivers_of(owner: str, ask: Ask) -> dict[str, LocalDriver]:
    """The drivers of one container."""
    return {word: make(owner, ask) for word, make in MAKERS.items()}


def roots_of(record: InstanceRecord) -> list[ProcessIdentity]:
    """The processes of the programs that an agent has written down, dead or alive: what runs, and the copy before."""
    named = [(record.driver, record.process)]
    named += [] if record.outgoing is None else [(record.outgoing.driver, record.outgoing.process)]
    known = [MAKERS[driver]("", nobody).root(handle) for driver, handle in named if driver in MAKERS and handle is not None]
    return [root for root in known if root is not None]
