"""Planted defects of what becomes of a stolen controller's words: each is caught where the sides of a cut meet (J3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsmt.agents.node.abandoned import Abandoned
from dsmt.agents.rules.register import Register
from dsmt.bus.broker.void import Void
from dsmt.event.envelope import SignedEvent
from tests.simulator.planting import caught

pytestmark = pytest.mark.timeout(300)


def nothing_is_let_go(patch: pytest.MonkeyPatch) -> None:
    """What a controller's key said stands at its broker, whether or not anybody says it again."""
    patch.setattr(Void, "is_late", lambda *_: False)


def nodes_ask_nobody(patch: pytest.MonkeyPatch) -> None:
    """A node goes on by what nobody believes, and has let go of what it was given before."""

    async def ask(_self: Abandoned) -> None:
        pass

    patch.setattr(Abandoned, "_ask", ask)


def its_numbers_count_at_nodes(patch: pytest.MonkeyPatch) -> None:
    """What has a lower number than what nobody believes comes to nothing at a node."""

    def take(self: Register, signed: SignedEvent) -> bool:
        wins = bool(self._fold.take(signed))
        if wins:
            self.held = signed
        return wins

    patch.setattr(Register, "take", take)


def nobody_tells_the_node_that_it_names(patch: pytest.MonkeyPatch) -> None:
    """What is said again goes to whom the thief has told, and to nobody else."""
    patch.setattr("dsmt.controllers.loop.resaying._addressed", lambda event: event.to)


@pytest.mark.parametrize(
    ("defect", "seeds", "said"),
    [
        (nothing_is_let_go, (1,), "J3: on"),
        (nodes_ask_nobody, (9, 5), "12.2"),
        (its_numbers_count_at_nodes, (5, 9, 2), "12.2"),
        (nobody_tells_the_node_that_it_names, (2,), "12.2"),
    ],
)
def test_a_planted_defect_is_caught(
    defect: Callable[[pytest.MonkeyPatch], None], seeds: tuple[int, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    assert caught("usurped", seeds, said)
