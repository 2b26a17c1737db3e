"""Reading by the table of keys: a mistake stands at its place and names its key; the file's values and the defaults."""

import pytest

from dsmt.spec.keys import GROUPS
from dsmt.spec.reading import Reader
from dsmt.spec.yamltree import read_documents

STEPS = "actions are restart, reinstall, recreate, move"


def read(text, group="component"):
    """Return what is read of the keys of a group, and the reader."""
    (root,), mistakes = read_documents(text, file="f")
    assert mistakes == []
    reader = Reader("f")
    return reader.group(root, group, ()), reader


@pytest.mark.parametrize(
    ("text", "column", "message", "suggestion"),
    [
        ("run:", 1, "`run` has no value", "write one, or remove the line"),
        ("stop:", 1, "`stop` has no value", "write `{}` for its defaults"),
        ("stop: {grace: ~}", 8, "`grace` has no value", "write one, or remove the line"),
        ("stop: [x]", 7, "stop: a map is expected here", "its keys are signal, grace, delay, command"),
        ("stop: {grace: {a: b}}", 15, "stop.grace: a map cannot be here", "a single duration is expected"),
        ("data: [1]", 7, "data: a list cannot be here", "a single flag or size is expected"),
        ("instances: {address}", 12, "instances: `{address}` without quotes is a map in YAML", "quote it: '{address}'"),
        ("stop: {address}", 7, "stop: `{address}` without quotes is a map in YAML", "quote it: '{address}'"),
        ("env: {A: {port.http}}", 10, "env.A: `{port.http}` without quotes is a map in YAML", "quote it: '{port.http}'"),
        ("env: {A: {a: b}}", 10, "env.A: a map here can only be {file: PATH}", "a text, a number or {file: PATH}"),
        ("env: {A: {secret: b}}", 10, "env.A: a secret by name does not belong in `env`",
         "use {file: PATH}, which is read on the node"),
        ("env: {A: {file: 3}}", 17, "`3` is a number in YAML, and a text is expected", 'quote it: "3"'),
        ("env: [A]", 6, "env: a map is expected here", "write `name: value`, one in a line"),
        ("env: {A-B: c}", 7, "`A-B` is not a variable name", "allowed are 1-256 of A-Z a-z 0-9 _, no digit first"),
        ("ports: [a]", 8, "ports: a map is expected here", "as in `http: 8080`, one in a line"),
        ("ports: {A: 1}", 9, "`A` is not a port name",
         "allowed are 1-32 of a-z 0-9 - _, a letter first, a letter or digit last"),
        ("ports: {a: '8080:80'}", 12, "ports.a.port: `8080:80` maps one port to another, which is not done here",
         "write 80"),
        ("ports: {a: 0.0.0.0:8080:80/tcp}", 12,
         "ports.a.port: `0.0.0.0:8080:80/tcp` maps one port to another, which is not done here", "write 80"),
        ("ports: {a: '53:53/udp'}", 12, "ports.a.port: `53:53/udp` maps one port to another, which is not done here",
         "write {port: 53, protocol: udp}"),
        ("ports: {a: Auto}", 12, "ports.a.port: `Auto` is not a number", "did you mean auto?"),
        ("ports: {a: x}", 12, "ports.a.port: `x` is not a number", "or auto"),
        ("ports: {a: 70000}", 12, "ports.a.port: 70000 is too large", "at most 65535"),
        ("instances: each-node", 12, "instances: `each-node` is not a number", "did you mean each_node?"),
        ("restart: Never", 10, "restart.when: `Never` cannot be here", "did you mean never?"),
        ("restart: on-failure", 10, "restart.when: `on-failure` cannot be here", "did you mean on_failure?"),
        ("restart: xyz", 10, "restart.when: `xyz` cannot be here", "one of always, on_failure, never"),
        ("artifact: {url: a, unpack: false}", 28, "artifact.unpack: `false` cannot be here", "write no"),
        ("artifact: [a, {url: ''}]", 21, "artifact.url: a path, `https:` or `depot:` is expected", ""),
        ("artifact: [{strip: 1}]", 12, "`url` is missing",
         "a path is relative to this file and is put into the depot by `apply`; or `https:`, `depot:`"),
        ("files: x", 8, "files: a list is expected here", "begin each item with `- `"),
        ("run: [./x, true]", 12, "run: `true` is true or false in YAML, and a text is expected", 'quote it: "true"'),
        ("run: [./x, [a]]", 12, "run: a list cannot be here", "a single text is expected"),
        ("run: []", 6, "run: the command is empty", "name a program"),
        ("restart: {escalate: x}", 21, "restart.escalate: a list is expected here", "begin each item with `- `"),
        ("restart: {escalate: [restart]}", 22, "restart.escalate: each step is one pair `action: times`", STEPS),
        ("restart: {escalate: [{restart: 1, move: 1}]}", 22, "restart.escalate: each step is one pair `action: times`",
         STEPS),
        ("restart: {escalate: [restrat: 1]}", 22, "restart.escalate: `restrat` cannot be here", "did you mean restart?"),
        ("restart: {escalate: [restart: 0]}", 22, "restart.escalate: 0 is too small", "at least 1"),
        ("health: x", 9, "health: a map is expected here", "health: {http: {port: http, path: /}}"),
        ("health: {startup: {exec: a}, tcp: {}}", 30, "`tcp` cannot stand beside startup, readiness, liveness",
         "put it under one of them"),
        ("nodes: a\nplan: b", 1, "`plan` means `nodes`, which is here already", "keep one of them"),
        ("grace: 1s", 1, "there is no key `grace` in `components.NAME`", "`grace` belongs under `stop`"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_key_at_its_place_and_says_what_to_write(text, column, message, suggestion):
    _, reader = read(text)
    assert [(m.column, m.message, m.suggestion) for m in reader.mistakes] == [(column, message, suggestion)]


def test_mistakes_in_components_and_defaults_are_named_from_there():
    text = "service: a\ndefaults: {stop: {grace: 1}}\ncomponents: {'7': {stop: {delay: 1}, after: [{state: x}]}, b: 3}\n"
    _, reader = read(text, "service")
    assert [mistake.message.split(":")[0] for mistake in reader.mistakes] == [
        "stop.grace", "stop.delay", "after.state", "components.b",
    ]  # fmt: skip


def test_what_cannot_be_read_is_its_default_and_its_path_is_kept():
    found, reader = read(
        "instances: x\nstop: {grace: 1, signal: INT}\nartifact: [a, {url: b, strip: x}, [c]]\nenv: {A: b, B: [c]}"
    )
    assert found["instances"] == 1
    assert (found["stop"]["grace_s"], found["stop"]["signal"]) == (None, "SIGINT")
    assert [artifact["strip"] for artifact in found["artifacts"]] == [0, 0]
    assert found["env"] == {"A": "b"}
    assert reader.bad == {
        ("instances",), ("stop", "grace"), ("artifact", "1", "strip"), ("artifact", "2"), ("env", "B"),
    }  # fmt: skip
    assert not reader.trusted(("stop",))
    assert not reader.trusted(("run",), ("env", "B", "file"))
    assert reader.trusted(("run",), ("stop", "signal"), ("env", "A"))


def test_each_wrong_step_and_each_wrong_word_of_a_command_is_told_at_its_place():
    found, reader = read("restart: {escalate: [restrat: 1, move: 2, [a]]}\nrun: [./x, true, 3, [a]]")
    assert [(m.line, m.column, m.message.split(":")[0]) for m in sorted(reader.mistakes)] == [
        (1, 22, "restart.escalate"), (1, 43, "restart.escalate"), (2, 12, "run"), (2, 21, "run"),
    ]  # fmt: skip
    assert found["restart"]["escalate"] == [{"action": "move", "times": 2}]
    assert not reader.trusted(("run",))


def test_the_places_are_those_of_what_the_file_itself_said():
    _, reader = read("run: [./x, y]\nports: {http: 80}\nstop: {}\nx-any: 1")
    values = {path: (node.line, node.column) for path, node in reader.marks.items()}
    keys = {path: (node.line, node.column) for path, node in reader.names.items()}
    assert values == {
        ("run",): (1, 6), ("run", "0"): (1, 7), ("run", "1"): (1, 12), ("ports",): (2, 8), ("ports", "http"): (2, 15),
        ("ports", "http", "port"): (2, 15), ("stop",): (3, 7),
    }  # fmt: skip
    assert keys == {
        ("run",): (1, 1), ("ports",): (2, 1), ("ports", "http"): (2, 9), ("ports", "http", "port"): (2, 15),
        ("stop",): (3, 1),
    }  # fmt: skip
    assert reader.mark(("stop", "grace")) is reader.marks["stop",]


def test_a_missing_key_is_told_at_the_map_and_is_not_trusted():
    found, reader = read("description: x", "service")
    assert [(m.line, m.column, m.message) for m in reader.mistakes] == [
        (1, 1, "`service` is missing"), (1, 1, "`components` is missing"),
    ]  # fmt: skip
    assert (found["service"], reader.trusted(("service",))) == (None, False)


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_of_a_group_is_read_and_its_default_as_a_value_of_the_file_would_be(group):
    reader = Reader("f")
    for key in GROUPS[group].values():
        assert key.field in read("x-any: 1", group)[0]
        if isinstance(key.default, str) and key.default:
            found, _ = read(f"{key.name}: '{key.default}'", group)
            assert found[key.field] == reader.default(key, ())
    assert reader.marks == reader.names == {}


@pytest.mark.parametrize("text", ["{a.b: 1}", "{A: }", "{a: , b: }", "{a: ''}", "{a b: }"])
def test_only_what_yaml_makes_of_a_placeholder_is_told_as_one(text):
    _, reader = read(f"env: {{V: {text}}}")
    assert "without quotes" not in reader.mistakes[0].message


def test_a_number_in_a_command_is_its_text():
    found, _ = read("run: [./x, 1.50, 0x10, '3']\nreload: [./r, 2]")
    assert found["run"] == ("./x", "1.50", "0x10", "3")
    assert found["reload"] == {"signal": None, "command": ("./r", "2")}


def test_a_default_is_read_once_and_who_changes_it_changes_no_other(monkeypatch):
    key = GROUPS["component"]["restart"]
    first = Reader("").default(key, ())
    first["escalate"] = "changed"
    monkeypatch.setattr(Reader, "_value", None)
    assert Reader("").default(key, ()) != first
