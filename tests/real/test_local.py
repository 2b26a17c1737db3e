"""A machine that is cut off (`--local`): what runs here is seen, read, stopped and started with no broker."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dsmt.agents.rules.container import HELD, PROCESS
from dsmt.operations.local.here.acts import user
from dsmt.operations.local.home.home import keeper_directory
from dsmt.system.procfs import identity_of
from dsmt.system.records import living, process_of
from tests.real.fleet import eventually
from tests.real.homes import run
from tests.real.seat import dsmt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsmt.operations.local.home.home import Home

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

WEB = """
service: web
components:
  app:
    instances: 2
    run: "sh -c 'echo said by {instance}; exec sleep 100000'"
"""
ONE = "web/app/0"


def pid(home: Home, kind: str, name: str, program: str) -> int:
    found = process_of(keeper_directory(home) if kind == "keeper" else home.part(kind, name), program)
    assert found is not None
    return found.pid


@contextmanager
def without_a_broker(home: Home) -> Iterator[None]:
    """The only broker is killed, and nobody starts it again meanwhile."""
    still = [pid(home, "keeper", "", "spawner"), *(pid(home, "controllers", name, "controller") for name in ("c1", "c2"))]
    for one in still:
        os.kill(one, signal.SIGSTOP)
    os.kill(pid(home, "brokers", "b1", "broker"), signal.SIGKILL)
    try:
        yield
    finally:
        for one in still:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)


async def row(home: Home, *options: str) -> Any:
    (found,) = (await dsmt(home.root, "ps", ONE, "--json", *options)).json
    return found


def container(home: Home, node: str) -> Path:
    return home.part("nodes", node) / "containers" / ONE


def test_what_is_stopped_on_a_machine_that_is_cut_off_stays_so_and_everybody_is_told(tmp_path):
    async def scenario(home: Home) -> None:
        await dsmt(home.root, "up", "--nodes", "2", "--detach")
        (tmp_path / "web.yaml").write_text(WEB)
        await dsmt(home.root, "apply", str(tmp_path / "web.yaml"), "--wait")
        asked, seen = await row(home), await row(home, "--local")
        told = (
            "instance",
            "node",
            "state",
            "health",
            "pid",
            "ports",
            "address",
            "restarts",
            "generation",
            "revision",
            "held",
        )
        assert seen.keys() == asked.keys()
        assert {name: seen[name] for name in told} == {name: asked[name] for name in told}
        whole, here = [(await dsmt(home.root, "status", "--json", *more)).json for more in ((), ("--local",))]
        assert here.keys() == whole.keys()
        service, its = [(await dsmt(home.root, "status", "web", "--json", *more)).json for more in ((), ("--local",))]
        assert its.keys() == service.keys()
        with without_a_broker(home):
            await cut_off(home, asked["node"])
        await back(home)

    run(tmp_path, scenario)


async def cut_off(home: Home, node: str) -> None:
    """It is seen, read, stopped and, when its agent was killed, still stopped."""
    await dsmt(home.root, "ps", code=7)
    assert "0 of 1 that are known here take a connection" in (await dsmt(home.root, "status", "--local")).out
    assert (await dsmt(home.root, "logs", ONE, "--local")).out == f"said by {ONE}\n"
    program = (await row(home, "--local"))["pid"]
    said = await dsmt(home.root, "stop", ONE, "--local", "--reason", "disk smokes")
    assert said.out.startswith(f"{ONE}: stopped on {node} until dsmt start {ONE}")
    assert identity_of(program) is None
    agent = living(str(container(home, node) / PROCESS))
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)

    def another() -> bool:
        found = living(str(container(home, node) / PROCESS))
        return found is not None and found.pid != agent.pid

    await eventually("another agent", another)
    seen = await row(home, "--local")
    assert (seen["state"], seen["pid"], seen["reason"]["code"]) == ("stopped", None, "hold.local")
    assert "held by" in (await dsmt(home.root, "ps", "--local")).out


async def back(home: Home) -> None:
    """All see who has stopped it, where, and how; an operator's word starts it, once."""
    by = user()
    seen: dict[str, Any] = {}

    async with asyncio.timeout(60):
        while seen.get("held") is None:  # its broker, and its node's word, may have yet to come
            with suppress(AssertionError):
                seen = await row(home)
    node = seen["node"]
    assert (seen["state"], seen["held"]["by"]) == ("stopped", f"{by} on {node} with --local")
    assert seen["held"]["reason"] == "disk smokes"
    why = await dsmt(home.root, "why", ONE)
    assert f"stopped on {node} by {by} at " in why.out
    assert f"signed agent/{node}/{ONE}" in why.out
    status = await dsmt(home.root, "status", "web")
    assert f"held by {by} on {node} with --local" in status.out
    await dsmt(home.root, "restart", ONE, code=4)
    await dsmt(home.root, "start", ONE, "--wait", "60s")
    now = await row(home)
    assert (now["state"], now["held"], now["reason"]) == ("running", None, None)
    assert not (container(home, node) / HELD).exists()
    await dsmt(home.root, "stop", ONE, "--local")
    await dsmt(home.root, "start", ONE, "--local", "--wait", "60s")
    assert (await row(home, "--local"))["state"] == "running"
