"""What a user says, and which of it was read."""

from __future__ import annotations

from dsmt.ports.bus import Draft


def user(n: int, **more):
    return Draft("user/t", {"n": n}, **more)


def numbers(got, topic="user/t"):
    return [data["n"] for data in got.of(topic)]


def status(n: int) -> dict[str, object]:
    """What an agent says of its instance at an attempt."""
    common = {"state": "running", "layer": "application", "node": "n1", "generation": 1}
    return {**common, "attempt": n, "since_ms": 0, "emit_rate_s": 30.0}
