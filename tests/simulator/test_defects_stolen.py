"""Planted defects of what becomes of a stolen key's words: each is caught where the sides of a partition meet (rule J3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.void import Void
from dsmt.controllers.loop.resaying import Resaying
from tests.simulator.planting import caught

pytestmark = pytest.mark.timeout(300)


def nothing_is_displaced(patch: pytest.MonkeyPatch) -> None:
    """What a void word had displaced stands no more, though its key has ended."""
    patch.setattr(Void, "displace", lambda _self, _now_ms: [])


def nothing_at_the_start(patch: pytest.MonkeyPatch) -> None:
    """A broker that ended before it had displaced what is void does not do that when it begins."""
    begin = Broker._begin

    def begun(self: Any) -> None:
        with pytest.MonkeyPatch.context() as meanwhile:
            meanwhile.setattr(Void, "displace", lambda _self, _now_ms: [])
            begin(self)

    patch.setattr(Broker, "_begin", begun)


def nobody_begins_anew(patch: pytest.MonkeyPatch) -> None:
    """A controller keeps what it has read, whoever has said it."""
    patch.setattr(Resaying, "is_misled", lambda *_: False)


def nothing_is_kept_to_be_said_again(patch: pytest.MonkeyPatch) -> None:
    """A controller that begins anew forgets what it was to say again (`resaying` rule 5)."""
    patch.setattr(Resaying, "_keep", lambda *_: None)


@pytest.mark.parametrize(
    ("defect", "seeds", "said"),
    [
        (nothing_is_displaced, (2, 3), "J3: on"),
        (nothing_at_the_start, (11, 14), "J3: on"),
        (nobody_begins_anew, (2, 3), "J3: on"),
        (nothing_is_kept_to_be_said_again, (5, 9, 20), "J3: on tombstone/service/"),
    ],
)
def test_a_planted_defect_is_caught(
    defect: Callable[[pytest.MonkeyPatch], None], seeds: tuple[int, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    assert caught("stolen", seeds, said)
