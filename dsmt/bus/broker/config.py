"""What a broker is told at its start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from dsmt.ports.realm import BrokerAddress
from dsmt.ports.store import Remains

DEPOT_BYTES: Final = 4 * 1024**3


class BrokerConfig(msgspec.Struct, frozen=True):
    """What a broker is told at its start. `born`: the realm was born in its store, as a record of its root says."""

    address: str
    born: bool
    pid: int | None
    version: str
    depot_bytes: int = DEPOT_BYTES
    boot: str = ""
    """The machine's boot; empty when that is not known."""
    brokers: tuple[BrokerAddress, ...] = ()
    """The brokers of the realm that are known at the start, this one among them or not."""
    told_ms: int | None = None
    """Realm time as other brokers have just told it; None when none did."""
    remains: tuple[Remains, ...] = ()
    """What is left of stores that were damaged, and is to be taken over."""
    older: str = ""
    """Why its store has taken another id in this process; empty when it has not."""
    damaged: Callable[[], str] = str
    """Says where a store lies that was damaged; empty where none does."""
