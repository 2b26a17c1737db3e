"""A spec brings along what earlier ones said otherwise of where instances may be, and no more."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dsmt.spec.governing import OF_NODES, as_it_was, governing, otherwise
from dsmt.spec.mistakes import BadSpecEventError
from dsmt.spec.parsing import parse
from dsmt.spec.plain import from_plain, to_plain
from dsmt.spec.records import ComponentSpec

HEAD = "service: web\ncomponents:\n"
SPECS = [
    HEAD + "  app: {run: ./a, instances: 2, data: true, reserve: {memory: 1GiB}}\n",
    HEAD + "  app: {run: ./b --verbose, instances: 5, env: {A: b}, nodes: 'union(n1, n2)'}\n",
    HEAD
    + "  app: {run: ./a, instances: each_node, ports: {http: 8080}, health: {tcp: {port: http}}}\n"
    + "  side: {run: ./s, instances: 1}\n",
    HEAD + "  side: {run: ./s, instances: 3, on_partition: pinned}\n",
]


def plain(text: str) -> dict[str, Any]:
    return to_plain(parse(text, file="web.yaml")[0])


def governs(component: ComponentSpec) -> dict[str, Any]:
    told = msgspec.to_builtins(component)
    return {field: told[field] for field in told if field not in OF_NODES | {"instances"}} | {
        "each_node": component.each_node
    }


@pytest.mark.parametrize("last", SPECS)
@pytest.mark.parametrize("second", SPECS)
@pytest.mark.parametrize("first", SPECS)
def test_what_was_said_otherwise_is_enough_to_know_what_governs(first: str, second: str, last: str) -> None:
    a, b, c = (plain(text)["components"] for text in (first, second, last))
    told = otherwise(as_it_was(b, otherwise(a, b)), c)
    stands = from_plain(plain(last))
    found = {**stands.components, **governing(stands, told)}
    was = from_plain(plain(first)).components
    for name in {*was} & {*found}:
        assert governs(found[name]) == governs(was[name])


def test_what_only_nodes_read_and_how_many_there_are_is_not_brought_along() -> None:
    more = SPECS[0].replace("./a", "./other").replace("instances: 2", "instances: 4, env: {A: b}")
    assert otherwise(plain(SPECS[0])["components"], plain(more)["components"]) == {}
    ends = SPECS[0].replace("instances: 2", "instances: 2, stop: {grace: 3s}")
    assert otherwise(plain(SPECS[0])["components"], plain(ends)["components"])["app"].keys() == {"stop"}
    assert otherwise(plain(SPECS[0])["components"], plain(SPECS[1])["components"])["app"].keys() == {
        "data", "nodes", "on_partition", "reserve", "restart", "update",
    }  # fmt: skip


@pytest.mark.parametrize("said", [{"nodes": "union("}, {"reserve": 7}, {"name": "other"}, {"health": {}}])
def test_what_cannot_be_read_of_that_makes_a_spec_that_cannot_be_read(said: dict[str, Any]) -> None:
    with pytest.raises(BadSpecEventError):
        governing(from_plain(plain(SPECS[0])), {"app": said})
