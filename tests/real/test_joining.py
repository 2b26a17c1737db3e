"""A second machine joins a running realm: real processes, another home, one line in between."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsmt.operations.local.home.addresses import free_port
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.making import reach_at
from dsmt.operations.local.members.joining import KEY_FILE
from dsmt.operations.local.processes.ending import down
from dsmt.programs.configuration import read_identity
from dsmt.trust.identity import dump, root_issued
from dsmt.trust.keys import SecretKey
from tests.real.seat import dsmt, start
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = """\
service: web
components:
  app:
    instances: 1
    requires: {labels: {zone: a}}
    run: sleep 1000
"""
SERVES = """\
service: web
components:
  app:
    instances: 1
    nodes: web-1
    run: python3 -m http.server {port.http} --bind 0.0.0.0
    ports: {http: auto}
    health: {http: {port: http, path: /}}
"""


@asynccontextmanager
async def realm(directory: Path, *homes: Path, engine: str = "dsmt", **more: Any) -> AsyncIterator[Path]:
    """A realm of one node in a home, which ends with the block, and so do other homes."""
    home = directory / "home"
    try:
        await dsmt(home, "up", "--detach", "--nodes", "1", "--controllers", "2", "--engine", engine, **more)
        yield home
    finally:
        for one in (*homes, home):
            await down(Home(one))


async def until(look: Any, seconds: float = 60.0) -> Any:
    return await told(look, "what was waited for", seconds)


async def alive(home: Path) -> set[str]:
    return {one["node"] for one in (await dsmt(home, "nodes", "--json")).json if one["liveness"] == "alive"}


def test_a_machine_joins_with_one_line_and_is_used_and_comes_back(tmp_path: Path) -> None:
    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there) as home:
            made = await dsmt(home, "token", "create", "--name", "web-*", "--label", "zone=a", "--reason", "rack 4")
            assert made.out.count("\n") == 1
            assert "no other machine reaches it; make another realm, which is reached: dsmt --home DIR init" in made.err
            assert (await dsmt(home, "node", "add", "web-9", "--json", code=4)).error["code"] == "node.loopback"
            first = await dsmt(there, "join", "-", "--name", "web-1", "--label", "disk=ssd", "--json", stdin=made.out)
            assert first.json["node"] == "web-1"
            assert (first.json["made"], first.json["started"]) == (True, True)
            shown = {one["node"]: one for one in (await dsmt(home, "nodes", "--json")).json}
            assert shown["web-1"]["labels"] == {"zone": "a", "disk": "ssd"}
            assert not any((there / name).exists() for name in ("root.key", "operator", "joining.key"))
            secret = there / "nodes/web-1/identity"
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
            listed = (await dsmt(home, "token", "list", "--json")).json
            assert [(one["state"], one["member"], one["reason"]) for one in listed] == [("used", "web-1", "rack 4")]

            again = await dsmt(there, "join", made.out.strip(), "--json")
            assert (again.json["node"], again.json["made"]) == ("web-1", False)
            thief = await dsmt(tmp_path / "thief", "join", made.out.strip(), "--name", "web-2", "--json", code=4)
            assert thief.error["code"] == "token.used"
            assert not (tmp_path / "thief/realm.cbor").exists()

            assert (await dsmt(there, "status", "--json", code=5)).error["code"] == "home.operator"
            assert (await dsmt(there, "up", "--nodes", "3", "--json", code=4)).error["code"] == "up.joined"
            assert "dsmt join TOKEN" in (await dsmt(there, "cert", "rotate", "node/web-1", "--json", code=5)).error["next"]
            refused = await dsmt(home, "node", "remove", "web-1", "--json", code=4)
            assert "on its machine: dsmt down" in refused.error["next"]
            await dsmt(there, "down")
            await until(lambda: _gone(home, "web-1"))
            await dsmt(there, "up", "--detach")
            assert await alive(home) == {"n1", "web-1"}

    asyncio.run(play())


@pytest.mark.parametrize("runs", [False, True])
def test_a_machine_that_was_away_learns_from_a_token_where_its_realm_is_now(tmp_path: Path, *, runs: bool) -> None:
    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there) as home:
            token = (await dsmt(home, "token", "create")).out.strip()
            await dsmt(there, "join", token, "--name", "web-1", "--no-start")
            known = Home(there).realm()
            former = ((f"127.0.0.1:{free_port()}", known.brokers[0][1]),)
            reach_at(Home(there), msgspec.structs.replace(known, brokers=former))
            if runs:
                begun = await start(there, "up", "--detach")  # it would wait for an answer
                await until(lambda: _looks(Home(there).part("nodes", "web-1"), former[0][0]))
                begun.kill()
                await begun.wait()
            told = await dsmt(there, "join", token, "--json")
            assert (told.json["node"], told.json["made"]) == ("web-1", False)
            assert Home(there).realm() == known
            assert await alive(home) == {"n1", "web-1"}

    asyncio.run(play())


async def _looks(node: Path, address: str) -> bool:
    """Whether a node's manager has found nobody at an address."""
    log = node / "container_manager.log"
    return log.exists() and f"no broker answers at {address}" in log.read_text()


def test_a_machine_that_has_joined_takes_what_is_typed_again_while_its_services_run_and_needs_no_token(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there) as home:
            assert (await dsmt(there, "join", "--json", code=2)).error["code"] == "token.none"
            token = (await dsmt(home, "token", "create", "--label", "zone=a")).out.strip()
            await dsmt(there, "join", token, "--name", "web-1")
            spec = tmp_path / "web.yaml"
            spec.write_text(SERVES)
            await dsmt(home, "apply", str(spec), "--wait=60s")
            before = (await dsmt(home, "ps", "web", "--json")).json[0]["pid"]
            assert (await dsmt(there, "join", "--json", "--label", "zone=a")).json["changed"] is False
            told = await dsmt(there, "join", "--address", "127.0.0.2", "--label", "disk=ssd", "--json")
            assert (told.json["made"], told.json["changed"], told.json["address"]) == (False, True, "127.0.0.2")
            await until(lambda: _serves(home, "127.0.0.2"))
            shown = {one["node"]: one for one in (await dsmt(home, "nodes", "--json")).json}["web-1"]
            assert (shown["address"], shown["labels"]) == ("127.0.0.2", {"zone": "a", "disk": "ssd"})
            assert [one["pid"] for one in (await dsmt(home, "ps", "web", "--json")).json] == [before]
            assert (await dsmt(there, "join", "--name", "web-2", "--json", code=4)).error["code"] == "token.needed"

    asyncio.run(play())


async def _serves(home: Path, address: str) -> bool:
    """Whether the only instance is ready at an address."""
    told = (await dsmt(home, "endpoints", "web", "--json")).json
    return [one["address"] for one in told] == [address]


async def _gone(home: Path, node: str) -> bool:
    return node not in await alive(home)


@pytest.mark.parametrize("engine", ["dsmt", pytest.param("nats", marks=pytest.mark.xdist_group("nats-realm"))])
def test_a_node_that_is_not_let_in_any_more_joins_again_with_its_key_or_if_that_was_revoked_with_another(
    tmp_path: Path, engine: str
) -> None:
    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there, engine=engine) as home:
            token = (await dsmt(home, "token", "create")).out.strip()
            await dsmt(there, "join", token, "--name", "web-1", "--no-start")
            file = Home(there).part("nodes", "web-1") / "identity"
            held, now = read_identity(file), int(time.time())
            ended = root_issued(
                "node/web-1", Home(home).root_key(), key=held.key, now_s=now - 900, serial=os.urandom(16), lifetime_s=600
            )
            write_secret(file, dump(ended))
            fresh = (await dsmt(home, "token", "create")).out.strip()
            assert (await dsmt(there, "join", fresh, "--json")).json["made"]
            after = read_identity(file)
            assert (after.key.key_id, after.certificate.subject) == (held.key.key_id, "node/web-1")
            assert await alive(home) == {"n1", "web-1"}

            await dsmt(there, "down")
            write_secret(there / KEY_FILE, after.key.seed)  # as one leaves it that was killed as all else was written
            await dsmt(home, "cert", "revoke", after.key.key_id.hex(), "--keep", "--yes")
            fresh = (await dsmt(home, "token", "create")).out.strip()
            assert (await dsmt(there, "join", fresh, "--json")).json["node"] == "web-1"
            assert read_identity(file).key.key_id != after.key.key_id
            assert await alive(home) == {"n1", "web-1"}

    asyncio.run(play())


@pytest.mark.parametrize("engine", ["dsmt", pytest.param("nats", marks=pytest.mark.xdist_group("nats-realm"))])
def test_a_node_that_runs_while_it_is_not_let_in_any_more_joins_again_and_goes_on_as_who_it_is_now(
    tmp_path: Path, engine: str
) -> None:
    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there, engine=engine) as home:
            token = (await dsmt(home, "token", "create")).out.strip()
            await dsmt(there, "join", token, "--name", "web-1")
            file = Home(there).part("nodes", "web-1") / "identity"
            former = read_identity(file)
            await dsmt(home, "cert", "revoke", former.key.key_id.hex(), "--keep", "--yes")
            await until(lambda: _gone(home, "web-1"))
            fresh = (await dsmt(home, "token", "create")).out.strip()
            assert (await dsmt(there, "join", fresh, "--json")).json["made"]
            assert read_identity(file).key.key_id != former.key.key_id
            assert await alive(home) == {"n1", "web-1"}

    asyncio.run(play())


KILLED = """\
import os, sys
from dsmt.cli.root import main
from dsmt.operations.local.members import joining
setattr(joining, sys.argv[1], lambda *_: os._exit(9))
main(sys.argv[2:])
"""


async def killed(at: str, *arguments: str) -> None:
    """Have a command be killed as it comes to what `joining` does there."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, at, *arguments)
    assert await process.wait() == 9


def test_a_node_that_runs_goes_on_as_who_it_is_now_though_the_join_was_killed_as_that_was_written(tmp_path: Path) -> None:
    """Typed again it waited half a minute for who had been written, in whose place the one of before ran on for ever."""

    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there) as home:
            token = (await dsmt(home, "token", "create")).out.strip()
            await dsmt(there, "join", token, "--name", "web-1")
            former = read_identity(Home(there).part("nodes", "web-1") / "identity")
            await dsmt(home, "cert", "revoke", former.key.key_id.hex(), "--keep", "--yes")
            await until(lambda: _gone(home, "web-1"))
            fresh = (await dsmt(home, "token", "create")).out.strip()
            await killed("ask_to_end", "--home", str(there), "join", fresh)
            await dsmt(there, "join", fresh)
            assert await alive(home) == {"n1", "web-1"}

    asyncio.run(play())


@pytest.mark.skipif(os.geteuid() != 0, reason="no other user needs to pass where nobody is root")
def test_users_of_services_pass_to_a_node_though_the_join_was_killed_before_that(tmp_path: Path) -> None:
    """Typed again it was a node already, and no program with a `user` of its own could be started there."""

    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there) as home:
            token = (await dsmt(home, "token", "create")).out.strip()
            await killed("let_users_pass", "--home", str(there), "join", token, "--name", "web-1", "--no-start")
            await dsmt(there, "join", token, "--name", "web-1", "--no-start")
            places = (there, there / "nodes", there / "nodes/web-1")
            assert [stat.S_IMODE(place.stat().st_mode) for place in places] == [0o711] * 3

    asyncio.run(play())


def test_a_realm_without_issuers_says_so_and_has_them_as_soon_as_the_root_key_is_there(tmp_path: Path) -> None:
    async def play() -> None:
        there, aside = tmp_path / "there", tmp_path / "root.key"
        async with realm(tmp_path, there) as home:
            await dsmt(home, "down")
            (home / "root.key").rename(aside)
            for file in home.glob("controllers/*/issuer"):
                file.unlink()
            await dsmt(home, "up", "--detach")
            token = (await dsmt(home, "token", "create")).out.strip()
            alone = await dsmt(there, "join", token, "--name", "web-1", "--json", code=7)
            assert (alone.error["code"], "its issuer's certificate" in alone.error["next"]) == ("token.unanswered", True)
            aside.rename(home / "root.key")
            await dsmt(home, "up", "--detach")
            assert (await dsmt(there, "join", token, "--name", "web-1", "--json")).json["made"], "the token is good still"

            issuer = (await dsmt(home, "cert", "show", "node/web-1", "--json")).json[0]["issuer"]
            refused = await dsmt(home, "cert", "revoke", issuer, "--json", code=2)
            assert refused.error["code"] == "cert.ambiguous", "the key that was lost is still good, wherever it is"
            (key,) = [one["key"] for one in (await dsmt(home, "cert", "show", issuer, "--json")).json if one["here"]]
            refused = await dsmt(home, "cert", "revoke", key, "--json", code=2)
            assert refused.error["code"] == "confirm"
            assert "node/web-1" in refused.error["message"]
            await dsmt(home, "cert", "revoke", key, "--yes", "--keep")
            await until(lambda: _gone(home, "web-1"))
            assert "n1" in await alive(home)

    asyncio.run(play())


def test_what_does_not_join_says_why_and_leaves_no_realm(tmp_path: Path) -> None:
    async def play() -> None:
        there, lone = tmp_path / "there", tmp_path / "lone"
        async with realm(tmp_path, there) as home:
            token = (await dsmt(home, "token", "create", "--name", "web-*")).out.strip()
            refused = await dsmt(there, "join", token, "--name", "db-1", "--json", code=4)
            assert refused.error["code"] == "token.name"
            assert (await dsmt(there, "join", token, "--name", "DB", "--json", code=2)).error["code"] == "home.part"
            assert (await dsmt(there, "join", token[:-9], "--json", code=2)).error["code"] == "token.form"
            assert (await dsmt(there, "join", "none", "--json", code=2)).error["code"] == "token.form"
            listed = (await dsmt(home, "token", "list", "--json")).json[0]["token"]
            await dsmt(home, "token", "revoke", listed[:8])
            revoked = await dsmt(there, "join", token, "--name", "web-1", "--json", code=4)
            assert revoked.error["code"] == "token.revoked"
            assert (await dsmt(home, "token", "revoke", "ffffffff", "--json", code=5)).error["code"] == "token.unknown"
            assert (await dsmt(home, "token", "create", "--ttl", "1s", "--json", code=2)).error["code"] == "token.ttl"

            fresh = (await dsmt(home, "token", "create")).out.strip()
            taken = await dsmt(there, "join", fresh, "--name", "n1", "--json", code=4)
            assert taken.error["code"] == "token.taken"
            assert not (there / "realm.cbor").exists()
            await dsmt(home, "down")
            away = await dsmt(there, "join", fresh, "--name", "web-1", "--json", code=7)
            assert away.error["code"] == "bus.unreachable"
            assert "127.0.0.1" in away.error["next"]
            await dsmt(lone, "init")
            other = await dsmt(lone, "join", fresh, "--name", "web-1", "--json", code=4)
            assert other.error["code"] == "home.taken"

    asyncio.run(play())


def test_a_machine_whose_node_was_revoked_joins_under_another_name(tmp_path: Path) -> None:
    """Its former name may have been given to another machine on the other side of a partition, and stays with that one."""

    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there) as home:
            lines = [(await dsmt(home, "token", "create")).out.strip() for _ in range(2)]
            await dsmt(there, "join", lines[0], "--name", "web-1")
            await dsmt(home, "cert", "revoke", "node/web-1", "--yes", "--keep")
            joined = await dsmt(there, "join", lines[1], "--name", "web-2", "--json")
            assert (joined.json["node"], joined.json["made"]) == ("web-2", True)
            assert await alive(home) == {"n1", "web-2"}

    asyncio.run(play())


def test_a_node_whose_certificate_is_half_over_lives_on_below_the_next_one(tmp_path: Path) -> None:
    async def play() -> None:
        (tmp_path / "web.yaml").write_text(SPEC.replace("    requires: {labels: {zone: a}}\n", ""))
        async with realm(tmp_path) as path:
            await dsmt(path, "apply", str(tmp_path / "web.yaml"), "--wait=60s")
            home = Home(path)
            file = home.part("nodes", "n1") / "identity"
            await dsmt(path, "down")
            now, key = int(time.time()), SecretKey(os.urandom(32))
            old = root_issued(  # 1000 s of 1900 are over
                "node/n1", home.root_key(), key=key, now_s=now - 1000, serial=os.urandom(16), lifetime_s=1900
            )
            write_secret(file, dump(old))
            await dsmt(path, "up", "--detach")
            await dsmt(path, "wait", "web", "--for", "running")
            pid = (await dsmt(path, "ps", "--json")).json[0]["pid"]

            async def renewed() -> bool:
                return read_identity(file).certificate.issuer.startswith("issuer/")

            await until(renewed)
            following = read_identity(file)
            assert following.key.key_id == old.key.key_id
            assert following.certificate.not_after > now + 20 * 24 * 3600

            async def below() -> bool:  # it may be renewed again meanwhile
                following = read_identity(file)
                monitor = read_identity(home.part("nodes", "n1") / "monitor.identity")
                agents = [read_identity(one) for one in path.glob("nodes/n1/containers/*/*/*/identity")]
                return all(one.chain[1:] == following.chain for one in (monitor, *agents)) and len(agents) == 1

            await until(below)

            async def well() -> bool:
                rows = (await dsmt(path, "ps", "--json")).json
                return await alive(path) == {"n1"} and rows[0]["state"] == "running" and rows[0]["pid"] == pid

            await until(well)
            await dsmt(path, "cert", "revoke", following.certificate.issuer, "--yes", "--keep")

            async def follows_another() -> bool:
                return read_identity(file).certificate.issuer != following.certificate.issuer

            await until(follows_another)
            await until(below)
            await until(well)

    asyncio.run(play())
