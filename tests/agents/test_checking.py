"""A try of a health check that cannot be made says nothing of the program: it is broken, and does not fail."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.instance.checking import Checking
from dsmt.spec.parsing import parse

SPEC = """\
service: s
components:
  c:
    run: x
    ports: {http: auto}
    health: {exec: "probe {port.http}"}
"""


@pytest.mark.parametrize(
    ("known", "said"), [(False, "what is needed for the check is not known"), (True, "port.http")], ids=["plan", "port"]
)
def test_a_try_that_cannot_be_made_is_broken(known: bool, said: str) -> None:
    component = parse(SPEC, file="s.yaml")[0].components["c"]
    assert component.health is not None
    plan = SimpleNamespace(component=component) if known else None
    run: Any = SimpleNamespace(plan=plan, site=SimpleNamespace(values={}, env={}, directory="/"))
    tried: Any = SimpleNamespace(check=component.health.readiness)
    deps: Any = SimpleNamespace(checks=None)
    result = asyncio.run(Checking(deps, "127.0.0.1").make(run, tried))
    assert (result.passed, result.broken) == (False, True)
    assert said in result.evidence
