"""What a keeper keeps of a home that changes under it, and the keeper that follows one that was killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.home.making import ensure_broker, init
from dsmt.operations.local.processes import ending, keeping
from dsmt.operations.local.processes.keeping import write_kept
from dsmt.programs.kept import KeeperFile


def test_what_is_added_is_kept_by_the_keeper_that_follows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    ensure_broker(home, "b2")
    asyncio.run(keeping.keep_added(home, "brokers", ("broker",), "b2"))
    assert not keeper_directory(home).exists(), "this home was never up"
    KeeperFile(kept=()).write(keeper_directory(home))
    asked: list[tuple[str, ...]] = []

    async def ask(_: Home, op: str, program: str, directory: Path) -> None:
        kept = [Path(where).name for _, where in KeeperFile.read(keeper_directory(home)).kept]
        asked.append((op, program, directory.name, *kept))

    monkeypatch.setattr(keeping, "ask_keeper", ask)
    asyncio.run(keeping.keep_added(home, "brokers", ("broker",), "b2"))
    assert asked == [], "it has just been killed: whoever follows it reads what is written"
    assert len(KeeperFile.read(keeper_directory(home)).kept) == 2
    monkeypatch.setattr(keeping, "is_up", lambda _: True)
    asyncio.run(keeping.keep_added(home, "brokers", ("broker",), "b2"))
    assert asked == [("keep", "broker", "b2", "b1", "b2")]


def test_what_a_keeper_releases_is_kept_by_none_that_comes_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", brokers=2)
    write_kept(home)
    kept: list[tuple[str, ...]] = []

    async def ask(_: Home, op: str, program: str, directory: Path) -> None:
        assert (op, program, directory.name) == ("release", "broker", "b2")
        kept.append(tuple(Path(where).name for _, where in KeeperFile.read(keeper_directory(home)).kept))

    monkeypatch.setattr(ending, "is_up", lambda _: True)
    monkeypatch.setattr(ending, "ask_keeper", ask)
    asyncio.run(ending.release(home, "broker", "b2"))
    assert kept == [("b1",)], "it is written down before it is ended"


def test_what_is_ended_while_the_keeper_was_killed_is_kept_by_none_that_comes_after_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", brokers=2)
    write_kept(home)
    asyncio.run(ending.release(home, "broker", "b2"))
    assert [Path(where).name for _, where in KeeperFile.read(keeper_directory(home)).kept] == ["b1"]
