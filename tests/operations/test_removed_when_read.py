"""A broker that lives is removed when others have read what it has stored (rule R8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init
from dsmt.operations.local.members import brokers
from dsmt.operations.write.brokers import announce, announced
from tests.operations.test_more_brokers import FAR, NEAR, KilledError, killing, on_a_bus, remove


def test_a_broker_is_removed_when_others_have_read_what_it_has_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def lives(*_: object) -> int:
        return 1

    async def test(bus: Any) -> None:
        await announce(bus, {"far": FAR, "near": NEAR}, by="a")
        with monkeypatch.context() as patch:
            patch.setattr(brokers, "_another_is_whole", lives)
            killing(patch, brokers, "read_up")
            with pytest.raises(KilledError):
                await remove(home, bus, "far")
        assert (await announced(bus)).keys() == {"far", "near"}

    on_a_bus(tmp_path, test)


def test_a_broker_that_does_not_answer_is_asked_again_while_others_hear_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, asked = Home(tmp_path / "home"), list[str]()
    init(home, name="test")

    async def lives(*_: object) -> int:
        return brokers.TRIES if len(asked) < 2 else 1

    async def hangs(_: object, __: object, name: str, ___: object) -> bool:
        asked.append(name)
        return False

    async def test(bus: Any) -> None:
        await announce(bus, {"far": FAR, "near": NEAR}, by="a")
        monkeypatch.setattr(brokers, "_another_is_whole", lives)
        monkeypatch.setattr(brokers, "read_up", hangs)
        await remove(home, bus, "far")
        assert (await announced(bus)).keys() == {"near"}
        assert asked == ["far", "far"]

    on_a_bus(tmp_path, test)
