"""One table of keys: explain, reference, SUPPORTED and the manual's example all agree with the parser."""

import re

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from dsmt.errors import InputError
from dsmt.spec import schema
from dsmt.spec.built import SUPPORTED
from dsmt.spec.keys import GROUPS, KEYS, NEIGHBOURS
from dsmt.spec.parsing import parse
from dsmt.spec.supported import unsupported
from dsmt.spec.words import PLACES


def test_the_example_parses_is_all_built_and_fits_the_schema():
    (spec,) = parse(schema.example(), file="example.yaml")
    assert unsupported(spec) == []
    Draft202012Validator(schema.json_schema()).validate(YAML(typ="safe", pure=True).load(schema.example()))


def test_every_key_can_be_explained_by_its_path():
    for key in KEYS:
        path = schema.path_of(key)
        said = schema.explain(path)
        assert path in said
        assert key.text in said
        assert schema.default_of(key) in said
    assert schema.explain("components.app.stop.grace") == schema.explain("stop.grace") == schema.explain("grace")
    assert "not yet" in schema.explain("requires")
    assert (schema.explain("plan"), schema.explain("lease")) == (schema.explain("nodes"), schema.explain("expires"))


def explained(key):
    """Return the paths that are explained, and the lines of the last by their first word."""
    paragraphs = [paragraph.splitlines() for paragraph in schema.explain(key).split("\n\n")]
    assert all(line.startswith("  ") for lines in paragraphs for line in lines[1:])
    last = dict(line.strip().split(maxsplit=1) for line in paragraphs[-1][2:])
    return [lines[0] for lines in paragraphs], last


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("service", "name", "required"), ("description", "text", '""'), ("keep_revisions", "whole number", "10"),
        ("instances", "0..100000 or each_node", "1"), ("stop.signal", "signal", "TERM"),
        ("update.rollback", "true or false", "true"), ("files.template", "true or false", "false"),
        ("image", "OCI reference", "none"),
        ("defaults", "map of keys of a component", "{}"), ("logs", "map of size, keep, rate", "{}"),
        ("labels", "map of label to text", "{}"), ("ports.NAME.held", "true or false", "false"),
        ("components", "map of name to map of keys of a component", "required"),
        ("env", "map of variable to text, number, null or {file: PATH}", "{}"),
        ("ports", "map of port name to 1..65535 or auto; or a map of port, bind, protocol, held", "{}"),
        ("inherit_env", "list of variable", "[PATH, LANG, TZ, HOME]"),
        ("success_on", "whole number; or a list of them", "[0]"),
        ("restart.when", "always, on_failure, never", "`always`; a job: `on_failure`"),
        ("restart.escalate", "list of single pairs, action: times; actions restart, reinstall, recreate, move",
         "[restart: 5, reinstall: 2, recreate: 2, move: 1]"),
        ("health", "one check; or a map of startup, readiness, liveness",
         "ready when the process has lived `update.healthy_after`"),
        ("health.http.contains", "text", "none"),
    ],
)  # fmt: skip
def test_a_key_is_explained_with_its_type_and_its_default(key, kind, default):
    paths, last = explained(key)
    assert paths == [key]
    assert (last["type"], last["default"]) == (kind, default)


@pytest.mark.parametrize(
    ("key", "paths"),
    [
        ("to", ["artifact.to", "secrets.NAME.to", "files.to", "near.to"]),
        ("timeout", ["health.timeout", "timeout", "barriers.NAME.timeout"]),
        ("kind", ["kind", "kind"]),
        ("bind", ["ports.NAME.bind"]),
        (" stop.grace. ", ["stop.grace"]),
        ("http.path", ["health.http.path"]),
        ("ports.http.bind", ["ports.NAME.bind"]),
        ("components.app.timeout", ["timeout"]),
        ("components.app.ports.http.bind", ["ports.NAME.bind"]),
        ("components.instances", ["instances"]),
        ("component.instances", ["instances"]),
        ("service.labels", ["labels"]),
        ("components", ["components"]),
        ("restart.park.after", ["restart.park.after"]),
    ],
)
def test_a_path_names_its_key_and_a_plain_word_all_keys_of_that_name(key, paths):
    assert explained(key)[0] == paths


@pytest.mark.parametrize(
    ("key", "built", "alias"),
    [
        ("requires", "not yet; `apply` refuses it", None), ("driver", "only process yet", None),
        ("spread.by", "only node, none yet", None), ("data", None, None), ("run", None, None), ("nodes", None, "plan"),
        ("expires", "not yet; `apply` refuses it", "lease"),
    ],
)  # fmt: skip
def test_what_is_not_built_and_what_is_taken_as_well_is_explained(key, built, alias):
    _, last = explained(key)
    assert (last.get("built"), last.get("alias")) == (built, alias)


@pytest.mark.parametrize(
    ("key", "message", "following"),
    [
        ("instence", "there is no key `instence`", "did you mean `instances`?"),
        ("health.http.pth", "there is no key `health.http.pth`", "did you mean `health.http.path`?"),
        ("x.grcae", "there is no key `x.grcae`", "`dsmt explain` lists every key"),
        ("zzzz", "there is no key `zzzz`", "`dsmt explain` lists every key"),
        ("", "there is no key ``", "`dsmt explain` lists every key"),
        ("replicas", "there is no key `replicas`: here it is `instances`", "dsmt explain instances"),
        ("Working-Dir", "there is no key `Working-Dir`: here it is `directory`", "dsmt explain directory"),
        ("components.a.count", "there is no key `components.a.count`: here it is `instances`", "dsmt explain instances"),
        ("resources", "there is no key `resources`: here it is `limits` and `reserve`", "dsmt explain limits"),
        ("y" * 99, f"there is no key `{'y' * 60}`", "`dsmt explain` lists every key"),
        ("environ" + " " * 99, f"there is no key `environ{' ' * 53}`: here it is `env`", "dsmt explain env"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(key, message, following):
    with pytest.raises(InputError) as caught:
        schema.explain(key)
    assert (caught.value.message, caught.value.next) == (message, following)


def test_the_overview_has_one_line_for_each_key_in_two_columns():
    lines = schema.overview().splitlines()
    column = 2 + max(len(schema.path_of(key)) for key in KEYS)
    assert [(line[:column].rstrip(), line[column:]) for line in lines] == [(schema.path_of(key), key.text) for key in KEYS]


def test_the_reference_has_one_row_of_four_cells_for_each_key():
    text = schema.reference()
    assert text.endswith("|\n")
    head, rule, *rows = [re.split(r" ?(?<!\\)\| ?", line) for line in text.splitlines()]
    assert head == ["", "key", "type", "default", "one line", ""]
    assert rule == ["", "---", "---", "---", "---", ""]
    assert [[cell.replace("\\|", "|") for cell in row] for row in rows] == [
        ["", f"`{schema.path_of(key)}`", schema.type_of(key.shape), f"`{schema.default_of(key)}`", key.text, ""]
        for key in KEYS
    ]


def test_the_tables_beside_the_table_of_keys_are_complete():
    rows = {f"{key.group}.{key.name}" for key in KEYS}
    assert set(SUPPORTED) == rows | {"placeholder.endpoints"}
    assert set(PLACES) == set(GROUPS)
    for word, ours in NEIGHBOURS.items():
        assert word not in GROUPS["component"]
        first = ours.split("`")[0].split(".")[0]
        assert any(first in group for group in GROUPS.values()), ours


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("requires: node.memory > 1", "components.app.requires: this key is not built yet"),
        ("rank: node.cpus * 2", "components.app.rank"),
        ("driver: bubblewrap", "components.app.driver: bubblewrap is not built yet, only process"),
        ("image: nginx:1", "components.app.image"),
        ("kind: job", "components.app.kind: job is not built yet"),
        ("secrets: {A: {secret: a}}", "components.app.secrets"),
        ("on_partition: at_most_one", "components.app.on_partition: at_most_one"),
        ("spread: label:rack", "components.app.spread.by: label:rack"),
        ("spread: {by: node, strict: true}", "components.app.spread.strict"),
        ("near: {to: o/x, within: 5ms}", "components.app.near"),
        ("apart: o/x", "components.app.apart"),
        ("ports: {a: {held: true}}", "components.app.ports.a.held"),
        ("ports: {a: 1}\n    sockets: a", "components.app.ports.a.held"),
        ("health: {notify: {}}", "components.app.health.notify"),
        ("health: {startup: {notify: {}}}", "components.app.health.startup.notify"),
        ("instances: 2\n    update: {canary: 1}", "components.app.update.canary"),
        ("data: 5GiB", "components.app.data: 5GiB"),
        ("limits: {memory: 1GiB}", "components.app.limits.memory: only `enforce: best_effort`"),
        ("logs: {rate: 2MiB}", "components.app.logs.rate: this key is not built yet"),
        ("limits: {cpu: 2}", "components.app.limits.cpu"),
        ("user: auto", "`auto` is not built yet"),
        ("reload: HUP", "components.app.reload"),
        ("artifact: {url: a, signature: a.sig}", "components.app.artifact.signature"),
        ("ports: {a: 1}\n    env: {A: '{endpoints.app.a}'}", "{endpoints...}"),
    ],
)
def test_what_is_parsed_but_not_built_is_refused_by_name(keys, says):
    (spec,) = parse(f"service: web\ncomponents:\n  app:\n    run: x\n    {keys}\n", file="f")
    found = [str(one) for one in unsupported(spec)]
    assert any(says in each for each in found), found


@pytest.mark.parametrize(("key", "says"), [("expires: 7d", "expires"), ("keep_revisions: 3", "keep_revisions")])
def test_a_service_key_that_is_not_built_is_refused(key, says):
    (spec,) = parse(f"service: web\n{key}\ncomponents: {{app: {{run: x}}}}\n", file="f")
    assert [str(each).split(":")[0] for each in unsupported(spec)] == [says]


def test_what_is_built_is_not_refused():
    text = """\
service: web
description: d
owner: o
labels: {a: b}
defaults: {restart: on_failure}
x-any: [thing]
components:
  app:
    run: ./x {port.http} {label.a}
    artifact:
      - {url: a.tar, sha256: abababababababababababababababababababababababababababababababab, unpack: tar, strip: 1, to: b}
      - https://h/b.bin
      - {url: c, mode: "0755"}
    install: make
    configure: ./configure
    uninstall: make clean
    install_timeout: 1m
    directory: b
    data: true
    env: {A: b, C: {file: /c}, D: null}
    inherit_env: [PATH]
    files: [{to: a, content: x, template: true, mode: "0600"}]
    logs: {size: 1MiB, keep: 2}
    instances: each_node
    nodes: minus(all_nodes, failed)
    spread: none
    reserve: {memory: 1MiB, cpu: 0.5, disk: 1GiB}
    limits: {pids: 10, files: 100, memory: 1GiB, enforce: best_effort}
    on_partition: at_least_one
    ports: {http: {port: 8080, bind: 0.0.0.0, protocol: tcp}, b: auto}
    health:
      startup: {exec: ./ok, deadline: 9s, interval: 1s}
      readiness: {http: {path: /r, status: 200, method: HEAD, contains: x, headers: {A: b}}, timeout: 1s, passes: 2}
      liveness: {tcp: {port: b}, failures: 9}
    restart: {when: always, first: 1s, factor: 3, cap: 9s, reset: 9s, escalate: [restart: 2], park: {after: 3, retry: 1m}}
    stop: {signal: INT, grace: 3s, delay: 1s, command: ./stop}
    update: {order: stop_first, max_parallel: 2, healthy_after: 1s, deadline: 2m}
"""
    text = text.replace("https://h/b.bin", "{url: 'https://h/b.bin', sha256: " + "cd" * 32 + "}")
    (spec,) = parse(text, file="f")
    assert unsupported(spec) == []
