"""The JSON Schema against the reader: each key of each group, with values of every kind, right and wrong."""

import json
import re
from itertools import zip_longest

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from dsmt.spec import schema
from dsmt.spec.keys import GROUPS
from dsmt.spec.parsing import parse
from dsmt.spec.quantities import format_duration
from dsmt.spec.reading import Reader
from dsmt.spec.shapes import Health, ListOf, MapOf, Nested, Single, Step, WholeOr, Word
from dsmt.spec.tree import Mapping, Scalar, Sequence

from .strategies import documents

NOTHING = object()
VALUES = (
    None, True, False, 0, 1, -1, 3, 200, 256, 1.5, 10**10, "", " ", "x", "A b", "../x", "/srv", "a/b.tar", "a" * 64,
    "sha256:" + "A" * 64, "10s", "1m1h", "0s", "10 s", "512MiB", "1.5kB", "512M", "0", "25%", "101%", "0%", "25", "TERM",
    "sigterm", "NOPE", "./x now", "x | y", "0644", "0o755", "755", "99", "999", "label:rack", "label:", "node", "none",
    "signal:SEGV", "signal:kill", "signal:", "yes", "200-399", "700", "0.0.0.0", "*", "a:b", "all_nodes", "minus(a)",
    'node.os == "x"', "1000:100", "nginx:1", "PATH", "A-B", "always", "auto", "each_node", "tcp",
    [], [""], ["x"], ["./x", 1, 1.5], [True], [None], [["x"]], {}, {"x": "y"}, {"file": "/k"}, {"file": 3},
    {"file": "/k", "mode": "0600"}, {"secret": "s"},
)  # fmt: skip
NAMES = ("http", "a-1", "A", "_A", "a b", "", "-a", "x-a", "é", "a" * 64)
REQUIRED = {"service": "web", "components": {"a": {}}, "url": "a.tar", "to": "x"}
LOOSE = {"address", "cel", "command", "duration", "image", "node_set", "path", "percent", "reload", "share", "signal",
         "exit_or_signal", "status"}  # fmt: skip
"""Kinds of which only the reader knows every wrong text (an order of units, a language, a list of names)."""


def tree(value, line):
    """Return what the reader is given for a value of JSON, all of it on one line."""
    if isinstance(value, dict):
        return Mapping(tuple((Scalar(name, False, line, 1), tree(item, line)) for name, item in value.items()), line, 1)
    if isinstance(value, list):
        return Sequence(tuple(tree(item, line) for item in value), line, 1)
    return Scalar(value, False, line, 1) if isinstance(value, str) else Scalar(json.dumps(value), True, line, 1)


def refused_by_the_reader(document, group):
    """Return the keys of a document in which there are mistakes; each stands on a line of its own."""
    lines = enumerate(document.items(), 1)
    entries = tuple((Scalar(name, False, line, 1), tree(value, line)) for line, (name, value) in lines)
    reader = Reader("f")
    reader.group(Mapping(entries, 0, 1), group, ())
    return {"" if mistake.line == 0 else list(document)[mistake.line - 1] for mistake in reader.mistakes}


def refused_by_the_schema(document, validator):
    return {str(error.path[0]) if error.path else "" for error in validator.iter_errors(document)}


def validator_of(group):
    whole = schema.json_schema()
    return Draft202012Validator(whole if group == "service" else {**whole["$defs"][group], "$defs": whole["$defs"]})


def kind_of(shape):
    """Return the kind of the single values in a shape."""
    match shape:
        case Single(kind):
            return kind
        case ListOf(item) | MapOf(item):
            return kind_of(item)
        case Nested(group, short) if short:
            return kind_of(GROUPS[group][short].shape)
    return ""


def edges(shape):
    """Return what lies at and beyond the bounds of a shape."""
    if not isinstance(shape, Single | WholeOr):
        return []
    kind = shape.kind if isinstance(shape, Single) else "whole"
    step = 0.001 if kind in {"real", "duration"} else 1
    found = [shape.low - step, shape.low] if shape.low else [shape.low] if shape.low is not None else []
    found += [shape.high, shape.high + step] if shape.high is not None else []
    return [format_duration(each) for each in found] if kind == "duration" else found


def probes(shape):
    """Yield what may stand for a shape, and what may not."""
    yield from VALUES
    yield from edges(shape)
    match shape:
        case Word(words):
            yield from words
        case WholeOr(word):
            yield word
        case Nested(group, short):
            yield {"nobody": 1}
            yield from edges(GROUPS[group][short].shape) if short else ()
        case ListOf(item):
            yield from ([value] for value in probes(item))
        case MapOf(item, keys):
            yield from ({{"variable": "A"}.get(keys, "a"): value} for value in probes(item))
            yield from ({name: value} for name in NAMES for value in ("x", "auto", {}, {"secret": "x"}))
        case Step(words):
            yield from ({word: 1} for word in (*words, "explode"))
            yield from ({words[0]: value} for value in (0, 1_000_000, 1_000_001, 1.5, "1", True, None))
            yield from ({}, {words[0]: 1, words[1]: 1}, words[0], [{words[0]: 1}])
        case Health():
            for role in ("startup", "readiness", "liveness", "x-any", "nobody"):
                yield from ({role: {"exec": "x"}}, {role: {"exec": 3}}, {role: {"exec": "x"}, "exec": "x"})
            yield from ({"exec": "x", "interval": "1s"}, {"exec": "x", "x-any": 1})


def is_text(value):
    """Whether a value is a text, or a list or map of texts."""
    if isinstance(value, list | dict):
        return bool(value) and all(isinstance(each, str) for each in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


@pytest.mark.parametrize("alias", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_the_schema_and_the_reader_judge_each_value_of_each_key_alike(group, alias):
    rows = {key.alias if alias else key.name: key for key in GROUPS[group].values() if key.alias or not alias}
    required = {key.name: REQUIRED[key.name] for key in GROUPS[group].values() if key.required}
    validator = validator_of(group)
    for values in zip_longest(*(probes(key.shape) for key in rows.values()), fillvalue=NOTHING):
        document = required | {name: value for name, value in zip(rows, values, strict=True) if value is not NOTHING}
        read, seen = refused_by_the_reader(document, group), refused_by_the_schema(document, validator)
        assert {name: document[name] for name in seen - read} == {}, "the schema alone refuses these"
        wider = {name: document[name] for name in read - seen}
        told = {n: v for n, v in wider.items() if kind_of(rows[n].shape) not in LOOSE or not is_text(v)}
        assert told == {}, "the reader alone refuses these"


@pytest.mark.parametrize("group", GROUPS)
def test_a_key_that_is_missing_or_unknown_is_refused_by_both(group):
    required = {key.name: REQUIRED[key.name] for key in GROUPS[group].values() if key.required}
    validator = validator_of(group)
    for document in (
        required,
        required | {"x-any": [{"thing": None}]},
        required | {"nobody": 1},
        required | {"y-x-any": 1},
        *({other: required[other] for other in required if other != name} for name in required),
    ):
        refused = bool(refused_by_the_reader(document, group))
        assert refused == bool(refused_by_the_schema(document, validator)), document
        assert refused == bool({"nobody", "y-x-any"} & document.keys() or required.keys() - document.keys()), document


def test_a_document_is_an_object_for_the_schema_too():
    validator = Draft202012Validator(schema.json_schema())
    assert [value for value in (None, [], "web", 3) if validator.is_valid(value)] == []


@pytest.mark.parametrize("group", GROUPS)
def test_the_schema_says_of_each_key_what_the_table_says(group):
    whole = schema.json_schema()
    said = whole if group == "service" else whole["$defs"][group]
    rows = GROUPS[group].values()
    assert {name: rule["description"] for name, rule in said["properties"].items() if "deprecated" not in rule} == {
        key.name: key.text for key in rows
    }
    assert {name: rule["default"] for name, rule in said["properties"].items() if "default" in rule} == {
        name: key.default for key in rows for name in (key.name, key.alias) if name and key.default is not None
    }
    assert {name: rule for name, rule in said["properties"].items() if "deprecated" in rule} == {
        key.alias: said["properties"][key.name] | {"deprecated": True} for key in rows if key.alias
    }
    assert said["required"] == [key.name for key in rows if key.required]


@pytest.mark.parametrize("group", GROUPS)
def test_a_default_is_a_value_that_may_be_written(group):
    document = {key.name: key.default for key in GROUPS[group].values() if key.default is not None}
    document |= {key.name: REQUIRED[key.name] for key in GROUPS[group].values() if key.required}
    assert refused_by_the_schema(document, validator_of(group)) == refused_by_the_reader(document, group) == set()


def test_the_schema_is_one_of_its_draft_and_every_reference_leads_somewhere():
    whole = schema.json_schema()
    Draft202012Validator.check_schema(whole)
    assert whole["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert whole["title"] == "dsmt service file"
    assert set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(whole))) | {"health", "service"} == set(GROUPS)
    assert set(whole["$defs"]) == set(GROUPS) - {"service"}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents())
def test_what_the_parser_takes_the_schema_takes(document):
    parse(json.dumps(document, ensure_ascii=False), file="f")
    assert list(Draft202012Validator(schema.json_schema()).iter_errors(document)) == []
