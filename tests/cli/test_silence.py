"""A command that waits says for what before that looks like nothing: once and on standard error, and never to a program."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest

from dsmt.cli.context import CliContext
from dsmt.errors import TransportError
from dsmt.operations.local.up.machine import StartedRealm
from dsmt.operations.read.realm.patience import patience
from dsmt.ports.realm import BrokerAddress
from tests.cli.in_process import AWAY, Run

HUNG = TransportError("bus.stranger", "the broker hangs")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here waits for long."""
    for name in ("cli.context.QUIET_S", "cli.context.SILENT_S", "operations.read.realm.patience.SLOW_S"):
        monkeypatch.setattr(f"dsmt.{name}", 0.05)


async def hang(*_: Any, **__: Any) -> None:
    await asyncio.sleep(0.2)
    raise HUNG


@asynccontextmanager
async def hung(*_: Any, **__: Any) -> AsyncIterator[None]:
    await hang()
    yield


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["people", "json"])
def test_who_waits_for_a_broker_that_does_not_answer_is_told_so(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr("dsmt.operations.connection.reading", hung)
    code, told = run("ps", *more, home=made, attached=False)
    assert code == AWAY
    assert told.startswith('{"error":' if more else "waiting for an answer at 127.0.0.1:1\ndsmt: the broker hangs")
    assert told.count("\n") == (1 if more else 2)


def test_an_address_that_may_be_one_of_several_brokers_is_named_once(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def located(*_: Any) -> list[BrokerAddress]:
        return [BrokerAddress(address="127.0.0.1:9", public=bytes([number]) * 32) for number in (1, 2)]

    monkeypatch.setattr("dsmt.operations.connection.reading", hung)
    monkeypatch.setattr("dsmt.operations.local.members.brokers.located", located)
    _, told = run("ps", "--bus", "dsmt://127.0.0.1:9", home=made, attached=False)
    assert told.startswith("waiting for an answer at 127.0.0.1:9\ndsmt: the broker hangs")


def test_up_says_that_it_waits_for_a_broker_that_hangs(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def up(*_: Any, **__: Any) -> StartedRealm:
        return StartedRealm("test", ("127.0.0.1:1",), (), (), False)

    monkeypatch.setattr("dsmt.operations.local.up.machine.up", up)
    monkeypatch.setattr("dsmt.operations.local.up.machine.left_out", lambda *_: [])
    monkeypatch.setattr("dsmt.operations.local.up.coming_up.announced", hang)
    code, told = run("up", "--detach", home=made)
    assert code == AWAY
    assert told.startswith("waiting for an answer at 127.0.0.1:1\ndsmt: the broker hangs")


def test_what_a_broker_does_not_send_is_named(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def attached(*_: Any, **__: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(bus=None)

    async def work(_bus: object, work: Any) -> None:
        work.close()
        async with patience("the realm's facts"):
            await hang()

    monkeypatch.setattr("dsmt.operations.connection.reading", attached)
    monkeypatch.setattr("dsmt.operations.connection.while_let_in", work)
    code, told = run("ps", home=made, attached=False)
    assert code == AWAY
    assert told.startswith("waiting for the realm's facts\ndsmt: the broker hangs")


@pytest.mark.parametrize(("json", "told"), [(False, "waiting: 1 of 2\n"), (True, "")])
def test_a_wait_without_a_terminal_tells_once_how_far_it_is(
    capsys: pytest.CaptureFixture[str], *, json: bool, told: str
) -> None:
    async def wait() -> None:
        with CliContext(json=json).progress() as tell:
            for text in ("0 of 2", "1 of 2"):
                tell(text)
            await asyncio.sleep(0.2)
            tell("2 of 2")
        with CliContext(json=json).progress() as tell:
            tell("at once")

    asyncio.run(wait())
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("begun", [False, True])
def test_who_interrupts_down_hears_that_it_has_ended_a_part(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    async def down(*_: Any, ends: Callable[[str], None], **__: Any) -> None:
        if begun:
            ends("the services")
        raise KeyboardInterrupt

    monkeypatch.setattr("dsmt.operations.local.processes.ending.down", down)
    said = f"dsmt: interrupted; what is not ended yet in {made} goes on. Next: dsmt down ends it; "
    assert run("down", home=made) == (130, f"{said}dsmt up starts all of it again\n" if begun else "")


def test_who_interrupts_a_command_that_has_not_begun_yet_is_told_nothing(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    gc.collect()  # what tests before have left warns of itself before this one looks
    with monkeypatch.context() as patch, catch_warnings(record=True) as said:
        simplefilter("default")
        patch.setattr(asyncio, "run", interrupted)
        assert run("ps", home=made, attached=False) == (130, "")
        gc.collect()
    assert said == []
