"""The service file: what its short forms, defaults and YAML habits mean."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsmt.spec.mistakes import SpecErrors
from dsmt.spec.parsing import parse, read
from dsmt.spec.records import ServiceSpec
from tests.spec.service_files import SMALL, component, mistakes, one


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


def test_anchors_under_x_keys_and_aliases_of_whole_values_work():
    text = "x-env: &env {LOG: info}\n" + component("run: x\nenv: *env\nx-note: {any: [thing]}")
    (spec,) = parse(text, file="f")
    assert spec.components["app"].env == {"LOG": "info"}


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
@example(["service: web", "\r0", "\r"])
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
    last = len(text.splitlines()) + 2  # a line ends with a carriage return, too, by YAML 1.1 (4.1.4)
    assert all(1 <= m.line <= last and m.column >= 1 and m.message for m in found)
    assert list(found) == sorted(found)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="a:-{}[]'\"\n #&*!|>%@`\t,?~", max_size=40).map(str.encode))
def test_no_bytes_break_the_reader(raw):
    with pytest.raises(SpecErrors):
        parse(raw, file="f")
