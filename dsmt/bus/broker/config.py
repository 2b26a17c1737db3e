"""What a broker is told at its start."""

from __future__ import annotations

from dataclasses import dataclass

from dsmt.ports.realm import BrokerAddress


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """What a broker is told at its start. `born`: the realm was born in its store, as a record of its root says."""

    address: str
    born: bool
    pid: int | None
    version: str
    depot_bytes: int = 4 * 1024**3
    boot: str = ""
    """The machine's boot; empty when that is not known."""
    brokers: tuple[BrokerAddress, ...] = ()
    """The brokers of the realm that are known at the start, this one among them or not."""
    told_ms: int | None = None
    """Realm time as other brokers have just told it; None when none did."""
