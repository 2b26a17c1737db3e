"""The units that systemd keeps dsmt by: what each of them must say, for nothing else is told when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsmt

UNITS = Path(dsmt.__file__).parents[1] / "deploy/systemd"
ROLES = ("broker", "controller", "node")


def settings(role: str, section: str = "Service") -> dict[str, str]:
    """What stands in a section of a role's unit; each of these names stands there once."""
    _, _, told = (UNITS / f"dsmt-{role}@.service").read_text().partition(f"[{section}]\n")
    lines = told.partition("\n[")[0].splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_begins_its_role_again_whatever_it_ended_with_and_soon(role: str) -> None:
    """Of systemd's own accord it does so five times within ten seconds, and never again (systemd.unit(5))."""
    told = settings(role)
    assert told["ExecStart"].startswith(f"/usr/bin/env dsmt {role} run %i")
    assert told["Restart"] == "always"
    assert told["RestartSec"] in {"100ms", "1s"}
    assert settings(role, "Unit")["StartLimitIntervalSec"] == "0"


def test_services_outlive_the_unit_of_their_node_and_may_do_what_root_may() -> None:
    """What a node runs is its child: it is not ended with it, not confined with it, and its limits may be raised."""
    told = settings("node")
    assert (told["KillMode"], told["Delegate"], told["TasksMax"]) == ("process", "yes", "infinity")
    assert not [name for name in told if name.startswith(("Protect", "Private", "NoNewPrivileges", "ReadWrite"))]


@pytest.mark.parametrize("role", ROLES)
def test_who_may_write_nowhere_else_may_write_to_its_home(role: str) -> None:
    told = settings(role)
    home = told["Environment"].removeprefix("DSMT_HOME=")
    if "ProtectSystem" in told:
        assert told["ReadWritePaths"] == home


@pytest.mark.parametrize("role", ["broker", "node"])
def test_who_holds_a_descriptor_for_each_of_many_others_has_enough_of_them(role: str) -> None:
    assert int(settings(role)["LimitNOFILE"].split(":")[0]) >= 65536
