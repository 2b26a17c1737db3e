"""A service file with mistakes: every one at once, each with its line and what to write."""

import pytest

from tests.spec.service_files import SMALL, component, mistakes, only

TEN = """\
service: Web
owner: 12
labels:
  tier: front
  tier: back
components:
  app:
    run: ./server --port {port.htp}
    replicas: 3
    ports: {http: 80000}
    stop: {grace: 10}
    limits: {memory: 512M}
    restart: sometimes
    health:
      http: {port: http, paht: /}
    update:
      order: stop_first
      max-parallel: 1
    env:
      DEBUG: yes
      MASK: 0022
"""


def test_a_file_with_ten_mistakes_reports_all_ten_with_their_lines():
    found = mistakes(TEN)
    assert [(m.line, m.column) for m in found] == [
        (1, 10), (2, 8), (5, 3), (9, 5), (10, 19), (11, 19), (12, 22), (13, 14), (15, 26), (18, 7), (21, 13),
    ]  # fmt: skip
    said = {m.line: f"{m.message} {m.suggestion}" for m in found}
    assert "web?" in said[1]
    assert 'quote it: "12"' in said[2]
    assert "twice" in said[5]
    assert "`instances`" in said[9]
    assert "65535" in said[10]
    assert "10s" in said[11]
    assert "MiB or MB?" in said[12]
    assert "always" in said[13]
    assert "`path`" in said[15]
    assert "`max_parallel`" in said[18]
    assert '"0022"' in said[21]
    assert all(m.file == "web.yaml" for m in found)
    # ports could not be read, so nothing is concluded from them (line 8 is told once line 10 is right)
    assert 8 in {m.line for m in mistakes(TEN.replace("80000", "8000"))}


def test_mistakes_of_syntax_and_of_meaning_are_told_together():
    text = (
        "service: web\ncomponents:\n  app:\n    run: {port.http} --fast\n    description: a: b\n"
        "\tinstances: 3\n    env:\n      AT: @home\n    restart: maybe\n"
    )
    found = {(m.line, m.message) for m in mistakes(text)}
    assert (4, "a value that begins with `{` must be quoted") in found
    assert (5, "a value that holds `: ` must be quoted") in found
    assert (6, "a tab is not allowed here") in found
    assert (8, "a value that begins with `@` must be quoted") in found
    assert {line for line, _ in found} >= {4, 5, 6, 8}


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("replicas", "instances"), ("count", "instances"), ("scale", "instances"), ("command", "run"), ("cmd", "run"),
        ("entrypoint", "run"), ("exec_start", "run"), ("ExecStart", "run"), ("environment", "env"), ("depends_on", "after"),
        ("healthcheck", "health"), ("probes", "health"), ("check", "health"), ("resources", "limits` and `reserve"),
        ("restart_policy", "restart"), ("stop_grace_period", "stop.grace"), ("kill_timeout", "stop.grace"),
        ("TimeoutStopSec", "stop.grace"), ("stop_signal", "stop.signal"), ("kill-signal", "stop.signal"),
        ("update_config", "update"), ("rollout", "update"), ("strategy", "update"),
        ("parallelism", "update.max_parallel"), ("max_surge", "update.max_parallel"),
        ("min_healthy_time", "update.healthy_after"), ("monitor", "update.healthy_after"),
        ("auto_revert", "update.rollback"), ("failure_action", "update.rollback"), ("constraints", "requires"),
        ("nodeSelector", "requires"), ("affinity", "rank"), ("preferences", "rank"), ("working_dir", "directory"),
        ("workdir", "directory"), ("volumes", "data"), ("install-timeout", "install_timeout"), ("Instances", "instances"),
        ("instnaces", "instances"),
    ],
)  # fmt: skip
def test_a_neighbours_word_is_refused_and_answered_with_ours(word, ours):
    mistake = only(component(f"run: ./server\n{word}: 3"))
    assert (mistake.line, mistake.column) == (5, 5)
    assert word in mistake.message
    assert f"`{ours}`" in mistake.suggestion


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (SMALL + "run: x\n", 6, "belongs under `components.NAME`"),
        (SMALL + "replicas: 2\n", 6, "`instances`, under components.NAME"),
        (component("run: x\nupdate: {parallelism: 2}"), 5, "`max_parallel`"),
        (component("run: x\nstop: {grace_period: 2s}"), 5, "`grace`"),
        (component("run: x\ngrace: 2s"), 5, "belongs under `stop`"),
        (component("<<: {a: b}\nrun: x"), 4, "merge keys"),
        (component("run: {port.http}\nports: {http: auto}"), 4, "quote it: '{port.http}'"),
        (component("run: x\nenv: {A: {address}}"), 5, "quote it: '{address}'"),
        (component("run: x\nupdate: {rollback: no}"), 5, "write false"),
        (component("run: x\nupdate: {rollback: On}"), 5, "write true"),
        (component("run: x\nartifact: {url: a, unpack: false}"), 5, "write no"),
        (component("run: x\nartifact: {url: a, mode: 0644}"), 5, 'quote it: "0644"'),
        (component("run: x\ninstances: 010"), 5, "write 10, without the 0"),
        (component("run: x\ninstances: '3'"), 5, "remove the quotes"),
        (component("run: x\ninstances: each-node"), 5, "did you mean each_node?"),
        (component("run: x\ninstances: -1"), 5, "at least 0"),
        (component("run: x\ninstances: 1.5"), 5, "not a whole number"),
        (component("run: x\ninstances:"), 5, "has no value"),
        (component("run: x\nhealth: {tcp: }\nports: {a: 1}"), 5, "`{}`"),
        (component("run: x\nenv: {A: true}"), 5, 'quote it: "true"'),
        (component("run: x\nenv: {A: [1]}"), 5, "a list cannot be here"),
        (component("run: x\nenv: {A: {secret: s}}"), 5, "use {file: PATH}"),
        (component("run: x\nenv: {A-B: c}"), 5, "not a variable name"),
        (component("run: x | y"), 4, "[sh, -c"),
        (component("run: []"), 4, "empty"),
        (component("run: ['', x]"), 4, "empty"),
        (component(f"run: [{'x, ' * 4097}]"), 4, "4096 are the most"),
        (component(f"run: {'x ' * 4097}"), 4, "4096 are the most"),
        (component("run: [sh, -c, true]"), 4, 'quote it: "true"'),
        (component("run: x\nreserve: {cpu: 500m}"), 5, "write 0.5"),
        (component("run: x\nreserve: {cpu: .nan}"), 5, "`.nan` is no number that can be counted with"),
        (component("run: x\nlost_after: 1s"), 5, "`lost_after` is not built yet"),
        (component("run: x\nrestart: {cap: 0s}"), 5, "at least 100ms"),
        (component("run: x\nrestart: {reset: 0s}"), 5, "at least 100ms"),
        (component("run: x\nterm: 10m"), 5, "`term` is not built yet"),
        (component("run: x\nnodes: minus(all_nodes)"), 5, "takes 2 parts"),
        (component("run: x\nrequires: gpu"), 5, "alone is not a condition"),
        (component("run: x\nspread: rack"), 5, "label:KEY"),
        (component("run: x\ndirectory: ''"), 5, "a path is expected"),
        (component("run: x\nartifact: {url: a, to: ../x}"), 5, "leads out"),
        (component("run: x\nartifact: http://h/x"), 5, "use https:"),
        (component("run: x\nartifact: file:///srv/x"), 5, "write the path: /srv/x"),
        (component("run: x\nartifact: {url: a, sha256: abc}"), 5, "64 hexadecimal"),
        (component("run: x\nports: {Http: 1}"), 5, "port name"),
        (component("run: x\nports: [http]"), 5, "a map is expected"),
        (component("run: x\nports: {a: {bind: '*'}}"), 5, "0.0.0.0"),
        (component("run: x\nhealth: {http: {status: 600}}\nports: {a: 1}"), 5, "status codes"),
        (component("run: x\nhealth: {http: {path: status?a=1}}\nports: {a: 1}"), 5, "begins with `/` /status?a=1?"),
        (component("run: x\nhealth: {http: {path: ''}}\nports: {a: 1}"), 5, "begins with `/`"),
        (component('run: x\nhealth: {http: {headers: {A: "b\\r\\nC: d"}}}\nports: {a: 1}'), 5, "begins another header"),
        (component('run: x\nhealth: {readiness: {http: {headers: {A: "b\\nC"}}}}\nports: {a: 1}'), 5, "on one line"),
        (component("run: x\nrestart: {escalate: [restart]}"), 5, "one pair"),
        (component("run: x\nrestart: {escalate: [explode: 1]}"), 5, "one of restart"),
        (component("run: x\nrestart: {factor: 11}"), 5, "at most 10"),
        (component("run: x\nstop: {signal: 15}"), 5, "not a signal"),
        (component("run: x\nupdate: {canary: 0%}"), 5, "`canary` is not built yet"),
        (component("run: x\nfiles: {to: a}"), 5, "a list is expected"),
        ("- a\n- b\n", 1, "a service is a map"),
        ("", 1, "no service here"),
        ("# nothing\n---\n", 1, "no service here"),
        ("service: a\n", 1, "`components` is missing"),
        ("service: a\ncomponents: {}\n", 2, "is empty"),
        ("components: {a: {run: x}}\n", 1, "`service` is missing"),
        ("service: a\ncomponents: {A: {run: x}}\n", 2, "not a name"),
        ("service: a\ncomponents: {a: x}\n", 2, "a map is expected"),
        ("service: a\ncomponents: {a: {}}\n", 2, "`run` is missing"),
        ("service: ..\ncomponents: {a: {run: x}}\n", 1, "not a name"),
        ("%YAML 1.1\n---\n" + SMALL, 1, "directives"),
        (SMALL + "owner: !!str 3\n", 6, "tags"),
        (SMALL + "owner: \x01\n", 6, "U+0001"),
        (SMALL + "? [a]\n: b\n", 6, "a key must be a word"),
        (SMALL + "owner: *me\n", 6, "no `&me` before it"),
        (SMALL + "owner: 'me\n", 7, "line 6"),
        (SMALL + "labels: {a: b\n", 7, "not YAML"),
        (b"service: web\nowner: J\xf6rg\ncomponents: {a: {run: x}}\n", 2, "UTF-8"),
        ("x" * 1_100_000, 1, "larger than"),
        ("a: " + "x" * 140_000, 1, "larger than 128 KiB"),
        ("[" * 200, 1, "too deep"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_once_with_its_line_and_what_to_write(text, line, says):
    mistake = only(text)
    assert says in f"{mistake.message} {mistake.suggestion}"
    assert mistake.line == line


def test_aliases_that_unfold_without_end_are_refused():
    bomb = "x-0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"x-{i}: &a{i} [*a{i - 1},*a{i - 1},*a{i - 1},*a{i - 1},*a{i - 1},*a{i - 1},*a{i - 1},*a{i - 1}]\n"
        for i in range(1, 12)
    )
    assert "unfolds too far" in only(bomb + SMALL).message
    assert "no `&a` before it" in only("x-a: &a [*a]\n" + SMALL).message


def test_a_large_file_full_of_mistakes_is_answered_within_the_time_limit():
    found = mistakes("service: web\n" + "".join(f"k{i}: a: b\n" for i in range(8000)))
    assert found[0].line == 2
    assert len(mistakes("service: web\n" + "".join(f"k{i}: a: b\n" for i in range(20)))) == 41


def test_a_mistake_in_defaults_is_told_once_at_its_own_place():
    text = "service: web\ndefaults:\n  stop: {grace: 1}\ncomponents:\n  a: {run: x}\n  b: {run: y}\n"
    assert only(text).line == 3
    assert only(text.replace("{grace: 1}", "[]").replace("components:\n  a: {run: x}\n  b: {run: y}\n",
                             "components:\n  a: {run: x}\n")).line == 3  # fmt: skip


def test_an_alias_beside_its_key_is_a_mistake():
    assert "`nodes`" in only(component("run: x\nnodes: failed\nplan: failed")).message
