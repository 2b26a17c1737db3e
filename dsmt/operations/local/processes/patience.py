"""Patience: how long the agent of a container may take to end its program as the service file says (`stop`)."""

from __future__ import annotations

from pathlib import Path

from dsmt.agents.rules.container import SPEC
from dsmt.agents.shared.kept import fact_in
from dsmt.errors import FailedError, UnusableEventError
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import from_data
from dsmt.programs.containers import record_in
from dsmt.spec.plain import from_plain
from dsmt.spec.records import ServiceSpec
from dsmt.system.reading import read_what_is_there


def spec_in(container: Path) -> ServiceSpec | None:
    """The spec that the agent of a container obeys; None where it has none that can be read."""
    signed = fact_in(read_what_is_there(str(container / SPEC)))
    try:
        return None if signed is None else from_plain(from_data(SpecFact, signed.event.data).spec)
    except (UnusableEventError, FailedError):
        return None


def stop_in(container: Path) -> float | None:
    """How long what runs in a container may take to end, in seconds; None where that is not known.

    A copy that is still served while its successor starts ends first, by what may have been another spec: as long again.
    """
    spec = spec_in(container)
    component = None if spec is None else spec.components.get(container.parent.name)
    if component is None:
        return None
    record = record_in(container)
    return component.stop.most_s * (1 if record is None or record.outgoing is None else 2)
