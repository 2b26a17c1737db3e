"""A history since a time, of a realm of processes: written, verified and decided again as far as it goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from tests.real.fleet import end
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = "service: slow\ncomponents:\n  app: {instances: 1, run: sleep 1000}\n"


def test_it_begins_with_the_event_that_was_named_and_says_what_it_does_not_prove(tmp_path: Path) -> None:
    home, whole, some = Home(tmp_path / "home"), str(tmp_path / "whole"), str(tmp_path / "some")
    (tmp_path / "slow.yaml").write_text(SPEC)

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--detach")
            await dsmt(home.root, "apply", str(tmp_path / "slow.yaml"), "--wait=90s")
            await dsmt(home.root, "publish", "user/x", '{"said": "now"}')
            (spoken,) = (await dsmt(home.root, "tail", "user/x", "--no-follow", "--json")).lines
            await dsmt(home.root, "restart", "slow", "--wait=90s")
            done = (await dsmt(home.root, "export", some, "--since", f"{spoken['source']}#{spoken['id']}", "--json")).json
            everything = (await dsmt(home.root, "export", whole, "--json")).json
            assert 0 < done["before"] < everything["rows"]
            assert done["head"] == done["before"] + done["rows"]
        finally:
            await end(home)
        found = (await dsmt(home.root, "verify", some, "--json")).json
        assert (found["ok"], found["events"], found["history"]["before"]) == (True, done["rows"], done["before"])
        assert f"it begins with row {done['before'] + 1}, of 20" in (await dsmt(home.root, "verify", some)).out
        replayed = (await dsmt(home.root, "replay", some, "--json")).json
        assert replayed["ok"]
        assert (replayed["same"], replayed["different"], replayed["before"]) == (0, 0, done["before"])
        assert replayed["incomplete"] > 0
        told = (await dsmt(home.root, "replay", some)).out
        assert "what was decided from facts before that cannot be decided again" in told

    asyncio.run(scenario())
