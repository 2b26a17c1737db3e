"""Addresses: at which ones this machine can listen, and which ports nobody holds."""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from contextlib import suppress
from typing import Final

from dsmt.errors import FailedError, InputError
from dsmt.event.addresses import host_port, parted
from dsmt.ports.sockets import FOR_ROOT
from dsmt.system.entropy import SystemEntropy
from dsmt.system.sockets import LinuxSockets, family_of

PORTS = (10_000, 19_999)
"""Where a broker's port is looked for: below what the kernel gives to outgoing connections. Clients that try to reach a
broker that is away would else be given its port as their own one day, even connect to themselves, and keep it from it."""


_given: Final[deque[int]] = deque(maxlen=1000)
"""The ports that this process was given last: most are held by nobody yet, and a realm's brokers want one each."""
_held: Final[deque[int]] = deque()
"""Sockets that keep the last `HELD` of them from other processes, which look for one too: they are bound, do not listen, and
let a server that is to listen there bind as servers do, with SO_REUSEADDR. They end with this process."""
HELD: Final = 64
_EVERYWHERE: Final = r"[*]|0+(\.0+){0,3}|[0:]*::[0:]*"


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody holds or was given a moment ago. Raises `FailedError` when none is found."""
    entropy, family = SystemEntropy(), family_of(host)
    for _ in range(1000):
        port = int(entropy.uniform(PORTS[0], PORTS[1] + 1))
        with socket.socket(family) as probe, suppress(OSError):
            probe.bind((host, port))
            if port not in _given:
                _given.append(port)
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _held.append(probe.detach())
                if len(_held) > HELD:
                    os.close(_held.popleft())
                return port
    raise FailedError("start.port_in_use", f"no free port from {PORTS[0]} to {PORTS[1]}", next="name one: --port P")


def keep_free(address: str) -> None:
    """Give nobody the port of an address that was named."""
    _given.append(parted(address)[1])


def is_here(host: str) -> bool:
    """Whether a name or an address is one at which this machine can listen."""
    try:
        with socket.socket(family_of(host)) as probe:
            probe.bind((host, 0))
    except (OSError, TypeError):  # the second for a name that none can have
        return False
    return True


def own_address(broker: str) -> str:
    """The address of this machine on the way to a broker: where its services are reached."""
    host, port = parted(broker)
    try:
        with socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))
            return str(probe.getsockname()[0])
    except (OSError, TypeError):
        return "127.0.0.1"


def free_address(host: str) -> str:
    """An address at a host with a free port. Raises `InputError` for a host that is another one."""
    if not is_here(host):
        said = f"{host} is no address of this machine, at which several brokers could listen"
        raise InputError("home.address", said, next="--listen HOST:PORT with one that is; or one broker")
    return host_port(host, free_port(host))


def free_everywhere(host: str) -> str:
    """An address at a host with a port that is free at all addresses of this machine."""
    return host_port(host, free_port("::" if family_of(host) is socket.AF_INET6 else "0.0.0.0"))  # noqa: S104 - none is held


def check_address(listen: str) -> None:
    """Raise `InputError` for what is no HOST:PORT, and for one that stands for all addresses: others are told it."""
    host, _, port = listen.rpartition(":")
    if ":" in host.strip("[]") and not re.fullmatch(r"\[[^]]+\]", host):
        said = f"{listen!r} is not an address to listen at: one of IPv6 is in brackets"
        raise InputError("home.address", said, next="write [ADDRESS]:PORT")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        said = f"{listen!r} is not an address to listen at: a port is a number from 1 to 65535"
        raise InputError("home.address", said, next="write HOST:PORT")
    if re.fullmatch(_EVERYWHERE, host.strip("[]")):
        said = f"{listen!r} stands for all addresses of this machine, and is one at which no other machine reaches it"
        raise InputError("home.address", said, next="write the one at which others reach it, as in 10.0.0.7:4000")


NEW_REALM: Final = "choose another one, for a new realm in another home"


def check_free(address: str, who: str, *, then: str, moved: str = NEW_REALM) -> None:
    """Raise `FailedError` when a TCP port cannot be listened on: its holder is named, or that the host is another one.

    `then` says what to do about the holder, and `moved` what else helps but that address.
    """
    host, port = parted(address)
    if not is_here(host):
        said = f"{who} cannot listen on {address}: {host} is no address of this machine"
        raise FailedError("start.address", said, next=f"give it that address; or {moved}")
    holder = LinuxSockets().holder(port, host, "tcp")
    if holder == FOR_ROOT:
        said = f"{who} cannot listen on {address}: only root may listen at port {port}"
        raise FailedError("start.port_denied", said, next=f"a port from 1024 on; or become root; or {moved}")
    if holder is not None:
        raise FailedError(
            "start.port_in_use", f"{who} cannot listen on {address}: port {port} is held by {holder}", next=then
        )
