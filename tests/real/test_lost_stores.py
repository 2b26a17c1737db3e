"""All brokers' stores are lost while a realm is down: what nodes kept is so again, and what had ended does not come back."""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from tests.real.fleet import eventually
from tests.real.homes import run
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = """\
service: {name}
components:
  app:
    instances: {instances}
    data: true
    artifact: {{url: program.tar.gz}}
    run: [sh, program, "{{data}}"]
    update: {{healthy_after: 1s}}
"""
PROGRAM = b'echo >> "$1"/born; exec sleep 100000\n'
SOON_S = 30.0


def put_program(directory: Path) -> None:
    with tarfile.open(directory / "program.tar.gz", "w:gz") as archive:
        program = tarfile.TarInfo("program")
        program.size = len(PROGRAM)
        archive.addfile(program, io.BytesIO(PROGRAM))


async def apply(home: Home, name: str, instances: int = 1) -> None:
    spec = home.root.parent / f"{name}.yaml"
    spec.write_text(SPEC.format(name=name, instances=instances))
    await dsmt(home.root, "apply", str(spec), "--wait=60s")


async def instances(home: Home) -> dict[str, tuple[str, str]]:
    rows: list[dict[str, Any]] = (await dsmt(home.root, "ps", "--json")).json
    return {row["instance"]: (row["node"], row["state"]) for row in rows}


async def services(home: Home) -> dict[str, str]:
    told = (await dsmt(home.root, "status", "--json")).json["services"]
    return {one["service"]: one["state"] for one in told}


def births(home: Home) -> dict[str, int]:
    """How often each service has begun with its data."""
    found = home.root.glob("nodes/*/data/*/app/0/born")
    return {file.parts[-4]: len(file.read_text().splitlines()) for file in found}


async def until_same(look: Callable[[Home], Awaitable[Any]], home: Home, wanted: Any) -> None:
    deadline = time.monotonic() + SOON_S
    while (found := await look(home)) != wanted:
        assert time.monotonic() < deadline, f"{found} is not {wanted}"


async def until_born(home: Home, wanted: dict[str, int]) -> None:
    """A program that is started says so a moment later."""
    await eventually("all have begun", lambda: Counter(births(home)) >= Counter(wanted), SOON_S)
    assert births(home) == wanted


async def down_and_up(home: Home, *, lost: Iterable[str]) -> None:
    """Take a realm down, lose the stores of some of its brokers, and take it up."""
    await dsmt(home.root, "down")
    for name in lost:
        for file in home.part("brokers", name).glob("store.db*"):
            file.unlink()
    await dsmt(home.root, "up", "--detach")


def test_what_nodes_kept_over_down_is_so_again_and_what_had_ended_does_not_come_back(tmp_path: Path) -> None:
    async def scenario(home: Home) -> None:
        put_program(tmp_path)
        await dsmt(home.root, "up", "--nodes", "2", "--brokers", "3", "--controllers", "1", "--detach")
        await asyncio.gather(*(apply(home, name) for name in ("kept", "held", "away", "gone")))
        await until_born(home, {"kept": 1, "held": 1, "away": 1, "gone": 1})
        await dsmt(home.root, "stop", "held/app/0", "--wait")
        await apply(home, "away", 0)
        await dsmt(home.root, "remove", "gone", "--yes", "--wait=60s")
        before = await instances(home)
        assert {name: state for name, (_, state) in before.items()} == {"kept/app/0": "running", "held/app/0": "stopped"}
        said = await services(home)

        await down_and_up(home, lost=home.names("brokers"))
        await until_same(instances, home, before)
        await until_same(services, home, {name: state for name, state in said.items() if name != "away"})
        await until_born(home, {"kept": 2, "held": 1, "away": 1, "gone": 1})

        await dsmt(home.root, "start", "held/app/0", "--wait")
        await apply(home, "kept")
        await until_born(home, {"kept": 2, "held": 2, "away": 1, "gone": 1})
        await down_and_up(home, lost=["b2"])
        await until_same(instances, home, {name: (node, "running") for name, (node, _) in before.items()})
        await until_born(home, {"kept": 3, "held": 3, "away": 1, "gone": 1})

    run(tmp_path, scenario)
