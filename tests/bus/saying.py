"""What a user says, and which of it was read."""

from __future__ import annotations

from dsmt.ports.bus import Draft


def user(n: int, **more):
    return Draft("user/t", {"n": n}, **more)


def numbers(got, topic="user/t"):
    return [data["n"] for data in got.of(topic)]
