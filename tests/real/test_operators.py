"""A further operator's home: its operator acts, follows brokers that come and go, and is out when the key is ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from tests.real.fleet import end
from tests.real.seat import dsmt
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = "service: slow\ncomponents:\n  app: {instances: 1, run: sleep 1000}\n"


async def both(home: Path) -> bool:
    return await alive(home) == {"b1", "b2"}


async def alive(home: Path) -> set[str]:
    return {one["broker"] for one in (await dsmt(home, "brokers", "--json")).json if one["alive"]}


def test_a_further_operator_acts_and_follows_the_realm_to_other_brokers_until_the_key_is_ended(tmp_path: Path) -> None:
    home, bobs = Home(tmp_path / "home"), tmp_path / "bob"
    (tmp_path / "slow.yaml").write_text(SPEC)

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--detach")
            made = (await dsmt(home.root, "operator", "add", "bob", "--into", str(bobs), "--json")).json
            await dsmt(bobs, "apply", str(tmp_path / "slow.yaml"), "--wait=90s")
            await dsmt(home.root, "broker", "add", "b2")
            await told(lambda: both(bobs), "both brokers", 60)
            await dsmt(home.root, "broker", "remove", "b1", "--yes")
            assert await alive(bobs) == {"b2"}
            (first,) = (await dsmt(bobs, "history", "slow", "--json")).json
            assert first["by"] == "bob"
            await dsmt(home.root, "cert", "revoke", made["name"], "--keep", "--yes", "--reason", "has left")
            refused = (await dsmt(bobs, "ps", "--json", code=4)).error
            assert refused["code"] == "trust.revoked"
            (row,) = (await dsmt(home.root, "ps", "--json")).json
            assert (row["state"], row["restarts"]) == ("running", 0)
        finally:
            await end(home)

    asyncio.run(scenario())


def test_a_command_that_names_a_broker_is_answered_by_that_one_or_by_none(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def asked(name: str, address: str, code: int = 0) -> None:
        said = await dsmt(home.root, "export", str(tmp_path / "history"), "--bus", f"dsmt://{address}", "--json", code=code)
        assert (said.json["broker"] if code == 0 else said.error["code"]) == name

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--brokers", "2", "--detach")
            listed = (await dsmt(home.root, "brokers", "--json")).json  # the home keeps which there are
            for one in listed * 3:
                await asked(f"broker/{one['broker']}", one["address"])
            await dsmt(home.root, "broker", "remove", "b2", "--yes")
            await asked("bus.unreachable", listed[1]["address"], code=7)
        finally:
            await end(home)

    asyncio.run(scenario())


def test_a_key_that_has_said_nothing_ends_with_the_name_of_who_was_given_it(tmp_path: Path) -> None:
    home, bobs = Home(tmp_path / "home"), tmp_path / "bob"

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--detach")
            await dsmt(home.root, "operator", "add", "bob", "--into", str(bobs))
            await dsmt(home.root, "cert", "revoke", "operator/bob", "--yes", "--reason", "lost")
            assert (await dsmt(bobs, "ps", "--json", code=4)).error["code"] == "trust.revoked"
        finally:
            await end(home)

    asyncio.run(scenario())
