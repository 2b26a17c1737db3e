"""Serving: the copy before, that is served while an instance is not ready yet: elsewhere, or beside it on its node (A9)."""

from __future__ import annotations

import msgspec

from dsmt.operations.read.rows.seen_instance import SeenInstance
from dsmt.view.served import served


class ServedBefore(msgspec.Struct, frozen=True, kw_only=True):
    """Where the copy before is reached, and of which revision it is, where that is known."""

    node: str
    revision: int | None
    address: str
    ports: dict[str, int]

    def told(self, node: str | None) -> str:
        """That it is served, beside an instance that is to run on a node."""
        at = f" at {self.address} {' '.join(f'{name}:{port}' for name, port in self.ports.items())}" if self.ports else ""
        before = "the program before it" if self.revision is None else f"r{self.revision}"
        return f"{before if self.node == node else f'the copy on {self.node}'} serves{at} until this is ready"


def serving(one: SeenInstance) -> ServedBefore | None:
    """The copy that is served before an instance is; None where none is, or it is that one itself."""
    entry, node = one.entry, one.node
    found = served(one.sight.fleet, entry)
    if found is None:
        return None
    said, fact = found.endpoint, entry.record
    application = entry.application(node)
    if found.node == node and (application is None or said.generation >= application.record.generation):
        return None
    former = None if fact is None or fact.former != fact.good else fact.former
    its = former.revision if former is not None and fact is not None and found.node == node else None
    return ServedBefore(
        node=found.node,
        revision=None if fact is None or its == fact.revision else its,
        address=said.address,
        ports=said.ports,
    )
