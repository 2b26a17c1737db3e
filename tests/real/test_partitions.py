"""A realm of three brokers is cut in each way, and healed, while it is spoken to on each side and nodes die on each.

Rule 1: who is cut off has a network of its own; nobody is told.
Rule 2: `make partitions` cuts in each way, a minute each; else it is one way, for a few seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from dsmt.event.envelope import Event
from tests.real.bringing import Brought
from tests.real.machines import Machine, lab, on_machines
from tests.real.telling import Telling, exported, said_ms, telling
from tests.real.test_adding import PORT, Operator
from tests.real.test_adding import wheels as wheels  # noqa: PLC0414 - a fixture

LONG_S = float(os.environ.get("DSMT_PARTITION_S", "0"))
CUT_S = LONG_S or 12.0
WAYS = (("two",), ("one",), ("one", "two"), ("one", "/", "two"))[: None if LONG_S else 1]
"""Who has a network of their own, or each of them one: the operator, whose broker is the third, has all the rest."""
HEALED_S = 5.0
"""When all hold the same."""
TWICE_S = 15.0 if LONG_S else 60.0
"""When nothing runs twice any more: what stood on one side for a node that died there is placed anew first."""
SPEC = """\
service: web
components:
  app:
    instances: 6
    run: python3 -m http.server {port.http} --bind 0.0.0.0
    ports: {http: auto}
    health: {http: {port: http, path: /}}
    stop: {grace: 1s}
"""
pytestmark = [*on_machines("cut"), pytest.mark.timeout(300 + 200 * len(WAYS))]


class Parted:
    """Three brokers with a controller each, a node beside two of them, and for each way two nodes that die in it."""

    def __init__(self, operator: Operator, wheels: Brought) -> None:
        self.operator, self.lab, self.twice = operator, operator.lab, 0
        self.held: list[dict[str, Event]] = []
        self.machines = {name: self.lab.machine(name) for name in ("one", "two")}
        self.doomed = [(self.lab.machine(f"here{way}"), self.lab.machine(f"away{way}")) for way in range(len(WAYS))]
        operator.run("init", "--listen", f"{self.lab.address}:{PORT}")
        operator.run("up", "--detach", "--nodes", "0", "--controllers", "1")
        operator.add("one", "two", "--roles", "broker,controller,node")
        operator.add(*(one.name for pair in self.doomed for one in pair))
        file = self.lab.directory / "web.yaml"
        file.write_text(SPEC)
        operator.run("apply", str(file), "--wait=60s")
        self.brokers = {one["broker"]: one["address"] for one in operator.run("brokers", "--json").json}
        assert self.brokers.keys() == {"b1", "one", "two"}

    @contextmanager
    def spoken_to(self) -> Iterator[list[Telling]]:
        """Somebody speaks beside each broker."""
        with ExitStack() as stack:
            said = [stack.enter_context(telling(self.operator, self.brokers["b1"]))]
            for name, machine in self.machines.items():
                within = ("nsenter", "-t", str(machine.pid), "--net", "--")
                said.append(stack.enter_context(telling(self.operator, self.brokers[name], within)))
            yield said

    def cut(self, way: Sequence[str], here: Machine, away: Machine) -> None:
        """Cut for so long; a node dies on each side when a third of that has gone by."""
        began = time.monotonic()
        groups = "|".join(way).split("|/|")
        parts = [[self.machines[name] for name in group.split("|")] for group in groups]
        self.lab.part([*parts[0], away], *parts[1:])
        self.wait_until(began + CUT_S / 3)
        self.lab.cut(here)
        self.lab.cut(away)
        self.wait_until(began + CUT_S)
        self.twice = self.copies() - 6
        self.lab.heal()

    def wait_until(self, at: float) -> None:
        """Let time pass: a partition is nothing but that."""
        time.sleep(max(0.0, at - time.monotonic()))

    def copies(self) -> int:
        """How many programs of the service run, on whatever machine that lives."""
        living = [one for one, process in zip(self.lab.machines, self.lab.processes, strict=True) if process.poll() is None]
        look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'm [h]ttp.server' | wc -l; true"
        return sum(int(machine.run(look)) for machine in living)

    def lacking(self, pool: ThreadPoolExecutor, until_ms: float, *, verified: bool = False) -> list[int]:
        """How much of what was said by a time each broker lacks."""
        self.held = list(pool.map(partial(exported, self.operator, verified=verified), self.brokers.values()))
        old = [{one for one, event in events.items() if said_ms(event) < until_ms} for events in self.held]
        return [len(set().union(*old) - one) for one in old]

    def verified(self, pool: ThreadPoolExecutor, until_ms: float) -> bool:
        """Whether what each broker exports now is whole; what was just said may be on its way while all is exported."""
        try:
            return self.lacking(pool, until_ms, verified=True) == [0, 0, 0]
        except AssertionError:
            return False

    def once(self, healed: float) -> float:
        """How long after a time nothing runs twice any more, in seconds."""
        self.operator.until(lambda: self.copies() <= 6, "nothing runs twice")
        return time.monotonic() - healed

    def whole(self) -> bool:
        """Whether all of the service is ready."""
        return [one["health"] for one in self.operator.run("ps", "--json").json] == ["ready"] * 6


def test_brokers_that_were_cut_off_hold_the_same_afterwards_and_lose_nothing(tmp_path: Path, wheels: Brought) -> None:
    with lab(tmp_path) as made:
        operator = Operator(made, wheels)
        try:
            parted = Parted(operator, wheels)
            with parted.spoken_to() as said:
                for way, (here, away) in zip(WAYS, parted.doomed, strict=True):
                    before = [len(one) for one in said]
                    parted.cut(way, here, away)
                    healed = time.monotonic()
                    healed_ms = time.time() * 1000
                    with ThreadPoolExecutor() as pool:
                        once = pool.submit(parted.once, healed)
                        parted.wait_until(healed + HEALED_S)
                        acknowledged = {event for one in said for event in one.levels}
                        told = [len(one) - count for one, count in zip(said, before, strict=True)]
                        assert min(told) > CUT_S, "all were spoken to, and answered, on their side"
                        if not LONG_S:  # beside other tests it may take longer
                            operator.until(lambda at=healed_ms: parted.lacking(pool, at) == [0, 0, 0], "all hold the same")
                        assert parted.lacking(pool, healed_ms) == [0, 0, 0], f"{' '.join(way)} apart"
                        operator.until(lambda at=healed_ms: parted.verified(pool, at), "each history is whole")
                        assert all(acknowledged <= events.keys() for events in parted.held)
                    assert once.result() < TWICE_S, "nothing runs twice for long"
                    operator.until(lambda: parted.whole() and parted.copies() == 6, "one copy of each")
                    figures = f"{told} acknowledged, {len(parted.held[0])} events"
                    figures += f", {parted.twice} more copies for {once.result():.1f} s"
                    sys.stdout.write(f"\n{' '.join(way)} apart: {figures} ")
        finally:
            operator.run("down")
