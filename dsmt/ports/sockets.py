"""Sockets: which ports are free on this machine, as a port."""

from __future__ import annotations

from typing import Literal, Protocol


class Sockets(Protocol):
    """Looks, and holds nothing."""

    def holder(self, port: int, address: str, protocol: Literal["tcp", "udp"]) -> str | None:
        """Who holds a port at a local address, as `pid 41 nginx` or `another process`; None when it is free."""
        ...
