"""The view: facts folded into what a decision reads."""

from dsmt.event.slots import SlotKey
from dsmt.view.dirty import Dirty
from dsmt.view.entries import NO_SLOT, InstanceEntry, NodeEntry, ServiceEntry, SlotEntry
from dsmt.view.held import Held
from dsmt.view.liveness import Fleet, Liveness
from dsmt.view.view import PATTERNS, View, patterns_of

__all__ = [
    "NO_SLOT",
    "PATTERNS",
    "Dirty",
    "Fleet",
    "Held",
    "InstanceEntry",
    "Liveness",
    "NodeEntry",
    "ServiceEntry",
    "SlotEntry",
    "SlotKey",
    "View",
    "patterns_of",
]
