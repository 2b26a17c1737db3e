"""The command line as a process, where no realm is needed: help, verbs, mistakes, exit codes, closed pipes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.cli import COMMANDS, Entry, Group
from dsmt.cli.root import LazyGroup, root

BAD = """\
service: web
replicas: 3
components:
  app:
    run: ./x | y
    instances: -1
"""


def run(*arguments: str, home: Path | str = "/nonexistent", text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsmt", *arguments],
        capture_output=True,
        text=True,
        input=text,
        timeout=30,
        check=False,
        env={**os.environ, "DSMT_HOME": str(home)},
    )


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"  {name}" in done.stdout for name in COMMANDS if name not in ("setplan", "plan-set"))
    script = (
        "import sys; from dsmt.cli.root import main; main(['--help']); "
        "print([m for m in sys.modules if m.split('.')[0] in ('rich', 'structlog', 'ruamel', 'zmq', 'nacl', 'asyncssh')])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert loaded.stdout.splitlines()[-1] == "[]"


def test_every_command_of_the_table_can_be_called() -> None:
    def look(group: LazyGroup, table: dict[str, Entry | Group]) -> None:
        for name, entry in table.items():
            command = group.get_command(None, name)  # type: ignore[arg-type]
            assert command is not None, name
            if isinstance(entry, Group):
                assert isinstance(command, LazyGroup)
                look(command, dict(entry.commands))

    whole = root()
    assert isinstance(whole, LazyGroup)
    look(whole, COMMANDS)


@pytest.mark.parametrize("arguments", [("strat",), ("statu",), ("node", "shw", "n1"), ("ps", "--jsn")])
def test_a_wrong_verb_is_never_guessed(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_all_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    bad, unbuilt = tmp_path / "bad.yaml", tmp_path / "unbuilt.yaml"
    bad.write_text(BAD)
    unbuilt.write_text("service: db\ncomponents:\n  app:\n    run: ./x\n    requires: node.cpus > 4\n    artifact: no.tgz\n")
    for verb in ("apply", "plan"):
        done = run(verb, str(bad), str(unbuilt))
        assert done.returncode == 2
        told = done.stderr
        for part in (f"{bad}:2:1", f"{bad}:5:", f"{bad}:6:", "requires: this key is not built yet", "no.tgz", "5 mistakes"):
            assert part in told, part


def test_an_error_is_one_object_on_stderr_with_json(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(BAD)
    done = run("apply", str(bad), "--json")
    told = json.loads(done.stderr)["error"]
    assert (done.returncode, told["exit"], told["code"]) == (2, 2, "bad_spec")
    assert [mistake["line"] for mistake in told["mistakes"]] == [2, 5, 6]
    usage = run("ps", "--nonsense", "--json")
    assert json.loads(usage.stderr)["error"]["code"] == "usage"


def test_a_home_without_a_realm_is_no_such_thing(tmp_path: Path) -> None:
    done = run("ps", home=tmp_path)
    assert done.returncode == 5
    assert "Next: " in done.stderr


def test_no_broker_is_seven(tmp_path: Path) -> None:
    assert run("init", "--listen", "127.0.0.1:1", home=tmp_path).returncode == 0
    done = run("ps", "--json", home=tmp_path)
    assert done.returncode == 7
    assert json.loads(done.stderr)["error"]["code"] == "bus.unreachable"
    assert run("init", home=tmp_path).returncode == 2


@pytest.mark.parametrize("bus", ["nats://127.0.0.1:4222", "dsmt://", "127.0.0.1:7", "dsmt://host"])
def test_an_address_that_names_no_broker_is_usage(tmp_path: Path, bus: str) -> None:
    assert run("init", home=tmp_path).returncode == 0
    assert run("--bus", bus, "ps", home=tmp_path).returncode == 2


def test_removal_is_not_done_unless_somebody_said_yes(tmp_path: Path) -> None:
    assert run("init", home=tmp_path).returncode == 0
    done = run("remove", "web", home=tmp_path)
    assert done.returncode == 2
    assert "--yes" in done.stderr


def test_the_example_is_a_file_that_is_read_and_schema_is_json() -> None:
    example = run("example").stdout
    assert "service: web" in example
    assert json.loads(run("schema").stdout)["title"] == "dsmt service file"
    assert run("explain", "stop.grace").stdout.startswith("stop.grace\n")
    assert run("explain", "stop.grce").returncode == 2


@pytest.mark.parametrize("verb", ["version", "schema", "example"])
def test_a_closed_pipe_ends_with_zero_and_no_message(verb: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "dsmt", verb], stdout=write, stderr=subprocess.PIPE, timeout=30, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_verify_tells_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    assert run("verify", str(tmp_path / "missing"), "--trust", str(tmp_path / "x")).returncode == 2
    (tmp_path / "trust").write_bytes(b"nonsense")
    done = run("verify", str(tmp_path / "x"), "--trust", str(tmp_path / "trust"))
    assert done.returncode == 2
    assert "trust export" in done.stderr
