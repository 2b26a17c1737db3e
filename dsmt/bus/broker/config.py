"""What a broker is told at its start."""

from __future__ import annotations

from dataclasses import dataclass


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
