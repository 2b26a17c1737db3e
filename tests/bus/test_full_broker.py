"""A broker whose disk is full cannot take back what it has said: nobody waits for its word on one that has died (F1)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dsmt.bus.broker import copied
from dsmt.bus.broker.others import isolation
from dsmt.event.kinds.broker import SILENT_S
from dsmt.trust.identity import YEAR_S
from tests.bus.meshes import linked, mesh
from tests.bus.realm import TestRealm, scenario
from tests.bus.spoiled import Full
from tests.bus.test_brokers_of_one_name import session
from tests.waiting import until


def test_one_that_stores_nothing_is_not_heard_until_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went on to say that it was linked to a broker that had died, at which a dead node counted as alive for good."""
    monkeypatch.setattr(copied, "STILL_S", 3.0)

    @scenario
    async def played(r: TestRealm) -> None:
        b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
        await until(lambda: linked(b1) == linked(b2) == linked(b3) == 2)
        store, lost = b2._store, b1._session_words._known.lost
        await until(lambda: session(b1, "broker/b2", "broker/b3"))
        store.append = Full()  # type: ignore[method-assign]
        await r.stop(b3)
        await until(lambda: {"b2", "b3"} <= lost("b1").keys())
        said = session(b1, "broker/b2", "broker/b3")
        assert said is not None
        assert said.state == "open", "it could not say otherwise"
        del store.append
        await until(lambda: lost("b1").keys() == {"b3"})

    played("memory", tmp_path)


def test_who_has_no_other_one_beside_it_but_one_that_stores_nothing_is_not_isolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who are attached there would look for a place at the full one, be sent away, and come back, each half minute."""
    monkeypatch.setattr(copied, "STILL_S", 1.0)
    monkeypatch.setattr(isolation, "ISOLATED_S", 1.0)

    @scenario
    async def played(r: TestRealm) -> None:
        b1, b2 = await mesh(r, "b1", "b2")
        await until(lambda: linked(b1) == linked(b2) == 1 and b2.whole)
        b2._store.append = Full()  # type: ignore[method-assign]
        await until(lambda: "b2" in b1._session_words._known.lost("b1"))
        since = b1._clock.boottime()
        await until(lambda: b1._clock.boottime() > since + 5.0)
        assert not b1._others.isolated
        await r.stop(b2)
        await until(lambda: b1._others.isolated)

    played("memory", tmp_path)


def test_one_that_stores_for_long_what_comes_slowly_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a thin link: it has everything that it was given so far, and says so."""
    monkeypatch.setattr(copied, "STILL_S", 1.0)

    @scenario
    async def played(r: TestRealm) -> None:
        b1, b2 = await mesh(r, "b1", "b2")
        await until(lambda: linked(b1) == linked(b2) == 1 and b2.whole)
        b1._copied.stored = lambda *_: None  # type: ignore[method-assign]
        (reader,) = b1._others.attached.copies
        since = b1._clock.boottime()
        await until(lambda: b1._clock.boottime() > since + 1.0 + 2 * SILENT_S)
        assert b1._copied.stands_still(reader, b1._clock.boottime())
        assert "b2" not in b1._session_words._known.lost("b1")

    played("memory", tmp_path)


def test_one_whose_certificate_has_ended_goes_on_to_hear_those_that_store_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It let in everybody again, who then saw what was there before."""
    monkeypatch.setattr(copied, "STILL_S", 2.0)

    @scenario
    async def played(r: TestRealm) -> None:
        _, b2 = await mesh(r, "b1", "b2", certified_s={"b2": int(time.time()) - YEAR_S + 3})

        def still_s() -> float:
            return max((b2._clock.boottime() - since for _, since in b2._copied._since.values()), default=0.0)

        await until(lambda: still_s() > 7.0)
        assert b2._session_words.presence.are_open("broker") == ["broker/b1"]
        assert b2._others.refusal is not None

    played("memory", tmp_path)
