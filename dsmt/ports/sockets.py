"""Sockets: which ports are free on this machine, as a port."""

from __future__ import annotations

from typing import Final, Literal, Protocol

FOR_ROOT: Final = "root alone"
"""In the place of a holder: nobody has the port, and the kernel gives it to root only."""


class Sockets(Protocol):
    """Looks, and holds nothing."""

    def holder(self, port: int, address: str, protocol: Literal["tcp", "udp"]) -> str | None:
        """Who holds a port at a local address, as `pid 41 nginx` or `another process`, or `FOR_ROOT`; None if it is free."""
        ...
