"""Machines that have no address but one of IPv6: a realm is made, two are added, and one of them dies."""

from pathlib import Path

import pytest

from tests.ipv6 import on_ipv6
from tests.real.bringing import Brought
from tests.real.machines import lab, on_machines
from tests.real.test_adding import PORT, Operator
from tests.real.test_adding import wheels as wheels  # noqa: PLC0414 - a fixture
from tests.real.test_three_machines import SPEC, whole_on

pytestmark = [*on_machines("cut"), on_ipv6, pytest.mark.timeout(400)]


def test_a_realm_needs_no_ipv4(tmp_path: Path, wheels: Brought) -> None:
    with lab(tmp_path, six=True) as made:
        operator = Operator(made, wheels)
        one, two = (made.machine(name) for name in ("one", "two"))
        try:
            operator.run("init", "--listen", f"[{made.address}]:{PORT}")
            operator.run("up", "--detach", "--nodes", "0", "--controllers", "1")
            operator.add("one", "two", "--roles", "broker,controller,node")
            (tmp_path / "web.yaml").write_text(SPEC.replace("0.0.0.0", "{address}"))
            operator.run("apply", str(tmp_path / "web.yaml"), "--wait=60s")
            assert whole_on(operator) == {"one", "two"}
            served = operator.run("endpoints").out
            assert f"  [{one.address}]:" in served
            assert f"  [{two.address}]:" in served
            at = {one["broker"]: one["address"].rpartition(":")[0] for one in operator.run("brokers", "--json").json}
            assert at == {"b1": f"[{made.address}]", "one": f"[{one.address}]", "two": f"[{two.address}]"}
            made.cut(one)
            operator.until(lambda: whole_on(operator) == {"two"}, "it is whole elsewhere")
        finally:
            operator.run("down")
