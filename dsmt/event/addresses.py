"""Addresses as text: `host:port`, with the brackets of an address of IPv6 (RFC 3986, 3.2.2)."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Final

_NUMBERS: Final = r"(0|[1-9][0-9]{0,9})(\.(0|[1-9][0-9]{0,9})){0,3}"


def host_port(host: str, port: int) -> str:
    """A host, a name or an address of either kind, and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_number(host: str) -> bool:
    """Whether a host is an address, as inet_aton(3) or inet_pton(3) has it, and no name: that is looked up."""
    if re.fullmatch(_NUMBERS, host):
        *first, last = map(int, host.split("."))
        return last < 256 ** (4 - len(first)) and all(one < 256 for one in first)
    with suppress(ValueError):
        return isinstance(ip_address(host), IPv6Address)
    return False


def host_of(address: str) -> str:
    """The host of `host:port`, without brackets."""
    return address.rpartition(":")[0].strip("[]")


def parted(address: str) -> tuple[str, int]:
    """The host of `host:port`, without brackets, and the port. Raises `ValueError` for what is no number."""
    return host_of(address), int(address.rpartition(":")[2])
