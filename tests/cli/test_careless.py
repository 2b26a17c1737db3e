"""Wrong command lines of who types half asleep: a unit is left out, a thing is of another kind, or was removed meanwhile."""

# ruff: noqa: E501 - a row of a table stays one line

import io
import sys
from pathlib import Path

import pytest

from dsmt.cli.context import CliContext
from dsmt.cli.root import main
from dsmt.event.kinds.realm import NodesetFact, Tombstone
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import Sight
from tests.cli.in_process import DENIED, MISSING, WRONG, Run
from tests.controllers.build import Realm, key, web
from tests.operations.sights import sight

GONE = "there is no service old any more: it was removed. Next: dsmt history old\n"
LEFT = "n3 was removed; nothing was done. Next: it takes nothing until it attaches again: dsmt nodes"
UNIT = "`5` is not a duration. Next: a unit is missing: 5s, 5m or 5ms?"

SERVICE_VERBS = (
    *([verb] for verb in ("get", "history", "rollback", "stop", "start", "restart", "retry", "move")),
    ["remove", "--yes"],
)

LINES: list[tuple[list[str], int, str]] = [
    # --- units -----------------------------------------------------------------------------------------------------
    (["apply", "web.yaml", "--wait", "5"], WRONG, UNIT),
    (["apply", "--wait", "5", "web.yaml"], WRONG, UNIT),
    (["apply", "web.yaml", "--wait", "5min"], WRONG, "`5min` is not a duration. Next: write 5m"),
    (["apply", "web.yaml", "--wait", "1.5"], WRONG, "`1.5` is not a duration. Next: a unit is missing"),
    (["apply", "web.yaml", "--wait", "-5"], WRONG, "`-5` is not a duration"),
    (["apply", "web.yaml", "--wait", "x5"], MISSING, "there is no file web.yaml"),
    (["apply", "--", "--wait", "5"], MISSING, "there is no file --wait"),
    *(([verb, "web", "--wait", "5"], WRONG, UNIT) for verb in ("stop", "start", "restart", "move", "rollback", "remove")),
    (["stop", "web", "--wait", "30sec"], WRONG, "`30sec` is not a duration. Next: write 30s"),
    (["scale", "web/app", "3", "--wait", "5"], WRONG, UNIT),
    (["stop", "web", "x", "--wait", "5"], WRONG, "got unexpected extra arguments (x 5). Next: dsmt stop --help"),
    (["stop", "--wait", "5"], MISSING, "there is no service 5"),
    # --- what was removed ------------------------------------------------------------------------------------------
    *(([verb, "old"], MISSING, GONE) for verb in ("ps", "status", "endpoints", "why-not", "stop", "start", "restart", "retry")),
    (["endpoints", "old/app"], MISSING, "there is no service old any more: it was removed"),
    *((["node", verb, "n3"], DENIED, LEFT) for verb in ("include", "exclude", "drain")),
    (["move", "web/app/0", "--to", "n3"], DENIED, LEFT),
    # --- what is of another kind, and what is mistyped ---------------------------------------------------------------
    *((["node", verb, "web"], MISSING, "there is no node web. Next: web is a service: dsmt ps web shows on which nodes it is\n") for verb in ("show", "drain", "exclude", "include", "remove")),
    (["node", "drain", "web/app"], MISSING, "there is no node web/app. Next: web is a service: dsmt ps web/app shows on which nodes"),
    (["move", "web/app/0", "--to", "web"], MISSING, "there is no node web. Next: web is a service"),
    *((["nodeset", verb, "web"], MISSING, "there is no node set web. Next: web is a service: dsmt status web") for verb in ("show", "remove")),
    *(([*verb, "n1"], MISSING, "there is no service n1. Next: n1 is a node: dsmt node show n1, dsmt why node/n1\n") for verb in SERVICE_VERBS),
    *(([*verb, "wbe"], MISSING, "there is no service wbe. Next: did you mean web? dsmt services lists them\n") for verb in SERVICE_VERBS),
    *((["scale", f"{service}/app", "2"], MISSING, f"there is no service {service}. Next: {said}") for service, said in (("n1", "n1 is a node"), ("wbe", "did you mean web?"))),
    *((["nodeset", "use", f"{service}/app", "n1"], MISSING, f"there is no service {service}. Next: {said}") for service, said in (("n1", "n1 is a node"), ("wbe", "did you mean web?"))),
    *(([verb, "web/app"], MISSING, "there is no service web/app. Next: write the service alone: web") for verb in ("history", "get", "rollback")),
    (["why", "nodeset/good"], MISSING, "there is no service nodeset. Next: dsmt nodeset show good"),
    (["why", "good"], MISSING, "there is no service good. Next: good is a node set: dsmt nodeset show good"),
    # --- what is asked about a command with what it is typed for ---------------------------------------------------
    (["help", "why", "web"], WRONG, "there is no command or word `why web`. Next: did you mean dsmt help why?"),
    (["help", "node", "drain", "n1"], WRONG, "Next: did you mean dsmt help node drain?"),
    # --- where an export goes --------------------------------------------------------------------------------------
    *(([*verb, "nosuch/file"], WRONG, "nosuch/file cannot be written: No such file or directory. Next: name another file") for verb in (["export"], ["trust", "export"])),
    *(([*verb, ""], WRONG, "'' names no file. Next: name the file to write: dsmt ") for verb in (["export"], ["trust", "export"])),
]  # fmt: skip


@pytest.fixture(scope="module")
def known() -> Sight:
    """A realm in which `web` runs; the service `old` was removed, and so was the node n3."""
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1))
    realm.apply(web(1, service="old"))
    realm.settle()
    (node,) = realm.nodes_of("old")
    realm.apply(web(1, service="old"), removed=True)
    realm.status(key(service="old"), node or "", State.GONE)
    realm.settle(seconds=1)
    realm.say("operator/alice", "tombstone/service/old", Tombstone(by="alice", reason="not needed"))
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="n1", by="alice", reason=""))
    realm.close("n3")
    realm.verdict("n3", state="left", road="operator")
    return sight(realm)


@pytest.mark.parametrize(("arguments", "code", "said"), LINES, ids=[" ".join(one[0]) for one in LINES])
def test_a_careless_command_line(run: Run, made: Path, arguments: list[str], code: int, said: str) -> None:
    found, told = run(*arguments, home=made)
    assert said in told
    assert found == code


def test_a_file_whose_name_is_a_number_is_applied_also_behind_wait(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "5").write_text("service: {}\n")
    code, told = run("apply", "--wait", "5", home=made)
    assert (code, told.partition(":")[0]) == (WRONG, "5")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kill", "failed"], "failed selects no node now.\n\n"),
        (
            ["--kill", "minus(n1, n1)", "--drain", "failed"],
            "minus(n1, n1) selects no node now.\nfailed selects no node now.\n",
        ),
        (["--kill", "failed", "--kill", "n2"], "n2 would die at once.\n"),
    ],
)
def test_who_asks_what_if_of_a_set_without_nodes_is_told_so(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert run("whatif", *arguments, home=made) == (0, "")
    assert out.getvalue().startswith(said)


@pytest.mark.parametrize("command", [["export"], ["trust", "export"]])
def test_nothing_is_read_for_an_export_that_cannot_be_written(
    command: list[str], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CliContext, "ask", lambda *_: pytest.fail("nothing is to be read"))
    monkeypatch.setenv("DSMT_HOME", str(made))
    assert main([*command, str(tmp_path / "nosuch" / "file")]) == WRONG
    assert "cannot be written: No such file or directory. Next: name another file" in capsys.readouterr().err
