"""Wrong service files: each mistake is told in its sentence with its line, and never with a traceback."""

# ruff: noqa: E501 - a row of a table stays one line

import json
import os
from pathlib import Path

import pytest

from tests.cli.in_process import WRONG, Run


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
    ("service:\ncomponents: {a: {run: x}}\n", "1:1: `service` has no value (write one)"),
    ("service: 5\ncomponents: {a: {run: x}}\n", "1:10: service: `5` is a number in YAML"),
    ("service: a\nservice: b\ncomponents: {a: {run: x}}\n", "2:1: `service` is here twice (the first is on line 1)"),
    ("service: web\ncomponents: {A: {run: x}}\n", "2:14: `A` is not a name to use here"),
    (app() + "---\n" + app(), "6:10: the service `web` is here twice"),
    ("%YAML 1.1\n---\n" + app(), "1:1: directives (`%`) are not used here"),
    (app("env: !!str x"), "5:10: tags (`!...`) are not used here"),
    (app("env: {A: *b}"), "5:14: `*b` has no `&b` before it"),
    (app("env: {A: 'b}"), "not YAML"),
    (app("health: {exec: check {port.h} now}", "ports: {h: auto}"), "5:20: a value that holds `{` must be quoted here (write 'check {port.h} now')"),
    ("[Unit]\nDescription=x\n", "2:1: this is not YAML: more follows where the document has ended (begin with `service: NAME`"),
    (app("\tinstances: 2"), "5:5: a tab is not allowed here (indent with spaces)"),
    (app("description:\tx"), "5:17: a tab is not allowed here (write spaces, or quote the value that holds it)"),
    (app("env: {A: b}\t# c"), "5:16: a tab is not allowed here (write spaces, or quote the value that holds it)"),
    (app("env:", "  A: b\tc"), "6:11: a tab is not allowed here (write spaces, or quote the value that holds it)"),
    ("service: web\n components:\n", "2:12: this is not YAML: a key has no place here (each key is indented like those beside it, with a space behind its colon)"),
    ("service:web\ncomponents:\n", "2:11: this is not YAML: a key has no place here (each key is indented"),
    ("[" * 100, "nested too deep"),
    ("x" * 1_100_000, "1:1: the file is larger than"),
    # --- characters ------------------------------------------------------------------------------------------------
    ("service: web\ncomponents:\n  app:\n    run:\u00a0x\n", "4:9: the character U+00A0 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    \u00a0run: x\n", "4:5: the character U+00A0 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    run: x\u00a0\n", "4:11: the character U+00A0 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    run: &c \u3000x\n", "4:13: the character U+3000 looks like a space here"),
    ("service: web\ncomponents:\n  app:\n    run: x\u00a0y\n", "4:10: run: the character U+00A0 looks like a space and"),
    ('service: web\ncomponents:\n  app:\n    run: "a\\0b"\n', "4:10: run: the text holds a NUL character (U+0000)"),
    (app('env: {A: "x\\ud800y"}'), "5:14: U+D800 is half of a character, and no text can hold it (write the character itself)"),
    (app('env: {A: "\\U00110000"}'), "5:15: this is not YAML: an escape is beyond the last character"),
    (app('env: {"x\\udfffy": b}'), "5:11: U+DFFF is half of a character"),
    (app('instances: "\\ud83d\\ude00"'), "5:16: U+D83D is half of a character"),
    (app('env: {A: "\\UFFFFFFFF"}'), "5:15: this is not YAML: an escape is beyond the last character, \\U0010FFFF"),
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
        ("healthcheck", "health"), ("restart_policy", "restart"), ("stop_signal", "stop.signal"),
        ("stop_grace_period", "stop.grace"), ("update_config", "update"), ("working_dir", "directory"), ("volumes", "data"),
        ("logging", "logs"), ("max_surge", "update.max_parallel"),
    )),
    *((app(f"{theirs}: 1"), f"(here it is `{ours}`, which is not built yet; ") for theirs, ours in (
        ("depends_on", "after"), ("constraints", "requires"), ("affinity", "rank"),
    )),
    (app("Instances: 2"), "here it is `instances`"),
    (app("install-timeout: 2s"), "here it is `install_timeout`"),
    (app("grace: 2s"), "`grace` belongs under `stop`"),
    (app() + "run: x\n", "5:1: there is no key `run` (`run` belongs under `components.NAME`)"),
    (app("env:", "  <<: {A: b}"), "6:7: merge keys (`<<`) are not in YAML 1.2"),
    (app("<<: {env: {}}"), "5:5: merge keys (`<<`) are not in YAML 1.2 (use `defaults:`"),
    (app("ports:", "  <<: {a: 1}"), "6:7: merge keys (`<<`) are not in YAML 1.2"),
    (app("? [a]", ": b"), "a key must be a word"),
    (app("env: {A-B: c}"), "5:11: `A-B` is not a variable name (allowed are 1-256 of A-Z a-z 0-9 _, no digit first)"),
    (app("ports: {Http: 1}"), "5:13: `Http` is not a port name (allowed are 1-32 of a-z 0-9 - _, a letter first, a letter or digit last)"),
    (app("instances:"), "5:5: `instances` has no value (write one, or remove the line)"),
    (app().replace("x", ""), "4:5: `run` has no value (write one, or remove the line)"),
    (app("enviroment: 1"), "5:5: there is no key `enviroment` in `components.NAME` (here it is `env`)"),
    (app("volume: 1"), "5:5: there is no key `volume` in `components.NAME` (here it is `data`)"),
    (app("needs: db"), "5:5: there is no key `needs` in `components.NAME` (here it is `after`, which is not built yet; "),
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
    *((app(f"reserve: {{cpu: {odd}}}"), f"reserve.cpu: `{odd}` is no number that can be counted with (write digits, as in 1 or 0.5)") for odd in (".nan", ".inf", "-.inf", "1e400")),
    (app("instances: .inf"), "5:16: instances: `.inf` is no number that can be counted with"),
    (app("restart: {factor: .NaN}"), "restart.factor: `.NaN` is no number that can be counted with"),
    (app("reserve: {cpu: lots}"), "reserve.cpu: `lots` is not a number"),
    (app("limits: {memory: 0, enforce: best_effort}"), "`limits.memory` (0) is too small: no program starts with it (at least 1MiB)"),
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
    (app("env: {A: [1]}"), "env.A: a list cannot be here (a single text or number is expected)"),
    (app("env: {A: {address}}"), "quote it: '{address}'"),
    (app("env: {A: {secret: s}}"), "a secret by name does not belong in `env`"),
    (app("files: [{to: ../a, content: x}]"), "files.to: `../a` leads out of the instance's directory"),
    (app("files: [{to: a, content: x, mode: 0644}]"), "files.mode: `0644` is a number in YAML, and not octal in 1.2"),
    (app("files: [{to: a}]"), "a file has its text from one place"),
    (app("files: [{to: ., content: x}]"), "5:18: `.` is a directory (name the file that is to be in it)"),
    (app("files: [{to: a/, content: x}]"), "5:18: `a/` is a directory"),
    (app("env: {DSMT_TREE: x}"), "5:22: `DSMT_TREE` is set by dsmt, which finds by it what it has started (remove it)"),
    (app("nodes: [n1, n2]"), "5:12: nodes: a list cannot be here (write one expression, as in union(n1, n2))"),
    (app("health: {http: {status: [200]}}", "ports: {a: 1}"), "http.status: a list cannot be here (write it as 200-299 or 200,204)"),
    (app("data: /var/lib/x"), "5:11: data: `/var/lib/x` is neither true nor false (write true: `{data}` is where the directory is)"),
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
    (app("artifact: ~/no.tgz"), "there is no file ~/no.tgz (`~` is no home directory here: write the whole path)"),
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


def test_what_is_wrong_with_one_file_of_a_directory_is_told_of_it(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(app())
    (tmp_path / "old.yaml").symlink_to("nowhere.yaml")
    code, told = run("apply", ".", home=made)
    assert (
        told
        == "dsmt: old.yaml is a link to nowhere.yaml, which is not there. Next: remove it, or name the files one by one\n"
    )
    assert code == WRONG
    (tmp_path / "old.yaml").unlink()
    (tmp_path / "old.yaml").mkdir()
    code, told = run("apply", ".", home=made)
    assert told == "dsmt: old.yaml cannot be read: Is a directory. Next: name another file\n"
    assert code == WRONG


CPU = "`reserve.cpu` is what placement counts"
AFTER = "what fails before the others are there is started again"


def test_what_is_wrong_not_there_and_not_built_is_told_at_once(run: Run, made: Path, tmp_path: Path) -> None:
    keys = ("health: {http: {port: q}}", "instances: -1", "limits: {cpu: 2}", "artifact: no.tgz", "after: [b]", "data: 5")
    (tmp_path / "web.yaml").write_text(app(*keys) + "---\n" + app("replicas: 1"))
    (tmp_path / "also.yaml").write_text(app())
    code, told = run("apply", "web.yaml", "also.yaml", home=made)
    assert told.splitlines() == [
        "also.yaml:1:10: the service `web` is declared twice (keep one; the other is at web.yaml:12)",
        "web.yaml:5:27: `q` is not in `ports` (there are none here)",
        "web.yaml:6:16: instances: -1 is too small (at least 0)",
        f"web.yaml:7:14: components.app.limits.cpu: this key is not built yet (remove it: {CPU})",
        "web.yaml:8:15: components.app.artifact.url: there is no file no.tgz (a path is relative to the service file)",
        f"web.yaml:9:13: there is no component `b` (`after` is not built yet; remove it: {AFTER})",
        "web.yaml:10:11: data: `5` has no unit that means one thing (5KiB, 5MiB or 5GiB?)",
        "web.yaml:12:10: the service `web` is here twice (the first is on line 1)",
        "web.yaml:16:5: there is no key `replicas` in `components.NAME` (here it is `instances`)",
        "dsmt: 9 mistakes, nothing was done",
    ]
    assert code == WRONG


def test_that_a_key_is_not_built_is_told_of_each_component_that_has_it(run: Run, made: Path, tmp_path: Path) -> None:
    component = "  {}:\n    run: sleep 1\n    after: {}\n"
    known, unknown = component.format("a", "{component: b}"), component.format("b", "[c]")
    (tmp_path / "web.yaml").write_text("service: web\ncomponents:\n" + known + unknown)
    code, told = run("apply", "web.yaml", home=made)
    assert [line.split(": ")[0] for line in told.splitlines()] == ["web.yaml:5:5", "web.yaml:8:13", "dsmt"]
    assert code == WRONG


WANTS = [
    ("artifact: {url: a, sha256: %s}" % ("0" * 64), "5:32: components.app.artifact.sha256: a has sha256 "),
    ("files: [{to: a, from: b}]", "5:27: components.app.files.from: b has over 16384 characters. Next: make it an artifact"),
    ("files: [{to: a, from: c}]", "5:27: components.app.files.from: c is not text in UTF-8. Next: make it an artifact"),
]


@pytest.mark.parametrize(("line", "said"), WANTS, ids=["mismatch", "long", "latin-1"])
def test_a_file_that_is_not_as_it_says_is_told_with_the_place_that_names_it(
    run: Run, made: Path, tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / "web.yaml").write_text(app(line))
    for name, content in (("a", b"x"), ("b", b"x" * 20_000), ("c", b"\xff")):
        (tmp_path / name).write_bytes(content)
    code, told = run("plan", "web.yaml", home=made)
    assert told.startswith(f"dsmt: web.yaml:{said}")
    assert code == WRONG


def test_one_service_in_two_files_is_told_with_both_places(run: Run, made: Path, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("\n\n" + app())
    code, told = run("apply", "a.yaml", "b.yaml", home=made)
    assert told.startswith("b.yaml:3:10: the service `web` is declared twice (keep one; the other is at a.yaml:3)\n")
    assert code == WRONG


def test_what_is_no_file_is_told_as_what_it_is(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(app("artifact: site", "files:", "  - {to: a, from: site}", "  - {to: b, from: pipe}"))
    (tmp_path / "site").mkdir()
    os.mkfifo(tmp_path / "pipe")
    code, told = run("plan", "web.yaml", home=made)
    pack = "(pack what is in it: tar czf FILE -C DIRECTORY .)"
    assert told.splitlines() == [
        f"web.yaml:5:15: components.app.artifact.url: site is a directory, and a file is expected {pack}",
        f"web.yaml:7:23: components.app.files.from: site is a directory, and a file is expected {pack}",
        "web.yaml:8:23: components.app.files.from: pipe is not a regular file (name another file)",
        "dsmt: 3 mistakes, nothing was done",
    ]
    assert code == WRONG


def test_of_hundreds_of_mistakes_the_first_hundred_are_shown(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_bytes(b"\xff\n" * 300)
    code, told = run("plan", "web.yaml", home=made)
    lines = told.splitlines()
    assert len(lines) == 102
    assert lines[-2].startswith("... and ")
    assert lines[-1].endswith(" mistakes, nothing was done")
    assert code == WRONG
    _, told = run("plan", "web.yaml", "--json", home=made)
    assert len(json.loads(told)["error"]["mistakes"]) > 300 - 2
