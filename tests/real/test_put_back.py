"""The only broker and the only controller are put back as they were, while the nodes of other homes go on."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
SPEC = """\
service: {name}
components:
  app:
    instances: {instances}
    env: {{SAYS: "{says}"}}
    run: sleep 1000
    update: {{healthy_after: 1s}}
"""
SOON_S = 15.0
"""Within this time of the nodes' return every screen is right again."""


class Realm:
    """A home with a broker and a controller, and homes with a node each."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.home = directory, directory / "home"
        self.nodes = {name: directory / name for name in ("w1", "w2", "w3", "out")}

    async def say(self, *arguments: str, **more: Any) -> Any:
        return await dsmt(self.home, *arguments, **more)

    async def apply(self, name: str, says: str, *, instances: int = 2) -> None:
        spec = self.directory / f"{name}.yaml"
        spec.write_text(SPEC.format(name=name, instances=instances, says=says))
        await self.say("apply", str(spec), "--wait=60s")

    async def join(self, name: str) -> None:
        token = (await self.say("token", "create", "--name", name)).out
        await dsmt(self.nodes[name], "join", "-", "--name", name, stdin=token)

    async def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.say("ps", "--json")).json
        return found

    async def shown(self) -> set[tuple[str, str, int]]:
        return shown(await self.rows())

    async def services(self) -> dict[str, tuple[str, str]]:
        """How each service is, and its revision."""
        told = (await self.say("status", "--json")).json["services"]
        return {one["service"]: (one["state"], f"r{one['revision']}") for one in told}

    async def out(self) -> str:
        """How the certificate of the node stands whose key was revoked."""
        listed = (await self.say("cert", "list", "--json")).json
        return next(str(one["state"]) for one in listed if one["name"] == "node/out")

    async def up(self) -> None:
        await self.say("up", "--nodes", "0", "--detach")

    async def end(self) -> None:
        for home in (*self.nodes.values(), self.home):
            if home.exists():
                await down(Home(home))


def shown(rows: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
    """What runs, with its pid, as `ps` shows it."""
    return {(row["instance"], row["node"], row["pid"]) for row in rows if row["state"] == "running"}


async def until_same(look: Any, wanted: Any) -> None:
    deadline = time.monotonic() + SOON_S
    while (found := await look()) != wanted:
        assert time.monotonic() < deadline, f"{found} is not {wanted}"


def test_what_the_nodes_know_is_so_again_and_what_had_ended_does_not_come_back(tmp_path: Path) -> None:
    async def play() -> None:
        realm = Realm(tmp_path)
        try:
            await scenario(realm)
        finally:
            await realm.end()

    asyncio.run(play())


async def scenario(realm: Realm) -> None:
    await realm.say("up", "--nodes", "0", "--controllers", "1", "--detach")
    for name in realm.nodes:
        await realm.join(name)
    await down(Home(realm.nodes["out"]))
    await realm.apply("web", "one")
    await realm.apply("old", "one", instances=3)
    await down(Home(realm.home))
    shutil.copytree(realm.home, realm.directory / "backup", symlinks=True)
    await realm.up()
    await realm.apply("web", "two", instances=3)
    await realm.apply("new", "one")
    await realm.say("remove", "old", "--yes", "--wait=60s")
    await realm.say("cert", "revoke", "node/out", "--yes")
    before = shown(await realm.rows())
    assert {instance.split("/")[0] for instance, _, _ in before} == {"web", "new"}
    await down(Home(realm.home))
    shutil.rmtree(realm.home)
    shutil.copytree(realm.directory / "backup", realm.home, symlinks=True)
    await realm.up()
    await until_same(realm.shown, before)
    await until_same(realm.services, {"web": ("ok", "r2"), "new": ("ok", "r1")})
    await until_same(realm.out, "revoked")
    export = realm.directory / "history.dsmt"
    await realm.say("export", str(export))
    verified = (await realm.say("verify", str(export), "--json", code=1)).json
    assert verified["gaps"], "what was said between the backup and the loss, and nobody keeps, is proven to be missing"
    assert (verified["faults"], verified["bad_signatures"], verified["equivocations"]) == ([], 0, 0)
    await realm.apply("web", "three", instances=3)
    assert await realm.services() == {"web": ("ok", "r3"), "new": ("ok", "r1")}
