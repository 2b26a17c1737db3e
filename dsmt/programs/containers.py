"""Containers on this machine, from outside: which a node has, who lives in them, and who is left of their programs."""

from __future__ import annotations

from pathlib import Path

from dsmt.agents.drivers import roots_of
from dsmt.agents.rules.container import PROCESS, RECORD
from dsmt.agents.rules.record import InstanceRecord, load_record
from dsmt.event.slots import index_of
from dsmt.monitors.checks.exec import owner_of_tries
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.marks import owners_below
from dsmt.system.reading import places_in, read_what_is_there
from dsmt.system.records import living


def containers_in(node: Path) -> list[Path]:
    """The directories of the containers of the node in a directory; what is named otherwise is somebody else's."""
    found = [node / "containers"]
    for _ in ("service", "component", "index"):
        found = [place for above in found for place in places_in(above, closed=True)]
    return sorted(place for place in found if index_of(place.name) is not None)


def records_of_agents(container: Path) -> list[str]:
    """The records of a container's agent: its manager's, and its own."""
    return [str(container / PROCESS), str(container / "run" / "deployment_agent.json")]


def agents_in(container: Path) -> list[ProcessIdentity]:
    """The living agents of a container: one, but while it is followed."""
    return [one for record in records_of_agents(container) if (one := living(record)) is not None]


def record_in(container: Path) -> InstanceRecord | None:
    """What the agent of a container has written down last; None where nothing can be read."""
    return load_record(read_what_is_there(str(container / RECORD)))


def roots_in(container: Path) -> list[ProcessIdentity]:
    """The first process of each program that an agent started there; it may live no more."""
    record = record_in(container)
    return [] if record is None else roots_of(record)


def owners_in(container: Path) -> tuple[str, ...]:
    """Whom the marks of all that is started for a container name: of its programs, and of tries of its checks."""
    return str(container), owner_of_tries(str(container))


def marked_in(place: Path) -> set[Path]:
    """The containers at or below a place that marks of the living name: their programs may have removed the directories."""
    tries = owner_of_tries("")
    return {Path(owner.removesuffix(tries)) for owner in owners_below(str(place))}
