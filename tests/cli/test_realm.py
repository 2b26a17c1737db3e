"""The commands as an operator runs them, against real processes: their JSON, their exit codes, what they leave."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.in_process import NO_YES
from tests.cli.operating import SPEC, Operator

pytestmark = [pytest.mark.real, pytest.mark.timeout(180), pytest.mark.xdist_group("cli-realm")]


def test_ps_shows_each_instance_in_the_documented_shape(operator: Operator) -> None:
    rows = operator.json("ps")
    assert [row["instance"] for row in rows] == ["web/app/0", "web/app/1"]
    shape = {
        "instance", "service", "component", "index", "node", "state", "health", "pid", "ports", "address", "restarts",
        "restarts_recent", "last_exit", "next_try_at", "held", "since", "generation", "revision", "reason", "layers",
        "observed_at", "stale",
    }  # fmt: skip
    for row in rows:
        assert shape <= set(row)
        assert (row["state"], row["health"], row["stale"]) == ("running", "ready", False)
        assert (row["held"], row["reason"]) == (None, None)
        assert Path(f"/proc/{row['pid']}").exists()
        assert row["layers"] == {"container": "installed", "agent": "running", "application": "running"}
        assert list(row["ports"]) == ["http"]
        assert row["since"].endswith("Z")
    assert operator.json("ps", "-l", "tier=back") == []
    assert operator.json("ps", "--problems") == []
    assert "2 instances: 2 running." in operator.ok("ps")


def test_nodes_brokers_and_controllers_have_the_documented_shapes(operator: Operator) -> None:
    nodes = operator.json("nodes")
    assert [(node["node"], node["liveness"], node["mode"]) for node in nodes] == [
        ("n1", "alive", "active"),
        ("n2", "alive", "active"),
    ]
    fields = {"roles", "version", "pid", "address", "labels", "attributes", "instances", "last_seen", "evidence", "stale"}
    assert fields <= set(nodes[0])
    shown = operator.json("node", "show", nodes[0]["node"])
    roles = [process["role"] for process in shown["processes"]]
    assert roles[:3] == ["spawner", "manager", "monitor"]
    assert all(Path(f"/proc/{process['pid']}").exists() for process in shown["processes"])
    (broker,) = operator.json("brokers")
    assert (broker["broker"], broker["alive"]) == ("b1", True)
    fields = {"address", "pid", "version", "sessions", "peers", "lag_s", "facts", "history_from", "disk_bytes", "dropped"}
    assert fields <= set(broker)
    controllers = operator.json("controllers")
    assert [(one["controller"], one["alive"]) for one in controllers] == [("c1", True), ("c2", True)]
    assert operator.run("node", "show", "n9").returncode == 5


def test_status_says_that_all_is_well(operator: Operator) -> None:
    told = operator.json("status")
    assert (told["realm"], told["state"]) == ("test", "ok")
    assert set(told) >= {"view", "services", "nodes", "brokers", "controllers", "brake", "certs", "alerts"}
    assert set(told["view"]) >= {"age_s", "broker", "brokers_seen", "brokers_total", "gaps"}
    assert "realm test   ok" in operator.ok("status")
    assert "2 of 2 ready" in operator.ok("status", "web")
    assert operator.run("status", "wob").returncode == 5


def test_a_stream_that_was_recorded_verifies_and_a_damaged_one_does_not(operator: Operator, tmp_path: Path) -> None:
    stream, trust = tmp_path / "all.cbor", tmp_path / "trust"
    stream.write_bytes(operator.raw("tail", "--raw", "--no-follow", "--since", "1h"))
    operator.ok("trust", "export", str(trust))
    found = operator.json("verify", str(stream), "--trust", str(trust))
    assert (found["ok"], found["gaps"], found["bad_signatures"], found["unknown_signers"]) == (True, [], 0, 0)
    assert found["events"] > 30
    assert operator.json("verify", str(stream))["ok"] is True
    raw = bytearray(stream.read_bytes())
    raw[len(raw) // 2] ^= 4
    stream.write_bytes(bytes(raw))
    done = operator.run("verify", str(stream), "--trust", str(trust), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False


def test_tail_speaks_cloudevents(operator: Operator) -> None:
    events = operator.lines("tail", "service/web/slot/", "--no-follow", "-n", "2", "--no-signals")
    assert len(events) == 2
    for event in events:
        assert (event["specversion"], event["type"], event["verified"]) == ("1.0", "dsmt.slot", True)
        assert event["signer"] == event["source"]
        assert event["source"].startswith("controller/")
        assert event["cause"].startswith("operator/")
        assert event["data"]["desired"] == "running"
    assert operator.lines("tail", "--no-follow", "--type", "nothing.*", "-n", "5") == []
    typo = operator.run("tail", "--no-follow", "--type", "dsmt.slto").stderr
    assert typo.splitlines()[0] == "warning: no event has the type dsmt.slto; did you mean dsmt.slot?"
    assert {e["type"] for e in operator.lines("tail", "--no-follow", "--since", "1h", "--type", "dsmt.heart*")} == {
        "dsmt.heartbeat"
    }
    assert operator.run("tail", "bad topic", "--no-follow").returncode == 2
    assert operator.run("tail", "web", "--no-follow").returncode == 2
    assert operator.lines("tail", "--no-follow", "-n", "0") == []
    assert len(operator.lines("tail", "--no-follow", "-n", "3")) == 3
    assert len(operator.ok("tail", "--no-follow", "-n", "3").splitlines()) == 3
    quiet = {event["topic"].rsplit("/", 1)[1] for event in operator.lines("tail", "--no-follow", "--since", "1h")}
    assert not quiet & {"heartbeat", "stats", "attributes"}
    assert "heartbeat" in {
        e["topic"].rsplit("/", 1)[1] for e in operator.lines("tail", "--all", "--no-follow", "--since", "1h")
    }
    one = f"{events[0]['source']}#{events[0]['id']}"
    since = operator.lines("tail", "service/web/slot/", "--no-follow", "--since", one)
    assert [event["id"] for event in since][:1] == [events[0]["id"]]


def test_tail_follows_until_it_is_interrupted(operator: Operator) -> None:
    command = [sys.executable, "-m", "dsmt", "tail", "user/test/", "--json", "-n", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=operator.environment) as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["type"] == "dsmt.notice.caughtup"
        said = operator.json("publish", "user/test/one", '{"n": 1}')
        event = json.loads(tail.stdout.readline())
        assert (event["data"], f"{event['source']}#{event['id']}") == ({"n": 1}, said["id"])
        tail.send_signal(signal.SIGINT)
        _, errors = tail.communicate(timeout=90)
        assert (tail.returncode, errors) == (130, "")


def test_what_an_operator_may_not_say_is_refused(operator: Operator) -> None:
    for topic in ("config/brake", "service/web/control/app/0", "node/n1/verdict", "controller/c1/state", "app/web/x"):
        done = operator.run("publish", topic, "{}", "--json")
        assert done.returncode == 2, topic
        error = json.loads(done.stderr)["error"]
        assert (error["code"], error["exit"]) == ("event.topic", 2)
        assert error["next"].endswith(f"user/{topic}")
    assert operator.run("publish", "user/x", "{broken").returncode == 2
    assert operator.json("brake", "show")["held"] is False


def test_logs_bring_what_the_instance_wrote(operator: Operator) -> None:
    lines = operator.lines("logs", "web/app/0", "-n", "3")
    assert lines
    assert {line["instance"] for line in lines} == {"web/app/0"}
    assert any("GET / " in line["line"] for line in lines)
    assert {line["time"] for line in lines} == {None}, "nobody has seen them come"
    assert all(line["answered_at"].endswith("Z") for line in lines)
    assert all(operator.lines("logs", "web/app/0", *words) for words in (("--since", "1h"), ("--revision", "r1")))
    assert operator.run("logs", "web/app/0", "--revision", "1", "--previous").returncode == 2
    assert operator.run("logs", "web/app/7").returncode == 5


def test_why_leads_from_a_killed_process_back_to_the_operator(operator: Operator) -> None:
    before = operator.json("ps", "web/app/0")[0]
    os.kill(before["pid"], signal.SIGKILL)

    def again() -> Any:
        (row,) = operator.json("ps", "web/app/0")
        return row if row["pid"] not in (None, before["pid"]) and row["health"] == "ready" else None

    after = operator.until(again, "web/app/0 is ready again")
    assert after["last_exit"]["signal"] == "SIGKILL"
    told = operator.json("why", "web/app/0")
    assert told["complete"] is True
    kinds = [link["event"]["type"] for link in told["chain"]]
    assert kinds[0] == "dsmt.health"
    assert kinds[-1] == "dsmt.service.spec"
    assert any("killed by SIGKILL" in link["says"] for link in told["chain"])
    ids = {f"{link['event']['source']}#{link['event']['id']}" for link in told["chain"]}
    assert all(set(link["because"]) <= ids for link in told["chain"])
    assert all(link["event"]["verified"] for link in told["chain"])
    assert "nothing earlier is named as a cause." in operator.ok("why", "web/app/0")
    cut = operator.json("why", "web/app/0", "--depth", "0")
    assert (len(cut["chain"]), cut["complete"], len(cut["cut"])) == (1, False, 1)
    assert "killed by SIGKILL" in told["says"]
    assert operator.ok("why", "web/app/0").startswith("web/app/0 has been running on ")
    (event,) = [link["event"] for link in told["chain"] if "killed by SIGKILL" in link["says"]]
    assert operator.json("why", f"{event['source']}#{event['id']}")["chain"][0]["event"]["id"] == event["id"]
    for target, how in (("node/n1", "is alive, connected to b1 since "), ("broker/b1", "has "), ("controller/c1", "has ")):
        found = operator.json("why", target)
        assert (found["target"], found["complete"]) == (target, True)
        assert found["says"].startswith(f"{target} {how}")
        assert found["chain"]
    assert operator.run("why", "broker/b9").returncode == 5


def test_a_stop_is_a_hold_until_it_is_lifted(operator: Operator) -> None:
    done = operator.json("stop", "web/app/1", "--reason", "look at it", "--wait=60s")
    assert done["instances"] == ["web/app/1"]
    (row,) = operator.json("ps", "web/app/1")
    assert (row["state"], row["held"]["reason"], row["pid"]) == ("stopped", "look at it", None)
    assert row["reason"]["code"] == "hold.operator"
    assert operator.json("stop", "web/app/1")["unchanged"] == ["web/app/1"]
    assert operator.run("status", "web/app/1", "--exit-code").returncode == 0
    assert operator.run("wait", "web/app/1", "--for", "running", "--timeout", "300ms").returncode == 3
    operator.json("start", "web/app/1", "--wait=60s")
    assert [(row["state"], row["held"]) for row in operator.json("ps", "web/app/1")] == [("running", None)]


def test_restart_gives_new_processes(operator: Operator) -> None:
    before = {row["instance"]: row["pid"] for row in operator.json("ps", "web")}
    operator.json("restart", "web", "--wait=90s")
    after = {row["instance"]: row["pid"] for row in operator.json("ps", "web")}
    assert set(before) == set(after)
    assert all(before[name] != after[name] for name in before)


def test_a_plan_is_bound_to_what_stands(operator: Operator, tmp_path: Path) -> None:
    site = tmp_path / "site.txt"
    site.write_text("hello\n")
    file = tmp_path / "web.yaml"
    file.write_text((SPEC % json.dumps(sys.executable)).replace("instances: 2", "instances: 3"))
    plan = operator.json("plan", str(file))
    assert [change["key"] for change in plan["changes"]] == ["instances"]
    assert (plan["steps"][0]["instance"], plan["steps"][0]["action"]) == ("web/app/2", "new")
    assert {"id", "service", "base_revision", "unplaced", "min_ready", "estimate_s", "warnings"} <= set(plan)
    scaled = operator.json("scale", "web/app", "1", "--wait=60s")
    assert (scaled["outcome"], scaled["wanted"]) == ("ready", 1)
    refused = operator.run("apply", str(file), "--plan", plan["id"], "--json")
    assert refused.returncode == 4
    assert json.loads(refused.stderr)["error"]["code"] == "plan.changed"
    assert operator.run("diff", str(file), "--exit-code").returncode == 6
    anew = operator.json("plan", str(file))
    done = operator.json("apply", str(file), "--plan", anew["id"], "--wait=60s")
    assert (done["outcome"], done["ready"], done["plan"]) == ("ready", 3, anew["id"])
    assert operator.json("apply", str(file))["outcome"] == "unchanged"
    assert operator.run("diff", str(file), "--exit-code").returncode == 0
    back = operator.json("scale", "web/app", "2", "--wait=60s")
    assert back["outcome"] == "ready"
    assert "instances: 2" in operator.ok("get", "web")


def test_a_node_is_drained_and_used_again(operator: Operator) -> None:
    done = operator.json("node", "drain", "n2", "--reason", "kernel", "--wait=90s")
    assert (done["mode"], done["instances"]) == ("drained", 0)
    assert {row["node"] for row in operator.json("ps", "web")} == {"n1"}
    (shown,) = [node for node in operator.json("nodes") if node["node"] == "n2"]
    assert (shown["mode"], shown["mode_reason"]) == ("drained", "kernel")
    fitting = operator.json("why-not", "web/app/0", "--node", "n2")
    assert [clause["clause"] for clause in fitting["clauses"]] == ["mode"]
    assert operator.json("node", "include", "n2")["mode"] == "active"
    assert operator.run("node", "drain", "n9").returncode == 5


def test_node_sets_are_named_shown_and_forgotten(operator: Operator) -> None:
    made = operator.json("nodeset", "set", "good", "minus(all_nodes, failed)")
    assert made["nodes"] == ["n1", "n2"]
    assert [one["name"] for one in operator.json("setplan", "list")] == ["good"]
    assert operator.json("plan-set", "show", "good")["expression"] == "minus(all_nodes, failed)"
    assert operator.run("nodeset", "set", "bad", "minus(all_nodes").returncode == 2
    used = operator.json("nodeset", "use", "web/app", "good", "--wait=60s")
    assert (used["outcome"], used["ready"]) == ("ready", 2)
    assert operator.run("nodeset", "use", "web/app", "minus(all_nodes").returncode == 2
    assert operator.json("nodeset", "use", "web", "all_nodes", "--wait=60s")["revision"] == used["revision"] + 1
    operator.json("nodeset", "remove", "good")
    assert operator.json("nodeset", "list") == []
    assert operator.run("nodeset", "show", "good").returncode == 5


def test_the_brake_is_held_and_released(operator: Operator) -> None:
    held = operator.json("brake", "hold", "--reason", "network work")
    assert (held["on"], held["held"], held["reason"]) == (True, True, "network work")
    told = operator.run("status", "--exit-code", "--json")
    assert (told.returncode, json.loads(told.stdout)["state"]) == (6, "degraded")
    assert operator.json("brake", "release")["on"] is False
    assert (operator.json("brake", "show")["held"], operator.run("status", "--exit-code").returncode) == (False, 0)


def test_a_service_goes_back_to_a_revision_of_its_history(operator: Operator) -> None:
    (first,) = [one for one in operator.json("history", "web") if one["revision"] == 1]
    assert (first["reason"], first["removed"]) == ("first", False)
    before = operator.json("get", "web")["revision"]
    changed = operator.home.parent / "changed.yaml"
    changed.write_text((SPEC % json.dumps(sys.executable)).replace("tier: front", "tier: back"))
    operator.json("apply", str(changed), "--wait=60s")
    done = operator.json("rollback", "web", "--to", "r1", "--reason", "slow", "--wait=60s")
    assert (done["outcome"], done["revision"], done["ready"]) == ("ready", before + 2, 2)
    newest = operator.json("history", "web")[0]
    assert (newest["reason"], {"current", "running"} <= set(newest["state"])) == ("back to r1: slow", True)
    assert operator.json("get", "web")["spec"]["labels"] == {"tier": "front"}
    assert operator.run("rollback", "web", "--to", "r99").returncode == 5


def test_nothing_waits_for_a_retry_and_a_node_with_instances_is_not_removed(operator: Operator) -> None:
    told = operator.json("retry", "web", "--reason", "in vain", "--wait=5s")
    assert (told["instances"], told["unchanged"]) == ([], ["web/app/0", "web/app/1"])
    assert "does not wait for another try" in operator.ok("retry", "web/app/0")
    refused = operator.run("node", "remove", "n1")
    assert (refused.returncode, "on n1; nothing was done" in refused.stderr) == (2, True)


def test_up_on_a_running_realm_does_what_it_can_and_refuses_by_name_what_it_cannot(operator: Operator) -> None:
    refused = operator.run("up", "--nodes", "1", "--detach")
    assert refused.returncode == 4
    assert "--nodes 1: n2 runs too, and `up` stops nothing" in refused.stderr
    assert "3 controllers, 2 nodes" in operator.ok("up", "--controllers", "3", "--detach")

    def third() -> int | None:
        return next((one["pid"] for one in operator.json("controllers") if one["controller"] == "c3" and one["alive"]), None)

    pid = operator.until(third, "the third controller")
    os.kill(pid, signal.SIGKILL)
    operator.until(lambda: third() not in (None, pid), "the keeper keeps the third controller")


def test_a_service_ends_with_nothing_left(operator: Operator) -> None:
    small = operator.home.parent / "small.yaml"
    small.write_text("service: small\ncomponents:\n  one:\n    run: [sleep, '1000']\n    update: {healthy_after: 100ms}\n")
    assert operator.json("apply", str(small), "--wait=60s")["outcome"] == "ready"
    (row,) = operator.json("ps", "small")
    operator.json("remove", "small", "--yes", "--wait=60s")
    assert not Path(f"/proc/{row['pid']}").exists()
    assert operator.run("ps", "small").returncode == 5
    assert [one["service"] for one in operator.json("services")] == ["web"]


def test_commands_that_only_look_leave_no_source_behind(operator: Operator) -> None:
    def known() -> set[str]:
        told = operator.lines("tail", "source/operator/", "broker/+/session/operator/", "--no-follow", "-n", "1000")
        return {f"{one['type']} {one['subject']}" for one in told if "source" in one}

    before = known()
    for arguments in (
        ("ps",),
        ("status",),
        ("nodes",),
        ("services",),
        ("get", "web"),
        ("why", "web/app/0"),
        ("cert", "list"),
    ):
        operator.ok(*arguments)
    assert known() == before
    operator.ok("publish", "user/x", "{}")
    assert len(known()) > len(before)


def test_certificates_are_listed_rotated_and_revoked(operator: Operator) -> None:
    listed = {one["name"]: one for one in operator.json("cert", "list")}
    assert {"broker/b1", "controller/c1", "controller/c2", "node/n1", "node/n2"} <= set(listed)
    assert {one["state"] for one in listed.values()} == {"valid"}
    (own,) = [name for name in listed if name.startswith("operator/")]
    before = operator.json("ps")
    done = operator.run("cert", "revoke", own, "--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (4, "trust.own")
    rotated = operator.json("cert", "rotate", own)
    done = operator.run("cert", "revoke", rotated["before"], "--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (2, "cert.decide")
    assert rotated["clock"] == "realm"
    ended = operator.ok("cert", "revoke", rotated["before"], "--keep", "--reason", "stolen")
    assert "service/web/spec" in ended
    assert "dsmt rollback cannot go back to what this key had applied before, of web" in ended
    done = operator.run("cert", "revoke", "controller/c1", "--json")
    assert json.loads(done.stderr)["error"]["message"].startswith(f"{NO_YES}: controller/c1 is attached with this key: ")
    assert operator.json("cert", "revoke", "controller/c1", "--yes")["left"] == []
    states = {(one["name"], one["key"]): one["state"] for one in operator.json("cert", "list")}
    assert states[own, rotated["key"]] == "valid"
    assert states["controller/c1", listed["controller/c1"]["key"]] == "revoked"
    after = operator.json("ps")
    assert [(one["instance"], one["pid"], one["node"]) for one in after] == [
        (one["instance"], one["pid"], one["node"]) for one in before
    ]


def test_the_only_broker_is_revoked_after_a_yes_and_no_up_takes_that_for_success(operator: Operator) -> None:
    done = operator.run("cert", "revoke", "broker/b1", "--keep", "--json")
    assert done.returncode == 2
    error = json.loads(done.stderr)["error"]
    assert error["message"].startswith(f"{NO_YES}: broker/b1 is the only broker: without its key nobody knows who is alive")
    assert all(said in error["next"] for said in ("--yes", "dsmt apply in another DSMT_HOME"))
    assert {one["liveness"] for one in operator.json("nodes")} == {"alive"}
    said = operator.ok("cert", "revoke", "broker/b1", "--keep", "--yes")
    assert "it was the only broker" in said
    assert "apply in another DSMT_HOME" in said
    operator.ok("get", "web")
    operator.ok("down")
    done = operator.run("up", "--detach")
    assert done.returncode == 1
    assert "the key of the only broker was revoked: nobody knows who is alive" in done.stderr
    assert "realm" not in done.stdout
