"""Two machines join under one name, each at a broker that does not reach the other (rules J2, J3)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real.machines import Machine, on_machines
from tests.real.test_adding import Operator, operator, wheels

pytestmark = [*on_machines("cut"), pytest.mark.timeout(400)]
__all__ = ["operator", "wheels"]
DSMT = "$(ls -d /opt/dsmt/*/bin/dsmt) --home /var/lib/dsmt"
SPEC = """\
service: web
components:
  app:
    instances: 3
    run: python3 -m http.server {port.http} --bind 0.0.0.0
    ports: {http: auto}
    nodes: twin
    health: {http: {port: http, path: /}}
    stop: {grace: 1s}
"""

LOOKS = 5
"""Each is at one of the two brokers."""


def join(machine: Machine, token: str) -> None:
    """Have a machine be the node `twin`, and run what is placed there."""
    machine.run(f"echo {token} | {DSMT} join - --name twin")


def rows(operator: Operator) -> list[tuple[Any, ...]]:
    """What is told of each instance."""
    return [(one["instance"], one["state"], one["health"], one["pid"]) for one in operator.run("ps", "web", "--json").json]


def ready(operator: Operator) -> list[tuple[Any, ...]]:
    """The same, when all are ready; else nothing."""
    found = rows(operator)
    return found if {one[2] for one in found} == {"ready"} else []


def test_what_the_first_runs_is_shown_as_it_is_when_the_key_of_the_second_has_ended(operator: Operator) -> None:
    side, first, second = (operator.lab.machine(name) for name in ("side", "first", "second"))
    operator.add("side", "--roles", "broker,controller,node")
    for machine in (first, second):
        operator.brought.give(machine)
    spec = operator.lab.directory / "web.yaml"
    spec.write_text(SPEC)
    operator.run("apply", str(spec))
    tokens = [operator.run("token", "create", "--name", "twin").out.split()[0] for _ in range(2)]
    operator.lab.part([side, second])
    join(first, tokens[0])
    operator.until(lambda: ready(operator), "the first is heard")
    runs = rows(operator)
    join(second, tokens[1])
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'm [h]ttp.server' | wc -l"
    operator.until(lambda: int(second.run(look)) == len(runs), "the second runs it, too")
    operator.lab.heal()
    log = "tail -n 5 /var/lib/dsmt/nodes/twin/container_manager.log"
    operator.until(lambda: "was revoked" in second.run(log), "the second has ended")
    operator.until(lambda: all(rows(operator) == runs for _ in range(LOOKS)), "the first is heard, wherever one looks")
    assert {"side", "twin"} <= operator.alive()
    second.run(f"{DSMT} down")
