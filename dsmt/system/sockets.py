"""Linux sockets: whether a port can be bound now, and who holds it if not (bind(2), ip(7))."""

from __future__ import annotations

import errno
import socket
from typing import Literal


class LinuxSockets:
    """The `Sockets` port. It tries to bind as a server would, and lets go at once."""

    def holder(self, port: int, address: str, protocol: Literal["tcp", "udp"]) -> str | None:
        """Who holds a port at a local address; None when it is free. What is not local here is nobody's."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family, kind) as probe:
            if protocol == "tcp":  # as servers do; a UDP port could be shared so, and is not free then
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return _named(port, protocol)
                if error.errno == errno.EACCES:
                    return "the kernel: ports below 1024 need root"
        return None


def _named(port: int, protocol: str) -> str:
    """The process behind a port, as far as we may look; or what the kernel keeps of one that set no SO_REUSEADDR."""
    import psutil  # noqa: PLC0415 - lazily: 0.9 MB that a process which finds its ports free does not need

    try:
        there = [one for one in psutil.net_connections(protocol) if one.laddr and one.laddr.port == port]
        for one in sorted(there, key=lambda one: one.status not in ("LISTEN", "NONE")):
            if one.pid:
                return f"pid {one.pid} {psutil.Process(one.pid).name()}"
    except psutil.Error:
        return "another process"
    if there and all(one.status == "TIME_WAIT" for one in there):
        return "the kernel: connections to what ran there last have just ended, and keep it for a minute (TIME_WAIT)"
    return "another process"
