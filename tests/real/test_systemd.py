"""Machines on which systemd keeps what runs."""

from __future__ import annotations

import json

import pytest

from tests.real.machines import Machine, cgroups, on_machines
from tests.real.test_adding import Operator
from tests.real.test_adding import operator as operator  # noqa: PLC0414 - a fixture
from tests.real.test_adding import wheels as wheels  # noqa: PLC0414 - a fixture

pytestmark = [
    *on_machines("kept"),
    pytest.mark.timeout(400),
    pytest.mark.skipif(cgroups() is None, reason="this kernel has no control groups of version 2 in which systemd could be"),
]
SPEC = """\
service: kept
components:
  app:
    instances: 2
    run: sleep 10000
    stop: {grace: 1s}
"""


def unit(machine: Machine, name: str, *properties: str) -> list[str]:
    """What systemd says of a unit."""
    shown = machine.run(f"systemctl show {name} --property={','.join(properties)}").splitlines()
    values = dict(line.split("=", 1) for line in shown)
    return [values[one] for one in properties]


def test_systemd_keeps_the_node_where_it_runs_and_is_left_as_it_was(operator: Operator) -> None:
    machine = operator.lab.machine("kept", systemd=True)
    before = machine.files()
    added = operator.add("kept", "--json").json
    assert added[0]["kept"] == "systemd"
    asked = "ActiveState", "UnitFileState", "NRestarts", "NeedDaemonReload"
    assert unit(machine, "dsmt-node@kept", *asked) == ["active", "enabled", "0", "no"]
    operator.run("node", "remove", "kept")
    assert machine.files() == before
    assert machine.programs() == []
    assert "dsmt-node@" not in machine.run("systemctl list-units --all --no-legend")


def test_a_host_that_systemd_keeps_is_begun_anew_with_its_agents_and_services_go_on(operator: Operator) -> None:
    """A unit that is restarted leaves agents alone, which would go on with the dsmt that they were begun with."""
    machine = operator.lab.machine("begun", systemd=True)
    operator.add("begun")
    file = operator.lab.directory / "kept.yaml"
    file.write_text(SPEC)
    operator.run("apply", str(file), "--wait=60s")

    def shown() -> list[tuple[str, int, int]]:
        return [(one["instance"], one["pid"], one["restarts"]) for one in operator.run("ps", "--json").json]

    def own() -> list[str]:
        places = "run/container_manager.json run/node_monitor.json containers/*/*/*/run/deployment_agent.json"
        return machine.run(f"cd /var/lib/dsmt/nodes/begun; for one in {places}; do cat $one; echo; done").split()

    before, running, process = shown(), own(), unit(machine, "dsmt-node@begun", "MainPID", "NRestarts")
    machine.run("rm /opt/dsmt/*/complete")  # as if what is installed there were of another version
    operator.run("node", "add", "begun")
    operator.until(lambda: not set(own()).intersection(running), "all of dsmt is begun anew")
    operator.until(lambda: shown() == before, "services go on")
    assert unit(machine, "dsmt-node@begun", "MainPID", "NRestarts") == process, "it is told how programs end"
    for verb in ("restart", "stop"):
        machine.run(f"systemctl {verb} dsmt-node@begun")
        assert [pid for _, pid, _ in before] == [pid for _, pid, _ in shown()]
    machine.run("systemctl start dsmt-node@begun")
    operator.until(lambda: shown() == before and "begun" in operator.alive(), "services went on")
    said = operator.run("tail", "node/begun/", "--since", "1h", "--no-follow", "--json").lines
    assert [one for one in said if one.get("type") == "dsmt.node.verdict"] == [], "it was never held for dead"
    operator.run("remove", "kept", "--yes", "--wait")
    operator.run("node", "remove", "begun")
    assert machine.programs() == []


def test_a_machine_that_is_rebooted_runs_what_it_ran(operator: Operator) -> None:
    machine = operator.lab.machine("booted", systemd=True)
    operator.add("booted", "--roles", "broker,controller,node")
    file = operator.lab.directory / "booted.yaml"
    file.write_text(SPEC)
    operator.run("apply", str(file), "--wait=60s")

    def runs() -> bool:
        rows = operator.run("ps", "--json").json
        told = sorted(str(row["pid"]) for row in rows if row["state"] == "running")
        return len(told) == 2 and told == sorted(machine.run("pgrep -x sleep || true").split())

    def all_alive() -> bool:
        brokers = {row["broker"] for row in operator.run("brokers", "--json").json if row["alive"]}
        return brokers >= {"b1", "booted"} and "booted" in operator.alive()

    for _ in range(2):
        machine = operator.lab.reboot(machine)
        operator.until(runs, "all runs again")
        operator.until(all_alive, "the node and its broker are alive")
    operator.run("remove", "kept", "--yes", "--wait")
    operator.run("node", "remove", "booted")
    assert machine.programs() == []


def test_what_is_killed_again_and_again_comes_back_each_time_and_down_is_refused(operator: Operator) -> None:
    """By itself systemd gives up what it has started five times within ten seconds, for good."""
    machine = operator.lab.machine("again", systemd=True)
    operator.add("again", "--roles", "broker,controller,node")
    file = operator.lab.directory / "again.yaml"
    file.write_text(SPEC)
    operator.run("apply", str(file), "--wait=60s")
    services = machine.run("pgrep -x sleep")
    names = [f"dsmt-{role}@again" for role in ("broker", "controller", "node")]

    def main_pids() -> list[str]:
        return [unit(machine, name, "MainPID")[0] for name in names]

    def keeps() -> list[str]:
        """The process of the node's unit, and who is its spawner."""
        record = json.loads(machine.run("cat /var/lib/dsmt/nodes/again/run/spawner.json"))
        return [unit(machine, names[2], "MainPID")[0], str(record["pid"])]

    for _ in range(6):
        killed = main_pids()
        machine.run(f"kill -9 {' '.join(killed)}")
        operator.until(lambda killed=killed: not {"0", *killed}.intersection(main_pids()), "all have begun anew")
        operator.until(lambda: len(set(keeps())) == 1, "systemd has what it keeps")
    operator.until(lambda: "again" in operator.alive(), "the node is alive")
    assert machine.run("pgrep -x sleep") == services

    here = "/opt/dsmt/*/bin/dsmt --home /var/lib/dsmt"
    for kept in (names, names[:2]):
        machine.run(f"systemctl stop {' '.join({*names}.difference(kept))} || true")
        for word in ("down", "up --detach"):
            error = json.loads(machine.run(f"{here} {word} --json 2>&1 || true"))["error"]
            assert error["code"] == "home.systemd"
            assert error["next"].startswith(f"systemctl stop {' '.join(kept)}; then dsmt {word.split()[0]}")
    machine.run(f"systemctl stop {' '.join(names)}")
    assert machine.run("pgrep -x sleep") == services
    machine.run(f"{here} down")
    assert machine.programs() == []
    machine.run(f"systemctl start {' '.join(names)}")
    operator.until(lambda: "again" in operator.alive(), "the node is alive again")
    operator.run("remove", "kept", "--yes", "--wait")
    operator.run("node", "remove", "again")
    assert machine.programs() == []
