"""No hint leads to what is not built: who followed it would be refused a second time."""

import pytest

from dsmt.spec.built import SUPPORTED
from dsmt.spec.keys import KEYS
from tests.spec.service_files import component, mistakes

AFTER = "`after` is not built yet; remove it: what fails before the others are there is started again"


@pytest.mark.parametrize(
    ("keys", "message", "suggestion"),
    [
        ("timeout: 5m", "`timeout` is for jobs, and this is a service", "`timeout` is not built yet; remove it"),
        ("retries: 3", "`retries` is for jobs, and this is a service", "`retries` is not built yet; remove it"),
        ("parallel: 3", "`parallel` is for jobs, and this is a service", "`parallel` is not built yet; remove it"),
        ("parallel: x", "parallel: `x` is not a number", "`parallel` is not built yet; remove it"),
        ("driver: docker", "driver: `docker` cannot be here", "write process"),
        ("kind: batch", "kind: `batch` cannot be here", "write service"),
        ("on_partition: x", "on_partition: `x` cannot be here", "one of at_least_one, pinned"),
        ("rank: x", "rank: `x` alone is not a condition", "`rank` is not built yet; remove it"),
        ("sockets: [http]", "`http` is not in `ports`", "`sockets` is not built yet; remove it"),
        ("apart: x", "there is no other component `x`", "`apart` is not built yet; remove it"),
        ("near: {to: x}", "there is no other component `x`", "`near` is not built yet; remove it"),
        ("after: x", "there is no component `x`", AFTER),
        ("term: 20s", "`term` is for `at_most_one` only", "`term` is not built yet; remove it"),
        ("update: {canary: 50%}", "50% of 1 instance", "`canary` is not built yet; remove it"),
        ("env: {A: {secret: s}}", "env.A: a secret by name does not belong in `env`",
         "use {file: PATH}, which is read on the node"),
        ("depends_on: [x]", "there is no key `depends_on` in `components.NAME`",
         "here it is `after`, which is not built yet; remove it: what fails before the others are there is started again"),
    ],
)  # fmt: skip
def test_a_mistake_in_what_is_not_built_is_told_with_what_to_do_without_it(keys, message, suggestion):
    (told,) = mistakes(component(f"run: x\n{keys}"))
    assert (told.message, told.suggestion) == (message, suggestion)


def test_a_mistake_in_what_is_built_keeps_its_own_hint():
    (told,) = mistakes(component("run: x\nlogs: {keep: x}"))
    assert "not built" not in told.suggestion


def test_each_key_says_what_of_it_is_built():
    assert SUPPORTED.keys() == {f"{key.group}.{key.name}" for key in KEYS} | {"placeholder.endpoints"}
    assert SUPPORTED["component.driver"] == ("process",)
    assert SUPPORTED["component.kind"] == ("service",)
