"""Following: what a subscription delivers, folded into a view of what one store holds, up to a marked place.

Rule 1: the view is that of one store. With another one, or one that ends before what was read of it, it begins anew.
Rule 2: it is complete up to the last mark of its store, and not before there was one.
"""

from __future__ import annotations

from enum import Enum, auto

from dsmt.ports.bus import Arrived, Bookmark, Complete, Delivery, Reattached
from dsmt.view import View


class DeliveryEffect(Enum):
    """What a delivery was to a view."""

    NOTHING = auto()
    FOLDED = auto()
    """A fact that changed it."""
    REACHED = auto()
    """A mark: it has everything up to there."""
    ANEW = auto()
    """It is at another store now, and begins with nothing. A conflated subscription is read anew by itself; another one,
    which delivers nothing twice, is to be begun anew."""
    BEHIND = auto()
    """Its store ends before what was read of it: it begins with nothing, and its subscription is to be begun anew."""


class ViewFollower:
    """A view and how far it is."""

    def __init__(self) -> None:
        self.view = View()
        self.complete = self.whole = False
        """Whether it has reached a mark of its store; that broker's word, with the last one, that nothing is missing."""
        self.as_of_ms = 0
        """The realm time of the last mark."""
        self.store, self.row = "", 0
        """Where it is."""

    def take(self, delivery: Delivery) -> DeliveryEffect:
        """Take in one delivery."""
        match delivery:
            case Arrived(signed):
                return DeliveryEffect.FOLDED if self.view.apply(signed) else DeliveryEffect.NOTHING
            case Complete(cursor, whole) | Bookmark(cursor, whole):
                if cursor.store == self.store and cursor.row < self.row:
                    self.begin()
                    return DeliveryEffect.BEHIND
                self.store, self.row, self.as_of_ms = cursor.store, cursor.row, cursor.time_ms
                self.complete, self.whole = True, whole
                return DeliveryEffect.REACHED
            case Reattached(store=store) if store != self.store:
                self.store = store
                self.begin()
                return DeliveryEffect.ANEW
            case _:
                return DeliveryEffect.NOTHING

    def begin(self) -> None:
        """Begin with nothing: the subscription is to be begun anew."""
        self.view, self.row = View(), 0
        self.complete = self.whole = False
