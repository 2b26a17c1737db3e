"""Addresses as text: `host:port`, with the brackets of an address of IPv6 (RFC 3986, 3.2.2)."""

from __future__ import annotations

import re


def host_port(host: str, port: int) -> str:
    """A host, a name or an address of either kind, and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_number(host: str) -> bool:
    """Whether a host is an address, and no name."""
    return ":" in host or re.fullmatch(r"[0-9.]+", host) is not None


def host_of(address: str) -> str:
    """The host of `host:port`, without brackets."""
    return address.rpartition(":")[0].strip("[]")


def parted(address: str) -> tuple[str, int]:
    """The host of `host:port`, without brackets, and the port. Raises `ValueError` for what is no number."""
    return host_of(address), int(address.rpartition(":")[2])
