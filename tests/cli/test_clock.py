"""`clock accept` as an operator types it, to a broker whose machine's clock is far ahead of realm time."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.broker.timekeeping import KEPT
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.making import init, issue
from dsmt.programs.birth import open_store
from dsmt.programs.configuration import read_identity
from dsmt.system.procfs import boot
from dsmt.trust.identity import YEAR_S, dump
from tests.cli.operating import Operator

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
AHEAD_S = 20.0


def test_the_word_on_a_clock_that_status_asks_for_is_taken(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    set_back(home.part("brokers", "b1"), AHEAD_S)
    operator = Operator(home.root)
    broker = subprocess.Popen([sys.executable, "-m", "dsmt", "broker", "run"], env=operator.environment)
    try:
        (alert,) = operator.until(lambda: alerts(operator), "the broker tells that its clock is off")
        assert "dsmt clock accept b1" in alert["next"]
        said = operator.json("clock", "accept", "b1", "--reason", "NTP was off")
        assert said["broker"] == "b1"
        assert abs(said["ahead_s"] - AHEAD_S) < 5
        operator.until(lambda: near(operator), "realm time is the machine's")
    finally:
        broker.terminate()
        broker.wait(30)


def test_a_jump_that_ends_certificates_is_taken_after_a_yes_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    old_s = int(time.time()) - YEAR_S - 100
    write_secret(home.operator_file, dump(issue(home.root_key(), home.operator().name, now_s=old_s)))
    set_back(home.part("brokers", "b1"), 10_000.0)
    identity = home.part("brokers", "b1") / "identity"
    now_s = int(time.time()) - 20_000
    write_secret(identity, dump(issue(home.root_key(), "broker/b1", now_s=now_s, key=read_identity(identity).key)))
    operator = Operator(home.root)
    broker = subprocess.Popen([sys.executable, "-m", "dsmt", "broker", "run"], env=operator.environment)
    try:
        operator.until(lambda: alerts(operator), "the broker tells that its clock is off")
        own = home.operator().name
        said = operator.run("clock", "accept", "b1")
        assert said.returncode == 2
        assert (
            f"and never goes back: by then 1 certificate will have ended ({own}), and whose has ended is out" in said.stderr
        )
        assert "if it is, dsmt clock accept b1 --yes" in said.stderr
        assert abs(operator.json("clock", "accept", "b1", "--yes")["ahead_s"] - 10_000) < 5
    finally:
        broker.terminate()
        broker.wait(30)


def set_back(directory: Path, seconds: float) -> None:
    """Have the broker of a directory begin with a realm time that is behind its machine's clock."""
    store = open_store(directory)
    offset_ms = (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - seconds) * 1000
    store.meta.put(KEPT, f"{boot()} {offset_ms:.3f}".encode())
    store.close()


def alerts(operator: Operator) -> list[Any]:
    """What `status` says of clocks, once a broker answers."""
    said = operator.run("status", "--json")
    told = json.loads(said.stdout)["alerts"] if said.returncode == 0 else []
    return [one for one in told if one["code"] == "broker.clock"]


def near(operator: Operator) -> bool:
    """Whether nothing is left to accept."""
    done = operator.run("clock", "accept", "b1", "--json")
    return done.returncode == 4 and "clock.near" in done.stderr
