"""Where a realm is reached: what every client of the bus is configured with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker: `host:port` and its Ed25519 public key, 32 bytes."""

    address: str
    public: bytes
    leaf: bool = False
    """Whether an operator has said that it is the broker of a site, and read by one other at a time (E5)."""
