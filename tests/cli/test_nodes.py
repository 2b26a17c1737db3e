"""`node drain` and `node remove`: what is told of what stays, what is ended, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli.context import CliContext
from dsmt.cli.joining import labels_of
from dsmt.cli.root import main
from dsmt.errors import TransportError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_node
from dsmt.operations.read.rows.holding import Undrained
from dsmt.operations.remote.places import NodePlace, keep_place
from dsmt.operations.write.node_control import Controlled, LastNode
from tests.cli.in_process import AWAY, NO, NO_YES, WRONG, Run, Stub

Say = Callable[..., str]


def test_a_label_is_cut_at_its_first_equals_sign_for_a_value_may_have_more() -> None:
    assert labels_of(["zone=a", "image=sha256=0f"]) == {"zone": "a", "image": "sha256=0f"}


@pytest.fixture
def say(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line that is done; what it says."""

    def act(_: CliContext, work: Callable[[Any], Any]) -> Any:
        return asyncio.run(work(SimpleNamespace(bus=Stub(), by="alice")))

    def said(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    monkeypatch.setenv("DSMT_HOME", str(made))
    monkeypatch.setattr(CliContext, "act", act)
    monkeypatch.setattr(CliContext, "ask", lambda *_: None)
    return said


def test_what_a_drain_leaves_with_its_data_is_not_told_as_what_is_to_move(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [Undrained(instance="db/app/0", stays=True, because="its data is there")]

    async def set_mode(*_: Any, **__: Any) -> Controlled:
        return Controlled(node="n1", mode="drained", changed=True, version=1, instances=1, left=left, data=["db/app/1"])

    monkeypatch.setattr("dsmt.cli.node.set_mode", set_mode)
    assert say("node", "drain", "n1", "--no-wait") == (
        "n1 is drained: nothing is left to move there; dsmt node include n1 undoes it\n  db/app/0 stays: its data is there\n"
        "  the data of db/app/1 is there too; it does not come up while n1 is drained\n"
    )


LAST = "n1 is the last node that takes instances"
STAYS = "what runs there stays until another one takes it"
MON = "mon/app/0 ends: each node has one, and there is no other"
SURE = "Next: dsmt node drain n1 --yes; or first another node for it: dsmt nodes"


@pytest.mark.parametrize(
    ("ends", "stays", "terminal", "code", "said"),
    [
        (["mon/app/0"], [], False, WRONG, f"dsmt: {NO_YES}: {LAST}: {MON}. {SURE}\n"),
        (["mon/app/0"], ["web/app/0"], False, WRONG, f"dsmt: {NO_YES}: {LAST}: {STAYS}; but {MON}. {SURE}\n"),
        (["mon/app/0"], [], True, NO, "dsmt: n1 is not drained: the answer was no\n"),
        ([], ["web/app/0"], False, AWAY, f"warning: {LAST}: {STAYS}\ndsmt: gone on\n"),
        ([], [], False, AWAY, "dsmt: gone on\n"),
    ],
)
def test_the_last_node_that_takes_instances_is_drained_after_a_yes_where_something_ends_for_that(
    run: Run,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    ends: list[str],
    stays: list[str],
    terminal: bool,
    code: int,
    said: str,
) -> None:
    async def last_node(*_: Any) -> LastNode:
        return LastNode(ends=ends, stays=stays)

    async def gone_on(*_: Any, **__: Any) -> None:
        raise TransportError("link.lost", "gone on")

    monkeypatch.setattr("dsmt.cli.node.last_node", last_node)
    monkeypatch.setattr("dsmt.cli.node.set_mode", gone_on)
    monkeypatch.setattr("dsmt.cli.context.print", lambda _: None, raising=False)
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert run("node", "drain", "n1", home=made, terminal=terminal) == (code, said)
    assert run("node", "drain", "n1", "--yes", home=made) == (AWAY, "dsmt: gone on\n")


@pytest.mark.parametrize(("flags", "does"), [((), "ended_here"), (("--forget",), "forgotten")])
def test_a_node_of_this_home_is_only_forgotten_where_that_is_asked_for(
    say: Say, made: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], does: str
) -> None:
    done: list[str] = []

    def by(name: str) -> Any:
        def act(*_: Any, **__: Any) -> Controlled:
            done.append(name)
            return Controlled(node="n1", mode="removed", changed=True, version=1, instances=2)

        return act

    for name in ("ended_here", "forgotten"):
        monkeypatch.setattr(f"dsmt.cli.node.{name}", by(name))
    ensure_node(Home(made), "n1")
    told = say("node", "remove", "n1", *flags)
    assert told.startswith("n1 is removed; ")
    assert ("what may run on other nodes is started there" in told) is (does == "forgotten")
    assert done == [does]


def test_a_host_is_told_to_be_clear_when_it_is_and_not_before(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def remove(*_: Any, **__: Any) -> Controlled:
        raise TransportError("ssh.lost", "the connection was lost", next="try again")

    monkeypatch.setattr("dsmt.operations.remote.removing.remove", remove)
    asyncio.run(keep_place(Home(made), "web-1", NodePlace(host="web-1")))
    code, told = run("node", "remove", "web-1", home=made)
    assert code == AWAY
    assert "the connection was lost" in told
    assert "is removed" not in told


@pytest.mark.parametrize(
    ("options", "limit_s"),
    [
        (["--deadline", "10s", "--wait"], 10.0),
        (["--wait", "--deadline=10s"], 10.0),
        (["--wait", "10s", "--wait"], 10.0),
        (["--wait"], None),
        ([], None),
    ],
)
def test_a_wait_that_is_typed_beside_a_limit_does_not_take_it_back(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], limit_s: float | None
) -> None:
    limits = []
    done = Controlled(node="n1", mode="draining", changed=True, version=1, instances=0)

    async def asked(*_: Any, **__: Any) -> Controlled:
        return done

    async def drained(*_: Any, **settings: Any) -> Controlled:
        limits.append(settings["limit_s"])
        return done

    monkeypatch.setattr("dsmt.cli.node.set_mode", asked)
    monkeypatch.setattr("dsmt.cli.node.drained", drained)
    monkeypatch.setattr("dsmt.cli.node.print", lambda _: None, raising=False)
    assert run("node", "drain", *options, "n1", home=made) == (0, "")
    assert limits == [limit_s]
