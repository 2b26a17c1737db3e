"""A program removes its own container while it runs, and dsmt's processes are killed: nothing of it is forgotten."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import Parts
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.containers import agents_in, roots_in
from dsmt.system.procfs import is_alive, send_signal
from tests.loops import in_real_time
from tests.real.fleet import Fleet, fleet, gone
from tests.real.homes import run
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = "service: {name}\ncomponents: {{app: {{run: sleep 1000, update: {{healthy_after: 1s}}}}}}\n"


async def running(home: Home, name: str) -> tuple[Path, ProcessIdentity, ProcessIdentity]:
    """A service that runs: its container, its agent, and its program."""
    spec = home.root.parent / f"{name}.yaml"
    spec.write_text(SPEC.format(name=name))
    await dsmt(home.root, "apply", str(spec), "--wait=60s")
    container = home.part("nodes", "n1") / "containers" / name / "app" / "0"
    return container, agents_in(container)[0], roots_in(container)[0]


def send(number: int, identities: Iterable[ProcessIdentity]) -> None:
    for identity in identities:
        send_signal(identity, number)


@pytest.mark.parametrize("agent_gets", [signal.SIGSTOP, signal.SIGKILL])
@in_real_time
async def test_what_runs_of_a_container_that_its_program_has_removed_has_ended_before_it_is_said_to_be_gone(
    tmp_path: Path, agent_gets: int
) -> None:
    async with fleet(tmp_path, nodes=1, controllers=1) as made:
        container, agent, program = await running(made.home, "web")
        manager = made.record("nodes", "n1", "container_manager")
        send_signal(manager, signal.SIGSTOP)
        send_signal(agent, agent_gets)
        shutil.rmtree(container.parents[1])
        await dsmt(made.home.root, "remove", "web", "--yes")
        await made.watch.until("the word that it is to be gone", lambda: _is_to_be_gone(made), 30)
        assert is_alive(program)
        send_signal(manager, signal.SIGKILL)
        assert await made.watch.until("its end", lambda: _is_gone(made) and [is_alive(program), is_alive(agent)], 30) == [
            False,
            False,
        ]


def _is_to_be_gone(made: Fleet) -> bool:
    fact = made.watch.view.services["web"].slots["app", 0].fact
    return fact is not None and fact.record.desired == "gone"


def _is_gone(made: Fleet) -> bool:
    """Whether the node says so, or the service is buried since."""
    entry = made.watch.view.services.get("web")
    slot = None if entry is None else entry.slots.get(("app", 0))
    instance = None if slot is None else slot.instances.get("n1")
    return instance is None or not instance.left


def test_down_ends_what_runs_of_containers_that_their_programs_have_removed_though_all_else_of_dsmt_was_killed(
    tmp_path: Path,
) -> None:
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "1", "--detach")
        _, agent, program = await running(home, "web")
        _, orphaned, left = await running(home, "left")
        parts = Parts(home)
        killed = {*parts.all(), orphaned} - {agent, program, left}
        send(signal.SIGSTOP, killed)
        shutil.rmtree(home.part("nodes", "n1") / "containers")
        send(signal.SIGKILL, killed)
        await gone(*killed)
        assert all(map(is_alive, (agent, program, left)))
        await dsmt(home.root, "down")
        assert not any(map(is_alive, (agent, program, left)))

    run(tmp_path, scenario)
