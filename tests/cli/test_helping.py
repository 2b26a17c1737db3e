"""`help`, its examples, `completion` and `--version`: they need no realm."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest
from click.shell_completion import BashComplete

from dsmt.cli import COMMANDS, Group
from dsmt.cli.context import CliContext
from dsmt.cli.names import FILE, remember
from dsmt.cli.root import main, root
from dsmt.errors import InputError
from dsmt.event.status import Shown
from dsmt.operations.words.topics import EXAMPLES, TOPICS
from dsmt.spec.placeholders import SIMPLE
from dsmt.version import __version__
from tests.controllers.build import Realm, web
from tests.operations.sights import sight


def words_of(line: str) -> list[str]:
    """The words of an example, without what the shell takes."""
    return shlex.split(line.partition(" > ")[0].partition(" | ")[0])[1:]


@pytest.mark.parametrize("line", sorted({line for lines in EXAMPLES.values() for line in lines}))
def test_every_example_is_a_command_line_that_is_understood(line: str) -> None:
    words = words_of(line)
    found: click.Command = root()
    context = click.Context(found, info_name="dsmt", obj=CliContext())
    while isinstance(found, click.Group):
        below = found.get_command(context, words.pop(0))
        assert below is not None, line
        found, context = below, click.Context(below, parent=context, obj=CliContext())
    found.make_context(str(found.name), words, parent=context.parent)


def test_every_command_with_an_example_is_there_and_help_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    for name, lines in EXAMPLES.items():
        entry: Any = COMMANDS[name.split()[0]]
        assert not isinstance(entry, Group) or name.split()[1] in entry.commands, name
        assert main(["help", *name.split()]) == 0
        told = capsys.readouterr().out
        assert lines[0].split()[-1] in told.replace("\n", " ")


def test_help_explains_words_and_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"  {name} " in overview for name in TOPICS)
    assert main(["help", "target"]) == 0
    assert "web/app/0    one instance" in capsys.readouterr().out
    for words in (["node set"], ["node", "set"]):
        assert main(["help", *words]) == 0
        assert "Named sets of nodes." in capsys.readouterr().out
    assert main(["help", "nosuch"]) == InputError.exit
    assert "there is no command or word `nosuch`" in capsys.readouterr().err


def test_a_command_of_two_words_that_is_mistyped_is_named_as_it_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "node", "drian"]) == InputError.exit
    assert "there is no command or word `node drian`. Next: did you mean dsmt help node drain?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ps", "status"])
def test_what_lists_restarts_says_what_they_count(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", command]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "was begun again on its node after a failure, whatever revision failed there" in said


def test_the_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"dsmt {__version__}")
    for arguments in (["--version", "--json"], ["--json", "--version"]):
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["version"] == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_something_to_read(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_DSMT_COMPLETE" in capsys.readouterr().out


def completed(home: Path, *words: str) -> list[str]:
    """What bash is offered for the last word."""
    environment = {**os.environ, "DSMT_HOME": str(home), "_DSMT_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": " ".join(("dsmt", *words)), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-m", "dsmt"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    "words",
    [
        *(("apply",), ("apply", "a.yaml"), ("plan",), ("diff",), ("export",), ("verify",), ("replay",), ("trust", "export")),
        *(("verify", "--trust"), ("replay", "--trust"), ("whatif", "--spec"), ("up", "--home"), ("--home",)),
        *(("operator", "add", "bob", "--into"), ("node", "add", "--wheels")),
    ],
)
def test_where_a_file_or_directory_is_asked_for_the_shell_completes_it(words: tuple[str, ...]) -> None:
    completes = BashComplete(root(), {"obj": CliContext()}, "dsmt", "_DSMT_COMPLETE")
    (found,) = completes.get_completions([*words], "we")
    assert (found.type, found.value) == ("dir" if words[-1] in ("--home", "--into", "--wheels") else "file", "we")


def test_commands_are_completed_and_names_that_were_seen_last(tmp_path: Path) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle()
    ctx: Any = SimpleNamespace(home=lambda: SimpleNamespace(root=tmp_path))
    remember(ctx, sight(realm))
    assert set(msgspec.json.decode((tmp_path / FILE).read_bytes())) == {"targets", "nodes"}
    assert completed(tmp_path, "roll") == ["rollback"]
    assert completed(tmp_path, "restart", "web/app/") == ["web/app/0", "web/app/1"]
    for command in (("why",), ("why-not",), ("logs",), ("nodeset", "use")):
        assert completed(tmp_path, *command, "web/app/") == ["web/app/0", "web/app/1"]
    assert completed(tmp_path, "node", "drain", "n") == ["n1", "n2"]
    assert completed(tmp_path, "wait", "web", "--for", "re") == ["ready"]
    assert completed(tmp_path, "help", "roll") == ["rollback"]
    assert completed(tmp_path, "help", "nodes") == ["nodes", "nodeset", "nodesets"]
    assert completed(tmp_path / "none", "status", "w") == []
    assert completed(tmp_path, "frob", "x") == completed(tmp_path, "node", "shw", "x") == [], "no traceback on a shell"
    assert completed(tmp_path, "move", "web", "--to", "n") == ["n1", "n2"]


def test_of_many_names_only_the_next_part_is_offered(tmp_path: Path) -> None:
    realm = Realm("n1")
    for number in range(30):
        realm.apply(web(1, service=f"s{number}"))
    ctx: Any = SimpleNamespace(home=lambda: SimpleNamespace(root=tmp_path))
    remember(ctx, sight(realm))
    assert len(completed(tmp_path, "status", "s")) == 30
    assert completed(tmp_path, "status", "s7") == ["s7", "s7/app", "s7/app/0"]


def test_every_placeholder_and_every_state_is_among_the_words() -> None:
    assert [name for name in SIMPLE if f"{{{name}}}" not in TOPICS["placeholders"]] == []
    assert [state.value for state in Shown if state.value not in TOPICS["states"].replace(",", " ").split()] == []
