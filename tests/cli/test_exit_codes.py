"""Exit codes: what each means is said in one place, and each reason why nothing was done has the one that it means."""

import ast
import io
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsmt import errors
from dsmt.errors import DsmtError, FailedError, InputError, NotFoundError, RefusedError
from dsmt.operations.local.processes.ending import Down
from dsmt.operations.words.topics import TOPICS
from tests.cli.in_process import Run

HOUSE = Path(errors.__file__).parent
DONE_NOTHING = {kind.__name__: kind for kind in (InputError, RefusedError, NotFoundError)}
WRONG, DENIED, MISSING = InputError.exit, RefusedError.exit, NotFoundError.exit


def raised() -> Iterator[tuple[str, int]]:
    """The codes of errors for which an operation or a command does nothing, each with its exit code."""
    for room in ("operations", "cli"):
        for path in (HOUSE / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                    kind, code = DONE_NOTHING.get(node.func.id), node.args[0]
                    if kind is not None and isinstance(code, ast.Constant):
                        yield str(code.value), kind.exit


def test_an_error_code_has_one_exit_code_wherever_it_is_raised() -> None:
    exits = defaultdict(set)
    for code, exit_code in raised():
        exits[code].add(exit_code)
    assert {code: found for code, found in exits.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        # typed wrong, or without what it needs: an option, a yes
        ("target.form", WRONG), ("confirm", WRONG), ("cert.decide", WRONG), ("move.data", WRONG), ("nodeset.used", WRONG),
        ("node.suspect", WRONG), ("node.data", WRONG), ("node.dead", WRONG), ("node.busy", WRONG), ("wait.state", WRONG),
        # typed right: what there is now stands against it
        ("restart.held", DENIED), ("move.each_node", DENIED), ("scale.each_node", DENIED), ("node.alive", DENIED),
        ("controller.alive", DENIED), ("controller.last", DENIED), ("broker.last", DENIED), ("broker.exists", DENIED),
        ("home.taken", DENIED), ("home.made", DENIED), ("host.taken", DENIED), ("operator.own", DENIED),
        ("clock.near", DENIED), ("migrate.same", DENIED), ("plan.changed", DENIED), ("node.loopback", DENIED),
        # not there
        ("service.unknown", MISSING), ("target.unknown", MISSING), ("revision.none", MISSING), ("logs.nowhere", MISSING),
    ],
)  # fmt: skip
def test_why_nothing_was_done_decides_the_exit_code(code: str, exit_code: int) -> None:
    assert dict(raised())[code] == exit_code


def test_each_exit_code_of_an_error_is_explained() -> None:
    told = {line.split()[0] for line in TOPICS["exit-codes"].splitlines() if line.startswith("  ")}
    assert {str(kind.exit) for kind in (DsmtError, *DsmtError.__subclasses__())} <= told


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_down_fails_for_who_does_not_die_however_it_answers(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    async def down(*_: Any, **__: Any) -> Down:
        return Down(processes=7, killed=1, stuck=(4711,))

    monkeypatch.setattr("dsmt.operations.local.processes.ending.down", down)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    code, said = run("down", *more, home=made)
    assert (code, "these processes do not die: 4711" in said) == (FailedError.exit, True)


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_who_ends_a_wait_for_a_state_is_told_so_in_the_form_that_was_asked_for(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    async def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dsmt.operations.read.waits.waiting.wait_for", interrupted)
    code, told = run("wait", "web/app", "--for", "ready", *form, home=made)
    message, advice = "interrupted; what web/app does goes on", "dsmt status web"
    if form:
        assert json.loads(told) == {"error": {"code": "interrupted", "message": message, "next": advice, "exit": 130}}
    else:
        assert told == f"dsmt: {message}. Next: {advice}\n"
    assert code == 130
