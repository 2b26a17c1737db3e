"""A leaf as an operator makes it: `broker add --leaf`, a token that names it, and where it is shown (rule E5)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.trust.joining import read_token
from tests.real.fleet import end
from tests.real.seat import dsmt
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


async def linked(home: Home) -> None:
    """Wait until the leaf is linked to b1, and whole, as anybody sees it."""

    async def whole() -> bool:
        shown = {one["broker"]: one for one in (await dsmt(home.root, "brokers", "--json")).json}
        one = shown.get("site")
        return one is not None and (one["leaf"], one["upstream"], one["whole"]) == (True, "b1", True)

    await told(whole, "the leaf is linked, and whole", 60)


def test_a_leaf_is_linked_to_another_broker_and_only_who_was_told_of_it_uses_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--detach")
            made = (await dsmt(home.root, "broker", "add", "site", "--leaf", "--json")).json
            assert made["address"] not in {address for address, _ in home.realm().brokers}

            await linked(home)
            assert "it is a leaf, linked to b1" in (await dsmt(home.root, "brokers")).out
            assert "leaf site is linked to b1" in (await dsmt(home.root, "status")).out
            assert (await dsmt(home.root, "nodes", "--bus", f"dsmt://{made['address']}", "--json")).json, "it answers itself"
            token = read_token((await dsmt(home.root, "token", "create", "--broker", "site")).out.strip())
            assert [address for address, _ in token.brokers] == [made["address"], home.realm().brokers[0][0]]
            await dsmt(home.root, "down")
            await dsmt(home.root, "up", "--detach")  # it is announced again, and stays a leaf
            await linked(home)
        finally:
            await end(home)

    asyncio.run(scenario())
