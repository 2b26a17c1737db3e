"""Planted defects of what becomes of a stolen key's words: each is caught where the sides of a partition meet (rule J3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.void import Void
from dsmt.controllers.loop.resaying import Resaying
from dsmt.event.fold import Fold
from dsmt.trust.revocations import is_void
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


def its_tombstones_of_services_stand(patch: pytest.MonkeyPatch) -> None:
    """What an operator's key has said stands where controllers may write, too, though none says it again."""
    patch.setattr(
        "dsmt.bus.broker.void.is_void", lambda one, ended: is_void(one, ended) and not one.event.ends.startswith("service/")
    )


def nodes_go_on_by_its_tombstones(patch: pytest.MonkeyPatch) -> None:
    """What a node has heard of once hides what comes, though the key has ended that said it."""
    patch.setattr(Fold, "exhume", lambda *_: None)


@pytest.mark.parametrize(
    ("defect", "seeds", "said"),
    [
        (nothing_is_displaced, (2, 3), "J3: on"),
        (nothing_at_the_start, (11, 14), "J3: on"),
        (nobody_begins_anew, (2, 3), "J3: on"),
        (its_tombstones_of_services_stand, (5,), "J3: on service/s2/slot/"),
        (nodes_go_on_by_its_tombstones, (5,), "12.2"),
    ],
)
def test_a_planted_defect_is_caught(
    defect: Callable[[pytest.MonkeyPatch], None], seeds: tuple[int, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    assert caught("stolen", seeds, said)
