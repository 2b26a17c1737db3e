"""Three machines of one realm, two of them with a broker and a controller beside their node: one of these dies, all at once.

Rule 1: what README says is typed, from nothing on; the links have 10 Mbit/s, and 20 ms where the kernel has `netem`.
Rule 2: times are those of the signed events: how long a command takes to look counts for nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dsmt.event.envelope import Event
from tests.real.bringing import Brought
from tests.real.machines import lab, on_machines
from tests.real.telling import exported, said_ms, telling
from tests.real.test_adding import PORT, Operator
from tests.real.test_adding import wheels as wheels  # noqa: PLC0414 - a fixture

pytestmark = [*on_machines("cut"), pytest.mark.timeout(400)]
SPEC = """\
service: web
components:
  app:
    instances: 3
    run: python3 -m http.server {port.http} --bind 0.0.0.0
    ports: {http: auto}
    health: {http: {port: http, path: /}}
    stop: {grace: 1s}
"""
SILENT_S = 5.0
"""F2: how long nothing was heard of a node that is dead."""
LOST_S = 3.0 + 10.0
"""F3, F1: when a broker is lost, and how long its sources may take to attach elsewhere; only then F2 is asked."""
WHOLE_S = 2.0
ATTACH_S = 5.0
"""How long a program that starts now waits for the dead broker, which it knows and may try first; it is not less yet."""


def test_a_machine_with_a_broker_a_controller_and_an_instance_dies_and_nothing_is_lost(
    tmp_path: Path, wheels: Brought
) -> None:
    with lab(tmp_path) as made:
        operator = Operator(made, wheels)
        one, two, three = (made.machine(name) for name in ("one", "two", "three"))
        for machine in (one, two, three):
            made.shape(machine)
        before = two.files()
        try:
            operator.run("init", "--listen", f"{made.address}:{PORT}")
            operator.run("up", "--detach", "--nodes", "0", "--controllers", "1")
            operator.add("one", "two", "--roles", "broker,controller,node")
            operator.add("three")
            (tmp_path / "web.yaml").write_text(SPEC)
            operator.run("apply", str(tmp_path / "web.yaml"), "--wait=60s")
            assert whole_on(operator) == {"one", "two", "three"}
            brokers = {one["broker"]: one["address"] for one in operator.run("brokers", "--json").json}
            assert brokers.keys() == {"b1", "one", "two"}
            assert {one["controller"] for one in operator.run("controllers", "--json").json if one["alive"]} >= {
                "one",
                "two",
            }
            with telling(operator, brokers["one"]) as told:
                died_ms = time.time() * 1000
                made.cut(one)
                operator.until(lambda: whole_on(operator) == {"two", "three"}, "it is whole elsewhere")
                until_then = len(told)
                operator.until(lambda: len(told) > until_then, "who was attached there goes on elsewhere")
            left = [exported(operator, brokers[name]) for name in ("b1", "two")]
            limit_s = waits_s(left[0], died_ms) + WHOLE_S
            assert (placed_ms(left[0]) - died_ms) / 1000 < limit_s
            assert (whole_ms(left[0]) - died_ms) / 1000 < limit_s + ATTACH_S
            for events in left:
                assert told.levels.keys() <= events.keys()
            assert set(told.levels.values()) == {"safe"}
            common = [{one for one, event in events.items() if said_ms(event) < whole_ms(left[0])} for events in left]
            assert common[0] == common[1]

            assert not any(file.endswith("root.key") for file in two.files() | three.files())
            operator.run("node", "remove", "one", "--forget", "--yes")
            operator.run("node", "remove", "two", "--yes")
            assert {one["broker"] for one in operator.run("brokers", "--json").json if one["alive"]} == {"b1"}
            assert (two.files(), two.programs()) == (before, [])
        finally:
            operator.run("down")


def whole_on(operator: Operator) -> set[str]:
    """The nodes on which the service is, when all of it is ready."""
    found = operator.run("ps", "--json").json
    return {one["node"] for one in found} if [one["health"] for one in found] == ["ready"] * 3 else set()


def placed_ms(events: dict[str, Event]) -> int:
    """When the last instance was given its node."""
    return max(said_ms(one) for one in events.values() if one.topic.startswith("service/web/slot/app/"))


def whole_ms(events: dict[str, Event]) -> int:
    """When the last instance was ready."""
    ready = (one for one in events.values() if one.subject.startswith("web/app/") and one.data.get("health") == "ready")
    return max(map(said_ms, ready))


def waits_s(events: dict[str, Event], died_ms: float) -> float:
    """How long the rules wait for a node: longer where one of its sources was attached to the broker that died with it."""
    own = ("broker/one/session/node/one", "broker/one/session/monitor/one", "broker/one/session/agent/one/")
    said = {one.topic: one.data["state"] for one in events.values() if one.topic.startswith(own) and said_ms(one) < died_ms}
    return LOST_S if "open" in said.values() else SILENT_S
