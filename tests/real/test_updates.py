"""Updates and drains of real services: no request fails when two copies may overlap, and data stays where it is."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from dsmt.event.kinds.node import NodeControl
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from tests.loops import in_real_time
from tests.real.fleet import Fleet, eventually, fleet

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SLOW = """\
service: slow
components:
  app:
    nodes: n1
    run: [python3, -c, "{program}"]
    env: {{VERSION: "{version}"}}
    ports: {{http: auto}}
    health: {{tcp: {{port: http}}, interval: 200ms}}
"""
PROGRAM = (
    "import os, time; time.sleep(2); from http.server import *; "
    "H = type('H', (BaseHTTPRequestHandler,), dict(do_GET=lambda s: (s.send_response(200), s.end_headers(), "
    "s.wfile.write(os.environ['VERSION'].encode())), log_message=lambda *a: None)); "
    "ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()"
)
KEPT = """\
service: kept
components:
  kv:
    run: [redis-server, --port, "{port.redis}", --bind, 127.0.0.1, --appendonly, "yes", --dir, "{data}"]
    ports: {redis: auto}
    data: true
    health: {tcp: {port: redis}, interval: 500ms}
"""


def slow(version: int) -> str:
    return SLOW.format(program=PROGRAM, version=version)


def port_of(made: Fleet, service: str, component: str, port: str) -> int | None:
    """Where a service with one instance is served, by its endpoint facts alone."""
    slot = made.watch.view.services[service].slots[component, 0]
    found = [
        one.endpoint.record for one in slot.instances.values() if one.endpoint is not None and one.endpoint.record.ready
    ]
    newest = max(found, key=lambda one: one.generation, default=None)
    return None if newest is None else newest.ports[port]


async def get(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = (await asyncio.wait_for(reader.read(), 10)).decode()
        assert answer.startswith("HTTP/1.0 200"), answer
        return answer.rpartition("\r\n")[2]
    finally:
        writer.close()


def redis(port: int, line: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(f"{line}\r\n".encode())
        return link.recv(4096).decode()


@in_real_time
async def test_a_single_instance_that_starts_slowly_is_updated_without_a_failed_request(tmp_path: Path) -> None:
    async with fleet(tmp_path, nodes=1) as made:
        await made.apply(slow(1))
        await made.ready("slow", 1)
        answers: list[str] = []
        failed: list[str] = []

        async def ask() -> None:
            while True:
                port = port_of(made, "slow", "app", "http")
                try:
                    assert port is not None, "it is not served"
                    answers.append(await get(port))
                except (OSError, AssertionError) as error:
                    failed.append(repr(error))
                await asyncio.sleep(0.01)

        asking = asyncio.create_task(ask())
        await eventually("the first version answers", lambda: "1" in answers)
        await made.apply(slow(2))
        await eventually("the second version answers", lambda: answers[-50:] == ["2"] * 50)
        pids = set(made.pids("slow").values())
        await eventually("the old copy is gone", lambda: len(pids) == 1 and set(made.pids("slow").values()) == pids)
        asking.cancel()
        assert failed == []


@in_real_time
async def test_data_stays_on_a_node_that_is_drained(tmp_path: Path) -> None:
    async with fleet(tmp_path, nodes=2) as made:
        await made.apply(KEPT)
        (_, _, node), *_ = await made.ready("kept", 1)
        port = await eventually("it is served", lambda: port_of(made, "kept", "kv", "redis"))
        assert redis(port, "SET order 42").startswith("+OK")
        record = NodeControl(mode="draining", by="test", reason="test")
        await made.connection.bus.publish(Draft(f"node/{node}/control", to_data(record), version=1))
        await made.apply(KEPT.replace("500ms", "400ms"))
        await made.watch.until(
            "the next revision where it is",
            lambda: made.watch.view.services["kept"].slots["kv", 0].fact.record.revision == 2,  # type: ignore[union-attr]
            60,
        )
        fact = made.watch.view.services["kept"].slots["kv", 0].fact
        assert fact is not None
        assert fact.record.node == node
        assert fact.record.home is not None
        assert fact.record.home.key, "it is pinned to the key of its node"
        assert "42" in redis(port_of(made, "kept", "kv", "redis") or 0, "GET order")
