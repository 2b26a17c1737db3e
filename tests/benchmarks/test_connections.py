"""What `make connections` finds wrong with a broker's memory (its rule 1)."""

from __future__ import annotations

import pytest

from tests.operate.connections import NOISE, QUEUES, grown

COUNT = 10
ROOM = COUNT * QUEUES


@pytest.mark.parametrize(
    ("at_last", "wrong"),
    [
        ({}, ()),
        ({300: ROOM}, ()),
        ({300: ROOM + NOISE + 1}, ("after a minute",)),
        ({600: NOISE}, ()),
        ({600: NOISE + 1}, ("once its queues were walked through",)),
    ],
)
def test_memory_may_grow_while_queues_are_walked_through_and_not_after_that(
    at_last: dict[int, int], wrong: tuple[str, ...]
) -> None:
    held = [(at, 50_000_000 + at_last.get(at, 0)) for at in (0.0, 60.0, 300.0, 520.0, 600.0)]

    found = grown(held, COUNT)

    assert len(found) == len(wrong)
    assert all(one.startswith(when) for one, when in zip(found, wrong, strict=True))
