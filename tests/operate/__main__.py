"""`make operate`: a shop on real software, under load, while processes are killed and nodes stand still at random.

Redis with data, nginx, PostgreSQL under its own user, web servers and a worker from a wheel, mosquitto; a client of 60
orders a second. Every process of the home may be killed, and all of dsmt on one node stopped for 4 to 30 s. At the end no
acknowledged order is missing or twice, every node was alive within 5 s of its return, each instance runs once, the exported
history verifies, and `down` leaves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from dsmt.operations.local.home.addresses import free_port
from dsmt.operations.local.home.home import Home
from dsmt.system.procfs import is_alive
from dsmt.system.records import living, record_path
from tests.real.fleet import processes_of

HERE = Path(__file__).parent
NODES = ("n1", "n2", "n3")
RATE = 60
BACK_S = 5.0
"""How soon after its return a node must be alive again."""
LONG_S = 5.0
"""Orders that take longer are told of."""


def dsmt(home: Path, *words: str, check: bool = True, timeout: float = 120.0) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dsmt", *words],
        env={**os.environ, "DSMT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        raise SystemExit(f"dsmt {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def until(true: Callable[[], Any], seconds: float) -> float | None:
    """Seconds until something was so; None when the patience ended."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(0.05)
    return time.monotonic() - began


@dataclass
class Client:
    """Puts orders, each until it was taken, and remembers which were."""

    port: int
    taken: list[str] = field(default_factory=list)
    tries: int = 0
    failures: int = 0
    longest_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, workers: int = 12) -> None:
        """Begin."""
        for number in range(workers):
            thread = threading.Thread(target=self._run, args=(number, workers), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End, with no order half put."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, number: int, workers: int) -> None:
        count, due = 0, time.monotonic()
        while not self._stop.is_set():
            order = f"{number}-{count}"
            count += 1
            began = time.monotonic()
            while not self._put(order):
                if self._stop.is_set():
                    return
                self._stop.wait(0.1)
            took = time.monotonic() - began
            with self._lock:
                self.taken.append(order)
                self.longest_s = max(self.longest_s, took)
            if number == 0 and took > LONG_S:
                print(f"  an order took {took:.1f} s", flush=True)
            due = max(due + workers / RATE, time.monotonic() - 1)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _put(self, order: str) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("PUT", f"/orders/{order}")
            taken = connection.getresponse().status == 201
        except (OSError, HTTPException):
            taken = False
        finally:
            connection.close()
        with self._lock:
            self.tries += 1
            self.failures += not taken
        return taken


class Shop:
    """The realm and its services."""

    def __init__(self, home: Path, work: Path) -> None:
        self.home, self.work = home, work
        names = ("database", "counter", "broker", "web_a", "web_b", "web_c", "edge")
        self.ports = {name: free_port() for name in names}
        self.pg = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/bin"))

    def build(self) -> None:
        """The archives that the services are installed from."""
        wheels = self.work / "wheels"
        source = self.work / "source"
        shutil.copytree(HERE / "orders", source)
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), str(source)],
            check=True,
            timeout=300,
        )
        with tarfile.open(self.work / "wheels.tar.gz", "w:gz") as archive:
            archive.add(wheels, "wheels")
        site = self.work / "site"
        site.mkdir()
        (site / "index.html").write_text("a shop\n")
        with tarfile.open(self.work / "site.tar.gz", "w:gz") as archive:
            archive.add(site, "site")
        told = (HERE / "services.yaml").read_text()
        programs = {name: str(self.pg / name) for name in ("postgres", "initdb", "pg_isready")}
        (self.work / "shop.yaml").write_text(told.format(**self.ports, **programs, python=sys.executable))

    def up(self) -> None:
        """Start the realm, and apply the services."""
        dsmt(self.home, "up", "--nodes", str(len(NODES)), "--detach")
        dsmt(self.home, "apply", str(self.work / "shop.yaml"), "--wait=180s", timeout=240)

    def rows(self) -> list[dict[str, Any]]:
        """`dsmt ps`."""
        told: list[dict[str, Any]] = json.loads(dsmt(self.home, "ps", "--json", check=False) or "[]")
        return told

    def ready(self) -> bool:
        """Whether every instance is ready."""
        rows = self.rows()
        return len(rows) == 8 and all(row["state"] == "running" and row["health"] in ("ready", "none") for row in rows)

    def node(self, name: str) -> str:
        """What `dsmt nodes` says of a node."""
        told = json.loads(dsmt(self.home, "nodes", "--json", check=False) or "[]")
        return next((str(row["liveness"]) for row in told if row["node"] == name), "unknown")

    def of_node(self, name: str) -> list[int]:
        """The pids of dsmt on a node: spawner, manager, monitor, agents."""
        directory = Home(self.home).part("nodes", name)
        records = [record_path(str(directory), program) for program in ("spawner", "container_manager", "node_monitor")]
        records += [str(path) for path in (directory / "containers").glob("*/*/*/run/deployment_agent.json")]
        found = (living(record) for record in records)
        return [identity.pid for identity in found if identity is not None and is_alive(identity)]

    def orders(self) -> list[str]:
        """Every order in the database."""
        told = subprocess.run(
            [
                str(self.pg / "psql"), "-h", "127.0.0.1", "-p", str(self.ports["database"]), "-U", "postgres", "-At", "-c",
                "SELECT id FROM orders",
            ],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return told.stdout.split()


class Chaos:
    """What goes wrong, drawn from a seed. `wrong` holds what must not have happened."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop, self.random = shop, random.Random(seed)
        self.wrong: list[str] = []
        self.killed: list[str] = []

    def kill(self) -> None:
        """SIGKILL to any process of the home."""
        found = {pid: told for pid, told in processes_of(self.shop.home).items() if pid != os.getpid()}
        if not found:
            return
        pid = self.random.choice(sorted(found))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed.append(found[pid][:100])
            print(f"  killed {pid}: {found[pid][:100]}", flush=True)

    def stall(self) -> None:
        """SIGSTOP to all of dsmt on a node, for 4 to 30 s."""
        name, seconds = self.random.choice(NODES), self.random.uniform(4, 30)
        print(f"  {name} stands still for {seconds:.1f} s", flush=True)
        pids = self.shop.of_node(name)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        took = until(lambda: self.shop.node(name) == "alive", BACK_S)
        if took is None:
            self.wrong.append(f"{name} was not alive {BACK_S:g} s after it had stood still for {seconds:.1f} s")
        else:
            print(f"  {name} is alive again after {took:.1f} s", flush=True)


def judge(shop: Shop, client: Client, chaos: Chaos) -> list[str]:
    """What must not have happened."""
    wrong = list(chaos.wrong)
    if until(shop.ready, 180) is None:
        wrong.append(
            f"not everything is ready in the end: {[(r['instance'], r['state'], r['health']) for r in shop.rows()]}"
        )
    kept = shop.orders()
    missing = set(client.taken) - set(kept)
    wrong += [f"{len(missing)} acknowledged orders are missing"] if missing else []
    wrong += ["an order is there twice"] if len(kept) != len(set(kept)) else []
    for name in NODES:
        state = shop.node(name)
        wrong += [] if state == "alive" else [f"{name} is {state} in the end"]
    history, trust = shop.work / "history.dsmt", shop.work / "trust.cbor"
    dsmt(shop.home, "export", str(history), timeout=300)
    dsmt(shop.home, "trust", "export", str(trust), timeout=300)
    said = json.loads(dsmt(shop.home, "verify", str(history), "--trust", str(trust), "--json", check=False, timeout=600))
    print(f"  history: {json.dumps({k: v for k, v in said.items() if not isinstance(v, list)})}", flush=True)
    wrong += [] if said["ok"] else [f"the history does not verify: {json.dumps(said)[:1500]}"]
    return wrong


def main() -> int:
    """Operate; 0 when nothing went wrong that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.operate")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--stalls", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="leave the home and the archives")
    told = parser.parse_args()
    print(f"seed {told.seed}", flush=True)
    work = Path(tempfile.mkdtemp(prefix="operate-"))
    work.chmod(0o755)
    shop = Shop(work / "home", work)
    wrong: list[str] = []
    try:
        shop.build()
        shop.up()
        client, chaos = Client(shop.ports["edge"]), Chaos(shop, told.seed)
        client.start()
        acts = [chaos.kill] * told.kills + [chaos.stall] * told.stalls
        chaos.random.shuffle(acts)
        until_s = time.monotonic() + told.minutes * 60
        for number, act in enumerate(acts):
            act()
            left = until_s - time.monotonic()
            time.sleep(max(1.0, left / (len(acts) - number)))
        client.stop()
        wrong = judge(shop, client, chaos)
        print(
            f"{len(client.taken)} orders taken, {client.failures} of {client.tries} tries failed, "
            f"longest {client.longest_s:.1f} s; {len(chaos.killed)} kills, {told.stalls} stalls",
            flush=True,
        )
    finally:
        print(dsmt(shop.home, "down", check=False), end="", flush=True)
        left = processes_of(shop.home)
        wrong += [f"left after down: {pid} {what}" for pid, what in left.items()]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if told.keep:
            print(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
