"""A broker is removed while it alone holds what specs name: it is with another one before that (rule E6)."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path

import pytest

from dsmt.operations.connection import reading
from dsmt.operations.local.home import Home
from tests.real.fleet import end
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
SPEC = """\
service: web
components:
  app:
    instances: 0
    artifact: {url: web.bin}
    run: ./web.bin
"""


def test_what_a_broker_alone_was_given_is_with_another_one_when_it_is_removed(tmp_path: Path) -> None:
    home, content = Home(tmp_path / "home"), os.urandom(3_000_000)
    (tmp_path / "web.bin").write_bytes(content)
    (tmp_path / "web.yaml").write_text(SPEC)

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--brokers", "2", "--detach")
            address = {one["broker"]: one["address"] for one in (await dsmt(home.root, "brokers", "--json")).json}["b2"]
            await dsmt(home.root, "apply", str(tmp_path / "web.yaml"), "--bus", f"dsmt://{address}")
            await dsmt(home.root, "broker", "remove", "b2", "--yes")
            async with reading(home.operator(), home.realm()) as connection:
                chunks = [chunk async for chunk in connection.bus.get_blob(sha256(content).digest())]
            assert b"".join(chunks) == content
        finally:
            await end(home)

    asyncio.run(scenario())


def test_a_node_whose_first_broker_was_replaced_starts_new_instances(tmp_path: Path) -> None:
    """Its agents are configured with the one that is gone, as it was when its manager began."""
    home = Home(tmp_path / "home")
    (tmp_path / "slow.yaml").write_text("service: slow\ncomponents:\n  app: {instances: 1, run: sleep 1000}\n")

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--detach")
            await dsmt(home.root, "broker", "add", "b2")
            await dsmt(home.root, "broker", "remove", "b1", "--yes")
            await dsmt(home.root, "apply", str(tmp_path / "slow.yaml"), "--wait=60s")
        finally:
            await end(home)

    asyncio.run(scenario())
