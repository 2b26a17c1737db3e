"""Wrong command lines, files and homes: each is told in its sentence with its exit code, and never with a traceback.

All of it runs in this process, and nothing is ever started: whatever would reach for a broker gets a stub, or a view.
"""
# ruff: noqa: E501 - a row of a table stays one line

import asyncio
import io
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli import names
from dsmt.cli.command import CliContext
from dsmt.cli.root import main
from dsmt.operations.local.connection import _unreachable
from dsmt.operations.local.home import Home, init
from dsmt.operations.local.lock import LOCK_FILE
from dsmt.operations.read.sight import Sight
from dsmt.operations.read.waiting import Applied
from dsmt.operations.write.controlling import Done
from dsmt.operations.write.revoking import Claim
from tests.controllers.build import Realm, web
from tests.operations.sights import sight

Run = Callable[..., tuple[int, str]]
LOOKS = (
    "operations.write.applying", "operations.write.controlling", "operations.write.node_control", "operations.write.nodesets",
    "operations.read.sight", "operations.read.explaining", "operations.read.reading_logs",
    "operations.write.rolling_back", "cli.control", "cli.past", "cli.nodeset", "cli.why", "cli.status", "cli.listing",
)  # fmt: skip
"""Who looks at the realm: they see the one that the test knows."""
WRONG, NO, DENIED, MISSING, AWAY = 2, 1, 4, 5, 7


class Stub:
    """A bus that knows the time, and nothing else: who gets further than the checks fails."""

    source = "operator/alice"
    broker = "broker/b1"

    def now_ms(self) -> int:
        return 1_700_000_000_000


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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, known: Sight) -> Iterator[Run]:
    """Run a command line in a directory of its own; its exit code and what it wrote to standard error."""

    async def look(*_: Any, **__: Any) -> Sight:
        return known

    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError("something was started")

    def attach(_: CliContext, __: object, work: Callable[[Any], Any]) -> Any:
        realm, trust = SimpleNamespace(name="test"), SimpleNamespace()
        return asyncio.run(work(SimpleNamespace(bus=Stub(), by="alice", realm=realm, trust=trust, brokers=[])))

    for module in LOOKS:
        monkeypatch.setattr(f"dsmt.{module}.look", look)
    monkeypatch.setattr("dsmt.operations.local.machine.start_keeper", never)
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


LINES: list[tuple[list[str], int, str]] = [
    # --- words that are none ---------------------------------------------------------------------------------------
    (["strat"], WRONG, "there is no command `dsmt strat`. Next: did you mean `dsmt start`?"),
    (["statu"], WRONG, "there is no command `dsmt statu`"),
    (["Status"], WRONG, "there is no command `dsmt Status`"),
    ([""], WRONG, "there is no command `dsmt `"),
    (["a\x1b[31mb"], WRONG, "`dsmt a\\x1b[31mb`"),
    (["a\nb"], WRONG, "`dsmt a\\nb`"),
    (["a\u202eb"], WRONG, "`dsmt a\\u202eb`"),
    (["node", "shw", "n1"], WRONG, "there is no command `dsmt node shw`. Next: did you mean `dsmt node show`?"),
    (["nodeset", "ste"], WRONG, "there is no command `dsmt nodeset ste`"),
    (["brake", "on"], WRONG, "there is no command `dsmt brake on`"),
    (["cert", "renew"], WRONG, "there is no command `dsmt cert renew`"),
    (["broker", "stop"], WRONG, "there is no command `dsmt broker stop`"),
    (["ps", "--jsn"], WRONG, "no such option"),
    (["ps", "--frob"], WRONG, "Next: dsmt ps --help"),
    (["--frob"], WRONG, "no such option"),
    (["status", "-z"], WRONG, "no such option"),
    (["version", "now"], WRONG, "unexpected extra argument"),
    (["example", "a", "b"], WRONG, "unexpected extra arguments"),
    (["down", "now"], WRONG, "unexpected extra argument"),
    # --- what is missing -------------------------------------------------------------------------------------------
    *(([verb], WRONG, "missing argument") for verb in ("apply", "plan", "diff", "get", "logs", "why", "why-not")),
    *(([verb], WRONG, "missing argument") for verb in ("stop", "start", "restart", "retry", "move", "remove", "verify")),
    *(([verb], WRONG, "missing argument") for verb in ("endpoints", "replay", "export", "publish")),
    (["scale", "web/app"], WRONG, "missing argument 'COUNT'"),
    (["publish", "user/x"], WRONG, "missing argument 'DATA'"),
    (["wait", "web"], WRONG, "missing option '--for'"),
    (["node", "drain"], WRONG, "missing argument 'NODE'"),
    (["nodeset", "set", "good"], WRONG, "missing argument 'EXPRESSION'"),
    (["nodeset", "use", "web/app"], WRONG, "missing argument 'NODES'"),
    (["cert", "show"], WRONG, "missing argument"),
    (["ps", "-l"], WRONG, "requires an argument"),
    (["ps", "--home"], WRONG, "requires an argument"),
    (["ps", "--bus"], WRONG, "requires an argument"),
    # --- numbers ---------------------------------------------------------------------------------------------------
    *((["up", "--port", port], WRONG, "65535") for port in ("0", "-1", "65536", "99999", str(2**64))),
    (["up", "--port", "http"], WRONG, "'--port': 'http' is not a whole number from 1 to 65535"),
    (["up", "--nodes", "-1"], WRONG, "the number of nodes cannot be negative"),
    (["up", "--nodes", "many"], WRONG, "not a valid integer"),
    (["up", "--nodes", "101"], WRONG, "at most 100 nodes"),
    (["up", "--controllers", "0"], WRONG, "at least one controller"),
    (["up", "--controllers", "10"], WRONG, "at most 9 controllers"),
    (["scale", "web/app", "many"], WRONG, "'many' is not a whole number from 0 to 100000. Next: dsmt scale --help"),
    (["scale", "web/app", "-1"], WRONG, "no such option"),
    (["scale", "web/app", "1.5"], WRONG, "is not a whole number"),
    (["scale", "web/app", "1000001"], WRONG, "from 0 to 100000"),
    (["logs", "web", "-n", "-1"], WRONG, "from 0 to 10000"),
    (["logs", "web", "-n", "99999"], WRONG, "from 0 to 10000"),
    (["tail", "-n", "-1"], WRONG, "is not a whole number of at least 0"),
    (["tail", "-n", "some"], WRONG, "'some' is not a whole number of at least 0"),
    (["why", "web/app/0", "--depth", "-1"], WRONG, "is not a whole number of at least 0"),
    # --- targets ---------------------------------------------------------------------------------------------------
    *(([verb, "a/b/c/d"], WRONG, "'a/b/c/d' is not a target. Next: write SERVICE, SERVICE/COMPONENT") for verb in ("stop", "ps")),
    *(([verb, "Web"], WRONG, "'Web' is not a target") for verb in ("start", "restart", "logs", "endpoints", "retry", "move")),
    (["stop", "web/app/x"], WRONG, "is not a target"),
    (["stop", ""], WRONG, "'' is not a target"),
    (["stop", "web//0"], WRONG, "is not a target"),
    (["stop", "web/app/-1"], WRONG, "is not a target"),
    (["stop", "../etc"], WRONG, "is not a target"),
    (["stop", "w\x1b[2Jeb"], WRONG, "is not a target"),
    (["remove", "web/app", "--yes"], WRONG, "web/app is not a service. Next: dsmt scale SERVICE/COMPONENT 0"),
    (["status", "a b"], WRONG, "is not a target"),
    (["stop", "nosuch"], MISSING, "there is no service nosuch. Next: dsmt services lists them"),
    (["start", "nosuch/app"], MISSING, "there is no service nosuch"),
    (["restart", "web/nosuch"], MISSING, "there is no web/nosuch. Next: dsmt ps web lists what there is"),
    (["retry", "web/app/9"], MISSING, "there is no web/app/9"),
    (["history", "nosuch"], MISSING, "there is no service nosuch"),
    (["rollback", "nosuch"], MISSING, "there is no service nosuch"),
    (["rollback", "web", "--to", "x"], WRONG, "'x' is not a revision: write r3 or 3"),
    (["node", "drain", "nosuch"], MISSING, "nosuch"),
    (["node", "drain", "n1", "--deadline", "x"], WRONG, "`x` is not a duration"),
    (["node", "remove", "nosuch"], MISSING, "nosuch"),
    (["move", "web/app/0", "--to", "nosuch"], MISSING, "nosuch"),
    (["remove", "nosuch", "--yes"], MISSING, "there is no service nosuch"),
    (["scale", "nosuch/app", "3"], MISSING, "there is no service nosuch"),
    (["scale", "web/nosuch", "3"], MISSING, "web has no component nosuch. Next: it has app"),
    (["scale", "web/app/0", "3"], WRONG, "web/app/0"),
    (["get", "nosuch"], MISSING, "there is no service nosuch"),
    (["status", "nosuch"], MISSING, "there is no service nosuch"),
    (["why-not", "nosuch"], MISSING, "there is no service nosuch"),
    (["why-not", "web/app/9"], MISSING, "there is no web/app/9"),
    (["ps", "nosuch"], MISSING, "there is no service nosuch"),
    (["ps", "-l", "tier"], WRONG, "'tier' is not a label. Next: write -l KEY=VALUE"),
    (["endpoints", "nosuch"], MISSING, "there is no service nosuch"),
    (["node", "show", "nosuch"], MISSING, "nosuch"),
    (["node", "drain", "nosuch"], MISSING, "nosuch"),
    (["node", "exclude", "nosuch"], MISSING, "nosuch"),
    (["node", "include", "nosuch"], MISSING, "nosuch"),
    (["remove", "web"], WRONG, "dsmt remove web --yes"),
    # --- states, times, topics -------------------------------------------------------------------------------------
    (["wait", "web", "--for", "redy"], WRONG, "there is no state redy. Next: one of ready"),
    *((["wait", "web", "--for", "ready", "--timeout", t], WRONG, "is not a duration") for t in ("5", "5 s", "soon", "", "-5s")),
    (["wait", "web", "--for", "ready", "--timeout", "5m1h"], WRONG, "mixes up its units"),
    (["stop", "web", "--wait=5"], WRONG, "a unit is missing: 5s, 5m or 5ms?"),
    (["stop", "web", "--wait=0.1ms"], WRONG, "finer than a millisecond"),
    (["apply", "x.yaml", "--wait=x"], MISSING, "there is no file x.yaml"),
    (["tail", "--since", "yesterday"], WRONG, "'yesterday' is not a time. Next: write 10m, 14:05"),
    (["tail", "--since", "25:99"], WRONG, "is not a time"),
    (["tail", "--until", "x"], WRONG, "is not a time"),
    (["tail", "--raw", "--json"], WRONG, "--raw and --json cannot be combined"),
    (["tail", "--where", ""], WRONG, "cannot be read as an expression"),
    (["tail", "--where", "type = 'x'"], WRONG, "cannot be read as an expression: <input>:1:6"),
    (["tail", "--where", "(" * 5000], WRONG, "the expression has 5000 characters, 4096 are allowed. Next: shorten it"),
    (["tail", "web"], WRONG, "no topic can match web. Next: did you mean service/web/?"),
    (["tail", "web/"], WRONG, "did you mean service/web/?"),
    (["tail", "service/web"], WRONG, "did you mean service/web/?"),
    (["tail", "node/n1"], WRONG, "did you mean node/n1/?"),
    (["tail", "frob/x/"], WRONG, "did you mean service/frob/?"),
    (["tail", "service/web/frob/+"], WRONG, "topics begin with app, broker"),
    (["tail", "a//b"], WRONG, "is not a topic pattern"),
    (["tail", "Service/"], WRONG, "is not a topic pattern"),
    (["tail", "#"], WRONG, "is not a topic pattern"),
    (["export", "f", "web"], WRONG, "did you mean service/web/?"),
    (["export", ""], WRONG, "names no file. Next: name the file to write"),
    (["export", "/"], WRONG, "names no file"),
    (["publish", "User/x", "{}"], WRONG, "is not a topic"),
    (["publish", "a b", "1"], WRONG, "is not a topic"),
    (["publish", "user/x", "{"], WRONG, "the data is not JSON"),
    (["publish", "user/x", "nope"], WRONG, "the data is not JSON"),
    (["publish", "user/x", "1", "--ttl", "5"], WRONG, "is not a duration"),
    (["logs", "web", "--step", "boot"], WRONG, "'boot' is not one of"),
    (["logs", "web", "--step", "install", "-f"], WRONG, "--step cannot be combined with --follow"),
    # --- node sets -------------------------------------------------------------------------------------------------
    (["nodeset", "set", "all_nodes", "n1"], WRONG, "is a reserved word. Next: choose another"),
    *((["nodeset", "set", word, "n1"], WRONG, "is a reserved word") for word in ("failed", "minus", "limit")),
    (["nodeset", "set", "Good", "n1"], WRONG, "'Good' is not a name for a set. Next: names are 1-63"),
    (["nodeset", "set", "a/b", "n1"], WRONG, "is not a name for a set"),
    (["nodeset", "set", "", "n1"], WRONG, "is not a name for a set"),
    (["nodeset", "set", "good", ""], WRONG, "a set is missing"),
    (["nodeset", "set", "good", "minus(a)"], WRONG, "`minus` takes 2 parts, not 1"),
    (["nodeset", "set", "good", "a - b"], WRONG, "`-` has no meaning here"),
    (["nodeset", "set", "good", "a b"], WRONG, "unexpected `b`"),
    (["nodeset", "set", "good", "limit(a)"], WRONG, "`limit` needs a number"),
    (["nodeset", "set", "good", "limit(a, x)"], WRONG, "`x` is not a number of nodes"),
    (["nodeset", "set", "good", "without(a, b)"], WRONG, "there is no operator `without`"),
    (["nodeset", "set", "good", "union(a, b"], WRONG, "is missing"),
    (["nodeset", "set", "good", "good"], WRONG, "form a cycle"),
    (["nodeset", "show", "nosuch"], MISSING, "there is no node set nosuch. Next: dsmt nodeset list"),
    (["nodeset", "remove", "nosuch"], MISSING, "there is no node set nosuch"),
    (["nodeset", "use", "web", "n1"], WRONG, "web is not a component"),
    (["nodeset", "use", "nosuch/app", "n1"], MISSING, "there is no service nosuch"),
    # --- files, keys -----------------------------------------------------------------------------------------------
    (["apply", "none.yaml"], MISSING, "there is no file none.yaml. Next: dsmt example prints one"),
    (["plan", "/dev/null/x"], WRONG, "cannot be read: Not a directory"),
    (["diff", "."], WRONG, "there is no service file in ."),
    (["apply", "x" * 300], WRONG, "cannot be read: File name too long"),
    (["apply", "-"], WRONG, "-:1:1: there is no service here"),
    (["plan", "/dev/null"], WRONG, "/dev/null:1:1: there is no service here (begin with `service: NAME`)"),
    (["verify", "none"], MISSING, "none does not exist. Next: dsmt export FILE writes one"),
    (["verify", "."], WRONG, "cannot be read: Is a directory"),
    (["verify", "/dev/null"], WRONG, "is empty: it is not a history"),
    (["verify", "-"], WRONG, "is empty"),
    (["verify", "none", "--trust", "none"], WRONG, "none"),
    (["replay", "none"], MISSING, "none does not exist"),
    (["replay", "/dev/null"], WRONG, "is empty"),
    (["explain", "replicas"], WRONG, "there is no key `replicas`: here it is `instances`. Next: dsmt explain instances"),
    (["explain", "depends-on"], WRONG, "here it is `after`"),
    (["explain", "resources"], WRONG, "here it is `limits` and `reserve`. Next: dsmt explain limits"),
    (["explain", "rnu"], WRONG, "did you mean `run`?"),
    (["explain", "stop.grce"], WRONG, "did you mean `stop.grace`?"),
    (["explain", "nosuch"], WRONG, "`dsmt explain` lists every key"),
    (["explain", ""], WRONG, "`dsmt explain` lists every key"),
    # --- where, and as whom ----------------------------------------------------------------------------------------
    (["--home", "", "ps"], WRONG, "'--home': it is empty"),
    (["ps", "--home="], WRONG, "'--home': it is empty"),
    (["--home", "~nosuchuser/x", "down"], WRONG, "~nosuchuser/x cannot be a home: nobody knows where ~nosuchuser is"),
    (["up", "--name", ""], WRONG, "--name"),
    (["up", "--name", "other"], WRONG, "is named test, and cannot be renamed. Next: leave --name out"),
    (["up", "--port", "5"], WRONG, "listens at 127.0.0.1:1, not 127.0.0.1:5. Next: leave --port out"),
    (["init"], WRONG, "holds a realm already. Next: use it, or set another DSMT_HOME"),
    (["node", "run", "Bad Name"], WRONG, "'Bad Name' is not a name for a node"),
    (["node", "run", "a/b"], WRONG, "'a/b' is not a name for a node"),
    (["node", "run", ".."], WRONG, "'..' is not a name for a node"),
    (["node", "run", ""], WRONG, "'' is not a name for a node"),
    (["controller", "run", "../x"], WRONG, "'../x' is not a name for a controller: at most 63 of a-z, 0-9"),
    (["broker", "run", "../b1"], WRONG, "'../b1' is not a name for a broker"),
    (["broker", "run", "b2"], MISSING, "holds no identity; brokers here: b1"),
    (["trust", "export", "--json"], WRONG, "the export is binary: name a file for it"),
    (["export", ".."], WRONG, ".. is not a regular file"),
    # --- typed carelessly ------------------------------------------------------------------------------------------
    (["whynot", "web"], WRONG, "there is no command `dsmt whynot`. Next: did you mean `dsmt why-not`?"),
    (["service", "web"], WRONG, "Next: did you mean `dsmt services`?"),
    (["log", "web"], WRONG, "Next: did you mean `dsmt logs`?"),
    (["drain", "n1"], WRONG, "there is no command `dsmt drain`. Next: did you mean `dsmt node drain`?"),
    (["rotate", "node/n1"], WRONG, "Next: did you mean `dsmt cert rotate`?"),
    (["undrain", "n1"], WRONG, "there is no command `dsmt undrain`. Next: dsmt --help"),
    (["node", "n1"], WRONG, "there is no command `dsmt node n1`. Next: dsmt node --help"),
    (["node", "list"], WRONG, "there is no command `dsmt node list`"),
    (["nodes", "n1"], WRONG, "got unexpected extra argument (n1). Next: dsmt nodes --help"),
    (["ps", "--problem"], WRONG, "no such option '--problem'. Did you mean '--problems'? Next: dsmt ps --help"),
    (["remove", "web", "--ye"], WRONG, "no such option '--ye'. Did you mean one of: '--help', '--home', '--yes'? Next: dsmt rem"),
    (["apply", "web.yaml", "--plan"], WRONG, "option '--plan' requires an argument. Next: dsmt apply --help"),
    (["stop", "web/app/0", "--reason"], WRONG, "option '--reason' requires an argument. Next: dsmt stop --help"),
    (["wait", "web", "--for"], WRONG, "option '--for' requires an argument. Next: dsmt wait --help"),
    (["completion"], WRONG, "missing argument 'SHELL'. Choose from: bash, zsh, fish. Next: dsmt completion --help"),
    (["completion", "tcsh"], WRONG, "'tcsh' is not one of"),
    (["help", "targets"], MISSING, "there is no command or word `targets`. Next: did you mean dsmt help target?"),
    (["help", "frob"], MISSING, "Next: dsmt --help, or one of target, states"),
    (["logs", "web", "-n", "ten"], WRONG, "'ten' is not a whole number from 0 to 10000. Next: dsmt logs --help"),
    (["scale", "3", "web/app"], WRONG, "'web/app' is not a whole number from 0 to 100000"),
    (["scale", "web", "5"], WRONG, "web is not a component. Next: write SERVICE/COMPONENT, as in web/COMPONENT"),
    (["scale", "web/app/0", "5"], WRONG, "web/app/0 is not a component. Next: write SERVICE/COMPONENT, as in web/app"),
    (["ps", "-l", "=x"], WRONG, "'=x' is not a label. Next: write -l KEY=VALUE"),
    (["ps", "n1"], MISSING, "there is no service n1. Next: n1 is a node: dsmt node show n1, dsmt why node/n1"),
    (["why", "n1"], MISSING, "there is no service n1. Next: n1 is a node: dsmt node show n1, dsmt why node/n1"),
    (["why", "node/"], WRONG, "'node/' is not a target"),
    (["node", "show", "node/n1"], MISSING, "there is no node node/n1. Next: write n1, without node/"),
    (["move", "web/app/0", "--to", "node/n1"], MISSING, "Next: write n1, without node/"),
    (["move", "web/app/0", "--to", ""], MISSING, "there is no node ''. Next: dsmt nodes lists them"),
    (["stop", "*"], WRONG, "'*' is not a target"),
    (["stop", "all"], MISSING, "there is no service all"),
    (["publish", "user/x", "1", "--ttl", "forever"], WRONG, "`forever` is not a duration"),
    (["publish", "foo", "1"], WRONG, "foo is not a topic for operators: theirs begin with user/. Next: publish on user/foo"),
    (["cert", "rotate", "n1"], MISSING, "n1 is not a member of this home"),
    (["cert", "rotate", ""], MISSING, "'' is not a member of this home"),
    (["rollback", "web", "--to", "latest"], WRONG, "'latest' is not a revision: write r3 or 3"),
    (["plan", "web"], MISSING, "there is no file web. Next: dsmt example prints one"),
    (["tail", "service/web/#"], WRONG, "'service/web/#' is not a topic pattern"),
    (["init", "here"], WRONG, "got unexpected extra argument (here). Next: dsmt init --help"),
    (["cert", "rotate", "node/n9"], MISSING, "node/n9 is not a member of this home"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "said"), LINES, ids=[" ".join(one[0])[:60] or "-" for one in LINES])
def test_a_wrong_command_line(run: Run, made: Path, arguments: list[str], code: int, said: str) -> None:
    before = _held(made)
    found, told = run(*arguments, home=made)
    assert said in told
    assert found == code
    assert len(told.splitlines()) == 1 + ("mistake" in told)
    assert _held(made) == before


def _held(home: Path) -> list[Path]:
    """What a home holds, but for its lock, and the names that a shell completes, which whatever looks keeps there."""
    return sorted(path for path in home.rglob("*") if path.name not in (names.FILE, LOCK_FILE))


def app(*lines: str) -> str:
    """A file whose component `app` runs `x` (line 4) and has these keys, from line 5 on."""
    return "service: web\ncomponents:\n  app:\n    run: x\n" + "".join(f"    {line}\n" for line in lines)


FILES: list[tuple[str | bytes, str]] = [
    # --- what is no service file -----------------------------------------------------------------------------------
    ("", "1:1: there is no service here"),
    ("# nothing\n", "1:1: there is no service here"),
    ("- a\n", "1:1: a service is a map"),
    ("hello\n", "1:1: a service is a map"),
    (b"\xff\xfe\x00", "1:1: this is not UTF-8 (save the file as UTF-8)"),
    (b"\x7fELF\x02\x01", "U+007F is not allowed here"),
    ("service: web\n", "1:1: `components` is missing"),
    ("components: {a: {run: x}}\n", "1:1: `service` is missing"),
    ("service: web\ncomponents: {}\n", "2:13: `components` is empty"),
    ("service: web\ncomponents: [a]\n", "2:13: components: a map is expected here"),
    ("service: web\ncomponents: {a: x}\n", "2:17: components.a: a map is expected here (as in `run: ./server`)"),
    ("service: Web\ncomponents: {a: {run: x}}\n", "1:10: service: `Web` is not a name"),
    ("service:\ncomponents: {a: {run: x}}\n", "1:1: `service` has no value"),
    ("service: 5\ncomponents: {a: {run: x}}\n", "1:10: service: `5` is a number in YAML"),
    ("service: a\nservice: b\ncomponents: {a: {run: x}}\n", "2:1: `service` is here twice (the first is on line 1)"),
    ("service: web\ncomponents: {A: {run: x}}\n", "2:14: `A` is not a name to use here"),
    (app() + "---\n" + app(), "6:10: the service `web` is here twice"),
    ("%YAML 1.1\n---\n" + app(), "1:1: directives (`%`) are not used here"),
    (app("env: !!str x"), "5:10: tags (`!...`) are not used here"),
    (app("env: {A: *b}"), "5:14: `*b` has no `&b` before it"),
    (app("env: {A: 'b}"), "not YAML"),
    (app("\tinstances: 2"), "5:5: a tab is not allowed here"),
    ("[" * 100, "nested too deep"),
    ("x" * 1_100_000, "1:1: the file is larger than"),
    # --- characters ------------------------------------------------------------------------------------------------
    ("service: web\ncomponents:\n  app:\n    run:\u00a0x\n", "4:9: the character U+00A0 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    \u00a0run: x\n", "4:5: the character U+00A0 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    run: x\u00a0\n", "4:11: the character U+00A0 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    run: &c \u3000x\n", "4:13: the character U+3000 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    run: x\u00a0y\n", "4:10: run: the character U+00A0 looks like a space and"),
    ('service: web\ncomponents:\n  app:\n    run: "a\\0b"\n', "4:10: run: the text holds a NUL character (U+0000)"),
    (app('env: {A: "a\\0b"}'), "5:14: env.A: the text holds a NUL character (U+0000)"),
    (app(f"env: {{A: {'x' * 70_000}}}"), "5:14: env.A: the text has 70000 characters, and 65536 are the limit"),
    (app("env: {A: a\x01b}"), "5:15: the character U+0001 is not allowed here"),
    (app("env: {A: a\x1b[31mb}"), "U+001B is not allowed here"),
    # --- keys ------------------------------------------------------------------------------------------------------
    ("service: web\ncomponents:\n  app:\n    rnu: x\n", "4:5: there is no key `rnu` in `components.NAME` (did you mean `run`?)"),
    (app("instnaces: 3"), "5:5: there is no key `instnaces` in `components.NAME` (did you mean `instances`?)"),
    (app("stop: {grce: 5s}"), "5:12: there is no key `grce` in `stop` (did you mean `grace`?)"),
    (app("hcek: 5s"), "5:5: there is no key `hcek`"),
    (app("prots: {a: 1}"), "did you mean `ports`?"),
    (app("evn: {a: 1}"), "did you mean `env`?"),
    (app("frobnicate: 1"), "`dsmt explain` lists every key"),
    *((app(f"{theirs}: 1"), f"5:5: there is no key `{theirs}` in `components.NAME` (here it is `{ours}`)") for theirs, ours in (
        ("replicas", "instances"), ("count", "instances"), ("command", "run"), ("entrypoint", "run"), ("environment", "env"),
        ("depends_on", "after"), ("healthcheck", "health"), ("restart_policy", "restart"), ("stop_signal", "stop.signal"),
        ("stop_grace_period", "stop.grace"), ("update_config", "update"), ("working_dir", "directory"), ("volumes", "data"),
        ("constraints", "requires"), ("logging", "logs"), ("affinity", "rank"), ("max_surge", "update.max_parallel"),
    )),
    (app("Instances: 2"), "here it is `instances`"),
    (app("install-timeout: 2s"), "here it is `install_timeout`"),
    (app("grace: 2s"), "`grace` belongs under `stop`"),
    (app() + "run: x\n", "5:1: there is no key `run` (`run` belongs under `components.NAME`)"),
    (app("env:", "  <<: {A: b}"), "6:7: merge keys (`<<`) are not in YAML 1.2"),
    (app("<<: {env: {}}"), "5:5: merge keys (`<<`) are not in YAML 1.2 (use `defaults:`"),
    (app("ports:", "  <<: {a: 1}"), "6:7: merge keys (`<<`) are not in YAML 1.2"),
    (app("? [a]", ": b"), "a key must be a word"),
    (app("env: {A-B: c}"), "5:11: `A-B` is not a variable name"),
    (app("ports: {Http: 1}"), "5:13: `Http` is not a port name"),
    (app("instances:"), "5:5: `instances` has no value"),
    (app("instances: 2", "instances: 3"), "6:5: `instances` is here twice (the first is on line 5)"),
    (app("nodes: a", "plan: b"), "6:5: `plan` means `nodes`, which is here already"),
    # --- numbers, with their key -----------------------------------------------------------------------------------
    (app("instances: minus one"), "5:16: instances: `minus one` is not a number (or each_node)"),
    (app("instances: -1"), "5:16: instances: -1 is too small (at least 0)"),
    (app("instances: 1.5"), "5:16: instances: `1.5` is not a whole number"),
    (app("instances: '3'"), "5:16: instances: `3` is not a number (remove the quotes)"),
    (app("instances: 010"), "5:16: instances: `010` was octal in YAML 1.1"),
    (app("instances: 100001"), "5:16: instances: 100001 is too large (at most 100000)"),
    (app("instances: each-node"), "did you mean each_node?"),
    (app("instances: [1]"), "5:16: instances: a list cannot be here"),
    (app("instances: yes"), "instances: `yes` is not a number"),
    (app("ports: {http: '8080:80'}"), "5:19: ports.http.port: `8080:80` maps one port to another, which is not done here (write 80)"),
    (app("ports: {http: 8080:80}"), "5:19: ports.http.port: `8080:80` maps one port to another"),
    (app("ports: {http: 127.0.0.1:8080:80}"), "ports.http.port: `127.0.0.1:8080:80` maps one port to another"),
    (app("ports: ['8080:80']"), "5:12: ports: a map is expected here (as in `http: 8080`, one in a line)"),
    (app("ports: {http: 0}"), "5:19: ports.http.port: 0 is too small (at least 1)"),
    (app("ports: {http: 65536}"), "5:19: ports.http.port: 65536 is too large (at most 65535)"),
    (app("ports: {http: any}"), "ports.http.port: `any` is not a number (or auto)"),
    (app("ports: {http: {bind: '*'}}"), "ports.http.bind: `*` is not an address"),
    (app("reserve: {cpu: 500m}"), "reserve.cpu: `500m` is not a number (write 0.5)"),
    (app("reserve: {cpu: lots}"), "reserve.cpu: `lots` is not a number"),
    (app("limits: {pids: 0}"), "limits.pids: 0 is too small"),
    (app("limits: {files: 1}"), "limits.files: 1 is too small (at least 16)"),
    (app("restart: {factor: 11}"), "restart.factor: 11 is too large"),
    (app("restart: {park: {after: 0}}"), "restart.park.after: 0 is too small"),
    (app("logs: {keep: x}"), "logs.keep: `x` is not a number"),
    # --- sizes, durations, words -----------------------------------------------------------------------------------
    (app("reserve: {memory: 512M}"), "5:23: reserve.memory: `512M` has no unit that means one thing (MiB or MB?)"),
    (app("reserve: {memory: 1024}"), "reserve.memory: `1024` has no unit"),
    (app("reserve: {memory: much}"), "reserve.memory: `much` is not a size"),
    (app("reserve: {memory: -1MiB}"), "reserve.memory: `-1MiB` is not a size"),
    (app("reserve: {memory: 9999999999TiB}"), "reserve.memory: `9999999999TiB` is too large (below 2^63 bytes"),
    (app("reserve: {memory: 5 MiB}"), "write 5MiB"),
    (app("logs: {size: 1KB}"), "logs.size: `1KB` has no unit that means one thing (write 1kB)"),
    (app("stop: {grace: 5}"), "5:19: stop.grace: `5` is not a duration (a unit is missing: 5s, 5m or 5ms?)"),
    (app("stop: {grace: 5sec}"), "write 5s"),
    (app("stop: {grace: 1m1h}"), "stop.grace: `1m1h` repeats or mixes up its units"),
    (app("stop: {grace: 0.1ms}"), "finer than a millisecond"),
    (app("stop: {signal: 15}"), "stop.signal: `15` is not a signal"),
    (app("update: {rollback: no}"), "update.rollback: `no` is a text in YAML 1.2, not false (write false)"),
    (app("update: {max_parallel: 0}"), "update.max_parallel: 0 is too small"),
    (app("update: {max_parallel: 200%}"), "update.max_parallel: `200%` is not a share"),
    (app("update: {order: startfirst}"), "did you mean start_first?"),
    (app("restart: sometimes"), "restart.when: `sometimes` cannot be here (one of always, on_failure, never)"),
    (app("restart: {escalate: [explode: 1]}"), "one of restart, reinstall, recreate, move"),
    (app("spread: rack"), "spread.by: `rack` is not a way to spread"),
    (app("user: 'a b'"), "user: `a b` is neither a user name nor a uid"),
    (app("nodes: minus(all_nodes)"), "5:12: nodes: `minus` takes 2 parts, not 1"),
    (app("nodes: Prod"), "nodes: `Prod` is not a name of a set or node"),
    (app("requires: gpu"), "requires: `gpu` alone is not a condition"),
    (app("env: {A: true}"), 'env.A: `true` is a truth value in YAML; programs spell it differently (quote it: "true")'),
    (app("env: {A: [1]}"), "env.A: a list cannot be here"),
    (app("env: {A: {address}}"), "quote it: '{address}'"),
    (app("env: {A: {secret: s}}"), "a secret by name does not belong in `env`"),
    (app("files: [{to: ../a, content: x}]"), "files.to: `../a` leads out of the instance's directory"),
    (app("files: [{to: a, content: x, mode: 0644}]"), "files.mode: `0644` is a number in YAML, and not octal in 1.2"),
    (app("files: [{to: a}]"), "a file has its text from one place"),
    (app("artifact: {url: http://h/x}"), "artifact.url: `http:` is not fetched"),
    (app("artifact: {url: https://h/x}"), "`sha256` is missing for `https:`"),
    (app("artifact: {url: a, sha256: abc}"), "artifact.sha256: `abc` is not a SHA-256"),
    # --- commands and placeholders ---------------------------------------------------------------------------------
    *((app(f"install: {line}"), f"5:14: install: no shell runs this, so {why}") for line, why in (
        ("a | b", "there are no pipes"), ("a > b", "nothing is redirected"), ("a $B", "`$` is not expanded"), ("a; b", "`;` does"),
    )),
    (app("install: 'a \"b'"), "install: a double quote is not closed"),
    (app("install: A=1 b"), "`A=...` does not set a variable"),
    (app("install: []"), "install: the command is empty"),
    (app("install: [sh, -c, true]"), "install: `true` is true or false in YAML, and a text is expected"),
    ("service: web\ncomponents:\n  app:\n    run: {port.http}\n", "4:10: run: `{port.http}` without quotes is a map in YAML"),
    (app("install: a {port.web}", "ports: {http: auto}"), "5:14: `{port.web}` names no port"),
    (app("install: a {prot}"), "`{prot}` is not a placeholder"),
    (app("install: 'a }'"), "a `}` stands alone"),
    # --- keys that contradict each other ---------------------------------------------------------------------------
    (app("health: {tcp: {}}"), "5:19: `tcp` needs a port, and there are no `ports`"),
    (app("ports: {http: auto}", "health: {tcp: {port: htpt}}"), "6:26: `htpt` is not in `ports` (did you mean `http`?)"),
    (app("health: {interval: 1s}"), "one check is expected, and nothing is here"),
    (app("retries: 3"), "5:14: `retries` is for jobs, and this is a service"),
    (app("ports: {a: 80, b: 80}"), "port 80 is already given to `a`"),
    (app("update: {max_parallel: 50%}"), "50% of 1 instance"),
    # --- what is not built, at its own place -----------------------------------------------------------------------
    (app("requires: node.cpus > 4"), "5:5: components.app.requires: this key is not built yet (use `nodes`"),
    (app("limits:", "  cpu: 2"), "6:7: components.app.limits.cpu: this key is not built yet (remove it: `reserve.cpu`"),
    (app("limits: {memory: 1GiB}"), "5:22: components.app.limits.memory: only `enforce: best_effort` is built yet"),
    (app("limits: {memory: 1GiB}"), "(add `enforce: best_effort`)"),
    (app("kind: job"), "5:11: components.app.kind: job is not built yet, only service (write `kind: service`)"),
    ("service: web\nkind: job\ncomponents: {a: {run: x}}\n", "2:7: kind: job is not built yet, only service"),
    (app("driver: podman", "image: nginx"), "6:5: components.app.image: this key is not built yet (name a program"),
    (app("driver: bubblewrap"), "5:13: components.app.driver: bubblewrap is not built yet, only process (write `driver: process`)"),
    (app("data: 5GiB"), "5:11: components.app.data: 5GiB is not built yet, only true and false"),
    (app("on_partition: at_most_one"), "5:19: components.app.on_partition: at_most_one is not built yet"),
    (app("logs: {rate: 2MiB}"), "5:12: components.app.logs.rate: this key is not built yet (remove it: `size` and `keep`"),
    (app("user: auto"), "5:11: components.app.user: `auto` is not built yet (write a user's name or a uid)"),
    (app("secrets: {A: {secret: a}}"), "5:5: components.app.secrets: this key is not built yet (use `env: {NAME: {file"),
    (app("ports: {a: {port: 1, held: true}}"), "5:26: components.app.ports.a.held: this key is not built yet"),
    (app("update: {canary: 1}", "instances: 3"), "5:14: components.app.update.canary: this key is not built yet"),
    (app("reload: HUP"), "5:5: components.app.reload: this key is not built yet (remove it)"),
    (app("lost_after: 9s"), "5:5: components.app.lost_after: this key is not built yet"),
    (app("ports: {a: 1}", "env:", "  E: '{endpoints.app.a}'"), "7:10: components.app.env.E: the placeholder `{endpoints...}`"),
    ("service: web\nexpires: 7d\ncomponents: {a: {run: x}}\n", "2:1: expires: this key is not built yet"),
    # --- what is not there -----------------------------------------------------------------------------------------
    (app("artifact: no.tgz"), "5:15: components.app.artifact.url: there is no file"),
    (app("artifact:", "  - {url: no.tgz}"), "6:15: components.app.artifact.url: there is no file"),
    (app("files:", "  - to: a", "    from: no.txt"), "7:15: components.app.files.from: there is no file"),
    (app(f"artifact: {'n' * 300}"), "5:15: components.app.artifact.url: there is no file"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), FILES, ids=[str(number) for number in range(len(FILES))])
def test_a_wrong_file(run: Run, made: Path, tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "web.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, told = run("plan", "web.yaml", home=made)
    assert any(said in line for line in told.splitlines()), told
    assert all(line.startswith("web.yaml:") for line in told.splitlines()[:-1])
    assert told.endswith("nothing was done\n")
    assert code == WRONG


@pytest.mark.parametrize("size", ["1.2GiB", "0.3KiB", "1.0005MB"])
def test_a_size_may_have_a_point(run: Run, made: Path, tmp_path: Path, size: str) -> None:
    (tmp_path / "web.yaml").write_text(app(f"reserve: {{memory: {size}}}", "frob: 1"))
    _, told = run("plan", "web.yaml", home=made)
    assert "memory" not in told


def test_one_service_in_two_files_is_told_with_both_places(run: Run, made: Path, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("\n\n" + app())
    code, told = run("apply", "a.yaml", "b.yaml", home=made)
    assert told.startswith("b.yaml:3:10: the service `web` is declared twice (keep one; the other is at a.yaml:3)\n")
    assert code == WRONG


def _cut(path: str, content: bytes | None) -> Callable[[Path], None]:
    def spoil(home: Path) -> None:
        (home / path).unlink()
        if content is not None:
            (home / path).write_bytes(content)

    return spoil


def _as_directory(path: str) -> Callable[[Path], None]:
    def spoil(home: Path) -> None:
        (home / path).unlink()
        (home / path).mkdir()

    return spoil


HOMES: list[tuple[Callable[[Path], None], list[str], int, str]] = [
    (shutil.rmtree, ["ps"], MISSING, "there is no realm in "),
    (shutil.rmtree, ["down"], MISSING, "there is no realm in "),
    (shutil.rmtree, ["node", "run"], MISSING, "there is no realm in "),
    (shutil.rmtree, ["init", "--name", ""], WRONG, "'' is not a name for a realm"),
    (shutil.rmtree, ["init", "--name", "Bad Name"], WRONG, "'Bad Name' is not a name for a realm"),
    (shutil.rmtree, ["up", "--name", ""], WRONG, "'' is not a name for a realm"),
    (shutil.rmtree, ["up", "--name", "a/b"], WRONG, "'a/b' is not a name for a realm"),
    (shutil.rmtree, ["up", "--name", "x" * 64], WRONG, "at most 63 of a-z"),
    (shutil.rmtree, ["init", "--listen", "x"], WRONG, "'x' is not an address to listen at"),
    (shutil.rmtree, ["init", "--listen", "h:0"], WRONG, "a port is a number from 1 to 65535"),
    (shutil.rmtree, ["init", "--listen", "h:99999"], WRONG, "a port is a number from 1 to 65535"),
    *((_cut("realm.cbor", raw), ["ps"], WRONG, "realm.cbor is damaged: it holds no configuration. Next: restore it from a backup")
      for raw in (b"", b"nonsense", b"\x80", b"\xff" * 9, b"\x7a\x00\x00\xff\x41abc")),
    (_as_directory("realm.cbor"), ["ps"], NO, "realm.cbor: is a directory"),
    *((_cut("operator/identity", None), [verb, "web"], MISSING, "the operator's key, which commands need to talk to the realm. Next: dsmt up makes a new one") for verb in ("ps", "stop", "logs")),
    (_cut("operator/identity", b""), ["ps"], WRONG, "operator/identity is damaged: it holds no identity. Next: restore it"),
    (_cut("operator/identity", b"\x80"), ["ps"], WRONG, "operator/identity is damaged"),
    (_cut("root.key", None), ["cert", "rotate", "broker/b1"], MISSING, "the root key is not in"),
    (_cut("root.key", b"short"), ["node", "run"], WRONG, "root.key is damaged: a root key has 32 bytes, and this has 5"),
    (_cut("brokers/b1/broker.cbor", None), ["broker", "run"], WRONG, "broker.cbor is missing. Next: restore it from a backup"),
    (_cut("brokers/b1/broker.cbor", b"x"), ["broker", "run"], WRONG, "broker.cbor is damaged"),
    (_cut("brokers/b1/broker.cbor", b"x"), ["up", "--detach"], WRONG, "broker.cbor is damaged"),
    (_cut("brokers/b1/identity", None), ["broker", "run"], MISSING, "holds no identity; brokers here: b1. Next: restore it"),
]  # fmt: skip


@pytest.mark.parametrize("row", HOMES, ids=[str(n) for n in range(len(HOMES))])
def test_a_spoiled_home(
    run: Run, made: Path, tmp_path: Path, row: tuple[Callable[[Path], None], list[str], int, str]
) -> None:
    spoil, arguments, code, said = row
    home = tmp_path / "home"
    shutil.copytree(made, home)
    spoil(home)
    found, told = run(*arguments, home=home, attached=False)
    assert said in told
    assert "Next: " in told
    assert found == code


NOT_A_HOME = ["file", "file/below", "loop", "n" * 300]


@pytest.mark.parametrize("where", NOT_A_HOME)
@pytest.mark.parametrize("arguments", [["ps"], ["init"], ["up", "--detach"], ["down"], ["broker", "run"]], ids=" ".join)
def test_what_cannot_be_a_home(run: Run, tmp_path: Path, where: str, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    code, told = run(*arguments, home=tmp_path / where, attached=False)
    assert "is not a directory, and a home must be one" in told or "cannot be read: " in told
    assert "Next: check --home, or DSMT_HOME" in told
    assert code == DENIED


def test_an_export_does_not_replace_what_is_not_a_regular_file(run: Run, made: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, told = run("export", "pipe", home=made)
    assert "pipe is not a regular file. Next: name another file" in told
    assert code == WRONG
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("bus", ["", "x", "nats://h:1", "dsmt://", "dsmt://h", "dsmt://h:0", "dsmt://h:65536", "dsmt://h:x",
                                 "dsmt://:1", "dsmt://a b:1", "dsmt://[::1:1", "dsmt://h:1,", "dsmt://h:1,,h:2"])  # fmt: skip
def test_a_wrong_address_of_a_broker(run: Run, made: Path, bus: str) -> None:
    code, told = run("--bus", bus, "ps", home=made, attached=False)
    assert "address" in told or "is not a list of brokers" in told or "not built" in told or "it is empty" in told
    assert code == WRONG


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_who_stops_waiting_hears_that_what_was_asked_for_goes_on(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    async def stop(*_: Any, **__: Any) -> Done:
        return Done(action="stop", target="web", instances=["web/app/0"], unchanged=[])

    async def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dsmt.operations.write.controlling.stop", stop)
    monkeypatch.setattr("dsmt.operations.read.waiting.wait_for", interrupted)
    code, told = run("stop", "web", "--wait", *form, home=made)
    assert "interrupted; the stop of web goes on" in told
    assert "dsmt status web" in told
    assert code == 130
    monkeypatch.setattr("dsmt.operations.write.controlling.stop", interrupted)
    assert run("stop", "web", *form, home=made) == (130, "")


@pytest.mark.parametrize(
    "row",
    [
        (["node", "drain", "n1"], "dsmt.cli.node.set_mode", "dsmt.cli.node.drained", "the drain of n1 goes on"),
        (
            ["rollback", "web", "--wait"],
            "dsmt.operations.write.rolling_back.rollback",
            "dsmt.operations.read.waiting.settled",
            "the rollback of web, as r3, goes on",
        ),
    ],
    ids=["drain", "rollback"],
)
def test_who_stops_waiting_for_a_drain_or_a_rollback_hears_it_too(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, row: tuple[list[str], str, str, str]
) -> None:
    arguments, act, waits, said = row

    async def asked(*_: Any, **__: Any) -> Applied:
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
    code, told = run("remove", "web", home=made, terminal=True)
    assert told == "dsmt: web is not removed: the answer was no\n"
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
    monkeypatch.setattr("dsmt.operations.local.certificates.learn", lambda *_: None)
    monkeypatch.setattr("click.confirm", confirm)
    code, told = run("cert", "revoke", "broker/b1", home=made, terminal=terminal)
    assert told.startswith("dsmt: broker/b1 is " + ("not revoked: the answer was no\n" if terminal else "the only broker: "))
    assert terminal or "nobody said yes. Next: dsmt cert revoke broker/b1 --yes; the way back is" in told
    assert code == (NO if terminal else WRONG)


def test_who_answers_and_is_no_broker_of_the_realm_is_told_apart_from_nobody(made: Path) -> None:
    realm = Home(made).realm()

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            there = await _unreachable([f"127.0.0.1:{port}"], realm)
        assert "answers, but not for realm test" in there.message
        assert there.next == "check --bus (DSMT_BUS) and --home (DSMT_HOME)"
        nobody = await _unreachable([f"127.0.0.1:{port}"], realm)
        assert nobody.message == f"no broker answers at 127.0.0.1:{port}"
        assert nobody.next == "check --bus (DSMT_BUS): this home names 127.0.0.1:1"
        own = await _unreachable(["127.0.0.1:1"], realm)
        assert own.next == "dsmt up starts this home's realm again"
        assert {there.exit, nobody.exit, own.exit} == {AWAY}

    asyncio.run(scenario())


@pytest.mark.parametrize("closed", [0o000, 0o500], ids=["unreadable", "unwritable"])
def test_a_home_that_is_closed_to_who_types(tmp_path: Path, made: Path, closed: int) -> None:
    """As another user where we are root, who may read and write everything."""
    above = tmp_path / "above"
    above.mkdir()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = _as_nobody(above, closed)
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    above.chmod(stat.S_IRWXU)
    told = (tmp_path / "told").read_text()
    assert "permission denied" in told
    assert "internal error" not in told
    assert "Next: " in told
    assert os.waitstatus_to_exitcode(ended) == DENIED


def _as_nobody(above: Path, closed: int) -> int:
    with (above.parent / "told").open("w") as told:
        above.chmod(closed)
        if os.geteuid() == 0:
            for place in (above, *above.parents[:3]):
                place.chmod(place.stat().st_mode | (stat.S_IXOTH if place != above else 0))
            os.chown(above, 65_534, 65_534)
            os.setresuid(65_534, 65_534, 65_534)
        os.environ["DSMT_HOME"] = str(above / "home")
        sys.stderr = told
        return main(["init"])
