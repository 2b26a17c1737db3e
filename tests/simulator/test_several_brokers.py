"""Several brokers in the simulator, and the defects that its scenarios would notice (12.3, 12.5, 12.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dsmt.bus.broker.copied import Copied
from dsmt.bus.broker.ingest import Ingest
from dsmt.bus.broker.others.copying import Copying
from dsmt.bus.broker.others.holders import Holders
from dsmt.bus.broker.recorder import Recorder
from dsmt.bus.client.brokers import KnownBrokers
from dsmt.bus.rules.session_words import SessionWords
from dsmt.simulator.fleet import Scale
from dsmt.view.sessions import SourceSessions
from tests.simulator.planting import caught

SCALE = Scale(nodes=6, services=2, brokers=3)


def no_looking_back(patch: pytest.MonkeyPatch) -> None:
    """Who is linked changes, and nobody is read again from where the lost one stood (E1)."""

    def look(self: Any) -> None:
        if self._linked.look(other for other in self._others.values() if other.name) is not None:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    patch.setattr(Copying, "_look", look)


def promising_early(patch: pytest.MonkeyPatch) -> None:
    """What only one broker holds is called safe (D1)."""

    def acknowledge(self: Any, session: Any, frame: Any, _now: float, **_: Any) -> None:
        self._send(session, msgspec.structs.replace(frame, level="safe", copies=2))

    patch.setattr(Copied, "acknowledge", acknowledge)


def nobody_in_place(patch: pytest.MonkeyPatch) -> None:
    """Nobody speaks for a lost broker: nobody is named to probe its nodes (F1)."""
    patch.setattr(SessionWords, "_is_first", property(lambda _: False))


@pytest.mark.parametrize(
    ("defect", "seeds", "said"),
    [(no_looking_back, (4, 7), "12.7"), (promising_early, (3, 6), "12.7"), (nobody_in_place, (1, 2), "12.2")],
)
def test_a_planted_defect_is_caught(
    defect: Callable[[pytest.MonkeyPatch], None], seeds: tuple[int, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    assert caught("survivors", seeds, said, scale=SCALE)


def test_taking_a_broker_for_lost_to_which_another_one_is_linked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SourceSessions, "_is_linked", lambda *_: False)
    assert caught("line", (6,), "F1: all nodes live", scale=SCALE)


def forgetting_its_past(patch: pytest.MonkeyPatch) -> None:
    """A broker that has lost its disk says nothing of who was attached to it before (R8)."""
    taken = Recorder._is_past
    patch.setattr(Recorder, "_is_past", lambda self, row: taken(self, row) and row.key_id != self._key_id)


def forgetting_it_with_its_process(patch: pytest.MonkeyPatch) -> None:
    """The same, where the broker is killed between having its past and saying it anew."""
    patch.setattr(Ingest, "_has_signed", lambda *_: False)


@pytest.mark.parametrize(("defect", "seed"), [(forgetting_its_past, 8), (forgetting_it_with_its_process, 4)])
def test_a_broker_that_forgets_its_past_is_caught(
    defect: Callable[[pytest.MonkeyPatch], None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    assert caught("returned", (seed,), "12.2", scale=SCALE)


def going_on_from_now(patch: pytest.MonkeyPatch) -> None:
    """Over a leaf's link it is read on from now, whatever the upstream before had of it, and the leaf of that one (E5)."""
    for name in ("handed_ms", "handed_by_ms"):
        patch.setattr(Holders, name, lambda self, *_: self.readings._now_ms())


def a_leaf_like_all_others(patch: pytest.MonkeyPatch) -> None:
    """A leaf is lost for all whose own broker is not linked to it: nodes of the other side are not what they are (E5)."""
    patch.setattr(SourceSessions, "_is_leaf", lambda *_: False)
    patch.setattr(SourceSessions, "_is_linked", lambda *_: False)


def anybody_at_the_leaf(patch: pytest.MonkeyPatch) -> None:
    """Clients take a leaf for a broker as all others (E5)."""
    patch.setattr(KnownBrokers, "all", property(lambda self: self._words.all))


@pytest.mark.parametrize(
    ("defect", "seed", "said"),
    [(going_on_from_now, 10, "12.7"), (a_leaf_like_all_others, 5, "12.2"), (anybody_at_the_leaf, 1, "E5")],
)
def test_a_planted_defect_of_a_site_is_caught(
    defect: Callable[[pytest.MonkeyPatch], None], seed: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    assert caught("site", (seed,), said)
