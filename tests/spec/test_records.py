"""Specs survive the event and the file: plain values and back, YAML and back; garbage is refused, never believed."""

import copy
import io
import subprocess
import sys

import cbor2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from dsmt.errors import UnusableEventError
from dsmt.spec import changes as of_changes
from dsmt.spec.changes import changes, install_key, run_key
from dsmt.spec.parsing import parse
from dsmt.spec.plain import from_plain, to_plain
from dsmt.spec.records import ComponentSpec, ServiceSpec
from dsmt.spec.schema import example
from dsmt.spec.supported import unsupported
from dsmt.spec.writing import document
from dsmt.spec.yamltext import to_yaml

from .strategies import documents

FULL = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def as_yaml(value):
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_unicode = False  # else it writes what only looks like a space without quotes
    yaml.default_flow_style = False
    yaml.dump(value, out)
    return out.getvalue()


def spec_of(value):
    (spec,) = parse(as_yaml(value), file="generated.yaml")
    return spec


EXAMPLE = parse(example(), file="example.yaml")[0]


@FULL
@given(documents())
def test_every_spec_survives_the_event_and_the_file(value):
    spec = spec_of(value)
    plain = to_plain(spec)
    assert from_plain(plain) == spec
    assert from_plain(cbor2.loads(cbor2.dumps(plain, canonical=True))) == spec
    assert parse(to_yaml(spec), file="again.yaml") == [spec]
    assert changes(spec, spec) == []
    unsupported(spec)


def _only_plain(value):
    if isinstance(value, dict):
        return all(type(key) is str and _only_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_only_plain, value))
    return value is None or type(value) in {str, int, float, bool}


@FULL
@given(documents())
def test_the_plain_form_holds_only_what_any_codec_carries(value):
    assert _only_plain(to_plain(spec_of(value)))


_GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def _paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


PATHS = [path for path in _paths(to_plain(EXAMPLE)) if path]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PATHS), _GARBAGE)
def test_a_spec_with_garbage_anywhere_is_valid_or_refused_with_the_one_error(path, garbage):
    plain = to_plain(EXAMPLE)
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = copy.deepcopy(garbage)
    try:
        spec = from_plain(plain)
    except UnusableEventError:
        return
    assert from_plain(to_plain(spec)) == spec


@given(_GARBAGE)
def test_garbage_is_no_spec(garbage):
    with pytest.raises(UnusableEventError):
        from_plain(garbage)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("service",), "../etc"),
        (("service",), ".."),
        (("service",), "a\n"),
        (("components", "app", "name"), "other"),
        (("components", "app", "run"), []),
        (("components", "app", "run"), None),
        (("components", "app", "run"), ["a\0b"]),
        (("components", "app", "instances"), -1),
        (("components", "app", "instances"), True),
        (("components", "app", "instances"), "3"),
        (("components", "app", "instances"), 10**9),
        (("components", "app", "stop", "grace_s"), float("nan")),
        (("components", "app", "stop", "grace_s"), float("inf")),
        (("components", "app", "stop", "signal"), "SIGTERM; rm"),
        (("components", "app", "directory"), ""),
        (("components", "app", "nodes"), "minus("),
        (("components", "app", "kind"), "job"),
        (("components", "app", "ports"), []),
        (("components", "app", "ports", 0, "port"), 70000),
        (("components", "app", "ports", 0, "name"), "http/../x"),
        (("components", "app", "env"), {"A=B": "c"}),
        (("components", "app", "env"), {"A": "b\0"}),
        (("components", "app", "files"), [{"to": "/etc/passwd", "content": "x", "source": None, "mode": "0644",
                                           "template": False}]),
        (("components", "app", "files"), [{"to": "a\n/../../x", "content": "x", "source": None, "mode": "0644",
                                           "template": False}]),
        (("components", "app", "update", "max_parallel"), {"count": None, "percent": None}),
        (("components",), {}),
    ],
)  # fmt: skip
def test_a_spec_that_would_do_harm_is_refused(path, value):
    plain = to_plain(EXAMPLE)
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UnusableEventError):
        from_plain(plain)


PORT = {"name": "http", "port": None, "bind": None, "protocol": "tcp", "held": False}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("name", "other", "component `app` says that its name is `other`"),
        ("run", None, "component `app` has neither `run` nor `image`"),
        ("kind", "job", "component `app`: `job` does not agree with its kind, job"),
        ("ports", [PORT, PORT], "component `app` names a port twice"),
        ("ports", [], "component `app` names a port that is not there"),
        ("nodes", "minus(", "nodes of component `app`: "),
        ("instances", -1, "instances"),
    ],
)
def test_why_a_spec_is_refused_is_told_with_its_component(key, value, says):
    plain = to_plain(EXAMPLE)
    plain["components"]["app"][key] = value
    with pytest.raises(UnusableEventError) as refused:
        from_plain(plain)
    assert says in refused.value.message


def test_a_field_of_a_later_version_is_ignored():
    assert from_plain({**to_plain(EXAMPLE), "invented_later": 1}) == EXAMPLE


def test_records_cannot_be_changed():
    with pytest.raises(AttributeError):
        EXAMPLE.service = "other"


def changed(old, new):
    assert old in example()
    return parse(example().replace(old, new), file="f")[0]


@pytest.mark.parametrize(
    ("old", "new", "key", "before", "after", "action"),
    [
        ("LOG: info", "LOG: debug", "env.LOG", "info", "debug", "restart"),
        ("LOG: info", "OTHER: info", "env.OTHER", None, "info", "restart"),
        ("instances: 3", "instances: 4", "instances", 3, 4, "rescale"),
        ("instances: 3", "instances: each_node", "instances", 3, "each_node", "rescale"),
        ("grace: 5s", "grace: 1m30s", "stop.grace", "5s", "1m30s", "none"),
        ("http.server", "http.server --cgi", "run", None, None, "restart"),
        ("http: auto", "http: 8080", "ports.http.port", "auto", 8080, "restart"),
        ("    instances", "    artifact: a.tar\n    instances", "artifact", [], None, "reinstall"),
        ("    instances", "    install: make\n    instances", "install", None, "make", "reinstall"),
        ("path: /", "path: /healthz", "health.readiness.http.path", "/", "/healthz", "none"),
        ("    instances", "    limits: {files: 99}\n    instances", "limits.files", 65536, 99, "restart"),
        ("    instances", "    nodes: failed\n    instances", "nodes", "all_nodes", "failed", "rescale"),
    ],
)  # fmt: skip
def test_a_change_is_named_by_its_key_with_what_it_asks(old, new, key, before, after, action):  # noqa: PLR0917 - a row
    found = {change.key: change for change in changes(EXAMPLE, changed(old, new))}
    assert found[key].component == "app"
    assert found[key].action == action
    if before is not None or after is not None:
        assert before is None or found[key].old == before
        assert after is None or found[key].new == after


def test_a_component_that_comes_or_goes_is_one_change():
    two = parse(example() + "  db: {run: y}\n", file="f")[0]
    (came,) = changes(EXAMPLE, two)
    (went,) = changes(two, EXAMPLE)
    assert (came.component, came.key, came.old, came.action) == ("db", "", None, "rescale")
    assert (went.component, went.new) == ("db", None)
    assert [(change.component, change.action) for change in changes(None, EXAMPLE)] == [("app", "rescale")]
    assert changes(EXAMPLE, changed("owner: team-web", "owner: team-app"))[0].action == "none"


def test_an_artifact_that_only_moved_is_not_installed_again():
    lines = "    artifact: {{url: {}, sha256: {}}}\n    instances"
    first = changed("    instances", lines.format("a.tar", "ab" * 32))
    moved = changed("    instances", lines.format("https://h/b.tar", "ab" * 32))
    other = changed("    instances", lines.format("a.tar", "cd" * 32))
    assert {change.action for change in changes(first, moved)} == {"none"}
    assert {change.action for change in changes(first, other)} == {"reinstall"}
    assert install_key(first.components["app"]) == install_key(moved.components["app"])
    assert install_key(first.components["app"]) != install_key(other.components["app"])


def test_small_files_that_come_or_go_are_installed_anew_and_others_are_written_again():
    def of(*files: str) -> ServiceSpec:
        return changed("    instances", f"    files: [{', '.join(files)}]\n    instances")

    a, b, other = "{to: a, content: A}", "{to: b, content: B}", "{to: a, content: other}"
    assert {change.action for change in changes(of(a, b), of(a))} == {"reinstall"}
    assert {change.action for change in changes(of(a), of(a, b))} == {"reinstall"}
    assert {change.action for change in changes(of(a, b), of(b, other))} == {"restart"}


def test_a_variable_that_takes_an_inherited_one_away_is_a_change_when_it_comes_and_when_it_goes():
    spec = "service: s\ncomponents: {{app: {{run: ./x, env: {{{}B: b}}}}}}"
    without, taken = (parse(spec.format(one), file="f")[0] for one in ("", "A: null, "))
    (come,), (gone,) = changes(without, taken), changes(taken, without)
    assert (come.key, come.old, come.new, come.action) == ("env.A", None, "null", "restart")
    assert (gone.key, gone.old, gone.new, gone.action) == ("env.A", "null", None, "restart")
    assert changes(taken, taken) == []


@FULL
@given(documents(), documents())
def test_the_keys_of_content_agree_with_the_changes(old, new):
    name = next(iter(old["components"]))
    new["components"] = {name: next(iter(new["components"].values()))}
    new["components"][name].pop("after", None)
    new.pop("barriers", None)
    first, second = spec_of(old), spec_of(new)
    actions = {change.action for change in changes(first, second) if change.component == name and change.key}
    a, b = first.components[name], second.components[name]
    assert (install_key(a) != install_key(b)) == ("reinstall" in actions)
    assert (run_key(a) != run_key(b)) == bool(actions & {"reinstall", "restart"})


def test_the_keys_of_content_are_the_same_in_every_process():
    program = (
        "from dsmt.spec.schema import example\nfrom dsmt.spec.parsing import parse\n"
        "from dsmt.spec.changes import install_key, run_key\nfrom dsmt.spec.plain import to_plain\n"
        "import json\nspec = parse(example(), file='f')[0]\napp = spec.components['app']\n"
        "print(install_key(app), run_key(app), json.dumps(to_plain(spec)))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(seen) == 1


def test_a_written_file_leaves_out_what_is_the_default():
    assert document(EXAMPLE)["components"]["app"]["health"] == {"http": {"port": "http"}}
    assert "update" in document(EXAMPLE)["components"]["app"]
    smallest = parse("service: a\ncomponents: {b: {run: ./x}}", file="f")[0]
    assert document(smallest) == {"service": "a", "components": {"b": {"run": "./x"}}}
    scaled = msgspec.structs.replace(EXAMPLE.components["app"], instances=7)
    again = msgspec.structs.replace(EXAMPLE, components={"app": scaled})
    assert "instances: 7" in to_yaml(again)


def test_each_key_of_a_component_says_what_a_change_of_it_asks_of_what_runs() -> None:
    spelt = {"artifacts": "artifact", "data_bytes": "data"}
    keys = {spelt.get(field, field.removesuffix("_s")) for field in ComponentSpec.__struct_fields__} - {"name", "job"}
    asks = of_changes.ASKS.values()
    assert {key: sum(key in one for one in asks) for key in sorted(keys)} == dict.fromkeys(sorted(keys), 1)
