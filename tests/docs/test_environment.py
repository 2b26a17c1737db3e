"""Environment variables: each one that is read, or set for a service, is in the table and in what `dsmt help` says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from dsmt.cli.root import COMPLETING
from dsmt.operations.words.topics import TOPICS
from dsmt.system.marks import MARK
from tests.agents.test_launching import env, plan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operating.md").read_text().partition("## Environment variables")[2].partition("\n## ")[0]
HELP = TOPICS["environment"]


def read_in(path: Path) -> Iterator[str]:
    """The variables that a module reads, as far as they are written there."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(ast.Attribute(ast.Attribute(attr="environ"), "get"), [ast.Constant(str(name)), *_]):
                yield name
            case ast.Subscript(ast.Attribute(attr="environ"), ast.Constant(str(name))):
                yield name
            case ast.keyword("envvar", ast.Constant(str(name))):
                yield name
            case ast.Constant(str(name)) if re.fullmatch(r"_?DSMT_[A-Z]+", name):
                yield name


def test_every_variable_that_is_read_or_set_is_in_the_table_and_in_the_help() -> None:
    read = {name for path in (ROOT / "dsmt").rglob("*.py") for name in read_in(path)}
    assert {"DSMT_HOME", "DSMT_BUS", "NO_COLOR", COMPLETING} <= read
    given = set(env(plan("    run: x\n    data: true\n    ports: {name: auto}\n    inherit_env: []\n"), {"name": 20000}))
    assert {"DSMT_DATA", "PORT_NAME"} <= given
    told = {name for first in re.findall(r"^\| (`.+?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(.+?)`", first)}
    assert told == read | given | {MARK}
    assert {name for name in told if not re.search(rf"\b{name}\b", HELP)} == set()
