"""The demo: a realm in a temporary home, a real service, two real deaths, and the proof in signed events.

It runs the programs an operator runs and does what an operator would: `up`, `apply`, `kill -9`, `verify`, `why`, `down`.
Nothing is timed but by what was heard: the moment a signed and verified event, or an HTTP answer, came in here.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.status import State
from dsmt.operations.applying import apply, read_files
from dsmt.operations.connection import Connection, connect
from dsmt.operations.explaining import why
from dsmt.operations.home import Home
from dsmt.operations.machine import Wanted, down, up
from dsmt.operations.recording import record
from dsmt.operations.verifying import verify
from dsmt.operations.watching import Seen, Watch, watching
from dsmt.view.entries import Instance

SERVICE: Final = "web"
COMPONENT: Final = "app"
INSTANCES: Final = 3
PATIENCE_S: Final = 30.0
SPEC: Final = """\
service: web
components:
  app:
    instances: 3
    artifact: {url: site.tar.gz}
    run: %s -m http.server {port.http} --bind 127.0.0.1
    ports: {http: auto}
    health: {http: {port: http, path: /}}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that the demo did or saw: `at_s` since it began; `step` is empty where a step goes on."""

    at_s: float
    step: str
    text: str
    took: str = ""
    ok: bool | None = None


@dataclass(slots=True)
class DemoResult:
    """What came of it. Times in ms; null where it did not get so far."""

    ok: bool = False
    instance_restart_ms: float | None = None
    node_repair_ms: float | None = None
    events: int = 0
    verified: int = 0
    gaps: int = 0
    home: str = ""


Report = Callable[[Line], None]


@dataclass(slots=True)
class _Stage:
    report: Report
    home: Home
    began: float = field(default_factory=time.monotonic)
    result: DemoResult = field(default_factory=DemoResult)

    def say(self, step: str, text: str, took: str = "", *, ok: bool | None = None) -> None:
        self.report(Line(time.monotonic() - self.began, step, text, took, ok))


async def demo(report: Report, *, hold: Callable[[Home], Awaitable[None]] | None = None) -> DemoResult:
    """Run the demo. `hold` is awaited before the clean-up. Raises what went wrong; the home is then kept and named."""
    home = Home(Path(tempfile.mkdtemp(prefix="dsmt-demo-")))
    stage = _Stage(report, home)
    stage.result.home = str(home.root)
    try:
        await _play(stage)
        if hold is not None:
            await hold(home)
    finally:
        began = time.monotonic()
        ended = await down(home)
        if stage.result.ok:
            _remove(home.root)
        left = sum(len(files) for _, _, files in os.walk(home.root)) if home.root.exists() else 0
        took = f"{time.monotonic() - began:.1f} s"
        stage.say("clean up", f"{len(ended.stuck)} processes, {left} files left", took, ok=not ended.stuck)
    return stage.result


async def _play(stage: _Stage) -> None:
    home = stage.home
    began = time.monotonic()
    await up(home, Wanted(nodes=3, controllers=2, name="demo"))
    attached = connect(home.operator(), home.realm(), patience_s=PATIENCE_S)
    async with attached as connection, watching(connection.bus) as watch:
        nodes = watch.view.nodes
        await watch.until("three nodes", lambda: sum(n.attributes is not None for n in nodes.values()) >= 3, PATIENCE_S)
        stage.say("start", "broker, 2 controllers, 3 nodes", f"{time.monotonic() - began:.1f} s", ok=True)
        await _declare(stage, connection, watch)
        await _kill_instance(stage, watch)
        moved = await _kill_node(stage, watch)
        await _prove(stage, connection, moved)


async def _declare(stage: _Stage, connection: Connection, watch: Watch) -> None:
    began = time.monotonic()
    directory = stage.home.root / "service"
    directory.mkdir()
    _write_site(directory / "site.tar.gz")
    path = directory / "web.yaml"
    path.write_text(SPEC % sys.executable)
    await apply(connection.bus, read_files([str(path)]), by=connection.by, reason="demo")
    ready = await watch.until("three ready instances", lambda: _ready(watch, INSTANCES), PATIENCE_S)
    for instance in ready.values():
        await _answers(instance)
    took = f"{time.monotonic() - began:.1f} s"
    stage.say("declare", f"{SERVICE}: {INSTANCES} instances of python -m http.server", took, ok=True)
    places = "   ".join(f"{COMPONENT}/{index} {node}:{_port(instance)}" for (index, node), instance in sorted(ready.items()))
    stage.say("", places)
    stage.say("", "GET / on all three: 200")


async def _kill_instance(stage: _Stage, watch: Watch) -> None:
    (index, node), instance = sorted(_ready(watch, INSTANCES).items())[1]
    pid = _pid(instance)
    target = f"{SERVICE}/{COMPONENT}/{index}"
    topic = f"service/{SERVICE}/status/{COMPONENT}/{index}/{node}/application"
    stage.say("kill -9", f"pid {pid} ({target})")
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    died = await watch.until(
        "its death", lambda: watch.first(began, lambda e: e.event.topic == topic and _state(e) is State.FAILED), PATIENCE_S
    )
    stage.say("", "seen dead", _after(died, began), ok=None)
    stage.say("", f"signed by {died.signed.event.source} #{died.signed.event.sequence}")
    started = await watch.until("its restart", lambda: watch.first(began, lambda e: _started(e, topic, pid)), PATIENCE_S)
    stage.result.instance_restart_ms = round((started.at - began) * 1000, 1)
    stage.say("", f"exec'd again, pid {started.signed.event.data['pid']}", _after(started, began))
    await watch.until("three ready instances", lambda: _ready(watch, INSTANCES, but=pid), PATIENCE_S)
    await _answers(_ready(watch, INSTANCES)[index, node])
    stage.say("", "GET / 200", f"+{(time.monotonic() - began) * 1000:.0f} ms", ok=True)


async def _kill_node(stage: _Stage, watch: Watch) -> str:
    index, node = max(_ready(watch, INSTANCES))
    pids = _pids_of(watch, node)
    stage.say("kill -9", f"all {len(pids)} processes of node {node}, its spawner first")
    began = time.monotonic()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    session = f"/session/node/{node}"
    closed = await watch.until(
        "its session's end",
        lambda: watch.first(began, lambda e: e.event.topic.endswith(session) and e.event.data["state"] == "closed"),
        PATIENCE_S,
    )
    stage.say("", f"session lost, {closed.signed.event.source}", _after(closed, began))
    dead = await watch.until(
        "the verdict", lambda: watch.first(began, lambda e: e.event.topic == f"node/{node}/verdict"), PATIENCE_S
    )
    stage.say("", f"declared dead, {dead.signed.event.source}: {dead.signed.event.data['message']}", _after(dead, began))
    slot = f"service/{SERVICE}/slot/{COMPONENT}/{index}"
    placed = await watch.until("a new place", lambda: watch.first(began, lambda e: e.event.topic == slot), PATIENCE_S)
    stage.say("", f"placed on {placed.signed.event.data['node']}", _after(placed, began))
    await watch.until("three ready instances", lambda: _ready(watch, INSTANCES, without=node), PATIENCE_S)
    now_at = next(key for key in _ready(watch, INSTANCES, without=node) if key[0] == index)
    moved = _ready(watch, INSTANCES, without=node)[now_at]
    await _answers(moved)
    stage.result.node_repair_ms = round((time.monotonic() - began) * 1000, 1)
    text = f"GET / 200   {SERVICE}/{COMPONENT}/{index} at {now_at[1]}:{_port(moved)}"
    stage.say("", text, f"+{stage.result.node_repair_ms / 1000:.2f} s", ok=True)
    return f"{SERVICE}/{COMPONENT}/{index}"


async def _prove(stage: _Stage, connection: Connection, moved: str) -> None:
    recorded = await record(connection.bus)
    (stage.home.root / "history.cbor").write_bytes(recorded)
    checked = verify(recorded, connection.trust)
    result = stage.result
    result.events, result.gaps = checked.events, len(checked.gaps)
    result.verified = checked.events - checked.bad_signatures
    text = f"{checked.events} events, {checked.signers} signers: {result.verified} verified, {result.gaps} gaps"
    stage.say("verify", text, ok=checked.ok)
    chain = (await why(connection.bus, connection.trust, moved)).explained
    stage.say("why", f"{moved}: {len(chain.chain)} signed events say so, the newest:")
    for link in chain.chain[:6]:
        stage.say("", link.says)
    result.ok = checked.ok
    if not checked.ok:
        raise FailedError("demo.verify", "the history did not verify", next=f"dsmt verify {stage.home.root}/history.cbor")


# --- looking at the view ------------------------------------------------------------------------------------------


def _ready(watch: Watch, count: int, *, but: int = 0, without: str = "") -> dict[tuple[int, str], Instance]:
    """The ready instances by (index, node); empty while there are fewer than `count`."""
    service = watch.view.services.get(SERVICE)
    found = {}
    for (_, index), slot in ({} if service is None else service.slots).items():
        node = None if slot.fact is None else slot.fact.record.node
        instance = slot.instances.get(node) if node is not None else None
        if node is not None and node != without and instance is not None and _is_ready(instance, but):
            found[index, node] = instance
    return found if len(found) >= count else {}


def _is_ready(instance: Instance, but: int) -> bool:
    running = instance.application is not None and instance.application.record.state is State.RUNNING
    ready = instance.health is not None and instance.health.record.health == "ready"
    return running and ready and instance.endpoint is not None and _pid(instance) != but


def _pid(instance: Instance) -> int:
    return 0 if instance.application is None else instance.application.record.pid or 0


def _port(instance: Instance) -> int:
    return 0 if instance.endpoint is None else instance.endpoint.record.ports["http"]


def _state(signed: SignedEvent) -> State:
    return State(signed.event.data["state"])


def _started(signed: SignedEvent, topic: str, but: int) -> bool:
    data = signed.event.data
    return signed.event.topic == topic and data["pid"] not in (None, but)


def _after(seen: Seen, began: float) -> str:
    return f"+{(seen.at - began) * 1000:.1f} ms"


def _pids_of(watch: Watch, node: str) -> list[int]:
    entry = watch.view.nodes[node]
    if entry.attributes is None:
        return []
    told = entry.attributes.record
    pids = [told.spawner_pid, told.manager_pid, told.monitor_pid]
    for service in watch.view.services.values():
        for slot in service.slots.values():
            instance = slot.instances.get(node)
            if instance is not None:
                pids += [None if held is None else held.record.pid for held in (instance.agent, instance.application)]
    return list(dict.fromkeys(pid for pid in pids if pid))


async def _answers(instance: Instance) -> None:
    """GET / until it is 200, at most as long as anything else is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", _port(instance))
            writer.write(b"GET / HTTP/1.0\r\nHost: demo\r\n\r\n")
            status = await reader.readline()
            writer.close()
            if b" 200 " in status:
                return
        if time.monotonic() > deadline:
            raise FailedError("demo.http", f"no answer on port {_port(instance)}")
        await asyncio.sleep(0.005)


def _write_site(path: Path) -> None:
    page = b"<!doctype html><title>dsmt demo</title><h1>It works, and repairs itself.</h1>\n"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("index.html")
        entry.size, entry.mode = len(page), 0o644
        archive.addfile(entry, io.BytesIO(page))


def _remove(directory: Path) -> None:
    for where, directories, files in os.walk(directory, topdown=False):
        for name in files:
            (Path(where) / name).unlink()
        for name in directories:
            (Path(where) / name).rmdir()
    directory.rmdir()
