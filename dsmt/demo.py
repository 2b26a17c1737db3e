"""The demo: a realm in a temporary home, a real service, two real deaths, and the proof in signed events.

It runs the programs an operator runs and does what an operator would: `up`, `apply`, `kill -9`, `verify`, `why`, `down`.
Nothing is timed but by what was heard: the moment a signed and verified event, or an HTTP answer, came in here.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
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

import msgspec

from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.status import State
from dsmt.monitors.checks.http import try_http
from dsmt.operations.connection import Connection, connect
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.offline.proving import verify
from dsmt.operations.offline.recording import record
from dsmt.operations.read.realm.watching import SeenEvent, Watch, watching
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances, is_ready
from dsmt.operations.read.rows.node_rows import processes
from dsmt.operations.read.why.explaining import why
from dsmt.operations.words.targets import Target
from dsmt.operations.write.applying import apply
from dsmt.operations.write.declaring import read_files
from dsmt.ports.bus import Ability
from dsmt.spec.health import HttpCheck

SERVICE: Final = "web"
TARGET: Final = Target(SERVICE)
CHECK: Final = HttpCheck(port="http", path="/", scheme="http", method="GET", status=((200, 200),), headers={}, contains=None)
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


class Line(msgspec.Struct, frozen=True):
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
    engine: str | None
    began: float = field(default_factory=time.monotonic)
    result: DemoResult = field(default_factory=DemoResult)

    def say(self, step: str, text: str, took: str = "", *, ok: bool | None = None) -> None:
        self.report(Line(time.monotonic() - self.began, step, text, took, ok))


async def demo(
    report: Report, *, engine: str | None = None, hold: Callable[[Home], Awaitable[None]] | None = None
) -> DemoResult:
    """Run the demo, on an engine (`dsmt` if None). `hold` is awaited before the clean-up.

    Raises what went wrong; the home is then kept and named.
    """
    home = Home(Path(tempfile.mkdtemp(prefix="dsmt-demo-")))
    stage = _Stage(report, home, engine)
    stage.result.home = str(home.root)
    try:
        await _play(stage)
        if hold is not None:
            await hold(home)
    finally:
        began = time.monotonic()
        ended = await down(home)
        if stage.result.ok:
            shutil.rmtree(home.root)
        left = sum(len(files) for _, _, files in os.walk(home.root)) if home.root.exists() else 0
        took = f"{time.monotonic() - began:.1f} s"
        stage.say("clean up", f"{len(ended.stuck)} processes, {left} files left", took, ok=not ended.stuck)
    return stage.result


async def _play(stage: _Stage) -> None:
    home = stage.home
    began = time.monotonic()
    await up(home, Wanted(nodes=3, controllers=2, name="demo", engine=stage.engine))
    attached = connect(home.operator(), home.realm(), patience_s=PATIENCE_S)
    async with attached as connection, watching(connection.bus) as watch:
        nodes = watch.view.nodes
        await watch.until("three nodes", lambda: sum(n.attributes is not None for n in nodes.values()) >= 3, PATIENCE_S)
        stage.say(
            "start",
            f"{'NATS server' if stage.engine == 'nats' else 'broker'}, 2 controllers, 3 nodes",
            f"{time.monotonic() - began:.1f} s",
            ok=True,
        )
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
    ready = await watch.until("three ready instances", lambda: _ready(watch), PATIENCE_S)
    for row in ready:
        await _answers(row)
    took = f"{time.monotonic() - began:.1f} s"
    stage.say("declare", f"{SERVICE}: {INSTANCES} instances of python -m http.server", took, ok=True)
    places = "   ".join(f"{row.component}/{row.index} {row.node}:{_port(row)}" for row in ready)
    stage.say("", places)
    stage.say("", "GET / on all three: 200")


async def _kill_instance(stage: _Stage, watch: Watch) -> None:
    row = _ready(watch)[1]
    pid = row.pid or 0
    topic = f"service/{row.service}/status/{row.component}/{row.index}/{row.node}/application"
    stage.say("kill -9", f"pid {pid} ({row.instance})")
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
    ready = await watch.until("three ready instances", lambda: _ready(watch, but=pid), PATIENCE_S)
    await _answers(ready[row.index])
    stage.say("", "GET / 200", f"+{(time.monotonic() - began) * 1000:.0f} ms", ok=True)


async def _kill_node(stage: _Stage, watch: Watch) -> str:
    row = _ready(watch)[-1]
    node = row.node or ""
    pids = [process.pid for process in processes(watch.sight(), watch.view.nodes[node])]
    stage.say("kill -9", f"all {len(pids)} processes of node {node}, its spawner first")
    began = time.monotonic()
    for number in (signal.SIGSTOP, signal.SIGKILL):  # none sees another one's death, and begins it again
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
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
    slot = row.key.topic
    placed = await watch.until("a new place", lambda: watch.first(began, lambda e: e.event.topic == slot), PATIENCE_S)
    stage.say("", f"placed on {placed.signed.event.data['node']}", _after(placed, began))
    ready = await watch.until("three ready instances", lambda: _ready(watch, without=node), PATIENCE_S)
    moved = ready[row.index]
    await _answers(moved)
    stage.result.node_repair_ms = round((time.monotonic() - began) * 1000, 1)
    text = f"GET / 200   {moved.instance} at {moved.node}:{_port(moved)}"
    stage.say("", text, f"+{stage.result.node_repair_ms / 1000:.2f} s", ok=True)
    return moved.instance


async def _prove(stage: _Stage, connection: Connection, moved: str) -> None:
    ok = True
    if Ability.EXPORT in connection.bus.can.abilities:
        ok = await _verify(stage, connection)
    else:
        stage.say("verify", "what NATS holds no broker has signed: there is no export")
    chain = (await why(connection.bus, connection.trust, moved)).explained
    stage.say("why", f"{moved}: {len(chain.chain)} signed events say so, the newest:")
    for link in chain.chain[:6]:
        stage.say("", link.says)
    stage.result.ok = ok
    if not ok:
        raise FailedError("demo.verify", "the history did not verify", next=f"dsmt verify {stage.home.root}/history.cbor")


async def _verify(stage: _Stage, connection: Connection) -> bool:
    recorded = await record(connection.bus)
    (stage.home.root / "history.cbor").write_bytes(recorded)
    checked = verify(recorded, connection.trust)
    result = stage.result
    result.events, result.gaps = checked.events, len(checked.gaps)
    result.verified = checked.events - checked.bad_signatures
    text = f"{checked.events} events, {checked.signers} signers: {result.verified} verified, {result.gaps} gaps"
    stage.say("verify", text, ok=checked.ok)
    return checked.ok


# --- looking at the view ------------------------------------------------------------------------------------------


def _ready(watch: Watch, *, but: int = 0, without: str = "") -> list[InstanceRow]:
    """The instances in order, once all are ready, none of them the pid `but` or on the node `without`; else none."""
    sight = watch.sight()
    if SERVICE not in watch.view.services:
        return []
    rows = [row for row in instances(sight, TARGET) if is_ready(sight, row) and row.pid != but and row.node != without]
    rows = [row for row in rows if row.ports]
    return rows if len(rows) >= INSTANCES else []


def _port(row: InstanceRow) -> int:
    return row.ports["http"]


def _state(signed: SignedEvent) -> State:
    return State(signed.event.data["state"])


def _started(signed: SignedEvent, topic: str, but: int) -> bool:
    data = signed.event.data
    return signed.event.topic == topic and data["pid"] not in (None, but)


def _after(seen: SeenEvent, began: float) -> str:
    return f"+{(seen.at - began) * 1000:.1f} ms"


async def _answers(row: InstanceRow) -> None:
    """GET / until it is 200, at most as long as anything else is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(OSError):
            if (await try_http(CHECK, "127.0.0.1", _port(row))).passed:
                return
        if time.monotonic() > deadline:
            raise FailedError("demo.http", f"no answer on port {_port(row)}")
        await asyncio.sleep(0.005)


def _write_site(path: Path) -> None:
    page = b"<!doctype html><title>dsmt demo</title><h1>It works, and repairs itself.</h1>\n"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("index.html")
        entry.size, entry.mode = len(page), 0o644
        archive.addfile(entry, io.BytesIO(page))
