"""Planted defects of presence, clocks and rollouts: each is caught by its scenario."""

from __future__ import annotations

import pytest

from dsmt.bus.broker import dismissal
from dsmt.bus.rules.broker_time import BrokerTime
from dsmt.controllers.context import ComponentContext
from dsmt.event.kinds.slot import Good
from dsmt.view.entries import SlotEntry
from tests.simulator.planting import caught

pytestmark = pytest.mark.timeout(300)


def test_a_node_that_stood_still_stays_dead_unless_its_broker_asks_it_to_attach_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dismissal, "must_attach_anew", lambda *_: False)
    assert caught("stalled", (1, 2, 3), "O1")


def test_a_broker_that_follows_any_clock_takes_realm_time_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(self: BrokerTime, wall_ms: int, now: float) -> None:
        self._offset = max(self._offset, wall_ms - now * 1000)
        self._difference = 0.0

    monkeypatch.setattr(BrokerTime, "seen", follow)
    assert caught("clock", range(1, 9), "J4")


def test_going_back_to_whatever_a_slot_had_goes_back_to_what_never_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision passes for good because a slot has had it (O2)."""
    had: dict[str, dict[int, Good]] = {}
    good = ComponentContext.good

    def noted(case: ComponentContext, slot: SlotEntry) -> Good | None:
        if slot.fact is not None:
            record = slot.fact.record
            had.setdefault(case.entry.name, {})[record.revision] = Good(spec=record.spec, revision=record.revision)
        return good(case, slot)

    def before(case: ComponentContext) -> Good | None:
        for slot in case.entry.slots.values():
            noted(case, slot)
        older = [one for revision, one in had.get(case.entry.name, {}).items() if revision < case.spec.version]
        return max(older, key=lambda one: one.revision, default=None)

    monkeypatch.setattr(ComponentContext, "good", noted)
    monkeypatch.setattr(ComponentContext, "before", property(before))
    assert caught("parked", (3, 1, 2, *range(4, 25)), "O2")
