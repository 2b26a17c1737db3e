"""Machines on which systemd keeps what runs: a stand-in does with its units what it is told to."""

from __future__ import annotations

import os

import pytest

from tests.real.machines import Machine, on_machines
from tests.real.test_adding import Operator
from tests.real.test_adding import operator as operator  # noqa: PLC0414 - a fixture
from tests.real.test_adding import wheels as wheels  # noqa: PLC0414 - a fixture

pytestmark = [*on_machines("kept"), pytest.mark.timeout(300)]
SYSTEMCTL = """\
#!/bin/sh
# What systemctl does with the unit of a node, and which words it was given.
echo "$@" >> /run/lab/systemctl.log
unit=/etc/systemd/system/dsmt-node@.service
for node; do :; done
node=${node#dsmt-node@}
case $1 in
start) kill -0 $(cat /run/lab/node.pid) 2> /dev/null && exit ;;
esac
case $1 in
start | restart)
    while kill $(cat /run/lab/node.pid); do sleep 0.05; done 2> /dev/null
    program=$(sed -n 's/^ExecStart=//p' $unit | sed "s/%i/$node/")
    export $(sed -n 's/^Environment=//p' $unit)
    setsid $program > /dev/null 2>&1 < /dev/null & echo $! > /run/lab/node.pid ;;
disable) kill $(cat /run/lab/node.pid) ;;
esac
"""
SPEC = """\
service: kept
components:
  app:
    instances: 2
    run: sleep 10000
    stop: {grace: 1s}
"""


def with_systemd(operator: Operator, name: str) -> Machine:
    """A machine that says that systemd runs on it."""
    path = f"SetEnv PATH=/run/lab:{os.defpath}:/usr/sbin:/sbin\n"
    machine = operator.lab.machine(name, more=path, before="mkdir -p /run/systemd/system")
    machine.run(f"cat > /run/lab/systemctl <<'END'\n{SYSTEMCTL}END\nchmod +x /run/lab/systemctl")
    return machine


def test_systemd_keeps_the_node_where_it_runs_and_is_left_as_it_was(operator: Operator) -> None:
    machine = with_systemd(operator, "kept")
    before = machine.files()
    added = operator.add("kept", "--json").json
    assert added[0]["kept"] == "systemd"
    unit = machine.run("cat /etc/systemd/system/dsmt-node@.service")
    assert "ExecStart=/opt/dsmt/" in unit
    assert machine.run("cat /run/lab/systemctl.log").splitlines() == [
        "daemon-reload",
        "enable --quiet dsmt-node@kept",
        "restart dsmt-node@kept",
    ]
    operator.run("node", "remove", "kept")
    assert machine.files() == before
    assert machine.programs() == []


def test_a_host_that_systemd_keeps_is_begun_anew_with_its_agents_and_services_go_on(operator: Operator) -> None:
    """A unit that is restarted leaves agents alone, which would go on with the dsmt that they were begun with."""
    machine = with_systemd(operator, "begun")
    operator.add("begun")
    file = operator.lab.directory / "kept.yaml"
    file.write_text(SPEC)
    operator.run("apply", str(file), "--wait=60s")

    def shown() -> list[tuple[str, int, int]]:
        return [(one["instance"], one["pid"], one["restarts"]) for one in operator.run("ps", "--json").json]

    def own() -> list[str]:
        places = "run/container_manager.json run/node_monitor.json containers/*/*/*/run/deployment_agent.json"
        return machine.run(f"cd /var/lib/dsmt/nodes/begun; for one in {places}; do cat $one; echo; done").split()

    def spawner() -> str:
        return machine.run("cat /var/lib/dsmt/nodes/begun/run/spawner.json")

    before, running, process = shown(), own(), spawner()
    machine.run("rm /opt/dsmt/*/complete")  # as if what is installed there were of another version
    operator.run("node", "add", "begun")
    operator.until(lambda: not set(own()).intersection(running), "all of dsmt is begun anew")
    operator.until(lambda: shown() == before, "services go on")
    assert spawner() == process, "it goes on in its own process, and is told how programs end"
    lines = machine.run("cat /run/lab/systemctl.log").splitlines()
    assert lines.count("restart dsmt-node@begun") == 1
    said = operator.run("tail", "node/begun/", "--since", "1h", "--no-follow", "--json").lines
    assert [one for one in said if one.get("type") == "dsmt.node.verdict"] == [], "it was never held for dead"
    operator.run("remove", "kept", "--yes", "--wait")
    operator.run("node", "remove", "begun")
    assert machine.programs() == []
