"""One table of keys: explain, reference, SUPPORTED and the manual's example all agree with the parser."""

import re

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from dsmt.errors import InputError
from dsmt.spec import schema
from dsmt.spec.keys import GROUPS, KEYS, NEIGHBOURS
from dsmt.spec.parsing import parse
from dsmt.spec.supported import SUPPORTED, unsupported
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


def test_an_unknown_key_is_explained_by_the_nearest():
    with pytest.raises(InputError, match="did you mean `instances`"):
        schema.explain("instence")
    with pytest.raises(InputError):
        schema.explain("")


def test_the_reference_has_one_row_for_each_key():
    rows = schema.reference().splitlines()[2:]
    assert len(rows) == len(KEYS)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


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
