"""A home in which `up` and `down` are run, and its processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.records import process_of
from tests.real.fleet import end
from tests.real.seat import start


def at(home: Home, kind: str, name: str, program: str) -> Callable[[], ProcessIdentity | None]:
    """Looks for the process of a record."""
    directory = keeper_directory(home) if kind == "keeper" else home.part(kind, name)
    return lambda: process_of(directory, program)


def run(directory: Path, scenario: Callable[[Home], Awaitable[None]]) -> None:
    """Play a scenario in a home of its own; whatever it leaves is ended."""
    home = Home(directory / "home")

    async def main() -> None:
        try:
            await scenario(home)
        finally:
            if home.exists:
                await end(home)

    asyncio.run(main())


async def foreground(home: Home) -> asyncio.subprocess.Process:
    """`dsmt up`, watching its terminal."""
    return await start(home.root, "up", "--nodes", "2", "--json")


async def ended(process: asyncio.subprocess.Process, number: int) -> int:
    """Its exit code after a signal."""
    process.send_signal(number)
    try:
        await asyncio.wait_for(process.communicate(), 60)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    return process.returncode or 0


async def whole(process: asyncio.subprocess.Process) -> None:
    """Wait for the answer that everything is attached."""
    assert process.stdout is not None
    told = await asyncio.wait_for(process.stdout.readuntil(b"}\n"), 60)
    assert b'"n2"' in told


def name_of(pid: int) -> str:
    """What `ps` calls a process."""
    return Path(f"/proc/{pid}/comm").read_text("ascii").strip()


def everybody(home: Home) -> dict[str, Any]:
    """Who runs: the broker, the controllers, and each node's three, by place."""
    found = {"broker": at(home, "brokers", "b1", "broker")(), "keeper": at(home, "keeper", "", "spawner")()}
    for name in home.names("controllers"):
        found[name] = at(home, "controllers", name, "controller")()
    for name in home.names("nodes"):
        for program in ("spawner", "container_manager", "node_monitor"):
            found[f"{name} {program}"] = at(home, "nodes", name, program)()
    return found
