"""The documents of a file: where their keys stand, what `defaults` lays under components, and what is told of them all."""

import pytest

from dsmt.spec.mistakes import SpecErrors
from dsmt.spec.parsing import Places, parse, read

WEB = """\
# the shop
service: web
components:
  app:
    run: [./server, --port, "{port.http}"]
    ports:
      http: auto
    env:
      DB_PASSWORD: x
      API_KEY: y
    stop: {grace: 3s}
"""


def told(text):
    with pytest.raises(SpecErrors) as caught:
        parse(text, file="f")
    assert {m.file for m in caught.value.mistakes} == {"f"}
    return [(m.line, m.column, m.message, m.suggestion) for m in caught.value.mistakes]


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        (("service",), (2, 10), (2, 1)),
        (("components", "app"), (5, 5), (4, 3)),
        (("components", "app", "run"), (5, 10), (5, 5)),
        (("components", "app", "run", "1"), (5, 21), (5, 5)),
        (("components", "app", "ports", "http"), (7, 13), (7, 7)),
        (("components", "app", "stop", "grace"), (11, 19), (11, 12)),
        (("components", "app", "stop", "signal"), (11, 11), (11, 5)),
        (("components", "app", "update", "order"), (5, 5), (4, 3)),
        (("components", "other"), (4, 3), (3, 1)),
        (("labels",), (2, 1), (2, 1)),
        ((), (2, 1), (2, 1)),
    ],
)
def test_what_stands_in_a_file_has_its_place_and_what_does_not_that_of_what_is_around_it(path, value, key):
    (places,) = read(WEB, file="f").places
    assert (places.of(path), places.of(path, key=True)) == (value, key)
    assert Places({}, {}).of(path) == (1, 1), "of a service that came without its file"


def test_each_service_of_a_file_has_its_own_places():
    first, second = read(WEB + "---\n" + WEB.replace("web", "shop"), file="f").places
    assert (first.of(("service",)), second.of(("service",))) == ((2, 10), (14, 10))


def test_warnings_come_by_their_line_beside_the_services():
    parsed = read(WEB, file="f.yaml")
    assert [spec.service for spec in parsed.specs] == ["web"]
    assert [(m.file, m.line, m.column, m.message, m.suggestion) for m in parsed.warnings] == [
        ("f.yaml", 9, 20, "env.DB_PASSWORD looks like a secret", "use {file: PATH}, which is read on the node"),
        ("f.yaml", 10, 16, "env.API_KEY looks like a secret", "use {file: PATH}, which is read on the node"),
    ]
    assert read(WEB.replace("DB_PASSWORD: x", "DB_PASSWORD: ''").replace("API_KEY", "API"), file="f").warnings == ()


@pytest.mark.parametrize(
    ("file", "warned"),
    [
        ("{to: a.conf, content: 'listen {address}:{port.http};'}", "`{address}` stays as it is in `a.conf`"),
        ("{to: a.conf, content: '{port.http}'}", "`{port.http}` stays as it is in `a.conf`"),
        ("{to: a.conf, content: '{port.http}', template: false}", None),
        ("{to: a.conf, content: '{port.http}', template: true}", None),
        ("{to: a.conf, content: 'server { {port.other} {x} address }'}", None),
        ("{to: a.conf, from: '{address}'}", None),
    ],
)  # fmt: skip
def test_who_writes_a_placeholder_into_a_file_that_is_no_template_is_warned(file, warned):
    text = "service: web\ncomponents:\n  app:\n    run: x\n    ports: {http: auto}\n    files:\n    - " + file
    assert [(one.line, one.message) for one in read(text, file="f").warnings] == ([] if warned is None else [(7, warned)])


@pytest.mark.parametrize(
    ("artifact", "warned"),
    [
        ("d/app-1.0-py3-none-any.whl", "`app-1.0-py3-none-any.whl` is a zip, and is unpacked like one"),
        ("{url: app.JAR}", "`app.JAR` is a zip, and is unpacked like one"),
        ("{url: app.jar, unpack: no}", None), ("{url: app.jar, unpack: zip}", None), ("a.zip", None), ("a.whl.tgz", None),
    ],
)  # fmt: skip
def test_who_names_a_zip_that_programs_take_whole_is_warned_that_it_is_unpacked(artifact, warned):
    text = f"service: a\ncomponents:\n  a:\n    run: x\n    artifact: {artifact}\n"
    hint = "`unpack: no` keeps it whole; `zip` says it is meant"
    told = [(one.line, one.message, one.suggestion) for one in read(text, file="f").warnings]
    assert told == ([] if warned is None else [(5, warned, hint)])


TWO = "service: a\ncomponents: {a: {run: x}}\n"
BEGIN = "begin with `service: NAME`"


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("# nothing", [(1, 1, "there is no service here", BEGIN)]),
        ("---\n- a\n", [(2, 1, "a service is a map", BEGIN)]),
        ("service: a\ncomponents: {}\n", [(2, 13, "`components` is empty", "name at least one")]),
        ("service: a\ndefaults: {run: x}\ncomponents: {}\n", [(3, 13, "`components` is empty", "name at least one")]),
        ("service: a\ndefaults: {env: {A: b}, run: [true], stop: [x]}\ncomponents: {a: {run: x, env: {A: b}, stop: {}}}\n",
         [(2, 31, "run: `true` is true or false in YAML, and a text is expected", 'quote it: "true"'),
          (2, 44, "stop: a map is expected here", "its keys are signal, grace, delay, command")]),
        ("service: a\n", [(1, 1, "`components` is missing", "at least one")]),
        (f"{TWO}---\n{TWO.replace(': a', ': b')}---\n{TWO}",
         [(7, 10, "the service `a` is here twice", "the first is on line 1")]),
        ("service: a\ndefaults: [x]\ncomponents: {a: {run: x}}\n",
         [(2, 11, "defaults: a map is expected here", "as in `run: ./server`")]),
        ("service: a\ndefaults: {grace: 3s}\ncomponents: {a: {run: x}, b: {run: x}}\n",
         [(2, 12, "there is no key `grace` in `components.NAME`", "`grace` belongs under `stop`")]),
        ("service: a\ndefaults: {instances: x}\ncomponents: {a: {run: x}, b: {run: x, instances: 1}}\n",
         [(2, 23, "instances: `x` is not a number", "or each_node")]),
        ("service: a\ncomponents: [x]\n",
         [(2, 13, "components: a map is expected here", "write `name: value`, one in a line")]),
        ("service: a\ndefaults: {run: x}\ncomponents: {a: x}\n",
         [(3, 17, "components.a: a map is expected here", "as in `run: ./server`")]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_document_is_told_once_at_its_place(text, mistakes):
    assert told(text) == mistakes


@pytest.mark.parametrize(
    ("under", "own", "merged"),
    [
        ("stop: {grace: 1s, delay: 2s}", "stop: {grace: 3s}", "stop: {grace: 3s, delay: 2s}"),
        ("restart: {park: {after: 3, retry: 1m}}", "restart: {cap: 9s, park: {after: 4}}",
         "restart: {cap: 9s, park: {after: 4, retry: 1m}}"),
        ("env: {A: a, B: b}", "env: {B: c}", "env: {A: a, B: c}"),
        ("restart: {cap: 9s}", "restart: never", "restart: never"),
        ("restart: never", "restart: {cap: 9s}", "restart: {cap: 9s}"),
        ("inherit_env: [A, B]", "inherit_env: [C]", "inherit_env: [C]"),
        ("artifact: {url: a, strip: 1}", "artifact: {url: b}", "artifact: {url: b}"),
        ("health: {exec: ./a, interval: 9s}", "health: {exec: ./b}", "health: {exec: ./b}"),
        ("x-any: 1", "stop: {grace: 3s}", "stop: {grace: 3s}"),
        ("run: other", "instances: 2", "instances: 2"),
        ("kind: job", "instances: 2", "kind: job\n    instances: 2"),
    ],
)  # fmt: skip
def test_defaults_lie_under_the_keys_of_a_component_and_lists_and_checks_are_replaced_whole(under, own, merged):
    text = "service: a\n{}components:\n  c:\n    run: x\n    {}\n"
    assert parse(text.format(f"defaults:\n  {under}\n", own), file="f") == parse(text.format("", merged), file="f")


def test_what_defaults_say_has_its_place_there():
    text = "service: a\ndefaults: {stop: {grace: 1s}}\ncomponents: {c: {run: x, stop: {delay: 1s}}}\n"
    (places,) = read(text, file="f").places
    assert places.of(("components", "c", "stop", "grace")) == (2, 26)
    assert places.of(("components", "c", "stop", "delay")) == (3, 40)
    assert places.of(("components", "c", "stop")) == (3, 32)
