"""Planted defects of what becomes of two operators' words: each is caught where the sides of a partition meet (rule E2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsmt.bus.broker.ingest import Ingest
from dsmt.event.envelope import SignedEvent
from dsmt.view import View
from tests.simulator.planting import caught

pytestmark = pytest.mark.timeout(300)


def a_broker_keeps_what_came_first(patch: pytest.MonkeyPatch) -> None:
    """What another one brings of a topic on which something stands here is not taken."""
    brought = Ingest.brought

    def kept(self: Any, broker: str, signed: SignedEvent) -> int:
        held = self._held(signed.event.topic) if signed.event.version is not None else None
        return 0 if held is not None and held.event.source != signed.event.source else brought(self, broker, signed)

    patch.setattr(Ingest, "brought", kept)


def a_controller_keeps_what_it_read_first(patch: pytest.MonkeyPatch) -> None:
    """An operator's word takes no place of another one's in its view."""
    apply = View.apply

    def applied(self: View, signed: SignedEvent) -> bool:
        held = self.winner(signed.event.topic)
        both = {one.event.source.partition("/")[0] for one in (held, signed) if one is not None}
        if held is not None and both == {"operator"} and held.event.source != signed.event.source:
            return False
        return apply(self, signed)

    patch.setattr(View, "apply", applied)


@pytest.mark.parametrize(
    ("defect", "seeds", "said"),
    [
        (a_broker_keeps_what_came_first, (1, 2, 3), "J3: on"),
        (a_controller_keeps_what_it_read_first, (3, 1, 2), "J3: on"),
    ],
)
def test_a_planted_defect_is_caught(
    defect: Callable[[pytest.MonkeyPatch], None], seeds: tuple[int, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    assert caught("both", seeds, said)
