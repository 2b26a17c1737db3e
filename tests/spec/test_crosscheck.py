"""Checks across keys: each contradiction is told at its own place, and defaults never contradict."""

import pytest

from dsmt.spec.built import SUPPORTED
from dsmt.spec.mistakes import SpecErrors
from dsmt.spec.parsing import parse

HEX = "ab" * 32


@pytest.fixture(autouse=True)
def all_built(monkeypatch):
    """As if every key were built: what is told of one that is not, whatever is wrong with it, is in test_built."""
    for row, built in SUPPORTED.items():
        if built is False:
            monkeypatch.setitem(SUPPORTED, row, True)


def body(*lines):
    """Return a file whose component `app` has these keys, from line 5 on."""
    return "service: web\ncomponents:\n  app:\n    run: x\n" + "".join(f"    {line}\n" for line in lines)


def mistakes(text):
    with pytest.raises(SpecErrors) as caught:
        parse(text, file="f")
    return caught.value.mistakes


@pytest.mark.parametrize(
    ("lines", "line", "says"),
    [
        (["on_partition: at_most_one", "update: {order: start_first}"], 6, "cannot be updated with `start_first`"),
        (["on_partition: at_most_one", "instances: each_node"], 6, "cannot run on each node"),
        (["on_partition: at_most_one", "stop: {grace: 5s}"], 6, "at most 4s500ms"),
        (["on_partition: at_most_one", "term: 1m", "stop: {grace: 20s}"], 7, "at most 18s"),
        (["term: 20s"], 5, "`at_most_one` only"),
        (["fence: best_effort"], 5, "`at_most_one` only"),
        (["ports: {http: 80}", "nodes: limit(all_nodes, 1)", "update: {order: start_first}"], 7, "forbids two"),
        (["ports: {http: 80}", "health: {http: {port: htpt}}"], 6, "did you mean `http`?"),
        (["ports: {http: 80}", "health:", "  readiness: {tcp: {port: admin}}"], 7, "not in `ports`"),
        (["health: {tcp: {}}"], 5, "there are no `ports`"),
        (["health: {interval: 1s}"], 5, "nothing is here"),
        (["ports: {a: 1}", "health: {tcp: {}, exec: y}"], 6, "`tcp` and `exec` are here"),
        (["ports: {a: 1}", "health: {tcp: {}, readiness: {tcp: {}}}"], 6, "cannot stand beside"),
        (["health: {readiness: {exec: y, deadline: 5s}}"], 5, "start-up only"),
        (["limits: {memory: 64MiB}", "reserve: {memory: 128MiB}"], 5, "`limits.memory` (64MiB) is below"),
        (["limits: {cpu: 1}", "reserve: {cpu: 2}"], 5, "`limits.cpu`"),
        (["restart:", "  first: 10m", "  cap: 1s"], 7, "`restart.cap` (1s) is below `restart.first` (10m)"),
        (["on_partition: pinned", "restart: {escalate: [restart: 3, move: 1]}"], 6, "never moves"),
        (["secrets: {KEY: {secret: k}}", "env: {KEY: k}"], 6, "in `env` and in `secrets`"),
        (["secrets: {KEY: {}}"], 5, "either {secret: NAME}"),
        (["artifact: https://h/x.tar"], 5, "`sha256` is missing for `https:`"),
        (["artifact:", "  - a.tar", "  - url: https://h/x.tar"], 7, "`sha256` is missing"),
        (["artifact: depot:tools"], 5, "`sha256` is missing for `depot:`"),
        ([f"artifact: {{url: depot:{HEX}, sha256: {'cd' * 32}}}"], 5, "not the one"),
        (["limits: {memory: 1023KiB, enforce: best_effort}"], 5, "`limits.memory` (1023KiB) is too small"),
        (["update: {max_parallel: 25%}"], 5, "25% of 1 instance"),
        (["retries: 3"], 5, "kind: job"),
        (["files:", "  - {to: a}"], 6, "either `content` or `from`"),
        (["files:", "  - {to: a, content: x}", "  - {to: ./a, content: y}"], 7, "`./a` is written twice"),
        (["files:", "  - {to: a, content: x}", "  - {to: ./a/b, content: y}"], 7, "a file here, and a directory for `a/b`"),
        (["files:", "  - {to: a/b/c, content: x}", "  - {to: a, content: y}"], 7, "directory for `a/b/c` give one of them"),
        (["after: [db]"], 5, "no component `db`"),
        (["after: app"], 5, "cannot wait for itself"),
        (["after: [{state: ready}]"], 5, "nothing is waited for"),
        (["after: [{barrier: b}]"], 5, "no barrier `b`"),
        (["apart: [db]"], 5, "no other component `db`"),
        (["near: {to: db, within: 5ms}"], 5, "no other component `db`"),
        (["sockets: [http]", "ports: {htp: 1}"], 5, "did you mean `htp`?"),
        (["ports: {a: 80, b: 80}"], 5, "already given to `a`"),
        (["ports: {a-b: 80, a_b: 81}"], 5, "same variable"),
        (["image: nginx:1", "driver: process"], 6, "needs the driver podman"),
        (["driver: podman"], 5, "needs an `image`"),
        (["env:", "  A: ok", "  B: '{port.http}'"], 7, "names no port"),
        (["install:", "  - make", "  - '{prefix}'"], 7, "not a placeholder"),
        (["stop:", "  signal: INT", "  command: kill {pid}"], 7, "not a placeholder"),
        (["update:", "  order: stop_first", "reload: kill {pid}"], 7, "not a placeholder"),
        (["health: {liveness: {exec: 'check {x}'}}"], 5, "not a placeholder"),
        (["health:", "  readiness:", "    interval: 9s", "    exec: check {x}"], 8, "not a placeholder"),
        (["files:", "  - to: b", "    content: b", "  - to: a", "    template: true", "    content: '{x}'"], 10,
         "not a placeholder"),
        (["health:", "  exec: check {x}"], 6, "not a placeholder"),
        (["files:", "  - {to: a, content: '{x}', template: true}"], 6, "not a placeholder"),
    ],
)  # fmt: skip
def test_a_contradiction_is_told_once_at_its_place(lines, line, says):
    (mistake,) = mistakes(body(*lines))
    assert mistake.line == line
    assert says in f"{mistake.message} {mistake.suggestion}"


@pytest.mark.parametrize(
    "lines",
    [
        ["on_partition: at_most_one", "stop: {grace: 4500ms}", "term: 15s", "fence: best_effort"],
        ["on_partition: at_most_one", "ports: {a: 80}"],
        ["ports: {http: 80}", "update: {order: start_first}"],
        ["ports: {dns-t: {port: 53}, dns-u: {port: 53, protocol: udp}}"],
        ["instances: 4", "update: {max_parallel: 25%, canary: 10%}"],
        ["limits: {memory: 64MiB}"],
        ["restart: {escalate: [restart: 3, move: 1]}"],
        ["on_partition: pinned", "restart: {escalate: [restart: 3]}"],
        ["restart: {first: 10m}"],
        ["restart: {first: 5s, cap: 5s}"],
        ["data: true", "restart: {cap: 5s}", "update: {order: stop_first}"],
        [f"artifact: depot:{HEX}"],
        ["artifact: some/path.tar"],
        ["files:", "  - {to: a, content: '{x}'}"],
        ["files:", "  - {to: a, content: x}", "  - {to: ab/c, content: y}"],
        ["env: {A: '{{x}} {node.label.tier}'}"],
        ["apart: [other/db]"],
        ["kind: job", "retries: 3", "pre: setup {index}", "abort_on: [2, 'signal:SEGV']"],
        ["image: nginx:1"],
        ["secrets: {KEY: {secret: k, to: key.pem}}", "env: {KEY: key.pem}"],
    ],
)
def test_what_does_not_contradict_is_taken(lines):
    assert parse(body(*lines), file="f")


def test_a_cycle_of_after_is_printed_as_the_cycle():
    text = (
        "service: web\ncomponents:\n"
        "  a: {run: x, after: [b]}\n  b: {run: x, after: [{component: c, state: running}]}\n  c: {run: x, after: a}\n"
        "  d: {run: x, after: [a, b, c]}\n"
    )
    (mistake,) = mistakes(text)
    assert "a -> b -> c -> a" in mistake.message
    assert mistake.line == 5


def test_a_wide_graph_without_a_cycle_is_checked_quickly():
    lines = ["service: web", "components:"]
    for i in range(60):
        after = f", after: [{', '.join(f'c{j}' for j in range(i + 1, min(i + 6, 60)))}]" if i < 59 else ""
        lines.append(f"  c{i}: {{run: x{after}}}")
    (spec,) = parse("\n".join(lines), file="f")
    assert len(spec.components) == 60


def test_a_barrier_must_be_arrived_at_and_its_bounds_must_agree():
    text = body("after: [{barrier: start}]") + "barriers:\n  start: {min: 2}\n  never: {min: 3, max: 2}\n"
    found = mistakes(text)
    assert [(m.line, m.message.split("`")[1]) for m in found] == [(8, "never"), (8, "max")]


def test_placeholders_of_other_components_endpoints_are_known_and_a_mistake_in_one_hides_none_in_the_next():
    text = body("ports: {http: auto}", "env: {A: '{endpoints.db.pg}'}") + "  db: {run: x, ports: {pg: auto}}\n"
    assert parse(text, file="f")
    text = body("ports: 80", "env: {A: '{port.http}'}") + "  db:\n    run: x {y}\n"
    assert [m.line for m in mistakes(text)] == [5, 8]


def test_nothing_is_concluded_from_a_value_that_could_not_be_read():
    found = mistakes(body("ports: 80", "health: {http: {port: http}}", "env: {A: '{port.http}'}"))
    assert [m.line for m in found] == [5]
    found = mistakes(body("on_partition: at_most_onc", "term: 20s", "update: {order: start_first}"))
    assert [m.line for m in found] == [5]


def test_mistakes_of_all_components_and_services_come_in_one_list_in_the_order_of_lines():
    text = body("after: [db]", "retries: 1") + "  other:\n    image: a b\n---\n" + body("instances: x").replace("web", "api")
    assert [m.line for m in mistakes(text)] == [5, 6, 8, 14]


@pytest.mark.parametrize(
    ("bad", "lines"),
    [
        ("run: [true]", ["x-any: 1"]),
        ("image: a b", ["x-any: 1"]),
        ("driver: podmna", ["image: nginx:1"]),
        ("image: a b", ["driver: podman"]),
        ("on_partition: pined", ["restart: {escalate: [move: 1]}", "term: 20s"]),
        ("update: {order: both}", ["on_partition: at_most_one"]),
        ("instances: each", ["on_partition: at_most_one"]),
        ("term: 1s", ["on_partition: at_most_one", "stop: {grace: 14s}"]),
        ("stop: {grace: 1}", ["on_partition: at_most_one"]),
        ("nodes: limit(", ["ports: {http: 80}", "update: {order: start_first}"]),
        ("ports: {http: x}", ["sockets: [https]", "health: {http: {port: https}}"]),
        ("sockets: [8080]", ["ports: {http: 80}"]),
        ("health: {http: {port: 80}}", ["ports: {http: 80}"]),
        ("limits: {memory: 1}", ["reserve: {memory: 9TiB}"]),
        ("reserve: {memory: 1}", ["limits: {memory: 1MiB}"]),
        ("secrets: {A: {secret: 1}}", ["x-any: 1"]),
        ("artifact: [{url: 'https://h/x', sha256: a}]", ["x-any: 1"]),
        ("files: [{to: a, content: 3}]", ["x-any: 1"]),
        ("instances: x", ["update: {max_parallel: 25%}"]),
        ("kind: jbo", ["retries: 3"]),
        ("after: [{component: A}]", ["x-any: 1"]),
        ("apart: [1]", ["x-any: 1"]),
        ("near: [{to: 1}]", ["x-any: 1"]),
        ("env: {A: true}", ["secrets: {B: {file: /k}}"]),
    ],
)
def test_of_a_value_that_could_not_be_read_only_that_is_told(bad, lines):
    text = body(*lines, bad).replace("    run: x\n", "" if bad.startswith("run") else "    run: x\n")
    (mistake,) = mistakes(text)
    assert mistake.line == len(text.splitlines())


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["on_partition: at_most_one", "update: {order: start_first, canary: x}"], ["cannot be updated", "update.canary"]),
        (["limits: {memory: 1MiB, cpu: x}", "reserve: {memory: 9MiB}"], ["`limits.memory`", "limits.cpu"]),
        (["limits: {memory: 1MiB}", "reserve: {memory: 9MiB, cpu: x}"], ["`limits.memory`", "reserve.cpu"]),
        (["update: {canary: 50%, max_parallel: x}"], ["50% of 1 instance", "update.max_parallel"]),
        (["secrets: {A: {secret: 1}, B: {}}"], ["from one place", "secrets.A.secret"]),
    ],
)
def test_a_value_that_could_not_be_read_hides_no_contradiction_of_those_beside_it(lines, told):
    found = [mistake.message for mistake in mistakes(body(*lines))]
    assert len(found) == len(told)
    assert all(any(words in message for message in found) for words in told), found


def test_a_service_of_an_unreadable_kind_or_with_unreadable_barriers_and_labels_is_not_judged_by_them():
    for key, lines in {
        "kind: jbo": ["retries: 3"],
        "barriers: []": ["after: [{barrier: b}]"],
        "labels: []": ["env: {A: '{label.tier}'}"],
    }.items():
        text = body(*lines) + f"{key}\n"
        assert [mistake.line for mistake in mistakes(text)] == [len(text.splitlines())]


@pytest.mark.parametrize(
    ("lines", "place", "message", "suggestion"),
    [
        (["data: true", "update: {order: start_first}"], (6, 21),
         "`data` forbids two copies at a time: both would write the same directory", "stop_first, or no `data`"),
        (["data: true", "restart: {escalate: [move: 1]}"], (6, 25),
         "what has `data` is pinned to its node, and `restart.escalate` says `move`",
         "remove `move`, or on_partition: at_least_one to lose the data"),
        (["on_partition: pinned", "restart: {escalate: [move: 1]}"], (6, 25),
         "`pinned` never moves, and `restart.escalate` says `move`",
         "remove `move`, or on_partition: at_least_one to lose the data"),
        (["on_partition: at_most_one", "term: 20s", "stop: {grace: 6001ms}"], (7, 19),
         "`stop.grace` is more than 30 % of `term` (20s)", "at most 6s"),
        (["driver: podman"], (5, 13), "the driver podman needs an `image`", "name one"),
        (["image: a", "driver: process"], (6, 13), "`image` needs the driver podman, not process", "remove one of the two"),
        (["ports: {a: 80, b: {port: 80}}"], (5, 23), "port 80 is already given to `a`", "choose another, or auto"),
        (["ports: {a-b: auto, a_b: auto}"], (5, 29), "`a_b` and `a-b` give the same variable", "rename one"),
        (["ports: {a: auto, b: auto}", "sockets: [a, zz]"], (6, 18), "`zz` is not in `ports`", "there are: a, b"),
        (["sockets: zz"], (5, 14), "`zz` is not in `ports`", "there are none here"),
        (["health: {passes: 2}"], (5, 13), "one check is expected, and nothing is here", "one of http, tcp, exec, notify"),
        (["health: {exec: a, notify: {}}"], (5, 13), "one check is expected, and `exec` and `notify` are here",
         "one of http, tcp, exec, notify"),
        (["health: {liveness: {exec: a, deadline: 1s}}"], (5, 44), "`deadline` is for start-up only",
         "put it under `startup`"),
        (["health: {startup: {tcp: {}}}"], (5, 29), "`tcp` needs a port, and there are no `ports`", "ports: {http: auto}"),
        (["limits: {disk: 1GB}", "reserve: {disk: 2GB}"], (5, 20), "`limits.disk` (1GB) is below `reserve.disk` (2GB)",
         "reserve at most the limit"),
        (["limits: {cpu: 0.5}", "reserve: {cpu: 2}"], (5, 19), "`limits.cpu` (0.5) is below `reserve.cpu` (2.0)",
         "reserve at most the limit"),
        (["secrets: {A: {secret: s, file: /k}}"], (5, 18), "a secret comes from one place",
         "either {secret: NAME} or {file: PATH}"),
        (["secrets: {A: {secret: s}}", "env: {A: b}"], (6, 14), "`A` is in `env` and in `secrets`",
         "keep the one in `secrets`"),
        (["artifact: {url: 'https://h/x'}"], (5, 21), "`sha256` is missing for `https:`",
         "what `sha256sum` prints for the file"),
        ([f"artifact: [{{url: 'depot:{HEX}', sha256: {HEX[2:]}cd}}]"], (5, 104), "`sha256` is not the one `depot:` names",
         "remove it"),
        (["files: [{to: a, content: x, from: y}]"], (5, 13), "a file has its text from one place",
         "either `content` or `from`"),
        (["update: {canary: 50%}"], (5, 22), "50% of 1 instance", "write a count, or more instances"),
        (["post: x"], (5, 11), "`post` is for jobs, and this is a service", "kind: job"),
        (["after: [{component: ap}]"], (5, 13), "there is no component `ap`", "there is no other one here"),
        (["apart: [db, app]"], (5, 13), "there is no other component `db`", "there is no other one here"),
        (["on_partition: at_most_one", "update: {order: start_first}"], (6, 21),
         "`at_most_one` cannot be updated with `start_first`", "stop_first"),
        (["on_partition: at_most_one", "instances: each_node"], (6, 16), "`at_most_one` cannot run on each node",
         "give a number of instances"),
        (["term: 20s"], (5, 11), "`term` is for `at_most_one` only", "remove it, or on_partition: at_most_one"),
        (["ports: {http: 80}", "nodes: limit(all_nodes, 1)", "update: {order: start_first}"], (7, 21),
         "a fixed port on one node forbids two at a time", "stop_first, or port: auto"),
        (["ports: {http: 80}", "health: {http: {port: htpt}}"], (6, 27), "`htpt` is not in `ports`",
         "did you mean `http`?"),
        (["limits: {memory: 64MiB}", "reserve: {memory: 128MiB}"], (5, 22),
         "`limits.memory` (64MiB) is below `reserve.memory` (128MiB)", "reserve at most the limit"),
        (["update: {max_parallel: 25%}"], (5, 28), "25% of 1 instance", "write a count, or more instances"),
        (["after: [{state: ready}]"], (5, 13), "nothing is waited for", "name a component or a barrier"),
        (["after: [b, app]"], (5, 13), "there is no component `b`", "there is no other one here"),
        (["after: app"], (5, 12), "a component cannot wait for itself", "there is no other one here"),
        (["after: [{barrier: b}]"], (5, 13), "there is no barrier `b`", "there are none here"),
        (["near: [{to: a/b}, {to: db}]"], (5, 23), "there is no other component `db`", "there is no other one here"),
    ],
)  # fmt: skip
def test_a_contradiction_is_told_with_its_place_and_what_to_write(lines, place, message, suggestion):
    first = mistakes(body(*lines))[0]
    assert ((first.line, first.column), first.message, first.suggestion) == (place, message, suggestion)


def test_who_is_named_among_components_is_answered_with_the_nearest():
    text = body("after: [backnd]", "near: [{to: backedn}]") + "  backend: {run: x}\n  other: {run: x, apart: zz}\n"
    assert [mistake.suggestion for mistake in mistakes(text)] == [
        "did you mean `backend`?", "did you mean `backend`?", "there are: app, backend",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("service: web\ncomponents:\n  app:\n    instances: 2\n",
         [((4, 5), "`run` is missing", "the long-running program, in the foreground")]),
        ("service: web\ncomponents:\n  a: {run: x, after: [b]}\n  b: {run: x, after: [a]}\n",
         [((4, 22), "`after` forms a cycle: a -> b -> a", "remove one of them")]),
        (body("after: [{barrier: start}]") + "barriers:\n  start: {min: 2}\n  never: {min: 3, max: 2}\n",
         [((8, 10), "nobody arrives at the barrier `never`", "after: [{barrier: never}]"),
          ((8, 24), "`max` is below `min`", "at least 3")]),
        (body("after: [{barrier: strat}, {barrier: start}]") + "barriers:\n  start: {min: 2, max: 2}\n",
         [((5, 13), "there is no barrier `strat`", "did you mean `start`?")]),
    ],
)  # fmt: skip
def test_what_is_wrong_between_components_is_told_with_its_place_and_what_to_write(text, told):
    assert [((m.line, m.column), m.message, m.suggestion) for m in mistakes(text)] == told
