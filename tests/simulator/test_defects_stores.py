"""Planted defects of what brokers keep, and of who tells them what they lost: each is caught by its scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dsmt.agents.instance.facts as facts_module
from dsmt.agents.node.container_manager import ContainerManager
from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.older import OlderCopy
from dsmt.bus.broker.timekeeping import Timekeeper
from dsmt.bus.broker.wholeness import Wholeness
from dsmt.bus.client.client import BusClient
from dsmt.bus.rules.early import Early
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.controllers.loop.offering import Offering
from dsmt.ports.bus import Complete, Reattached
from dsmt.simulator.members import SimBroker
from dsmt.view import Fleet
from tests.simulator.planting import caught

pytestmark = pytest.mark.timeout(300)


def nobody_re_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes keep to themselves which facts they act on (R5)."""
    monkeypatch.setattr(ContainerManager, "_offer", lambda _self: None)
    monkeypatch.setattr(facts_module.SlotFacts, "offer", lambda _self: None)


def absence_is_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container manager ends what the broker does not know (A5), and nobody tells the broker."""
    nobody_re_offers(monkeypatch)
    take = ContainerManager._take

    def taken(self: Any, delivery: Any) -> None:
        known = self.__dict__.setdefault("known", set())
        match delivery:
            case Reattached():
                known.clear()
            case Complete():
                for keeper in self._keepers.values():
                    if keeper.slot.topic not in known:
                        keeper.close()
            case _ if hasattr(delivery, "signed"):
                known.add(delivery.signed.event.topic)
        take(self, delivery)

    monkeypatch.setattr(ContainerManager, "_take", taken)


def test_taking_absence_as_an_order_empties_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    absence_is_an_order(monkeypatch)
    assert caught("empty", (1, 2), "12.4: an empty broker came")


def test_a_broker_that_came_up_empty_stays_so_unless_somebody_re_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BusClient, "offer", lambda _self, _signed: None)
    assert caught("empty", (1, 2), "12.")


def test_what_a_slow_clock_refuses_is_lost_unless_it_is_kept_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timekeeper, "was", lambda _self, _ms: False)  # as of a broker that has a new key
    monkeypatch.setattr(Early, "wait", lambda _self, _signed: None)
    monkeypatch.setattr(Wholeness, "early", lambda _self, _now: None)
    assert caught("empty", (3, 5, 6), "12.")


def test_a_birth_record_that_names_no_store_makes_a_blank_one_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BusClient, "offer", lambda _self, _signed: None)
    monkeypatch.setattr(SimBroker, "born", True)
    assert caught("blank", (3, 1), "12.4")


def controllers_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller reads what a store holds, and keeps nothing of the one before (R5, D2)."""
    monkeypatch.setattr(Offering, "lost", lambda _self, _view, _named: None)


@pytest.mark.parametrize("too", [controllers_forget, nobody_re_offers])
def test_an_old_copy_of_a_store_undoes_what_was_said_since_unless_controllers_tell_it(
    monkeypatch: pytest.MonkeyPatch, too: Callable[[pytest.MonkeyPatch], None]
) -> None:
    controllers_forget(monkeypatch)
    too(monkeypatch)
    assert caught("old", (27, 1, 2, 3), "12.2, 12.5")


def one_id_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store keeps its id, though a power cut took rows that others have read, and a cursor's row is believed (D3)."""

    def identified(self: Any, identity: str) -> str:
        kept = self.meta.get("identity")
        if kept is None:
            self.meta.put("identity", identity.encode())
        return identity if kept is None else kept.decode()

    monkeypatch.setattr(SqliteStore, "_identified", identified)
    monkeypatch.setattr(FanOut, "_had", lambda _self, row, _time_ms, head: row <= head)
    monkeypatch.setattr(OlderCopy, "_is_lost", lambda *_, **__: False)


def test_rows_that_are_numbered_twice_are_missed_by_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    one_id_for_ever(monkeypatch)
    assert caught("power", (1, 2), "12.3")


def test_a_node_that_died_with_the_only_store_and_is_waited_for_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fleet, "return_until_ms", lambda _self, _node: None)
    assert caught("blank", (5,), "12.2, after a node died with the only store")
