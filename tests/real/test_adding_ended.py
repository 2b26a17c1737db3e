"""A host whose node's certificate has ended, as when it was off, or no issuer was there: it is added again."""

from __future__ import annotations

import os
import time
from base64 import b64decode, b64encode

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.programs.configuration import ISSUER
from dsmt.trust.identity import Identity, dump, load
from dsmt.trust.joining import node_certificate
from tests.real.machines import Machine, on_machines
from tests.real.test_adding import Operator, operator, wheels

pytestmark = [*on_machines("kept"), pytest.mark.timeout(400)]
__all__ = ["operator", "wheels"]
SPEC = "service: late\ncomponents:\n  app:\n    run: sleep 600\n    nodes: late\n"
ENDS_S = 5


def identity_of(machine: Machine) -> Identity:
    file = file_of(machine)
    return load(b64decode(machine.run(f"base64 {file}")), where=file)


def file_of(machine: Machine) -> str:
    return f"/var/lib/dsmt/nodes/{machine.name}/identity"


def certify(operator: Operator, machine: Machine, seconds: int, *, before: int = 0) -> Identity:
    """Have the node go on with a certificate that ends soon: when it looks again whether that is to be renewed, it has.

    It was issued so many seconds `before`.
    """
    held, file = identity_of(machine), file_of(machine)
    issuer = Home(operator.home).part("controllers", "c1") / ISSUER
    above, now_s, serial = load(issuer.read_bytes(), where=str(issuer)), int(time.time()), os.urandom(16)
    short = node_certificate(
        above, machine.name, held.key.public, now_s=now_s - before, serial=serial, lifetime_s=before + seconds
    )
    raw = b64encode(dump(Identity(held.key, (short, *above.chain)))).decode()
    machine.run(f"echo {raw} | base64 -d > {file}.new; mv {file}.new {file}")
    machine.run("kill -9 $(pgrep -f [d]smt-container_manager)")
    return held


def test_it_joins_with_the_key_that_it_has_and_what_it_runs_goes_on(operator: Operator) -> None:
    machine, spec = operator.lab.machine("late"), operator.lab.directory / "late.yaml"
    operator.add("late")
    spec.write_text(SPEC)
    operator.run("apply", str(spec), "--wait=60s")
    runs = [one["pid"] for one in operator.run("ps", "late", "--json").json]
    held = certify(operator, machine, ENDS_S)
    operator.until(lambda: "late" not in operator.alive(), "it is not let in any more")
    (told,) = [one for one in operator.run("status", "--json").json["alerts"] if one["target"] == "node/late"]
    assert (told["code"], "; may still run there: late/app/0" in told["message"]) == ("node.expired", True)
    assert told["message"] in operator.run("why", "node/late").out.replace("\n", " ")
    (again,) = operator.run("node", "add", "late", "--json").json
    assert (again["node"], again["already"]) == ("late", True)
    operator.until(lambda: [one["state"] for one in operator.run("ps", "late", "--json").json] == ["running"], "it is heard")
    assert [one["pid"] for one in operator.run("ps", "late", "--json").json] == runs
    now = identity_of(machine)
    assert now.key.public == held.key.public
    assert now.certificate.not_after > time.time() + 86_400
    used = [one["state"] for one in operator.run("token", "list", "--json").json]
    operator.run("node", "add", "late")
    assert [one["state"] for one in operator.run("token", "list", "--json").json] == used == ["used", "used"]


def test_one_that_was_put_back_from_a_copy_whose_certificate_has_ended_joins_though_others_know_a_later_one(
    operator: Operator,
) -> None:
    """It was taken for one that is only away, and waited for in vain."""
    machine = operator.lab.machine("back")
    operator.add("back")
    held = certify(operator, machine, -5, before=60)
    machine.run("rm /var/lib/dsmt/nodes/back/monitor.identity; kill -9 $(pgrep -f [d]smt-node_monitor)")
    operator.until(lambda: "back" not in operator.alive(), "it is not let in any more")
    operator.run("node", "add", "back")
    assert "back" in operator.alive()
    now = identity_of(machine)
    assert (now.key.public, now.certificate.not_after > time.time() + 86_400) == (held.key.public, True)
