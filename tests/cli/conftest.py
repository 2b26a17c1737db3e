"""Homes and realms for command lines: those that are run in this process, and those of processes."""

import asyncio
import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli.context import CliContext
from dsmt.cli.root import main
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init
from dsmt.operations.read.realm.sight import Sight
from tests.cli.in_process import LOOKS, Run, Stub
from tests.cli.operating import SPEC, Operator
from tests.controllers.build import Realm, web
from tests.operations.sights import sight


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a realm was made, and nothing runs."""
    root = tmp_path_factory.mktemp("made") / "home"
    init(Home(root), name="test", listen="127.0.0.1:1")
    return root


@pytest.fixture(scope="module")
def known() -> Sight:
    """A realm in which `web` runs once on n1."""
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    return sight(realm)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator of a realm with two nodes, in which `web` runs twice."""
    home = tmp_path_factory.mktemp("realm") / "home"
    one = Operator(home)
    files = home.parent
    (files / "site.txt").write_text("hello\n")
    (files / "web.yaml").write_text(SPEC % json.dumps(sys.executable))
    try:
        one.ok("up", "--nodes", "2", "--detach", "--name", "test")
        applied = one.json("apply", str(files / "web.yaml"), "--reason", "first", "--wait=60s")
        assert (applied["outcome"], applied["revision"], applied["ready"], applied["wanted"]) == ("ready", 1, 2, 2)
        yield one
    finally:
        one.run("down")
        shutil.rmtree(home, ignore_errors=True)


def only(known: Sight, services: tuple[str, ...]) -> Sight:
    """The same, as who looks at some services sees it: it has no other ones."""
    view = known.view.copy()
    for name in set(view.services) - set(services):
        del view.services[name]
    return replace(known, view=view)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, known: Sight) -> Iterator[Run]:
    """Run a command line in a directory of its own; its exit code and what it wrote to standard error."""

    async def look(*_: Any, of: tuple[str, ...] = (), **__: Any) -> Sight:
        return known if not of else only(known, of)

    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError("something was started")

    async def never_given(*_: Any) -> int:
        return 0

    def attach(_: CliContext, __: object, work: Callable[[Any], Any]) -> Any:
        realm = SimpleNamespace(name="test")
        trust = SimpleNamespace(certificates=lambda _now_s: [], without=lambda _key: None)
        return asyncio.run(work(SimpleNamespace(bus=Stub(), by="alice", realm=realm, trust=trust, brokers=[])))

    for module in LOOKS:
        monkeypatch.setattr(f"dsmt.{module}.look", look)
    monkeypatch.setattr("dsmt.operations.write.node_control.given", never_given)
    monkeypatch.setattr("dsmt.operations.local.up.machine.start_keeper", never)
    monkeypatch.chdir(tmp_path)

    def ran(
        *arguments: str, home: Path | str, text: str = "", attached: bool = True, terminal: bool = False
    ) -> tuple[int, str]:
        monkeypatch.setenv("DSMT_HOME", str(home))
        monkeypatch.delenv("DSMT_BUS", raising=False)
        typed = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=typed.buffer, isatty=lambda: terminal))
        with monkeypatch.context() as here:
            if attached:
                here.setattr(CliContext, "_attach", attach)
            code = main(list(arguments))
        told = capsys.readouterr()
        assert told.out == ""
        assert "internal error" not in told.err
        assert "Traceback" not in told.err
        assert not any(one in told.err for one in ("\x1b", "\x9b", "\u202e"))
        return code, told.err

    return ran


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are shown in UTC, wherever the test runs."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
