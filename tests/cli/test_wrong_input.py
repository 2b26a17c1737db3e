"""Wrong command lines: each is told in its sentence with its exit code, and never with a traceback.

All of it runs in this process, and nothing is ever started: whatever would reach for a broker gets a stub, or a view.
"""

# ruff: noqa: E501 - a row of a table stays one line

import asyncio
import os
import stat
import sys
from pathlib import Path

import msgspec
import pytest

from dsmt.cli import names
from dsmt.cli.root import main
from dsmt.operations.connection import _unreachable
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.lock import LOCK_FILE
from dsmt.ports.realm import NatsTerms
from tests.cli.in_process import AWAY, DENIED, MISSING, WRONG, Run

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
    (["delete", "web"], WRONG, "Next: did you mean `dsmt remove`?"),
    (["top"], WRONG, "Next: did you mean `dsmt nodes`?"),
    (["uncordon", "n1"], WRONG, "Next: did you mean `dsmt node include`?"),
    (["node", "uncordon", "n1"], WRONG, "Next: did you mean `dsmt node include`?"),
    (["node", "ls"], WRONG, "Next: did you mean `dsmt nodes`?"),
    (["brake", "list"], WRONG, "there is no command `dsmt brake list`. Next: dsmt brake --help"),
    (["cert", "ls"], WRONG, "Next: did you mean `dsmt cert list`?"),
    (["token", "rm", "x"], WRONG, "Next: did you mean `dsmt token revoke`?"),
    (["nodeset", "delete", "good"], WRONG, "Next: did you mean `dsmt nodeset remove`?"),
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
    *(([verb], WRONG, "missing argument") for verb in ("replay", "export", "publish")),
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
    (["up", "--nodes", "501"], WRONG, "at most 500 nodes"),
    (["up", "--controllers", "0"], WRONG, "at least one controller"),
    (["up", "--controllers", "10"], WRONG, "at most 9 controllers"),
    (["scale", "web/app", "many"], WRONG, "'many' is not a whole number from 0 to 100000. Next: dsmt scale --help"),
    (["ps", "-1"], WRONG, "no such option '-1'"),
    *((["scale", "web/app", count], WRONG, f"{count!r} is not a whole number") for count in ("1.5", "+1", "1_0", "\u0663", "-1", "-2.5")),
    (["scale", "web/app", "1000001"], WRONG, "from 0 to 100000"),
    (["scale", "web", "100000"], WRONG, "more than 10 times as many. Next: dsmt scale web 100000 --yes"),
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
    (["rollback", "web", "--to", "x"], WRONG, "'x' is not a revision: write r3 or 3"),
    (["node", "drain", "nosuch"], MISSING, "nosuch"),
    (["node", "drain", "n1", "--deadline", "x"], WRONG, "`x` is not a duration"),
    (["node", "remove", "nosuch"], MISSING, "nosuch"),
    (["move", "web/app/0", "--to", "nosuch"], MISSING, "nosuch"),
    (["remove", "nosuch", "--yes"], MISSING, "there is no service nosuch"),
    (["scale", "nosuch/app", "3"], MISSING, "there is no service nosuch"),
    (["scale", "web/nosuch", "3"], MISSING, "web has no component nosuch. Next: it has app"),
    (["scale", "web/app/0", "3"], WRONG, "web/app/0"),
    (["why-not", "web/app/9"], MISSING, "there is no web/app/9"),
    *(([verb, "nosuch"], MISSING, "there is no service nosuch") for verb in ("ps", "history", "rollback", "get", "status")),
    *(([verb, "nosuch"], MISSING, "there is no service nosuch") for verb in ("why-not", "endpoints")),
    *(([verb, "web/app"], MISSING, "no service web/app. Next: write the service alone: web") for verb in ("get", "rollback")),
    (["get", ""], MISSING, "there is no service ''. Next: dsmt services lists them"),
    (["publish", "user/x", f"[{2**63}]"], WRONG, "the data has a whole number beyond 9223372036854775807, or is nested"),
    (["ps", "-l", "tier"], WRONG, "'tier' is not a label. Next: write -l KEY=VALUE"),
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
    (["stop", "web", "--wait", "-5s"], WRONG, "`-5s` is not a duration"),
    (["stop", "web", "--wait=0.1ms"], WRONG, "finer than a millisecond"),
    (["apply", "x.yaml", "--wait=x"], MISSING, "there is no file x.yaml"),
    (["tail", "--since", "yesterday"], WRONG, "'yesterday' is not a time. Next: write 10m, 14:05"),
    (["tail", "--since", "25:99"], WRONG, "is not a time"),
    (["tail", "--until", "x"], WRONG, "is not a time"),
    (["tail", "--since", "2999-01-01T00:00:00Z"], WRONG, "--since 2999-01-01T00:00:00Z is still to come. Next: leave it out"),
    (["export", "x", "--since", "yesterday"], WRONG, "'yesterday' is not a time. Next: write 10m, 14:05"),
    (["export", "x", "--since", "2999-01-01T00:00:00Z"], WRONG, "--since 2999-01-01T00:00:00Z is still to come"),
    (["tail", "--since", "1m", "--until", "1h"], WRONG, "--until 1h is before --since 1m. Next: turn them round"),
    (["tail", "--raw", "--json"], WRONG, "--raw and --json cannot be combined"),
    (["tail", "--where", ""], WRONG, "cannot be read as an expression"),
    (["tail", "--where", "type = 'x'"], WRONG, "cannot be read as an expression: <input>:1:6"),
    (["tail", "--where", "(" * 5000], WRONG, "the expression has 5000 characters, 4096 are allowed. Next: shorten it"),
    (["tail", "web"], WRONG, "no topic can match web. Next: did you mean service/web/?"),
    (["tail", "web", "--no-follow"], WRONG, "no topic can match web. Next: did you mean service/web/?"),
    (["tail", "web/"], WRONG, "did you mean service/web/?"),
    (["tail", "service/web"], WRONG, "did you mean service/web/?"),
    (["tail", "node/n1"], WRONG, "did you mean node/n1/?"),
    (["tail", "frob/x/"], WRONG, "did you mean service/frob/?"),
    (["tail", "service/web/frob/+"], WRONG, "did you mean service/web/?"),
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
    (["publish", "user/x", "1", "--ttl", "0s"], WRONG, "an event that is valid for no time is heard by nobody. Next: write --ttl"),
    (["publish", "user/x", "1", "--ttl", "5"], WRONG, "is not a duration"),
    (["logs", "web", "--step", "boot"], WRONG, "'boot' is not one of"),
    (["logs", "web", "--step", "install", "-f"], WRONG, "--step cannot be combined with --follow"),
    # --- node sets -------------------------------------------------------------------------------------------------
    (["nodeset", "set", "all_nodes", "n1"], WRONG, "is a reserved word. Next: choose another"),
    *((["nodeset", "set", word, "n1"], WRONG, "is a reserved word") for word in ("failed", "minus", "limit")),
    (["nodeset", "set", "Good", "n1"], WRONG, "'Good' is not a name for a set. Next: names are 1-63"),
    (["nodeset", "set", "goodNodes", "n1"], WRONG, "names are 1-63 of a-z 0-9 - . _, as in goodnodes"),
    (["nodeset", "set", "ten", "limit(goodNodes, 10)"], WRONG, "of a set or node. Next: names are 1-63 of a-z 0-9 - . _, as in goodnodes"),
    (["nodeset", "set", "a/b", "n1"], WRONG, "is not a name for a set"),
    (["nodeset", "set", "", "n1"], WRONG, "is not a name for a set"),
    (["nodeset", "set", "good", ""], WRONG, "a set is missing"),
    (["nodeset", "set", "good", "minus(a)"], WRONG, "`minus` takes 2 parts, not 1"),
    (["nodeset", "set", "good", "a - b"], WRONG, "`-` has no meaning here"),
    (["nodeset", "set", "good", "a b"], WRONG, "`b` stands after a whole expression"),
    (["nodeset", "set", "good", "limit(a)"], WRONG, "`limit` needs a number"),
    (["nodeset", "set", "good", "limit(a, x)"], WRONG, "`x` is not a number of nodes"),
    (["nodeset", "set", "good", "without(a, b)"], WRONG, "there is no operator `without`"),
    (["nodeset", "set", "good", "union(a, b"], WRONG, "is missing"),
    (["nodeset", "set", "good", "good"], WRONG, "form a cycle"),
    (["nodeset", "show", "failed"], MISSING, "Next: failed is given, and no named set: dsmt nodes shows its nodes"),
    (["nodeset", "show", "n1"], MISSING, "Next: n1 is a node: dsmt node show n1"),
    (["nodeset", "show", "nosuch"], MISSING, "there is no node set nosuch. Next: dsmt nodeset list"),
    (["nodeset", "remove", "nosuch"], MISSING, "there is no node set nosuch"),
    (["nodeset", "use", "web/app", "minus(n1, zone-c)"], MISSING, "there is no node or node set zone-c. Next: dsmt nodes"),
    (["nodeset", "use", "nosuch/app", "n1"], MISSING, "there is no service nosuch"),
    # --- files, keys -----------------------------------------------------------------------------------------------
    (["apply", "none.yaml"], MISSING, "there is no file none.yaml. Next: dsmt example prints one"),
    (["plan", "/dev/null/x"], WRONG, "cannot be read: Not a directory"),
    (["diff", "."], WRONG, "there is no service file in ."),
    (["apply", "x" * 300], WRONG, "cannot be read: File name too long"),
    *(([verb, ""], WRONG, "'' names no file. Next: name a service file, or . for all") for verb in ("apply", "plan", "diff")),
    (["apply", "-"], WRONG, "-:1:1: there is no service here"),
    (["plan", "/dev/null"], WRONG, "/dev/null:1:1: there is no service here (begin with `service: NAME`)"),
    (["verify", "none"], MISSING, "none does not exist. Next: dsmt export FILE writes one"),
    (["verify", "."], WRONG, "cannot be read: is a directory. Next: name what dsmt export FILE wrote"),
    (["verify", ""], WRONG, "'' names no file. Next: name what dsmt export FILE wrote"),
    (["replay", ""], WRONG, "'' names no file. Next: name what dsmt export FILE wrote"),
    (["verify", "none", "--trust", "."], WRONG, ". cannot be read: is a directory. Next: dsmt trust export FILE writes one"),
    (["verify", "/dev/null"], WRONG, "is empty: it is not a history"),
    (["verify", "-"], WRONG, "is empty"),
    (["verify", sys.executable], WRONG, "begins neither as a history nor as a recording. Next: dsmt export FILE"),
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
    (["--home", "/no\udcfftext", "up"], WRONG, "/no\\udcfftext cannot be a home: its path is not UTF-8 text. Next: name another"),
    (["up", "--name", ""], WRONG, "--name"),
    (["up", "--name", "other"], DENIED, "is named test, and cannot be renamed. Next: leave --name out"),
    (["up", "--port", "5"], DENIED, "listens at 127.0.0.1:1, not 127.0.0.1:5. Next: leave --port out"),
    (["init"], DENIED, "holds a realm already. Next: use it, or set another DSMT_HOME"),
    (["node", "run", "Bad Name"], WRONG, "'Bad Name' is not a name for a node"),
    (["node", "run", "a/b"], WRONG, "'a/b' is not a name for a node"),
    (["node", "run", ".."], WRONG, "'..' is not a name for a node"),
    (["node", "run", ""], WRONG, "'' is not a name for a node"),
    (["controller", "run", "../x"], WRONG, "'../x' is not a name for a controller: at most 63 of a-z, 0-9"),
    (["broker", "run", "../b1"], WRONG, "'../b1' is not a name for a broker"),
    (["broker", "run", "b2"], MISSING, "holds no identity; brokers here: b1"),
    (["trust", "export", "--json"], WRONG, "the export is binary: name a file for it"),
    (["export", "-"], WRONG, "'-' names no file. Next: name the file to write: dsmt export h.dsmt"),
    (["export", ".."], WRONG, ".. is not a regular file"),
    # --- typed carelessly ------------------------------------------------------------------------------------------
    (["whynot", "web"], WRONG, "there is no command `dsmt whynot`. Next: did you mean `dsmt why-not`?"),
    (["service", "web"], WRONG, "Next: did you mean `dsmt services`?"),
    (["log", "web"], WRONG, "Next: did you mean `dsmt logs`?"),
    (["drain", "n1"], WRONG, "there is no command `dsmt drain`. Next: did you mean `dsmt node drain`?"),
    (["rotate", "node/n1"], WRONG, "Next: did you mean `dsmt cert rotate`?"),
    (["undrain", "n1"], WRONG, "there is no command `dsmt undrain`. Next: did you mean `dsmt node include`?"),
    (["node", "n1"], WRONG, "there is no command `dsmt node n1`. Next: dsmt node --help"),
    (["node", "list"], WRONG, "there is no command `dsmt node list`"),
    (["nodes", "n1"], WRONG, "got unexpected extra argument (n1). Next: dsmt nodes --help"),
    (["ps", "--problem"], WRONG, "no such option '--problem'. Did you mean '--problems'? Next: dsmt ps --help"),
    (["remove", "web", "--force"], WRONG, "dsmt: no such option '--force'. Next: dsmt remove --help"),
    (["get", "web", "--revision", "99"], WRONG, "dsmt: no such option '--revision'. Next: dsmt get --help"),
    (["scale", "web", "--replicas=3"], WRONG, "dsmt: no such option '--replicas'. Next: dsmt scale --help"),
    (["remove", "web", "--ye"], WRONG, "no such option '--ye'. Did you mean '--yes'? Next: dsmt rem"),
    (["apply", "web.yaml", "--plan"], WRONG, "option '--plan' requires an argument. Next: dsmt apply --help"),
    (["stop", "web", "--reason", "x" * 1001], WRONG, "'--reason': it has 1001 characters, and 1000 are the most. Next: dsmt stop"),
    (["stop", "web/app/0", "--reason"], WRONG, "option '--reason' requires an argument. Next: dsmt stop --help"),
    (["wait", "web", "--for"], WRONG, "option '--for' requires an argument. Next: dsmt wait --help"),
    (["completion"], WRONG, "missing argument 'SHELL'. Choose from: bash, zsh, fish. Next: dsmt completion --help"),
    (["completion", "tcsh"], WRONG, "'tcsh' is not one of"),
    (["stat"], WRONG, "there is no command `dsmt stat`. Next: did you mean `dsmt status`?"),
    (["help", "targets"], WRONG, "there is no command or word `targets`. Next: did you mean dsmt help target?"),
    (["help", "frob"], WRONG, "Next: dsmt --help, or one of target, states"),
    (["logs", "web", "-n", "ten"], WRONG, "'ten' is not a whole number from 0 to 10000. Next: dsmt logs --help"),
    (["scale", "3", "web/app"], WRONG, "'web/app' is not a whole number from 0 to 100000"),
    (["scale", "web/app/0", "5"], WRONG, "web/app/0 is not a component. Next: write SERVICE/COMPONENT: web/app"),
    (["ps", "-l", "=x"], WRONG, "'=x' is not a label. Next: write -l KEY=VALUE"),
    (["why", "operator/root"], MISSING, "Next: dsmt tail --source 'operator/root*' --since 1h"),
    (["why", "n1"], MISSING, "there is no service n1. Next: n1 is a node: dsmt node show n1, dsmt why node/n1"),
    (["status", "node/n1"], MISSING, "there is no service node. Next: dsmt node show n1, or dsmt why node/n1"),
    (["ps", "broker/b1"], MISSING, "there is no service broker. Next: dsmt brokers, or dsmt why broker/b1"),
    (["endpoints", "controller/c1"], MISSING, "there is no service controller. Next: dsmt controllers, or dsmt why controller/c1"),
    (["why", "1700000000000-42"], MISSING, "Next: an event's id has its source before it: dsmt why SOURCE#1700000000000-42"),
    (["why", "node/"], WRONG, "'node/' is not a target"),
    (["node", "show", "node/n1"], MISSING, "there is no node node/n1. Next: write n1, without node/"),
    (["move", "web/app/0", "--to", "node/n1"], MISSING, "Next: write n1, without node/"),
    (["move", "web/app/0", "--to", ""], MISSING, "there is no node ''. Next: dsmt nodes lists them"),
    (["stop", "*"], WRONG, "'*' is not a target"),
    (["stop", "all"], MISSING, "there is no service all"),
    (["publish", "user/x", "1", "--ttl", "forever"], WRONG, "`forever` is not a duration"),
    (["publish", "foo", "1"], WRONG, "foo is not a topic for operators: theirs begin with user/. Next: publish on user/foo"),
    (["operator", "add", "bob", "--into", ""], WRONG, "'' names no directory. Next: name the one to make, or leave --into out"),
    (["cert", "rotate", "n1"], MISSING, "n1 is not a member of this home"),
    (["cert", "rotate", ""], MISSING, "'' is not a member of this home"),
    (["rollback", "web", "--to", "latest"], WRONG, "'latest' is not a revision: write r3 or 3"),
    (["rollback", "web", "--to", "9" * 5000], WRONG, "is not a revision: write r3 or 3"),
    (["logs", "web", "--revision", f"r{10**18}"], WRONG, "'r1000000000000000000' is not a revision: write r3 or 3"),
    (["whatif"], WRONG, "nothing is to happen. Next: dsmt whatif --kill NODE, --drain NODE, --spec FILE"),
    (["whatif", "n1"], WRONG, "unexpected extra argument (n1)"),
    (["whatif", "--kill"], WRONG, "option '--kill' requires an argument"),
    (["nodeset", "use", "web/app", "all_nods"], MISSING, "no node or node set all_nods. Next: did you mean all_nodes? dsmt"),
    (["whatif", "--kill", "n9"], MISSING, "there is no node or node set n9. Next: dsmt nodes"),
    (["whatif", "--kill", ""], WRONG, "a set is missing. Next: write all_nodes, a name, or minus(a, b)"),
    (["whatif", "--drain", "minus(n1"], WRONG, "`)` or `,` is missing at the end. Next: write it as in minus(a, b)"),
    (["whatif", "--kill", "n1,n2"], WRONG, "`,` stands after a whole expression. Next: write one expression, as in union(a, b)"),
    (["whatif", "--kill", "all_nodes"], WRONG, "no node would be left"),
    (["whatif", "--spec", "web"], MISSING, "there is no file web"),
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
    assert "Next: " in told or '"next":' in told or "mistake" in told
    assert _held(made) == before


def _held(home: Path) -> list[Path]:
    """What a home holds, but for its lock, and the names that a shell completes, which whatever looks keeps there."""
    return sorted(path for path in home.rglob("*") if path.name not in (names.FILE, LOCK_FILE))


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


def test_a_wrong_address_that_a_variable_names_is_told_with_the_variable(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSMT_BUS", "foo")
    monkeypatch.setenv("DSMT_HOME", str(made))
    said = "'foo' is not a list of brokers of realm test. Next: write dsmt://HOST:PORT,...\n"
    for arguments, told in (
        (["ps"], f"dsmt: DSMT_BUS: {said}"),
        (["ps", "--bus", "foo"], f"dsmt: {said}"),
        (["--bus", "foo", "ps"], f"dsmt: {said}"),
    ):
        assert main(arguments) == WRONG
        assert capsys.readouterr().err == told


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
        unknown = await _unreachable(["a..b:1"], realm)
        assert unknown.message == "no broker answers at a..b:1: this machine knows no address of a..b"
        assert unknown.next == "see to its name: getent hosts a..b; then try again"
        assert {there.exit, nobody.exit, own.exit} == {AWAY}

    asyncio.run(scenario())


def test_a_broker_of_the_realm_that_lets_nobody_in_hangs_first_and_nobody_is_told_to_end_the_realm(made: Path) -> None:
    realm = Home(made).realm()

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            named = msgspec.structs.replace(realm, brokers=((address, realm.brokers[0][1]),))
            told, both = await _unreachable([address], named), await _unreachable([address, address], named)
        hangs = "the broker there hangs or is overloaded, or another program has its port"
        assert told.message == f"{address} takes connections, but lets nobody in: {hangs}"
        assert f"{address} take connections, but let nobody in: the brokers there hang" in both.message
        assert told.next.startswith("try again in a minute; if it stays so, see there which process listens")
        assert "dsmt down" not in told.next
        assert (told.code, told.exit) == ("bus.stranger", AWAY)

    asyncio.run(scenario())


def test_of_nats_servers_that_let_nobody_in_it_is_said_that_this_may_pass_before_a_restart_is_advised(made: Path) -> None:
    realm = Home(made).realm()

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            on_nats = NatsTerms(authority="", replicas=3)
            brokers = ((address, realm.brokers[0][1]),)
            told = await _unreachable([address], msgspec.structs.replace(realm, brokers=brokers, nats=on_nats))
        assert told.message == f"the NATS servers of realm test let nobody in, though there is an answer at {address}"
        assert told.next.startswith("try again: ")
        assert "dsmt down" not in told.next
        assert told.exit == AWAY

    asyncio.run(scenario())
