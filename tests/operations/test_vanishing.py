"""What goes while a home is looked through, as a container whose service is removed meanwhile, is not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import Parts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    (made.part("nodes", "n1") / "containers/web/app/0").mkdir(parents=True)
    return made


def going(monkeypatch: pytest.MonkeyPatch, gone: Path) -> None:
    """Have an empty directory go in the moment in which it is looked into."""

    def looking(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(place: Any = ".") -> Any:
            if isinstance(place, (str, Path)) and Path(place) == gone and gone.exists():
                gone.rmdir()
            return look(place)

        return looked

    gone.mkdir(parents=True)
    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))


@pytest.mark.parametrize("what", ["old", "old/app"])
def test_containers_that_go_keep_nobody_from_the_others(home: Home, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    containers = home.part("nodes", "n1") / "containers"
    going(monkeypatch, containers / what)
    assert list(Parts(home).containers()) == [containers / "web/app/0"]
    assert not (containers / what).exists()


def test_a_program_whose_directory_goes_is_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    going(monkeypatch, home.part("nodes", "n2"))
    assert home.names("nodes") == ["n1"]
    going(monkeypatch, home.root / "brokers")
    assert home.names("brokers") == []
