"""P3, first half: all processes of a node die at once -> its instance runs elsewhere; beside it serf, which only notices.

Each round has a service of its own: a slot that is moved again and again waits ever longer (rule A10).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.peers import UnavailableError, unpacked_from_debian
from benchmarks.processes import descendants, kill_all
from benchmarks.progress import progress
from benchmarks.realm import Ear, Heard, apply, listening, operator, realm
from benchmarks.rows import Row, compare, median, percentile, row
from benchmarks.serf import Serf, serf
from benchmarks.sizes import sized
from benchmarks.stamps import Stamp, Stamps, compile_program, now_ns
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.write.removing import remove
from dsmt.system.records import living, record_path

ID: Final = "P3"
ROUNDS: Final = sized(12, 1)
NODES: Final = sized(3, 2)
CONTROLLERS: Final = sized(2, 1)
PATIENCE_S: Final = 60.0
SETTLE_S: Final = sized(2.0, 0.2)
"""How long all is left in peace before each kill."""
BAR_MS: Final = 1000.0
PEER: Final = "serf, detection only, LAN defaults"
TOPICS: Final = ("service/+/status/stamp/", "broker/+/session/node/")


def run() -> list[Row]:
    directory = Path(tempfile.mkdtemp(prefix="dsmt-p3-"))
    try:
        with ExitStack() as stack:
            program = compile_program(directory)
            stamps = Stamps(directory / "fifo")
            stack.callback(stamps.close)
            cluster, missing = _peer(stack, directory)
            home = stack.enter_context(realm(directory / "home", nodes=NODES, controllers=CONTROLLERS))
            rounds = asyncio.run(_measure(home, f"{program} {stamps.path}", stamps, cluster))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return _rows(rounds, missing)


def _peer(stack: ExitStack, directory: Path) -> tuple[Serf | None, str]:
    try:
        program = unpacked_from_debian("serf", "serf", directory / "serf")
        return stack.enter_context(serf(program, NODES, start_s=PATIENCE_S)), ""
    except (UnavailableError, OSError, TimeoutError) as error:
        return None, f"serf not measured: {error}"


class Rounds:
    """Milliseconds since the kill, one of each a round."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.told: list[float] = []
        self.serf: list[float] = []


async def _measure(home: Home, run: str, stamps: Stamps, cluster: Serf | None) -> Rounds:
    rounds = Rounds()
    async with operator(home) as connection, listening(connection, *TOPICS) as ear:
        for number in range(ROUNDS):
            service = f"bench{number}"
            await apply(connection, service, run, instances=1)
            node = _node(await ear.until(f"the start of {service}", _is_running, PATIENCE_S))
            await asyncio.to_thread(stamps.next, PATIENCE_S)
            await asyncio.sleep(SETTLE_S)
            ear.forget()
            with _serf_round(cluster, number, rounds):
                await _round(home, node, stamps, ear, rounds)
                await remove(connection.bus, service, by=connection.by, reason="end of its round")
                await ear.until(f"the end of {service}", _is_gone, PATIENCE_S)
            progress(ID, number + 1, ROUNDS)
    return rounds


async def _round(home: Home, node: str, stamps: Stamps, ear: Ear, rounds: Rounds) -> None:
    """Kill a node, see its instance run elsewhere, and start the node again."""
    spawner = living(record_path(str(home.part("nodes", node)), "spawner"))
    if spawner is None:
        raise RuntimeError(f"node {node} has no spawner")
    victims = [spawner.pid, *descendants(spawner.pid)]
    at = now_ns()
    kill_all(victims)
    heard = await ear.until(
        f"a replacement for node {node}", lambda heard: _is_running(heard) and _node(heard) != node, PATIENCE_S
    )
    began = await asyncio.to_thread(stamps.next, PATIENCE_S)
    rounds.told.append((heard.at_ns - at) / 1e6)
    rounds.began.append((began.at_ns - at) / 1e6)
    _require_alone(began, heard, stamps)
    await up(home, Wanted(nodes=NODES, controllers=CONTROLLERS))
    await ear.until(f"the return of {node}", lambda heard: _is_open_session(heard, node), PATIENCE_S)


@contextmanager
def _serf_round(cluster: Serf | None, number: int, rounds: Rounds) -> Iterator[None]:
    """Kill an agent of serf before the block, and wait after it until that is noticed; then start it again."""
    if cluster is None:
        yield
        return
    victim = number % NODES
    at = cluster.kill(victim)
    yield
    rounds.serf.append((cluster.failed(victim, PATIENCE_S) - at) / 1e6)
    cluster.start(victim, PATIENCE_S)


def _require_alone(began: Stamp, heard: Heard, stamps: Stamps) -> None:
    """What was timed must be the one replacement, and the one that the event is about."""
    others = stamps.drain()
    if others or began.pid != heard.data["pid"]:
        raise RuntimeError(f"the event names pid {heard.data['pid']}; what began: {[began, *others]}")


def _is_running(heard: Heard) -> bool:
    return heard.topic.endswith("/application") and heard.data["state"] == "running"


def _is_gone(heard: Heard) -> bool:
    return heard.topic.endswith("/application") and heard.data["state"] == "gone"


def _node(heard: Heard) -> str:
    return heard.topic.split("/")[5]


def _is_open_session(heard: Heard, node: str) -> bool:
    return heard.topic.endswith(f"/session/node/{node}") and heard.data["state"] == "open"


def _rows(rounds: Rounds, missing: str) -> list[Row]:
    rows = []
    for what, samples in (("running, event verified", rounds.told), ("its main began", rounds.began)):
        for name, statistic in (("p50", median), ("p90", percentile(0.9))):
            peer = statistic(rounds.serf) if rounds.serf else None
            ratio, spread = compare(samples, rounds.serf, statistic) if rounds.serf else (None, "")
            bar = f"< {BAR_MS:g} ms" if name == "p50" else None
            ours = statistic(samples)
            rows.append(
                row(
                    ID,
                    f"{name} of {len(samples)}: {what}",
                    unit="ms",
                    ours=ours,
                    peer=peer,
                    peer_name=PEER,
                    ratio=ratio,
                    spread=spread,
                    bar=bar,
                    holds=None if bar is None else ours < BAR_MS,
                    note=missing,
                )
            )
    return rows
