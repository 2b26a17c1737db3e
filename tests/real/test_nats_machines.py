"""A realm on NATS with nodes and a controller on machines of their own; one of these dies, all servers are ended once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.machines import ON_MACHINES, lab
from tests.real.test_adding import PORT, Operator
from tests.real.test_adding import nats_wheels as nats_wheels  # noqa: PLC0414 - a fixture
from tests.real.test_three_machines import SPEC, whole_on

pytestmark = [*ON_MACHINES, pytest.mark.timeout(300)]


def test_machines_join_a_realm_on_nats_and_what_one_of_them_ran_is_repaired_elsewhere(
    tmp_path: Path, nats_wheels: None
) -> None:
    with lab(tmp_path) as made:
        operator = Operator(made)
        one, two, _ = (made.machine(name) for name in ("one", "two", "three"))
        before = two.files()
        try:
            operator.run("init", "--engine", "nats", "--listen", f"{made.address}:{PORT}")
            operator.run("up", "--detach", "--nodes", "0", "--controllers", "1")
            refused = operator.error("node", "add", "one", "--roles", "broker,node", code=4)
            assert (refused["code"], one.programs()) == ("bus.unable", [])
            operator.run("node", "add", "one", "--roles", "controller,node")
            operator.run("node", "add", "two", "three")
            (tmp_path / "web.yaml").write_text(SPEC)
            operator.run("apply", str(tmp_path / "web.yaml"), "--wait=60s")
            assert whole_on(operator) == {"one", "two", "three"}
            assert {one["controller"] for one in operator.run("controllers", "--json").json if one["alive"]} == {"c1", "one"}
            assert operator.error("bus", "migrate", "dsmt", code=4)["code"] == "migrate.machines"

            made.cut(one)
            operator.until(lambda: whole_on(operator) == {"two", "three"}, "it is whole on the machines that are left")
            operator.run("down")
            operator.run("up", "--detach", "--nodes", "0")
            operator.until(lambda: operator.alive() == {"two", "three"}, "the nodes are back with the servers")
            assert whole_on(operator) == {"two", "three"}, "nothing ended with the servers"

            operator.run("node", "remove", "one", "--forget", "--yes")
            operator.run("node", "remove", "two", "--yes")
            assert (two.files(), two.programs()) == (before, [])
            operator.until(lambda: whole_on(operator) == {"three"}, "it is whole on the last one")
        finally:
            operator.run("down")
