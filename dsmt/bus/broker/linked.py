"""Linked: to which others a broker is linked, and which of these links were lost, for however short a time (rule E1)."""

from __future__ import annotations

from collections.abc import Iterable

from dsmt.bus.broker.other import Other
from dsmt.ports.bus import Cursor


class Linked:
    """Of one broker, as it looked last."""

    def __init__(self) -> None:
        self._links: dict[str, tuple[Other, int]] = {}

    @property
    def names(self) -> list[str]:
        """Who is linked."""
        return sorted(self._links)

    def look(self, others: Iterable[Other]) -> list[Cursor] | None:
        """These are linked now: the places in those whose links were lost meanwhile; None where all is as it was.

        Who was removed is lost as well, and who is linked anew.
        """
        links = {one.name: (one, one.links) for one in others}
        if links == self._links:
            return None
        lost = [one.place for name, (one, number) in self._links.items() if links.get(name) != (one, number)]
        self._links = links
        return [place for place in lost if place is not None]
