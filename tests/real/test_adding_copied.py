"""A node of which a copy runs: both are kept out, or both are named; when the copy has ended the true one is there alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real.machines import Machine, on_machines, sh
from tests.real.test_adding import Operator, operator, wheels

pytestmark = [*on_machines("kept"), pytest.mark.timeout(400)]
__all__ = ["operator", "wheels"]
SPEC = "service: {0}\ncomponents:\n  app:\n    run: sleep 600\n    nodes: {0}\n"
DSMT = "$(ls -d /opt/dsmt/*/bin/dsmt) --home /var/lib/dsmt"


def copy(made: Machine, copied: Machine) -> None:
    """Have a machine hold all that another one has, and run it. Where it is kept out before it was seen, `up` says so."""
    source = f"nsenter -t {made.pid} --mount --pid -- tar cf - -C / opt/dsmt var/lib/dsmt"
    sh(f"{source} 2>/dev/null | nsenter -t {copied.pid} --mount --pid -- tar xf - -C /")
    copied.run(f"{DSMT} up --detach 2>&1 || true")


def alert(operator: Operator, node: str) -> dict[str, Any] | None:
    """What `status` says of a node.

    The copy is on the same kernel: it misses the spawner that its record names, and says that it has died; that is left out.
    """
    told = (one for one in operator.run("status", "--json").json["alerts"] if one["target"] == f"node/{node}")
    return next((one for one in told if one["code"] != "keeper.died"), None)


@pytest.mark.parametrize("road", ["ssh", "token"])
def test_a_node_that_is_kept_out_for_its_copy_says_so_and_comes_back_alone(operator: Operator, road: str) -> None:
    name, spec = f"one-{road}", operator.lab.directory / f"{road}.yaml"
    machine, copied = operator.lab.machine(name), operator.lab.machine(f"copy-{road}")
    operator.add(name)
    spec.write_text(SPEC.format(name))
    operator.run("apply", str(spec), "--wait=60s")
    (runs,) = operator.run("ps", name, "--json").json
    copy(machine, copied)
    operator.until(lambda: alert(operator, name), "both are kept out")
    copied.run(f"{DSMT} down")
    told = alert(operator, name)
    assert told is not None
    assert (told["code"], told["who"]) == ("node.kept_out", "you")
    assert f"; may still run there: {name}/app/0" in told["message"]
    assert told["message"] in operator.run("why", f"node/{name}", "--json").json["says"]
    assert "OUT" in operator.run("status").out
    log = machine.run(f"tail -n 3 /var/lib/dsmt/nodes/{name}/container_manager.log")
    assert told["next"].removeprefix("end the copy, then ") in log
    if road == "ssh":
        operator.run("node", "add", name)
    else:
        key = next(one["out"]["key"] for one in operator.run("nodes", "--json").json if one["node"] == name)
        assert f"dsmt cert revoke {key}" in told["next"]
        operator.run("cert", "revoke", key, "--yes")
        token = operator.run("token", "create", "--name", name).out.strip().splitlines()[0]
        machine.run(f"echo {token} | {DSMT} join -")
    operator.until(lambda: alert(operator, name) is None and name in operator.alive(), "it is back")
    operator.until(lambda: operator.run("ps", name, "--json").json[0]["health"] != "unknown", "its agent is heard")
    (again,) = operator.run("ps", name, "--json").json
    assert (again["state"], again["pid"]) == ("running", runs["pid"]), "what it runs goes on"
    refused = copied.run(f"{DSMT} up --detach 2>&1 || true")
    assert f"node/{name} was revoked" in refused, "the copy does not come in"
    assert alert(operator, name) is None
    copied.run(f"{DSMT} down")


def test_a_copy_that_is_attached_to_another_broker_is_named_and_the_true_node_gets_another_key(operator: Operator) -> None:
    machine, copied, other = (operator.lab.machine(name) for name in ("two", "copy-two", "other"))
    operator.add("other", "--roles", "broker,node")
    operator.add("two")
    machine.run(f"ip route add unreachable {other.address}/32")
    copied.run(f"ip route add unreachable {operator.lab.address}/32")
    copy(machine, copied)
    operator.until(lambda: alert(operator, "two"), "two of one name are told")
    told = alert(operator, "two")
    assert told is not None
    assert (told["code"], told["who"]) == ("node.twice", "you")
    assert " at b1 and other, since " in told["message"]
    assert told["message"] in operator.run("why", "node/two", "--json").json["says"]
    assert "OUT" not in operator.run("status").out
    operator.run("node", "add", "two")
    operator.until(lambda: alert(operator, "two") is None and "two" in operator.alive(), "it is there alone")
    refused = copied.run(f"{DSMT} down; {DSMT} up --detach 2>&1 || true")
    assert "node/two was revoked" in refused, "the copy does not come in"
    copied.run(f"{DSMT} down")
