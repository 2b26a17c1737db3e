"""A site behind an uplink, made over SSH as README says: its machines use its leaf, and repair it while cut off (E5)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.real.bringing import Brought
from tests.real.machines import Machine, lab, on_machines
from tests.real.telling import exported, said_ms, stored_ms
from tests.real.test_adding import PORT, Operator
from tests.real.test_adding import wheels as wheels  # noqa: PLC0414 - a fixture

pytestmark = [*on_machines("cut"), pytest.mark.timeout(400)]
SPEC = """\
service: web
components:
  app:
    instances: 2
    run: sleep 1517
    stop: {grace: 1s}
"""
HEALED_S = 5.0
"""When both sides have all of each other."""


def test_a_site_that_was_added_over_ssh_repairs_itself_while_its_uplink_is_down(tmp_path: Path, wheels: Brought) -> None:
    with lab(tmp_path) as made:
        operator = Operator(made, wheels)
        first, second = made.machine("site-1"), made.machine("site-2")
        try:
            operator.run("init", "--listen", f"{made.address}:{PORT}")
            operator.run("up", "--detach", "--nodes", "0")
            operator.add("--roles", "broker,controller,node", "--leaf", "site-1")
            operator.add("--broker", "site-1", "site-2")
            operator.until(lambda: leaf(operator) == ("b1", True), "the leaf is linked, and whole")
            (tmp_path / "web.yaml").write_text(SPEC)
            operator.run("apply", str(tmp_path / "web.yaml"), "--wait=60s")
            assert [copies(machine) for machine in (first, second)] == [1, 1]
            address = next(one["address"] for one in operator.run("brokers", "--json").json if one["broker"] == "site-1")
            own = {"node/site-1", "node/site-2", "controller/site-1"}
            operator.until(lambda: own <= sessions(operator, address), "who belongs to the site is attached to its leaf")

            made.part([first, second])
            made.cut(second)
            operator.until(lambda: copies(first) == 2, "what ran on the dead machine runs on the other one of the site")
            made.heal()
            healed_ms = time.time() * 1000
            operator.until(lambda: running(operator) == ["site-1", "site-1"], "all see what the site did")
            held = exported(operator, f"{made.address}:{PORT}")
            placed = {identity: one for identity, one in held.items() if one.type == "dsmt.slot"}
            there = {identity for identity, one in placed.items() if one.source == "controller/site-1"}
            assert {placed[identity].data["node"] for identity in there} == {"site-1"}
            assert max(map(said_ms, placed.values())) < healed_ms
            stored = stored_ms(operator, f"{made.address}:{PORT}")
            assert healed_ms < max(stored[identity] for identity in there) < healed_ms + HEALED_S * 1000
        finally:
            operator.run("down")


def leaf(operator: Operator) -> tuple[str, bool]:
    """To which broker the leaf is linked, and whether it is whole."""
    one = next(one for one in operator.run("brokers", "--json").json if one["broker"] == "site-1")
    return one["upstream"], one["whole"]


def copies(machine: Machine) -> int:
    """How many programs of the service run there."""
    return int(machine.run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '[s]leep 1517' | wc -l; true"))


def sessions(operator: Operator, address: str) -> set[str]:
    """Who was attached to the leaf: at once, or within half a minute who found it not answering yet."""
    own = "broker/site-1/session/"
    return {one.topic.removeprefix(own) for one in exported(operator, address).values() if one.topic.startswith(own)}


def running(operator: Operator) -> list[str]:
    """The nodes on which an instance runs, as those outside see it."""
    return [one["node"] for one in operator.run("ps", "--json").json if one["state"] == "running"]
