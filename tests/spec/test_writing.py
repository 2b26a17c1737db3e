"""A spec is written as an operator would write it: the shortest that means the same."""

import io
import json

import pytest
from ruamel.yaml import YAML

from dsmt.cli.printing import Escaping
from dsmt.spec.keys import GROUPS
from dsmt.spec.parsing import parse
from dsmt.spec.writing import document
from dsmt.spec.yamltext import to_yaml


def spec_of(text, top=""):
    (spec,) = parse(f"service: web\n{top}components:\n  app:\n    run: x\n    {text}\n", file="f")
    return spec


def loaded(text):
    return YAML(typ="safe", pure=True).load(text)


def written(text, top=""):
    """Return the keys of the one component, in one line of YAML, as they are written again."""
    spec = spec_of(text, top)
    said = document(spec)["components"]["app"]
    assert said.pop("run") == "x"
    assert parse(to_yaml(spec), file="again") == [spec]
    return said


HTTP = "ports: {http: auto}\n    "
SHORTEST = (
    "instances: 3", "instances: each_node", "restart: never", "restart: {when: never, cap: 5s}", "artifact: a.tar",
    "artifact: [a.tar, b.tar]", "artifact: {url: a.tar, strip: 1}", "ports: {http: auto, admin: 9000}",
    "ports: {http: {bind: 0.0.0.0}}", "ports: {http: {port: 80, protocol: udp}}", "spread: none", "spread: label:rack",
    "spread: {by: none, strict: true}", "data: true", "data: 5GiB", "env: {A: b, C: {file: /c}}", "inherit_env: []",
    "files: [{to: a, content: x, mode: '0600'}, {to: b, from: c, template: true}]", "nodes: minus(all_nodes, failed)",
    "reserve: {memory: 1MiB}", "reserve: {cpu: 2.0, disk: 1GB}", "limits: {memory: 1GiB, pids: 10}",
    "stop: {signal: INT, grace: 3s}",
    "stop: {command: ./stop now}", "update: {order: stop_first, max_parallel: 2}",
    "instances: 3\n    update: {max_parallel: 25%}",
    "update: {rollback: false}", "on_partition: pinned", "on_partition: at_most_one\n    stop: {grace: 4s}",
    "on_partition: at_least_one\n    data: true", "restart: {escalate: [restart: 1, move: 2]}",
    "restart: {park: {after: 3, retry: 1m}}", "reload: HUP", "reload: ./reload now", "reload: [sh, -c, 'a b']",
    "install: make all",
    "install: [sh, -c, 'a && b']", "user: www-data", "install_timeout: 1h30m", "requires: a > 1", "requires: [a > 1, b > 2]",
    "apart: [o/x, o/y]", "near: {to: o/x, within: 5ms}", "secrets: {A: {secret: s}, B: {file: /k, to: k}}",
    "logs: {size: 1kB, keep: 0}",
    "driver: bubblewrap", "image: nginx:1", "kind: job", "kind: job\n    retries: 5\n    instances: 4",
    "kind: job\n    parallel: 2\n    instances: 4", "kind: job\n    abort_on: [3, 'signal:SIGSEGV']\n    success_on: [0, 3]",
    "kind: job\n    restart: always", "kind: job\n    keep: 2h\n    timeout: 1m\n    pre: ./pre",
    "health: {exec: ./ok}", "health: {exec: ./ok, deadline: 9s}", "health: {exec: ./ok, interval: 2s, passes: 2}",
    HTTP + "health: {http: {port: http}}", HTTP + "health: {http: {port: http, path: /h, status: '200'}, timeout: 1s}",
    HTTP + "health: {tcp: {port: http}}", "health: {notify: {}}", "health: {notify: {watchdog: 5s}}",
    "health: {liveness: {exec: ./l, failures: 9}}",
    "health: {startup: {exec: ./s, deadline: 5s}}", "health: {startup: {exec: ./s}, readiness: {exec: ./r, interval: 9s}}",
    HTTP + "health: {readiness: {http: {port: http}}, liveness: {tcp: {port: http}}}",
)  # fmt: skip


@pytest.mark.parametrize("text", SHORTEST)
def test_what_is_as_short_as_it_can_be_is_written_as_it_was(text):
    assert written(text) == loaded(text.replace("\n    ", "\n"))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("instances: 1\n    kind: service\n    driver: process", ""), ("nodes: all_nodes\n    data: false\n    env: {}", ""),
        ("restart: {when: always, cap: 1m, factor: 2}", ""), ("restart: {when: never}", "restart: never"),
        ("restart: {escalate: [restart: 5, reinstall: 2, recreate: 2, move: 1]}", ""),
        ("artifact: [{url: a.tar, strip: 0}]", "artifact: a.tar"), ("ports: {a: {port: auto}}", "ports: {a: auto}"),
        ("ports: {a: {port: 80, held: false}}", "ports: {a: 80}"),
        ("ports: {a: 1}\n    sockets: [a]", "ports: {a: {port: 1, held: true}}"),
        ("plan: failed", "nodes: failed"), ("data: true\n    on_partition: pinned", "data: true"),
        ("stop: {signal: SIGINT, grace: 10s}", "stop: {signal: INT}"),
        ("stop: {grace: 1m30s, delay: 0s}", "stop: {grace: 1m30s}"),
        ("reserve: {memory: 128MiB, cpu: 0.1, disk: 0}", ""),
        ("limits: {memory: 1GiB}\n    reserve: {memory: 1GiB}", "limits: {memory: 1GiB}"),
        ("ports: {a: 80}\n    update: {order: stop_first}", "ports: {a: 80}"),
        ("update: {order: start_first, max_parallel: 1}", ""),
        ("kind: job\n    restart: on_failure\n    parallel: 1", "kind: job"),
        (HTTP + "health: {http: {path: /, method: GET}, interval: 5s, timeout: 2s, failures: 3}",
         HTTP + "health: {startup: {http: {port: http}, interval: 5s}, readiness: {http: {port: http}}, "
         "liveness: {http: {port: http}, failures: 3}}"),
        ("health: {readiness: {exec: ./r}, startup: {exec: ./r}}", "health: {exec: ./r}"),
        ("health: {readiness: {exec: ./r, interval: 5s, failures: 3}}", "health: {exec: ./r}"),
    ],
)  # fmt: skip
def test_what_only_repeats_a_default_is_left_out(text, short):
    assert written(text) == (loaded(short.replace("\n    ", "\n")) if short else {})


def test_what_the_service_says_is_left_out_of_its_components():
    assert written("kind: job", "kind: job\n") == {}
    assert written("kind: service", "kind: job\n") == {"kind": "service"}


def test_a_complete_document_says_every_key_that_has_a_value():
    whole = document(spec_of("ports: {http: auto}\n    health: {http: {}}\n    restart: never"), complete=True)
    assert whole["description"] == ""
    app = whole["components"]["app"]
    left_out = {"image", "install", "configure", "uninstall", "user", "rank", "lost_after", "reload"}
    assert GROUPS["component"].keys() - app.keys() - {key for key in GROUPS["component"] if key in left_out} == {
        "abort_on", "checkpoint_exit_code", "keep", "parallel", "post", "pre", "retries", "success_on", "timeout",
    }  # fmt: skip
    assert app["restart"]["when"] == "never"
    assert app["ports"]["http"] == {"port": "auto", "protocol": "tcp", "held": False}
    assert app["health"].keys() == {"startup", "readiness", "liveness"}
    assert app["health"]["liveness"]["failures"] == 6
    assert app["stop"] == {"signal": "TERM", "grace": "10s", "delay": "0s"}


def test_a_text_that_another_reader_would_take_for_something_else_is_quoted():
    text = "env: {A: '1', B: 'true', C: \"\\u00a0x\", D: 'null', E: 'a: b'}"
    lines = to_yaml(spec_of(text)).splitlines()
    assert [line.strip() for line in lines if line.strip()[:2] in {"A:", "B:", "C:", "D:", "E:"}] == [
        "A: '1'", "B: 'true'", 'C: "\u00a0x"', "D: 'null'", "E: 'a: b'",
    ]  # fmt: skip


def test_a_text_of_several_lines_is_written_as_it_is_and_can_be_edited():
    file = "server {{\n  listen 80;\n\n  # `a`: 'b'\n}}\n"
    text = f"files: [{{to: n.conf, template: true, content: {json.dumps(file)}}}]\n    install: [sh, -c, {json.dumps(file)}]"
    assert written(text)["files"][0]["content"] == file
    lines = to_yaml(spec_of(text)).splitlines()
    begin = lines.index("      content: |")
    assert [line.removeprefix(" " * 8) for line in lines[begin + 1 : begin + 6]] == file.splitlines()
    assert "    - |" in lines


@pytest.mark.parametrize(
    "held", ["\n", " \n a", "a \n", "a\n\n", "\ta\n\tb", "a\n  b\n c", "# a\n---\n...", "a\n\u00a0b"], ids=ascii
)
def test_whatever_the_lines_of_a_text_are_they_are_read_again_as_they_were(held: str):
    assert written(f"files: [{{to: n.conf, content: {json.dumps(held)}}}]")["files"][0]["content"] == held


def test_components_are_written_in_the_order_in_which_every_screen_lists_them():
    (spec,) = parse("service: web\ncomponents: {d: {run: x}, ab: {run: x}, c: {run: x}}", file="f")
    assert list(loaded(to_yaml(spec))["components"]) == ["ab", "c", "d"]


@pytest.mark.parametrize("held", ["\u202e", "\u200f", "\u2028", "\x85", "\x9b", "\x7f", "\u200d"], ids=ascii)
def test_what_a_terminal_is_shown_escaped_is_the_same_text_for_who_reads_the_file_again(held: str):
    text, sent = f"env: {{A: {json.dumps(f'x{held}y')}}}", io.StringIO()
    Escaping(sent).write(to_yaml(spec_of(text)))
    assert held not in sent.getvalue() or held == "\u200d"
    assert parse(sent.getvalue(), file="again") == [spec_of(text)]


def test_keys_are_written_in_their_order_and_in_blocks():
    text = to_yaml(spec_of("env: {B: c, A: " + "y" * 300 + "}\n    instances: 2"))
    assert (
        text
        == f"service: web\ncomponents:\n  app:\n    run: x\n    env:\n      B: c\n      A: {'y' * 300}\n    instances: 2\n"
    )
