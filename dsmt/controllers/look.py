"""A look: which services one decision looks at, and how far. It looks at all nodes always."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from dsmt.controllers.brake import LOOSE, Brake
from dsmt.view import View

Places = Collection[tuple[str, int]]
"""Slots of one service: (component, index)."""
Scope = Mapping[str, Places | None]
"""Services to look at: whole (None), or only these slots."""


class Look(msgspec.Struct, frozen=True):
    """All services, or those of a scope; and all where the brake keeps back other nodes than it did `before`."""

    scope: Scope | None = None
    """None: all services."""
    rest: str | None = ""
    """The first service that a look at all has yet to come to; None where nothing is left of one."""
    most: int | None = None
    """So many slots of that rest are looked at; None: all."""
    before: Brake = LOOSE
    """How the brake stood at the last decision."""

    def under(self, brake: Brake) -> Look:
        """The same, or a look at all, as the brake stands now."""
        return self if brake.lets_go_as(self.before) else Look(most=self.most)

    def places(self, service: str) -> Places | None:
        """Which slots of a service it looks at; None: all of it."""
        return None if self.scope is None else self.scope.get(service, ())

    def services(self, view: View) -> list[str]:
        """Which services it looks at, in order; some of a scope may be none any more."""
        return sorted(view.services if self.scope is None else self.scope)

    def is_in_rest(self, service: str) -> bool:
        """Whether a service counts among those of which it looks at `most`."""
        return self.rest is not None and service >= self.rest


EVERYTHING: Final = Look()
