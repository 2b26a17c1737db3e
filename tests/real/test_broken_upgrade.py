"""`dsmt upgrade` to what does not run stops before it does harm, and says which program does not run, and why (rule C18)."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import dsmt as installed
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.processes.parts import Parts
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.containers import agents_in
from dsmt.system.procfs import is_alive
from tests.real.seat import dsmt, start
from tests.real.test_upgrading import SPEC, own, shown

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
AT_ONCE = "def main(*_):\n    raise RuntimeError('broken build')\n\n\nif __name__"
"""A program that ends whatever there is."""
ENDS = AT_ONCE.replace("(*_)", "(directory, *_, began=main)").replace(
    "raise", "if not Path(directory).exists():\n        return began(directory)\n    raise"
)
"""One that ends only where it has files."""
AT_ROOT = ("env", "-C", "/")
"""Python looks first where it is started: not here, where dsmt is whole."""


class Installed:
    """A realm whose dsmt is installed in a directory of its own, where it can be replaced."""

    def __init__(self, directory: Path) -> None:
        self.home, self._place = Home(directory / "home"), directory / "installed"
        shutil.copytree(Path(installed.__file__).parent, self._place / "dsmt")
        self._env = {"PYTHONPATH": str(self._place)}

    async def begin(self) -> list[Any]:
        code, _, said = await self._typed("up", "--nodes", "2", "--brokers", "2", "--detach")
        assert code == 0, said
        spec = self.home.root / "web.yaml"
        spec.write_text(SPEC)
        await dsmt(self.home.root, "apply", str(spec), "--wait=60s")
        return await shown(self.home)

    def replace(self, module: str, before: str, after: str) -> str:
        """Install another text of a program; the one that ran."""
        path = self._place / "dsmt" / "programs" / f"{module}.py"
        ran = path.read_text()
        path.write_text(ran.replace(before, after, 1))
        return ran

    async def upgrade(self) -> dict[str, Any]:
        """Type it; the error with which it ends, if it does."""
        code, out, said = await self._typed("upgrade", "--json")
        if code == 0:
            return {"done": json.loads(out)}
        found: dict[str, Any] = json.loads(said)["error"]
        assert (found["code"], found["exit"], code) == ("upgrade.broken", 1, 1)
        return found

    async def mended(self) -> tuple[int, int]:
        """Type it where all programs run again: how many of services ran, and how many of these do so still."""
        done = (await self.upgrade())["done"]
        return done["programs"], done["untouched"]

    async def _typed(self, *arguments: str) -> tuple[int | None, bytes, bytes]:
        process = await start(self.home.root, *arguments, env=self._env, within=AT_ROOT)
        out, said = await process.communicate()
        return process.returncode, out, said

    def agents(self) -> set[ProcessIdentity]:
        return {one for container in Parts(self.home).containers() for one in agents_in(container)}


def play(directory: Path, scenario: Callable[[Installed], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        made = Installed(directory)
        try:
            await scenario(made)
        finally:
            await down(made.home)

    asyncio.run(main())


@pytest.mark.parametrize("module", ["deployment_agent", "controller"])
def test_where_a_program_cannot_be_imported_nothing_is_ended(tmp_path: Path, module: str) -> None:
    async def scenario(made: Installed) -> None:
        before = await made.begin()
        ran = own(made.home)
        made.replace(module, "import annotations\n", "import annotations\n\nimport no_such_module\n")
        error = await made.upgrade()
        said = f"the program {module} (dsmt.programs.{module}:main) cannot be imported: ModuleNotFoundError: No module named"
        assert said in error["message"]
        assert "nothing was ended" in error["message"]
        assert all(map(is_alive, ran))
        assert await shown(made.home) == before

    play(tmp_path, scenario)


@pytest.mark.parametrize("module", ["deployment_agent", "controller", "node_monitor", "container_manager", "broker"])
def test_where_a_program_ends_as_it_begins_nothing_is_ended(tmp_path: Path, module: str) -> None:
    async def scenario(made: Installed) -> None:
        before = await made.begin()
        ran = own(made.home)
        made.replace(module, "if __name__", AT_ONCE)
        error = await made.upgrade()
        said = f"the program {module} ends as it begins, with code 70: RuntimeError: broken build; nothing was ended"
        assert said in error["message"]
        assert all(map(is_alive, ran))
        assert await shown(made.home) == before

    play(tmp_path, scenario)


def test_a_monitor_that_ends_again_and_again_is_told_before_any_agent_is_begun_anew(tmp_path: Path) -> None:
    async def scenario(made: Installed) -> None:
        before = await made.begin()
        ran = made.agents()
        runs = made.replace("node_monitor", "if __name__", ENDS)
        error = await made.upgrade()
        assert error["message"].startswith("the monitor of node n1 ends again and again")
        assert "RuntimeError: broken build" in error["message"]
        assert "node_monitor.log" in error["next"]
        assert all(map(is_alive, ran))
        (made._place / "dsmt" / "programs" / "node_monitor.py").write_text(runs)
        assert await made.mended() == (3, 3), (before, await shown(made.home))
        assert [row[:3] for row in await shown(made.home)] == [row[:3] for row in before]

    play(tmp_path, scenario)


def test_an_agent_that_ends_again_and_again_is_the_only_one_that_was_begun_anew(tmp_path: Path) -> None:
    async def scenario(made: Installed) -> None:
        before = await made.begin()
        ran = made.agents()
        runs = made.replace("deployment_agent", "if __name__", ENDS)
        error = await made.upgrade()
        assert error["message"].startswith("the agent of web/app/")
        assert "RuntimeError: broken build" in error["message"]
        assert "deployment_agent.log" in error["next"]
        assert sum(map(is_alive, ran)) == len(ran) - 1
        assert all(map(is_alive, Parts(made.home).instances()))
        (made._place / "dsmt" / "programs" / "deployment_agent.py").write_text(runs)
        assert await made.mended() == (3, 3), (before, await shown(made.home))
        assert [row[:3] for row in await shown(made.home)] == [row[:3] for row in before]

    play(tmp_path, scenario)


def test_a_controller_that_ends_again_and_again_is_told_before_any_node_is_begun_anew(tmp_path: Path) -> None:
    async def scenario(made: Installed) -> None:
        before = await made.begin()
        parts = Parts(made.home)
        ran = {*made.agents(), *parts.monitors()}
        runs = made.replace("controller", "if __name__", ENDS)
        error = await made.upgrade()
        assert error["message"].startswith("controller c")
        assert "RuntimeError: broken build" in error["message"]
        assert "controller.log" in error["next"]
        assert all(map(is_alive, ran))
        (made._place / "dsmt" / "programs" / "controller.py").write_text(runs)
        assert await made.mended() == (3, 3), (before, await shown(made.home))
        assert await shown(made.home) == before

    play(tmp_path, scenario)
