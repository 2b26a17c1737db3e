"""Linux sockets: whether a port can be bound now, and who holds it if not (bind(2), ip(7), ipv6(7))."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from dsmt.ports.sockets import FOR_ROOT

_INSTANCE: Final = b"DSMT_INSTANCE="


def family_of(host: str) -> socket.AddressFamily:
    """The kind of address at which a host is reached, or listens: that of IPv4 where it has one. A name is looked up."""
    if ":" in host:
        return socket.AF_INET6
    with suppress(OSError, UnicodeError):  # the second for a label that no name can have, which is found by nobody
        kinds = {one[0] for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        return socket.AF_INET6 if kinds == {socket.AF_INET6} else socket.AF_INET
    return socket.AF_INET


class LinuxSockets:
    """The `Sockets` port. It tries to bind as a server would, and lets go at once."""

    def holder(self, port: int, address: str, protocol: Literal["tcp", "udp"]) -> str | None:
        """Who holds a port at a local address, or `FOR_ROOT`; None when it is free. What is not local here is nobody's."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family_of(address), kind) as probe:
            if protocol == "tcp":  # as servers do; a UDP port could be shared so, and is not free then
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return _named(port, protocol)
                if error.errno == errno.EACCES:
                    return FOR_ROOT
        return None


def _instance(pid: int) -> str:
    """Of which instance a process is, where it is of one, and we may look."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    found = next((one for one in environment if one.startswith(_INSTANCE)), b"")
    return f", of {found.removeprefix(_INSTANCE).decode(errors='replace')}" if found else ""


def _named(port: int, protocol: str) -> str:
    """The process behind a port, as far as we may look; or what the kernel keeps of one that set no SO_REUSEADDR."""
    import psutil  # noqa: PLC0415 - lazily: 0.9 MB that a process which finds its ports free does not need

    try:
        there = [one for one in psutil.net_connections(protocol) if one.laddr and one.laddr.port == port]
        for one in sorted(there, key=lambda one: one.status not in ("LISTEN", "NONE")):
            if one.pid:
                return f"pid {one.pid} {psutil.Process(one.pid).name()}{_instance(one.pid)}"
    except psutil.Error:
        return "another process"
    if there and all(one.status == "TIME_WAIT" for one in there):
        return "the kernel: connections to what ran there last have just ended, and keep it for a minute (TIME_WAIT)"
    return "another process"
