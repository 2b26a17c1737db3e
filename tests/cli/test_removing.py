"""`remove`: what is asked before, and what is told of data that is to go, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsmt.errors import TimedOutError
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.write.controlling import Done
from tests.cli.in_process import MISSING, NO_YES, WRONG, Run


def test_removing_what_does_not_exist_says_so_before_anybody_is_asked(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, known: Sight
) -> None:
    monkeypatch.setattr("dsmt.cli.removing.seen", lambda *_: known)
    assert run("remove", "nosuch", home=made) == (
        MISSING,
        "dsmt: there is no service nosuch. Next: dsmt services lists them\n",
    )
    asked = "all of web is stopped and removed; data directories are kept. Next: dsmt remove web --yes"
    assert run("remove", "web", home=made) == (WRONG, f"dsmt: {NO_YES}: {asked}\n")
    asked = "all of web is stopped and removed; data directories are deleted on each node that has one"
    told = f"dsmt: {NO_YES}: {asked}. Next: dsmt remove web --purge --yes\n"
    assert run("remove", "web", "--purge", home=made) == (WRONG, told)


def test_who_waits_no_longer_for_the_end_of_what_is_purged_is_told_that_its_data_is_kept(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def remove(*_: Any, **__: Any) -> Done:
        return Done(action="remove", target="web", instances=["web/app/0"], unchanged=[])

    async def ended(*_: Any, **__: Any) -> None:
        raise TimedOutError("wait.timeout", "web is not gone", next="dsmt ps web")

    async def purge(*_: Any, **__: Any) -> None:
        raise AssertionError("it has not ended")

    monkeypatch.setattr("dsmt.operations.write.removing.remove", remove)
    monkeypatch.setattr("dsmt.operations.write.removing.purge", purge)
    monkeypatch.setattr("dsmt.operations.read.waits.leaving.gone", ended)
    told = "dsmt: web is not gone; its data is kept until then. Next: dsmt remove web --purge again, which waits on\n"
    assert run("remove", "web", "--purge", "--yes", "--wait=1s", home=made) == (TimedOutError.exit, told)
