"""Somebody who stops waiting, or does not say yes, hears what goes on and what was not done."""

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.errors import TransportError
from dsmt.operations.local.processes.ending import Down
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.write.controlling import Done
from dsmt.operations.write.node_control import Controlled
from dsmt.operations.write.revoking import Claim
from dsmt.ports.realm import BrokerAddress
from tests.cli.in_process import AWAY, NO, NO_YES, WRONG, Run


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_who_stops_waiting_hears_that_what_was_asked_for_goes_on(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    async def stop(*_: Any, **__: Any) -> Done:
        return Done(action="stop", target="web", instances=["web/app/0"], unchanged=[])

    async def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dsmt.operations.write.controlling.stop", stop)
    monkeypatch.setattr("dsmt.operations.read.waits.heeding.heeded", interrupted)
    code, told = run("stop", "web", "--wait", *form, home=made)
    assert "interrupted; the stop of web goes on" in told
    assert "dsmt status web" in told
    assert code == 130
    monkeypatch.setattr("dsmt.operations.write.controlling.stop", interrupted)
    assert run("stop", "web", *form, home=made) == (130, "")


def test_a_retry_of_what_has_nothing_to_be_tried_again_is_not_waited_for(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    because = {"web/app/0": "it has no node; dsmt why-not web/app/0"}

    async def retry(*_: Any, **__: Any) -> Done:
        return Done(action="retry", target="web", instances=[], unchanged=[*because], because=because)

    async def waits(*_: Any, **__: Any) -> None:
        raise AssertionError("it would be waited for as long as it has no node")

    monkeypatch.setattr("dsmt.operations.write.controlling.retry", retry)
    monkeypatch.setattr("dsmt.operations.read.waits.heeding.heeded", waits)
    said: list[str] = []
    monkeypatch.setattr("dsmt.cli.control.print", said.append, raising=False)
    assert run("retry", "web", "--wait", home=made) == (0, "")
    assert said == ["web/app/0: nothing to do: it has no node; dsmt why-not web/app/0"]


def test_what_was_not_waited_for_is_not_said_to_be_done(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["web/app/0", "web/app/1"]

    async def move(*_: Any, **__: Any) -> Done:
        return Done(action="move", target="web", instances=both, unchanged=[])

    async def heeded(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(instances=[SimpleNamespace(instance="web/app/1")])

    monkeypatch.setattr("dsmt.operations.write.controlling.move", move)
    monkeypatch.setattr("dsmt.operations.read.waits.heeding.heeded", heeded)
    said: list[str] = []
    monkeypatch.setattr("dsmt.cli.control.print", said.append, raising=False)
    assert run("move", "web", "--wait", home=made) == (0, "")
    assert said == ["web/app/1: moved", "web/app/0: will be moved"]
    said.clear()
    assert run("move", "web", home=made) == (0, "")
    assert said == ["web/app/0, web/app/1: will be moved"]


@pytest.mark.parametrize(
    "row",
    [
        (["node", "drain", "n1"], "dsmt.cli.node.set_mode", "dsmt.cli.node.drained", "the drain of n1 goes on"),
        (
            ["rollback", "web", "--wait"],
            "dsmt.operations.write.rolling_back.rollback",
            "dsmt.operations.read.waits.settling.settled",
            "the rollback of web, as r3, goes on",
        ),
    ],
    ids=["drain", "rollback"],
)
def test_who_stops_waiting_for_a_drain_or_a_rollback_hears_it_too(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, row: tuple[list[str], str, str, str]
) -> None:
    arguments, act, waits, said = row

    async def asked(*_: Any, **__: Any) -> Applied | Controlled:
        if arguments[0] == "node":
            return Controlled(node="n1", mode="draining", changed=True, version=1, instances=0)
        return Applied(service="web", revision=3, plan=None, outcome="applied", ready=0, wanted=1)

    async def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(act, asked)
    monkeypatch.setattr(waits, interrupted)
    code, told = run(*arguments, home=made)
    assert f"interrupted; {said}. Next: dsmt " in told
    assert code == 130


def test_a_no_ends_with_one_and_says_that_nothing_was_done(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    monkeypatch.setattr("dsmt.cli.context.print", lambda _: None, raising=False)
    for command in ("remove web", "scale web 100000"):
        code, told = run(*command.split(), home=made, terminal=True)
        assert told == f"dsmt: web is not {command.split()[0]}d: the answer was no\n"
        assert code == NO


@pytest.mark.parametrize("terminal", [True, False])
def test_the_only_broker_is_not_revoked_unless_somebody_said_yes(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    async def claim(*_: Any, **__: Any) -> Claim:
        return Claim(name="broker/b1", key="ab" * 16, ours=[], theirs=[], only_broker=True)

    def confirm(*_: Any, **__: Any) -> bool:
        assert "apply in another DSMT_HOME" in capsys.readouterr().out
        return False

    monkeypatch.setattr("dsmt.operations.write.revoking.claim", claim)
    monkeypatch.setattr("dsmt.operations.local.members.certificates.learn", lambda *_: None)
    monkeypatch.setattr("click.confirm", confirm)
    code, told = run("cert", "revoke", "broker/b1", home=made, terminal=terminal)
    begins = "broker/b1 is not revoked: the answer was no\n" if terminal else f"{NO_YES}: broker/b1 is the only broker: "
    assert told.startswith(f"dsmt: {begins}")
    assert terminal or "Next: dsmt cert revoke broker/b1 --yes; the way back is" in told
    assert code == (NO if terminal else WRONG)


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["people", "json"])
def test_down_says_whose_end_it_waits_for_when_that_takes_long(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    sent: list[str] = []

    async def down(_home: Any, *, run: Any, reason: str, waits: Any, ends: Callable[[str], None]) -> None:
        del run, reason, waits
        said = asyncio.Event()
        monkeypatch.setattr("dsmt.cli.context.send", lambda _, text: (sent.append(text), said.set()))
        for who in ("the controllers", "the services"):  # the first has ended before that is worth a word
            ends(who)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2 if more else 30):
                await said.wait()
        raise TransportError("link.lost", "all was done")

    monkeypatch.setattr("dsmt.cli.context.QUIET_S", 0.05)
    monkeypatch.setattr("dsmt.operations.local.processes.ending.down", down)
    assert run("down", *more, home=made)[0] == AWAY
    assert sent == ([] if more else ["waiting for the end of the services\n"])


@pytest.mark.parametrize("joined", [False, True])
def test_down_says_of_a_machine_that_has_joined_that_its_nodes_count_as_dead(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, *, joined: bool
) -> None:
    async def down(*_: Any, **__: Any) -> Down:
        return Down(processes=7, killed=0, stuck=())

    monkeypatch.setattr("dsmt.operations.local.processes.ending.down", down)
    monkeypatch.setattr("dsmt.operations.local.home.home.Home.is_joined", joined)
    monkeypatch.setattr("dsmt.operations.local.home.home.Home.names", lambda *_: ["m-c"])
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert run("down", home=made)[0] == 0
    said = "m-c counts as dead until dsmt up: what ran there begins on other nodes, where it may\n"
    assert (said in out.getvalue()) is joined


def test_a_rollback_prints_what_it_applies_again_and_has_to_warn_of(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rollback(*_: Any, **__: Any) -> Applied:
        warned = ["r2 was refused when it was applied; it is tried again"]
        done = Applied(service="web", revision=4, plan=None, outcome="applied", ready=0, wanted=1, again=2)
        return msgspec.structs.replace(done, warnings=warned)

    monkeypatch.setattr("dsmt.operations.write.rolling_back.rollback", rollback)
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert "warning: r2 was refused when it was applied; it is tried again" in run("rollback", "web", home=made)[1]
    assert out.getvalue().startswith("web  r4 (r2 again)  applied\n")


IN_USE = "attached with this key: nobody lets in who has it, or believes what it says, any more"
UNHEARD = "what runs there goes on, unheard, and is started elsewhere, too"
LESS = "nobody is attached to it any more, and one copy of the history less is left"
SURE = "Next: dsmt cert revoke node/n1 --yes; for another key alone: dsmt cert rotate, where it lives"

OWN = SURE.replace("rotate,", "rotate node/n1,")


@pytest.mark.parametrize(
    ("live", "terminal", "code", "said"),
    [
        (["node/n1"], False, WRONG, f"{NO_YES}: node/n1 is {IN_USE}; {UNHEARD}. {SURE}"),
        (["controller/c1", "issuer/c1"], False, WRONG, f"{NO_YES}: controller/c1 and issuer/c1 are {IN_USE}. {SURE}"),
        (["broker/b2"], False, WRONG, f"{NO_YES}: node/n1 runs with this key: {LESS}. {OWN}"),
        (["node/n1"], True, NO, "node/n1 is not revoked: the answer was no"),
        ([], False, AWAY, "gone on"),
    ],
)
def test_a_key_with_which_a_member_is_attached_is_not_revoked_unless_somebody_said_yes(
    run: Run,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    live: list[str],
    code: int,
    said: str,
    terminal: bool,
) -> None:
    async def claim(*_: Any, **__: Any) -> Claim:
        return Claim(name="node/n1", key="ab" * 16, ours=[], theirs=[])

    async def attached_now(*_: Any) -> list[str]:
        return live

    async def revoke(*_: Any, **__: Any) -> None:
        raise TransportError("link.lost", "gone on")

    def confirm(*_: Any, **__: Any) -> bool:
        assert UNHEARD in capsys.readouterr().out
        return False

    for name, stub in {"revoking.claim": claim, "revoking.live": attached_now}.items():
        monkeypatch.setattr(f"dsmt.operations.write.{name}", stub)
    monkeypatch.setattr("dsmt.operations.local.members.certificates.revoke", revoke)
    monkeypatch.setattr("dsmt.operations.local.members.certificates.learn", lambda *_: None)
    monkeypatch.setattr("click.confirm", confirm)
    assert run("cert", "revoke", "node/n1", home=made, terminal=terminal) == (code, f"dsmt: {said}\n")
    assert run("cert", "revoke", "node/n1", "--yes", home=made, terminal=terminal) == (AWAY, "dsmt: gone on\n")


ENDS = "broker b1 ends for good and its store here is deleted: its clients go to another one"
NOWHERE = (
    "good is used by web/app: without it that name selects no node, so what has to be placed for them may have no place; "
    "what runs stays"
)
NOBODY = "Next: dsmt nodeset show good; dsmt nodeset remove good --yes"
FEWER = "one copy of the history less is left"


@pytest.mark.parametrize(
    ("known", "terminal", "code", "said"),
    [
        (["b1", "b2"], False, WRONG, f"{NO_YES}: {ENDS}, and {FEWER}. Next: dsmt broker remove b1 --yes"),
        (["b1", "b2"], True, NO, "broker b1 is not removed: the answer was no"),
        (["b1"], False, AWAY, "gone on"),
        (["b2", "b3"], True, AWAY, "gone on"),
    ],
)
def test_a_broker_of_several_is_not_removed_unless_somebody_said_yes(
    run: Run,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    known: list[str],
    code: int,
    said: str,
    terminal: bool,
) -> None:
    async def announced(_bus: Any) -> list[str]:
        return known

    async def gone_on(*_: Any, **__: Any) -> None:
        raise TransportError("link.lost", "gone on")

    def confirm(*_: Any, **__: Any) -> bool:
        assert FEWER in capsys.readouterr().out
        return False

    monkeypatch.setattr("dsmt.cli.brokers.announced", announced)
    monkeypatch.setattr("dsmt.operations.local.members.brokers.of_home", lambda _: {})
    monkeypatch.setattr("dsmt.operations.local.members.brokers.silent_since_ms", gone_on)
    monkeypatch.setattr("click.confirm", confirm)
    assert run("broker", "remove", "b1", home=made, terminal=terminal) == (code, f"dsmt: {said}\n")
    assert run("broker", "remove", "b1", "--yes", home=made, terminal=terminal) == (AWAY, "dsmt: gone on\n")


def test_of_a_broker_on_another_machine_it_is_said_that_its_process_stays(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def heard(*_: Any) -> None:
        return None

    async def done(*_: Any, **__: Any) -> BrokerAddress:
        return BrokerAddress("10.0.0.2:1", bytes(32))

    monkeypatch.setattr("dsmt.operations.local.members.brokers.silent_since_ms", heard)
    monkeypatch.setattr("dsmt.operations.local.members.brokers.remove", done)
    (made / "brokers/b1").mkdir(parents=True, exist_ok=True)
    for broker, stays in (("far", True), ("b1", False)):
        said: list[str] = []
        monkeypatch.setattr("dsmt.cli.brokers.print", said.append, raising=False)
        assert run("broker", "remove", broker, "--yes", home=made) == (0, "")
        assert any("its process stays on its machine" in line for line in said) is stays


@pytest.mark.parametrize(
    ("used", "terminal", "code", "said"),
    [
        (["web/app"], False, WRONG, f"{NO_YES}: {NOWHERE}. {NOBODY}"),
        (["web/app"], True, NO, "node set good is not removed: the answer was no"),
        ([], False, AWAY, "gone on"),
    ],
)
def test_a_node_set_that_is_used_is_not_removed_unless_somebody_said_yes(
    run: Run,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    used: list[str],
    code: int,
    said: str,
    terminal: bool,
) -> None:
    async def show(*_: Any) -> Any:
        return SimpleNamespace(used_by=used)

    async def forget(*_: Any, **__: Any) -> None:
        raise TransportError("link.lost", "gone on")

    def confirm(*_: Any, **__: Any) -> bool:
        assert NOWHERE in capsys.readouterr().out
        return False

    monkeypatch.setattr("dsmt.operations.write.nodesets.show", show)
    monkeypatch.setattr("dsmt.operations.write.nodesets.forget", forget)
    monkeypatch.setattr("click.confirm", confirm)
    assert run("nodeset", "remove", "good", home=made, terminal=terminal) == (code, f"dsmt: {said}\n")
    assert run("nodeset", "remove", "good", "--yes", home=made, terminal=terminal) == (AWAY, "dsmt: gone on\n")


def test_what_a_controller_said_is_said_again_by_one_that_is_made_for_that_before_its_key_ends(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def claim(*_: Any, **__: Any) -> Claim:
        return Claim(name="controller/c1", key="ab" * 16, ours=[], theirs=theirs.pop(0))

    @asynccontextmanager
    async def attached(identity: Any, _realm: Any, brokers: Any) -> AsyncIterator[str]:
        assert brokers == [], "those of who revokes"
        yield identity.name

    async def stand_in(controller: str, _claim: Any) -> None:
        done.append(controller)

    async def revoke(root: str, _claim: Any, **_: Any) -> None:
        done.append(root)

    async def wait(*_: Any) -> None:
        raise TransportError("link.lost", "all was done")

    for name, stub in {"claim": claim, "stand_in": stand_in, "revoke": revoke, "wait_for_successors": wait}.items():
        monkeypatch.setattr(f"dsmt.operations.write.revoking.{name}", stub)
    monkeypatch.setattr("dsmt.operations.local.members.certificates.learn", lambda *_: None)
    monkeypatch.setattr("dsmt.operations.local.members.certificates.attached", attached)
    theirs = [["service/web/slot/app/0"], ["service/web/slot/app/0"], []]
    while theirs:
        assert run("cert", "revoke", "controller/c1", home=made) == (AWAY, "dsmt: all was done\n")
    first, root, second, *others = done
    assert first.startswith("controller/stand-in-")
    assert second.startswith("controller/stand-in-")
    assert first != second, "each with a name of its own"
    assert (root, others) == ("root", ["root", "root"])
