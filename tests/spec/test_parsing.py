"""The service file: every mistake at once with its line, and the YAML habits that are explained."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmt.errors import InputError
from dsmt.spec.mistakes import SpecErrors
from dsmt.spec.parsing import parse, read
from dsmt.spec.records import ServiceSpec

SMALL = """\
service: web
components:
  app:
    run: ./server --listen 127.0.0.1:{port.http}
    ports: {http: auto}
"""


def mistakes(text):
    with pytest.raises(SpecErrors) as caught:
        parse(text, file="web.yaml")
    assert isinstance(caught.value, InputError)
    return caught.value.mistakes


def component(body, extra=""):
    """Return a file with one component whose keys begin on line 4."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"service: web\ncomponents:\n  app:\n{lines}{extra}"


def only(text):
    (mistake,) = mistakes(text)
    return mistake


def one(body):
    """Return the component of a file with just these keys (a `run` is added)."""
    (spec,) = parse(component(f"run: ./server\n{body}"), file="f")
    return spec.components["app"]


def test_the_smallest_file_has_the_defaults_of_the_manual():
    (spec,) = parse(SMALL, file="web.yaml")
    app = spec.components["app"]
    assert spec.service == "web"
    assert app.run == ("./server", "--listen", "127.0.0.1:{port.http}")
    assert (app.instances, app.driver, app.on_partition, app.nodes) == (1, "process", "at_least_one", "all_nodes")
    assert (app.restart.when, app.restart.cap_s, app.restart.park.after, app.restart.park.retry_s) == (
        "always",
        60,
        10,
        600,
    )
    assert [(step.action, step.times) for step in app.restart.escalate] == [
        ("restart", 5), ("reinstall", 2), ("recreate", 2), ("move", 1),
    ]  # fmt: skip
    assert (app.stop.signal, app.stop.grace_s, app.stop.delay_s, app.stop.command) == ("SIGTERM", 10, 0, None)
    assert (app.update.order, app.update.max_parallel.of(5), app.update.healthy_after_s) == ("start_first", 1, 10)
    assert (app.limits.pids, app.limits.files, app.limits.memory_bytes) == (4096, 65536, None)
    assert (app.reserve.memory_bytes, app.reserve.cpu, app.reserve.disk_bytes) == (128 * 2**20, 0.1, 0)
    assert (app.logs.size_bytes, app.logs.keep, app.logs.rate_bytes) == (10 * 2**20, 5, 2**20)
    assert app.inherit_env == ("PATH", "LANG", "TZ", "HOME")
    assert app.health is None
    assert app.port("http").port is None


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
        (component("run: x\nenv: {A: {secret: s}}"), 5, "use `secrets:`"),
        (component("run: x\nenv: {A-B: c}"), 5, "not a variable name"),
        (component("run: x | y"), 4, "[sh, -c"),
        (component("run: []"), 4, "empty"),
        (component("run: ['', x]"), 4, "empty"),
        (component(f"run: [{'x, ' * 4097}]"), 4, "4096 are the most"),
        (component(f"run: {'x ' * 4097}"), 4, "4096 are the most"),
        (component("run: [sh, -c, true]"), 4, 'quote it: "true"'),
        (component("run: x\nreserve: {cpu: 500m}"), 5, "write 0.5"),
        (component("run: x\nreserve: {cpu: .nan}"), 5, "too small"),
        (component("run: x\nlost_after: 1s"), 5, "at least 5s"),
        (component("run: x\nterm: 10m"), 5, "at most 5m"),
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
        (component("run: x\nrestart: {escalate: [restart]}"), 5, "one pair"),
        (component("run: x\nrestart: {escalate: [explode: 1]}"), 5, "one of restart"),
        (component("run: x\nrestart: {factor: 11}"), 5, "at most 10"),
        (component("run: x\nstop: {signal: 15}"), 5, "not a signal"),
        (component("run: x\nupdate: {canary: 0%}"), 5, "percentage"),
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


def test_anchors_under_x_keys_and_aliases_of_whole_values_work():
    text = "x-env: &env {LOG: info}\n" + component("run: x\nenv: *env\nx-note: {any: [thing]}")
    (spec,) = parse(text, file="f")
    assert spec.components["app"].env == {"LOG": "info"}


def test_a_large_file_full_of_mistakes_is_answered_within_the_time_limit():
    found = mistakes("service: web\n" + "".join(f"k{i}: a: b\n" for i in range(8000)))
    assert found[0].line == 2
    assert len(mistakes("service: web\n" + "".join(f"k{i}: a: b\n" for i in range(20)))) == 41


def test_an_anchor_may_be_set_again_and_the_last_one_counts():
    text = "x-a: &a {LOG: one}\nx-b: &a {LOG: two}\n" + component("run: x\nenv: *a")
    assert parse(text, file="f")[0].components["app"].env == {"LOG": "two"}


def test_a_word_that_yaml_1_1_reads_as_false_is_a_text():
    app = one("env: {COUNTRY: no, ANSWER: 'yes', N: 1.50, BIG: 12345678901234567890, NONE: null, F: {file: /k}}")
    assert app.env["COUNTRY"] == "no"
    assert app.env["N"] == "1.50"
    assert app.env["BIG"] == "12345678901234567890"
    assert app.env["NONE"] is None
    assert app.env["F"].file == "/k"


def test_several_documents_are_several_services_and_one_broken_does_not_hide_the_others():
    text = SMALL + "---\n" + SMALL.replace("web", "api") + "...\n---\n"
    assert [spec.service for spec in parse(text, file="f")] == ["web", "api"]
    found = mistakes(SMALL + "--- \nservice: [\n---\n" + SMALL.replace("web", "Api") + "---\n" + SMALL)
    assert [m.line for m in found] == [7, 9, 15]
    assert "twice" in found[-1].message


def test_bytes_with_a_byte_order_mark_and_carriage_returns_are_read():
    raw = ("\ufeff" + SMALL.replace("\n", "\r\n")).encode()
    assert parse(raw, file="f") == parse(SMALL, file="f")


def test_a_tab_inside_a_block_of_text_is_kept():
    app = one("files:\n  - to: Makefile\n    content: |\n      all:\n      \ttouch x\n")
    assert app.files[0].content == "all:\n\ttouch x\n"


def test_defaults_lie_under_every_component_and_its_own_values_win():
    text = (
        "service: web\ndefaults:\n  env: {A: '1', B: '1'}\n  restart: {cap: 5s}\n  health: {exec: 'true'}\n"
        "components:\n  a:\n    run: x\n    env: {B: '2'}\n  b:\n    run: y\n    ports: {p: auto}\n"
        "    health: {tcp: {}}\n    restart: never\n"
    )
    (spec,) = parse(text, file="f")
    a, b = spec.components["a"], spec.components["b"]
    assert a.env == {"A": "1", "B": "2"}
    assert a.restart.cap_s == 5
    assert a.health.readiness.how.command == ("true",)
    assert b.env == {"A": "1", "B": "1"}
    assert b.restart.when == "never"
    assert b.health.readiness.how.port == "p"


def test_a_mistake_in_defaults_is_told_once_at_its_own_place():
    text = "service: web\ndefaults:\n  stop: {grace: 1}\ncomponents:\n  a: {run: x}\n  b: {run: y}\n"
    assert only(text).line == 3
    assert only(text.replace("{grace: 1}", "[]").replace("components:\n  a: {run: x}\n  b: {run: y}\n",
                             "components:\n  a: {run: x}\n")).line == 3  # fmt: skip


def test_one_check_serves_three_roles_each_with_its_own_timing():
    health = one("ports: {http: auto, admin: 9000}\nhealth: {http: {path: /healthz}}").health
    assert health.startup.how == health.readiness.how == health.liveness.how
    assert health.startup.how.port == "http"
    assert (health.startup.interval_s, health.startup.deadline_s) == (1, 60)
    assert (health.readiness.interval_s, health.readiness.failures, health.readiness.deadline_s) == (5, 3, None)
    assert (health.liveness.failures, health.liveness.timeout_s) == (6, 2)


def test_the_exec_short_form_restarts_nothing():
    health = one("health: {exec: ./check, interval: 3s, deadline: 2m}").health
    assert health.liveness is None
    assert health.readiness.how.command == ("./check",)
    assert (health.startup.interval_s, health.startup.deadline_s, health.readiness.interval_s) == (3, 120, 3)


def test_the_long_form_of_health_has_only_the_roles_it_names_and_a_start():
    health = one("ports: {http: auto}\nhealth: {readiness: {http: {path: /r}, interval: 9s, timeout: 1s}}").health
    assert health.liveness is None
    assert health.readiness.interval_s == 9
    assert health.startup.how == health.readiness.how
    assert (health.startup.interval_s, health.startup.timeout_s, health.startup.deadline_s) == (1, 1, 60)


def test_short_forms_mean_their_long_forms():
    assert one("restart: never").restart.when == "never"
    assert one("ports: {a: 80}").ports == one("ports: {a: {port: 80}}").ports
    assert one("ports: {a: auto}\nsockets: []").ports == one("ports: {a: auto}").ports
    assert one("ports: {a: auto}\nsockets: a").ports == one("ports: {a: auto}\nsockets: [a]").ports
    assert one("ports: {a: auto}\nsockets: [a]").ports == one("ports: {a: {held: true}}").ports
    assert one("artifact: x.tar").artifacts == one("artifact: [{url: x.tar}]").artifacts
    assert one("spread: none").spread == one("spread: {by: none}").spread
    assert one("plan: failed").nodes == one("nodes: failed").nodes == "failed"
    assert one("reload: HUP").reload == one("reload: SIGHUP").reload
    assert one("reload: ./reload now").reload.command == ("./reload", "now")
    assert one("data: 5GiB").data_bytes == 5 * 2**30
    assert one("data: true").data
    assert one("instances: each_node").each_node


def test_a_command_may_have_as_many_words_as_an_event_carries():
    assert len(one(f"install: {'x ' * 4096}").install) == len(one(f"install: [{'x, ' * 4096}]").install) == 4096


def test_an_alias_beside_its_key_is_a_mistake():
    assert "`nodes`" in only(component("run: x\nnodes: failed\nplan: failed")).message


def test_defaults_that_depend_on_other_keys():
    assert one("ports: {a: 80}").update.order == "stop_first"
    assert one("on_partition: pinned").update.order == "stop_first"
    assert [s.action for s in one("on_partition: pinned").restart.escalate] == ["restart", "reinstall", "recreate"]
    assert one("on_partition: at_most_one").stop.grace_s == pytest.approx(4.5)
    assert one("on_partition: at_most_one\nterm: 60s").stop.grace_s == 10
    assert one("limits: {memory: 1GiB, cpu: 2}").reserve.memory_bytes == 2**30
    assert one("limits: {memory: 1GiB}\nreserve: {memory: 1MiB}").reserve.memory_bytes == 2**20
    assert one("kind: job\ninstances: 4").job.parallel == 4
    assert one("kind: job").restart.when == "on_failure"
    digest = "ab" * 32
    assert one(f"artifact: depot:{digest}").artifacts[0].sha256 == digest


def test_a_probable_secret_in_env_is_a_warning_with_its_line():
    parsed = read(component("run: x\nenv:\n  DB_PASSWORD: hunter2\n  KEY_FILE: {file: /k}"), file="f")
    ((warning),) = parsed.warnings
    assert (warning.line, "env.DB_PASSWORD" in warning.message) == (6, True)
    assert "hunter2" not in str(warning)


LINES = """\
service: web
components:
  app:
    run: ./x {port.http}
    ports: {http: auto}
    instances: 3
    health:
      http: {path: /}
    env:
      A: b
    restart: always
---
labels: {a: b}
    artifact: x
    after: [db]
  db: {run: y}
barriers: {b: {min: 2}}
    update: {canary: 10%}
""".splitlines()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(LINES) | st.text(max_size=12), max_size=14))
def test_any_mixture_of_lines_parses_or_tells_its_mistakes(lines):
    text = "\n".join(lines)
    try:
        specs = parse(text, file="f")
    except SpecErrors as errors:
        found = errors.mistakes
    else:
        assert all(isinstance(spec, ServiceSpec) for spec in specs)
        return
    assert found
    assert all(1 <= m.line <= text.count("\n") + 2 and m.column >= 1 and m.message for m in found)
    assert list(found) == sorted(found)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="a:-{}[]'\"\n #&*!|>%@`\t,?~", max_size=40).map(str.encode))
def test_no_bytes_break_the_reader(raw):
    with pytest.raises(SpecErrors):
        parse(raw, file="f")
