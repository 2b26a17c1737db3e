"""`node add` that is killed: it is typed again at once, and nothing of it is left when the node is removed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.real.fleet import eventually
from tests.real.machines import Machine, on_machines
from tests.real.seat import start
from tests.real.test_adding import Operator, operator, wheels

pytestmark = [*on_machines("kept"), pytest.mark.timeout(400)]
__all__ = ["operator", "wheels"]


def killed(operator: Operator, name: str, moment: Callable[[], object]) -> None:
    """Kill `node add` of a host at a moment."""

    async def main() -> None:
        process = await start(operator.home, "node", "add", name, env=operator.environment, within=operator.lab.within)
        try:
            await eventually("the moment", moment)
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()

    asyncio.run(main())


def cut_off(operator: Operator, machine: Machine, moment: Callable[[], object]) -> dict[str, Any]:
    """End the processes of the connection there at a moment of `node add`; what it says then."""

    async def main() -> tuple[int | None, bytes]:
        environment = {"env": operator.environment, "within": operator.lab.within}
        process = await start(operator.home, "node", "add", machine.name, "--json", **environment)
        await eventually("the moment", moment)
        assert machine.run(CUT_OFF).strip(), "it was connected"
        _, said = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, said

    code, said = asyncio.run(main())
    assert (code, said.count(b"\n")) == (7, 1), said.decode()
    error: dict[str, Any] = json.loads(said)["error"]
    return error


def there(machine: Machine, pattern: str) -> Callable[[], bool]:
    return lambda: bool(machine.run(f"ls -d {pattern} 2>/dev/null || true").strip())


def nothing_brought(machine: Machine) -> bool:
    return not machine.run("ls -A /tmp").strip()


CUT_OFF = """\
for one in /proc/[0-9]*; do
    [ "${one#/proc/}" = 1 ] || ! grep -q '^sshd' $one/comm 2>/dev/null || ! kill -9 ${one#/proc/} 2>/dev/null || echo $one
done
"""
JOINED = "/var/lib/dsmt/nodes/*/identity"
MOMENTS = {
    "brought": "/tmp/dsmt-*/wheels",
    "made": "/opt/dsmt/*/bin",
    "installing": "/opt/dsmt/*/lib/python*/site-packages/cbor2",
}


def test_it_is_typed_again_while_what_it_began_there_is_still_at_work(operator: Operator) -> None:
    machine = operator.lab.machine("hasty")
    before = machine.files()
    for place in MOMENTS.values():
        killed(operator, "hasty", there(machine, place))
        operator.run("node", "add", "hasty")
        assert "hasty" in operator.alive()
        operator.run("node", "remove", "hasty")
        operator.until(lambda: nothing_brought(machine), "what was brought goes with its connection")
        assert machine.files() == before
    assert machine.programs() == []


def test_who_is_cut_off_is_told_so_and_types_it_again(operator: Operator) -> None:
    machine = operator.lab.machine("cut-off")
    before = machine.files()
    for place in MOMENTS.values():
        error = cut_off(operator, machine, there(machine, place))
        assert error["code"] == "ssh.lost"
        assert error["message"].startswith("cut-off: the connection was lost")
        assert "try again" in error["next"]
        operator.run("node", "add", "cut-off")
        assert "cut-off" in operator.alive()
        operator.run("node", "remove", "cut-off")
        operator.until(lambda: nothing_brought(machine), "what was brought goes with its connection")
        assert machine.files() == before  # so that the next moment is of the next addition


def test_a_host_on_which_it_was_killed_half_way_is_removed_by_its_name(operator: Operator) -> None:
    machine = operator.lab.machine("half")
    before = machine.files()
    for place in (MOMENTS["installing"], JOINED, JOINED):
        killed(operator, "half", there(machine, place))
        operator.run("node", "remove", "half")
        operator.until(lambda: nothing_brought(machine), "what was brought goes with its connection")
        assert machine.files() == before
        assert "half" not in {one["node"] for one in operator.run("nodes", "--json").json}
    operator.add("half")
    assert "half" in operator.alive()
    operator.run("node", "remove", "half")
