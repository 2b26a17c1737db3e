"""A try of a health check that cannot be made says nothing of the program: it is broken, and does not fail."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.instance.checking import make
from dsmt.ports.check import Result
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
    checks: Any = None
    result = asyncio.run(make(run, tried, checks, "127.0.0.1"))
    assert (result.passed, result.broken) == (False, True)
    assert said in result.evidence


@pytest.mark.parametrize(("bind", "address"), [("127.0.0.9", "127.0.0.9"), (None, "192.0.2.1")])
def test_a_try_is_made_where_its_port_is_bound_and_as_the_user_of_its_program(bind: str | None, address: str) -> None:
    port = "auto" if bind is None else f"{{port: auto, bind: {bind}}}"
    text = SPEC.replace("auto", port).replace("run: x", "run: x\n    user: bob")
    text = text.replace('{exec: "probe {port.http}"}', "{tcp: {port: http}}")
    component = parse(text, file="s.yaml")[0].components["c"]
    assert component.health is not None
    made: dict[str, Any] = {}

    async def run(_check: object, **about: Any) -> Result:
        made.update(about)
        return Result(passed=True, evidence="", took_s=0.0)

    site = SimpleNamespace(values={"port.http": "20001"}, env={}, directory="/d")
    tried: Any = SimpleNamespace(check=component.health.readiness)
    checks: Any = SimpleNamespace(run=run)
    which: Any = SimpleNamespace(plan=SimpleNamespace(component=component), site=site)
    assert asyncio.run(make(which, tried, checks, "192.0.2.1")).passed
    assert (made["address"], made["ports"], made["user"]) == (address, {"http": 20001}, "bob")
