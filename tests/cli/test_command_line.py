"""The command line as a process, where no realm is needed: help, verbs, mistakes, exit codes, closed pipes."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.cli import COMMANDS, HIDDEN, Entry, Group
from dsmt.cli.printing import Escaping, document, line
from dsmt.cli.root import LazyGroup, main, root
from dsmt.errors import RefusedError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init
from tests import warm

BAD = """\
service: web
replicas: 3
components:
  app:
    run: ./x | y
    instances: -1
"""


def run(*arguments: str, home: Path | str = "/nonexistent", text: str | None = None) -> subprocess.CompletedProcess[str]:
    return warm.text(
        warm.run(*arguments, env={**os.environ, "DSMT_HOME": str(home)}, stdin=(text or "").encode(), seconds=30)
    )


@pytest.mark.parametrize(
    "line", ["version", "--help", "apply -", "explain stop.grce --json", "ps", "nosuch", "tail --since x"]
)
def test_a_command_that_tests_fork_is_one_that_begins_anew(line: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DSMT_HOME": str(tmp_path)}
    argv, given = [sys.executable, "-m", "dsmt", *line.split()], BAD.encode()
    anew = subprocess.run(argv, input=given, capture_output=True, timeout=90, check=False, env=environment)
    forked = warm.run(*line.split(), env=environment, stdin=given, seconds=30)
    assert (forked.returncode, forked.stdout, forked.stderr) == (anew.returncode, anew.stdout, anew.stderr)


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"  {name}" in done.stdout for name in COMMANDS if name not in HIDDEN)
    script = (
        "import sys; from dsmt.cli.root import main; main(['--help']); "
        "slow = {'asyncio', 'rich', 'ruamel', 'zmq', 'nacl', 'asyncssh'}; "
        "print([m for m in sys.modules if m.split('.')[0] in slow])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    assert loaded.stdout.splitlines()[-1] == "[]"


def test_who_only_looks_imports_no_store_and_no_parser_of_files() -> None:
    script = (
        "import sys, dsmt.cli.listing, dsmt.operations.local.home.home, dsmt.operations.connection; "
        "print([m for m in sys.modules if m.split('.')[0] in {'sqlite3', 'ruamel', 'asyncssh'}])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    assert loaded.stdout.strip() == "[]"


def test_a_command_looks_seldom_for_garbage_in_what_it_keeps() -> None:
    script = (
        "import sys, gc; sys.argv = ['dsmt', '--help']; from dsmt.__main__ import main; main(); "
        "from dsmt.system.garbage import SELDOM; print(gc.isenabled(), gc.get_threshold() == SELDOM)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout.splitlines()[-1] == "True True"


def test_a_command_looks_through_nothing_at_its_end() -> None:
    script = (
        "import sys, gc; sys.argv = ['dsmt', '--home', '/nonexistent', 'ps']; from dsmt.__main__ import main; main(); "
        "print(len(gc.get_objects()) < 1000 < gc.get_freeze_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout.splitlines()[-1] == "True"


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


def test_a_service_that_is_declared_twice_is_said_with_both_files(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("# w\nservice: w\ncomponents: {a: {run: sleep 5}}\n")
    done = run("apply", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}/two.yaml:2:10: the service `w` is declared twice" in done.stderr
    assert f"the other is at {tmp_path}/one.yaml:2" in done.stderr


@pytest.mark.parametrize("file", ["", "/", "."])
def test_an_export_to_what_names_no_file_is_a_mistake_and_no_internal_error(file: str) -> None:
    done = run("export", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "names no file. Next: name the file to write" in done.stderr


def test_a_closed_output_and_a_narrow_encoding_are_no_internal_errors() -> None:
    narrow = {**os.environ, "DSMT_HOME": "/nonexistent", "PYTHONIOENCODING": "ascii:strict"}
    for shell in ('"$0" -m dsmt example >&-', '"$0" -m dsmt example; "$0" -m dsmt verify /nonexistent/\u2603'):
        done = subprocess.run(
            ["sh", "-c", shell, sys.executable], capture_output=True, text=True, timeout=90, check=False, env=narrow
        )
        assert done.returncode in {0, 5}
        assert "internal error" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("within", [False, True])
def test_what_is_for_programs_is_utf_8_in_every_locale(encoding: str, within: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", Escaping(stream) if within else stream)
    document({"reason": "Stra\u00dfe \u6570"})
    line({"reason": "Stra\u00dfe \u6570"})
    stream.flush()
    whole, last = written.getvalue().decode("utf-8").rsplit("\n", 2)[:2]
    assert json.loads(whole) == json.loads(last) == {"reason": "Stra\u00dfe \u6570"}


@pytest.mark.parametrize("comes", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 2); return real(name, *rest)"])
def test_an_interrupt_before_the_command_line_is_imported_is_no_traceback(comes: str) -> None:
    code = (
        "import os, sys, builtins; import dsmt.__main__ as m; real = builtins.__import__\n"
        "def ends(name, *rest):\n"
        f"    if name == 'dsmt.cli.root': {comes}\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = ends; sys.exit(m.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("module", ["click", "cbor2"])
def test_what_is_installed_and_not_whole_is_told_in_a_sentence(module: str, tmp_path: Path) -> None:
    """One of them is needed by the command line itself, one by the command. It was a traceback, or an error of ours."""
    code = f"import sys; sys.modules[{module!r}] = None; from dsmt.__main__ import main; sys.exit(main())"
    init(Home(tmp_path), name="test")
    command = [sys.executable, "-c", code, "--home", str(tmp_path), "status"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.startswith("dsmt: what is installed of dsmt, or of what it needs, is not whole: ")
    assert module in done.stderr
    assert f"Next: install it again with the pip of {sys.executable}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1


def test_a_disk_that_is_read_only_is_not_said_to_lack_a_mode(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def home(_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/home/realm.cbor")

    monkeypatch.setattr("dsmt.cli.context.CliContext.home", home)
    assert main(["status"]) == RefusedError.exit
    said = "dsmt: /home/realm.cbor: read-only file system. Next: have that disk writable again"
    assert capsys.readouterr().err.startswith(said)


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
    assert run("init", home=tmp_path).returncode == 4


@pytest.mark.parametrize("engine", ["dsmt", "embedded", "nats"])
def test_all_brokers_of_a_new_realm_listen_where_the_first_one_does(tmp_path: Path, engine: str) -> None:
    done = run("init", "--listen", "127.0.0.9:4222", "--brokers", "3", "--engine", engine, "--json", home=tmp_path)
    at = json.loads(done.stdout)["brokers"]
    assert (at[0], len(set(at)), {one.partition(":")[0] for one in at}) == ("127.0.0.9:4222", 3, {"127.0.0.9"})


DATED = [("dsmt", "no broker answers"), ("nats", "NATS tells no realm time")]


@pytest.mark.parametrize(("engine", "why"), DATED)
def test_who_dates_a_certificate_by_the_machines_clock_says_so_and_why(tmp_path: Path, engine: str, why: str) -> None:
    assert run("init", "--engine", engine, home=tmp_path).returncode == 0
    done = run("cert", "rotate", "broker/b1", home=tmp_path)
    assert f"{why}: it is dated by this machine's clock, 20" in done.stdout
    assert done.returncode == 0


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


@pytest.mark.parametrize("verb", ["version", "schema", "example", "--help", ""])
def test_a_closed_pipe_ends_with_zero_and_no_message(verb: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "dsmt", *verb.split()], stdout=write, stderr=subprocess.PIPE, timeout=90, check=False
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


@pytest.mark.parametrize("arguments", [("version",), ("version", "--json"), ("--help",), ()], ids=" ".join)
def test_an_output_that_takes_nothing_is_said_in_a_sentence(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dsmt", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 1
    assert "the output cannot be written: no space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_error_that_cannot_be_written_leaves_its_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "dsmt", "nosuch"], stderr=full, timeout=90, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [("verify", "/dev/null"), ("verify", "-")], ids=" ".join)
def test_an_empty_file_is_no_history(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, text="")
    assert done.returncode == 2
    assert "is empty: it is not a history" in done.stderr


def test_a_mistake_in_the_command_line_names_the_help_that_fits() -> None:
    assert run("status", "--nope").stderr.rstrip().endswith("Next: dsmt status --help")
    assert run("nosuch").stderr == "dsmt: there is no command `dsmt nosuch`. Next: dsmt --help\n"
    assert json.loads(run("node", "nosuch", "--json").stderr)["error"]["next"] == "dsmt node --help"
    assert run("up", "--port", "65536").returncode == 2
