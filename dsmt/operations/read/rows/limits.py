"""Limits that are not kept, or less than they say: told of a service, so that nobody relies on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dsmt.event.phrases import size_in_words
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.spec.records import ComponentSpec, Limits, ServiceSpec

_USUAL: Final = {"pids": 4096, "files": 65_536}
"""Limits that stand although nobody wrote them: nobody relies on these."""


def loose_limits(sight: Sight, spec: ServiceSpec, rows: Sequence[InstanceRow]) -> list[str]:
    """A sentence for each limit that the nodes on which the instances are do not keep as it is written."""
    told = []
    for name, component in sorted(spec.components.items()):
        nodes = sorted({row.node for row in rows if row.component == name and row.node is not None})
        for limit, said in _written(component.limits):
            free = [node for node in nodes if not _keeps(sight, node, component, limit)]
            if free:
                told.append(f"{name}: limits.{limit} ({said}) is not enforced on {', '.join(free)}")
            elif limit == "memory" and component.limits.enforce == "best_effort" and nodes:
                told.append(f"{name}: limits.memory ({said}) bounds the address space of each process (best_effort)")
            elif limit == "pids" and nodes:
                told.append(f"{name}: limits.pids ({said}) counts all that its user runs on a node")
    return told


def _written(limits: Limits) -> list[tuple[str, str]]:
    found = [(name, str(getattr(limits, name))) for name, usual in _USUAL.items() if getattr(limits, name) != usual]
    found += [("cpu", f"{limits.cpu:g}")] if limits.cpu is not None else []
    sizes = (("memory", limits.memory_bytes), ("disk", limits.disk_bytes))
    return found + [(name, size_in_words(size)) for name, size in sizes if size is not None]


def _keeps(sight: Sight, node: str, component: ComponentSpec, limit: str) -> bool:
    """Whether a node says that it keeps a limit; of one that has not said what it can, nothing is claimed."""
    known = sight.view.nodes.get(node)
    attributes = None if known is None or known.attributes is None else known.attributes.record
    driver = None if attributes is None else attributes.drivers.get(component.driver)
    return driver is None or limit in driver.enforces
