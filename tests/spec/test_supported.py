"""What is not built yet is refused with its place and with what to write instead."""

import pytest

from dsmt.spec.parsing import parse
from dsmt.spec.plain import from_plain, to_plain
from dsmt.spec.supported import Unbuilt, unsupported

APP = ("components", "app")
NOT_YET = "this key is not built yet"


def found(keys, top=""):
    (spec,) = parse(f"service: web\n{top}components:\n  app:\n    run: x\n    {keys}\n", file="f")
    return unsupported(spec)


@pytest.mark.parametrize(
    ("keys", "path", "advice"),
    [
        ("apart: o/x", ("apart",), "remove it"),
        ("requires: node.memory > 1", ("requires",), "use `nodes` with the names of nodes or a node set"),
        ("image: nginx:1", ("image",), "name a program: `run`, and `artifact` for its files"),
        ("logs: {size: 1MiB, rate: 2MiB}", ("logs", "rate"), "remove it: `size` and `keep` bound the disk"),
        ("artifact: [a, {url: b, signature: c}]", ("artifact", "1", "signature"), "remove it"),
        ("artifact: {url: b, signature: c}", ("artifact", "0", "signature"), "remove it"),
        ("ports: {a: auto, b: {held: true}}", ("ports", "b", "held"), "remove it"),
        ("health: {notify: {}}", ("health", "notify"), "take http, tcp or exec"),
        ("health: {startup: {exec: x}, liveness: {notify: {}}}", ("health", "liveness", "notify"), "take http, tcp or exec"),
        ("spread: {strict: true}", ("spread", "strict"), "remove it"),
    ],
)
def test_a_key_that_is_not_built_is_named_with_what_there_is_instead(keys, path, advice):
    assert [one for one in found(keys) if one.path[2] != "driver"] == [Unbuilt((*APP, *path), NOT_YET, advice, key=True)]


def test_a_key_of_the_service_that_is_not_built_is_named():
    assert found("user: a", "keep_revisions: 3\n") == [Unbuilt(("keep_revisions",), NOT_YET, "remove it", key=True)]


@pytest.mark.parametrize(
    ("keys", "path", "message", "advice"),
    [
        ("kind: job", ("kind",), "job is not built yet, only service", "write `kind: service`"),
        ("data: 5GiB", ("data",), "5GiB is not built yet, only true and false", "write `data: true` or `data: false`"),
        ("spread: label:a", ("spread", "by"),
         "label:a is not built yet, only node and none", "write `by: node` or `by: none`"),
        ("user: auto", ("user",), "`auto` is not built yet", "write a user's name or a uid"),
        ("limits: {memory: 1GiB}", ("limits", "memory"),
         "only `enforce: best_effort` is built yet, as a limit of the address space", "add `enforce: best_effort`"),
        ("ports: {a: 1}\n    stop: {command: 'x {endpoints.app.a}'}", ("stop", "command", "1"),
         "the placeholder `{endpoints...}` is not built yet", "give the other a fixed port and name that"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_built_is_named_with_those_that_are(keys, path, message, advice):
    assert found(keys) == [Unbuilt((*APP, *path), message, advice, key=False)]


def test_every_place_is_named_and_lists_are_read_without_their_numbers():
    told = found("limits: {cpu: 2, disk: 1GiB, memory: 1GiB}\n    artifact: [a, {url: b, signature: c}]")
    assert sorted(map(str, told)) == [
        f"components.app.artifact.signature: {NOT_YET}",
        f"components.app.limits.cpu: {NOT_YET}",
        f"components.app.limits.disk: {NOT_YET}",
        "components.app.limits.memory: only `enforce: best_effort` is built yet, as a limit of the address space",
    ]
    assert str(Unbuilt(("components", "7", "run"), "no", "")) == "components.7.run: no"


@pytest.mark.parametrize(
    "keys",
    ["kind: service", "data: false", "spread: node", "spread: {by: none, strict: false}",
     "update: {canary: 0}", "user: auto2",
     "limits: {memory: 1GiB, enforce: best_effort}", "limits: {enforce: required}", "on_partition: pinned", "secrets: {}",
     "ports: {a: {held: false}}", "logs: {rate: 1MiB}", "env: {A: '{address}', B: '{{endpoints.app.a}}'}"],
)  # fmt: skip
def test_what_is_built_or_only_repeats_a_default_is_not_refused(keys):
    assert found(keys, "barriers: {}\n") == []


def test_what_is_no_template_names_no_placeholder():
    (spec,) = parse("service: web\ncomponents: {app: {run: x}}\n", file="f")
    plain = to_plain(spec)
    plain["components"]["app"]["run"] = ["x", "{endpoints.app", "{address}"]
    assert unsupported(from_plain(plain)) == []
