"""A machine that joined by a token gets another address (rule J2): what it runs is reached there when `dsmt up` is typed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real.machines import on_machines
from tests.real.test_adding import Operator, operator, wheels

pytestmark = [*on_machines("moved"), pytest.mark.timeout(400)]
__all__ = ["operator", "wheels"]
DSMT = "$(ls -d /opt/dsmt/*/bin/dsmt) --home /var/lib/dsmt"
LATER = "10.213.77.77"
SPEC = """\
service: web
components:
  app:
    instances: 1
    nodes: mover
    run: python3 -m http.server {port.http} --bind 0.0.0.0
    ports: {http: auto}
    health: {http: {port: http, path: /}}
    stop: {grace: 1s}
"""


def reached(operator: Operator) -> list[Any]:
    return [one["address"] for one in operator.run("endpoints", "web", "--json").json]


@pytest.mark.parametrize("how", ["up --detach", "join"])
def test_what_it_runs_is_reached_where_the_machine_is_now_and_runs_on(operator: Operator, how: str) -> None:
    name = f"m-{how[:2]}"
    machine = operator.lab.machine(name)
    operator.add(name)  # brings the program
    operator.run("node", "remove", name)
    operator.brought.give(machine)
    token = operator.run("token", "create", "--name", "mover").out.split()[0]
    machine.run(f"echo {token} | {DSMT} join -")
    spec = operator.lab.directory / "web.yaml"
    spec.write_text(SPEC)
    operator.run("apply", str(spec), "--wait=60s")
    assert reached(operator) == [machine.address]
    before = operator.run("ps", "web", "--json").json[0]["pid"]
    machine.run(f"ip addr del {machine.address}/24 dev eth0; ip addr add {LATER}/24 dev eth0")
    try:
        operator.until(lambda: "mover" in operator.alive(), "it is attached from there")
        said = machine.run(f"{DSMT} {how} 2>&1")
        assert LATER in said
        operator.until(lambda: reached(operator) == [LATER], "it is reached there")
        assert operator.run("ps", "web", "--json").json[0]["pid"] == before
    finally:
        operator.run("remove", "web", "--yes")
        machine.run(f"{DSMT} down")
        operator.run("node", "remove", "mover", "--forget", "--yes")
        machine.run(f"ip addr del {LATER}/24 dev eth0")
