"""Sockets: which kind of address a host has."""

import socket
from typing import Any

import pytest

from dsmt.system.sockets import family_of

FOUR, SIX = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("host", "found", "family"),
    [
        ("b1.example", [SIX, FOUR], FOUR),
        ("b1.example", [FOUR], FOUR),
        ("b1.example", [SIX], SIX),
        ("b1.example", OSError, FOUR),
        ("2001:db8::7", AssertionError, SIX),
    ],
    ids=["both", "IPv4", "IPv6", "no such name", "a number"],
)
def test_ipv6_is_used_where_a_host_has_nothing_else(
    monkeypatch: pytest.MonkeyPatch, host: str, found: Any, family: socket.AddressFamily
) -> None:
    def look(asked: str, *_: Any, **__: Any) -> list[tuple[socket.AddressFamily]]:
        assert asked == host
        if not isinstance(found, list):
            raise found
        return [(one,) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    assert family_of(host) is family
