"""Redis of the system, which nobody wrote for dsmt, keeps its data."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal

import pytest

from tests.loops import in_real_time
from tests.real.applied import applied, rows
from tests.real.fleet import fleet
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

REDIS = """\
service: store
components:
  kv:
    instances: 3
    run: [redis-server, --port, "{port.redis}", --bind, 127.0.0.1, --dir, "{data}",
          --appendonly, "yes", --appendfsync, always, --save, ""]
    ports: {redis: auto}
    data: true
    health: {tcp: {port: redis}, interval: 500ms}
"""


async def redis(port: int, *words: str) -> str:
    """What redis-cli prints."""
    process = await asyncio.create_subprocess_exec(
        "redis-cli", "-h", "127.0.0.1", "-p", str(port), *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    return out.decode().strip()


@in_real_time
async def test_redis_has_its_keys_again_after_a_crash_and_leaves_them_behind_only_by_an_operators_word(tmp_path):
    async with fleet(tmp_path) as made:
        path = tmp_path / "redis.yaml"
        path.write_text(REDIS)
        await applied(made, path)
        before = await rows(made, "store")
        assert len({row["node"] for row in before.values()}) == 3
        for name, row in before.items():
            assert await redis(row["ports"]["redis"], "SET", "who", name) == "OK"
        crashed, lost, bystander = before
        os.kill(before[crashed]["pid"], signal.SIGKILL)
        await made.ready(
            "store", 3, but=lambda i: i.application is None or i.application.record.pid == before[crashed]["pid"]
        )
        after = await rows(made, "store")
        assert after[crashed]["ports"] == before[crashed]["ports"]
        assert (after[crashed]["restarts"], after[crashed]["last_exit"]["signal"]) == (1, "SIGKILL")
        assert await redis(after[crashed]["ports"]["redis"], "GET", "who") == crashed
        node = before[lost]["node"]
        await made.kill_node(node)
        async with asyncio.timeout(30):
            while "its data is on" not in json.dumps((await rows(made, "store"))[lost]):
                pass  # each look asks the bus anew
        await dsmt(made.home.root, "move", lost, "--accept-data-loss", "--wait=90s")
        moved = (await rows(made, "store"))[lost]
        assert moved["node"] not in (None, node)
        assert await redis(moved["ports"]["redis"], "GET", "who") == ""  # a data directory stays on its node
        assert await redis(moved["ports"]["redis"], "SET", "who", "anew") == "OK"
        assert await redis(moved["ports"]["redis"], "GET", "who") == "anew"
        kept = (await rows(made, "store"))[bystander]
        assert (kept["pid"], kept["restarts"]) == (before[bystander]["pid"], 0)
        assert await redis(kept["ports"]["redis"], "GET", "who") == bystander


@in_real_time
async def test_what_an_operator_has_copied_to_another_node_while_it_is_stopped_is_its_data_there(tmp_path):
    async with fleet(tmp_path) as made:
        path = tmp_path / "redis.yaml"
        path.write_text(REDIS.replace("instances: 3", "instances: 1"))
        await applied(made, path)
        before = (await rows(made, "store"))["store/kv/0"]
        assert await redis(before["ports"]["redis"], "SET", "who", "copied") == "OK"
        await dsmt(made.home.root, "stop", "store/kv/0", "--wait=90s")
        other = next(node for node in ("n1", "n2", "n3") if node != before["node"])
        former, to = (made.home.root / "nodes" / node / "data/store/kv/0" for node in (before["node"], other))
        shutil.copytree(former, to)
        await dsmt(made.home.root, "move", "store/kv/0", "--to", other, "--accept-data-loss", "--wait=90s")
        await dsmt(made.home.root, "start", "store/kv/0", "--wait=90s")
        after = (await rows(made, "store"))["store/kv/0"]
        assert (after["node"], after["health"]) == (other, "ready")
        assert await redis(after["ports"]["redis"], "GET", "who") == "copied"
        shutil.rmtree(former)
        await dsmt(made.home.root, "move", "store/kv/0", "--to", before["node"], "--accept-data-loss", "--wait=90s")
        back = (await rows(made, "store"))["store/kv/0"]
        assert await redis(back["ports"]["redis"], "GET", "who") == ""  # there is none of it any more
