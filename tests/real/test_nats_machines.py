"""A realm on NATS with machines of its own: one of these dies, all servers are ended once; and servers on each of three."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import Parts
from tests.real.bringing import Brought
from tests.real.machines import lab, on_machines, sh
from tests.real.telling import telling
from tests.real.test_adding import PORT, Operator
from tests.real.test_adding import server_wheels as server_wheels  # noqa: PLC0414 - the same
from tests.real.test_adding import wheels as wheels  # noqa: PLC0414 - a fixture
from tests.real.test_three_machines import SPEC, whole_on
from tests.waiting import seen

pytestmark = [*on_machines("nats"), pytest.mark.timeout(400)]


def pids(operator: Operator) -> dict[str, int]:
    """Those of all instances."""
    return {one["instance"]: one["pid"] for one in operator.run("ps", "--json").json}


def test_machines_join_a_realm_on_nats_and_what_one_ran_is_repaired_elsewhere_and_they_follow_it_back(
    tmp_path: Path, wheels: Brought
) -> None:
    with lab(tmp_path) as made:
        operator = Operator(made, wheels)
        one, two, _ = (made.machine(name) for name in ("one", "two", "three"))
        before = two.files()
        try:
            operator.run("init", "--engine", "nats", "--listen", f"{made.address}:{PORT}")
            operator.run("up", "--detach", "--nodes", "0", "--controllers", "1")
            refused = operator.error("node", "add", "one", "--roles", "broker,node", code=4)
            assert (refused["code"], one.programs()) == ("nats.alone", [])
            operator.add("one", "--roles", "controller,node")
            operator.add("two", "three")
            (tmp_path / "web.yaml").write_text(SPEC)
            operator.run("apply", str(tmp_path / "web.yaml"), "--wait=60s")
            assert whole_on(operator) == {"one", "two", "three"}
            assert {one["controller"] for one in operator.run("controllers", "--json").json if one["alive"]} == {"c1", "one"}

            made.cut(one)
            operator.until(lambda: whole_on(operator) == {"two", "three"}, "it is whole on the machines that are left")
            operator.run("down")
            operator.run("up", "--detach", "--nodes", "0")
            operator.until(lambda: operator.alive() == {"two", "three"}, "the nodes are back with the servers")
            assert whole_on(operator) == {"two", "three"}, "nothing ended with the servers"

            operator.run("bus", "migrate", "dsmt")
            assert "node one would not hear" in operator.error("bus", "migrate", "--cut", code=4)["message"]
            operator.run("node", "remove", "one", "--forget", "--yes")
            runs = pids(operator)
            moved = operator.run("bus", "migrate", "--cut", "--json").json
            assert (sorted(moved["members"]), moved["away"]) == (["node/three", "node/two"], [])
            assert pids(operator) == runs, "nothing was restarted"

            operator.run("node", "remove", "two", "--yes")
            assert (two.files(), two.programs()) == (before, [])
            operator.until(lambda: whole_on(operator) == {"three"}, "it is whole on the last one")
        finally:
            operator.run("down")


SEAT = "10.213.77.250/24"
"""Where the operator sits when the machine on which the realm was made is gone."""


def test_three_servers_move_apart_and_the_machine_on_which_the_realm_was_made_dies(
    tmp_path: Path, server_wheels: Brought
) -> None:
    with lab(tmp_path) as made:
        operator = Operator(made, server_wheels)
        one, two = (made.machine(name) for name in ("one", "two"))
        before = two.files()
        try:
            operator.run("init", "--engine", "nats", "--brokers", "3", "--listen", f"{made.address}:{PORT}")
            operator.run("up", "--detach", "--nodes", "1", "--controllers", "1")
            operator.add("one", "two", "--roles", "broker,controller,node")
            operator.run("broker", "remove", "b2", "--yes")
            operator.run("broker", "remove", "b3", "--yes")
            brokers = {one["broker"]: one["address"] for one in operator.run("brokers", "--json").json if one["alive"]}
            assert brokers.keys() == {"b1", "one", "two"}
            assert operator.error("node", "remove", "one", code=4)["code"] == "broker.few"
            assert not any(file.endswith(("root.key", "servers.key")) for file in one.files() | two.files())
            (tmp_path / "web.yaml").write_text(SPEC)
            operator.run("apply", str(tmp_path / "web.yaml"), "--wait=60s")
            assert whole_on(operator) == {"n1", "one", "two"}

            with telling(operator, brokers["two"]) as told:
                die(operator)
                operator.until(lambda: whole(operator) == {"one", "two"}, "it is whole elsewhere")
                until_then = len(told)
                operator.until(lambda: len(told) > until_then, "who was attached there goes on elsewhere")
            operator.run("scale", "web/app", "2", "--wait=60s")
            sh(f"ip addr add {made.address}/24 dev lab", *made.within)
            operator.run("up", "--detach")
            assert operator.alive() == {"n1", "one", "two"}
            found = operator.run("tail", "user/told", "--since", "10m", "--no-follow", "--json").lines
            assert told.levels.keys() <= {f"{one['source']}#{one['id']}" for one in found}
            assert set(told.levels.values()) == {"safe"}

            operator.run("broker", "add", "b4")
            seen(lambda: given_up(operator, "two"), "others hold what two held", 180)
            assert (two.files(), two.programs()) == (before, [])
            assert {one["broker"] for one in operator.run("brokers", "--json").json if one["alive"]} == {"b1", "b4", "one"}
        finally:
            operator.run("down")


def given_up(operator: Operator, node: str) -> bool:
    """Remove a node, and do what is said where servers are slow to choose leaders: type it again."""
    try:
        operator.run("node", "remove", node, "--yes")
    except AssertionError as error:
        if "type it again" not in str(error):
            raise
        logging.getLogger(__name__).warning(error)
        return False
    return True


def die(operator: Operator) -> None:
    """The operator's machine dies, all at once: nobody hears of its end. The operator goes on from another seat."""
    sh(f"ip addr del {operator.lab.address}/24 dev lab; ip addr add {SEAT} dev lab", *operator.lab.within)
    parts = Parts(Home(operator.home))
    while found := parts.all():
        for identity in found:
            with suppress(ProcessLookupError):
                os.kill(identity.pid, signal.SIGKILL)


def whole(operator: Operator) -> set[str]:
    """The same, where the servers choose a leader: then no command attaches for some seconds."""
    try:
        return whole_on(operator)
    except AssertionError:
        return set()
