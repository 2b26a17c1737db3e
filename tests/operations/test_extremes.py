"""Extremes: any number in a record is refused, or every sentence and screen that shows it is a text (rule A14)."""

from __future__ import annotations

import copy
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from dsmt.cli import member_screens, screens, service_screen
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event
from dsmt.event.hlc import LAST_MS, rfc3339
from dsmt.event.kinds.row import KindRow
from dsmt.event.reason import reason
from dsmt.event.records import from_data, to_data
from dsmt.event.registry import TOPICS
from dsmt.event.status import Layer, State
from dsmt.operations.read.rows.broker_rows import broker_rows
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.endpoints import endpoints
from dsmt.operations.read.rows.holding import left_on
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import node_rows, node_shown
from dsmt.operations.read.screens import summaries
from dsmt.operations.words.event_objects import plain
from dsmt.operations.words.sentences import sentence
from dsmt.operations.words.targets import Target
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as TrustRealm
from dsmt.trust.store import TrustStore
from tests.controllers.build import Realm, key, web
from tests.controllers.signing import signed

from .sights import sight

INTEGERS: Final = (-(2**63) + 1, -(2**60), -1, 0, 2**53, LAST_MS, LAST_MS + 1, 2**60, 2**62, 2**63 - 1)
NUMBERS: Final = (-1e308, -1e300, -1.0, 0.0, 5e-324, LAST_MS / 1000, 1e15, 1e300, 1e308)
LEVELS: Final = {
    "node": "n1", "service": "web", "component": "app", "index": "0", "observer": "n2", "broker": "b1", "controller": "c1",
    "name": "x", "stream": "stdout", "source/": "node/n1", "key": "ab" * 16, "token": "cd" * 16, "other": "b2",
}  # fmt: skip
TRUST: Final = TrustStore(TrustRealm(name="test", roots=(SecretKey(bytes(32)).public,)))
ROWS: Final = [row for row in TOPICS if row.record is not None]


def filled(template: str) -> str:
    return re.sub(r"<([a-z]+/?)>", lambda found: LEVELS[found[1]], template)


def source_of(row: KindRow) -> str:
    if row.owner is not None:
        return filled(row.owner)
    return {"operator": "operator/alice", "controller": "controller/c1", "issuer": "issuer/i1"}[row.roles[0]]


def a_realm() -> Realm:
    """Two nodes and a service on the first, of which everything has been said."""
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="nodes: n1\nports: {http: auto}\n"))
    realm.settle(seconds=1)
    realm.health(key(), "n1", "ready")
    realm.endpoint(key(), "n1", generation=1)
    realm.status(key(), "n1", layer=Layer.CONTAINER)
    realm.probe("n1", "n2", "passed")
    realm.hold(key())
    return realm


def sample(kind: Any, name: str = "") -> Any:
    """A plain value of a type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(inner[0], name)
    if origin is typing.Literal:
        return inner[0]
    if origin is tuple:
        return [] if inner[-1] is Ellipsis else [sample(one) for one in inner]
    if origin is dict:
        return {"x": sample(inner[1])}
    if kind is str:
        return {"node": "n1", "spec": "operator/alice#1-1"}.get(name, "x")
    if isinstance(kind, type) and issubclass(kind, State | Layer):
        return State.FAILED.value if kind is State else Layer.APPLICATION.value
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {one: sample(hint, one) for one, hint in typing.get_type_hints(kind).items()}
    plain_ones: dict[Any, Any] = {int: 1, float: 1.0, bool: True, bytes: b"", Any: {}}
    return plain_ones[kind]


def placed(kind: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], tuple[float, ...]]]:
    """Where a number may stand in a value of a type, and which ones are tried there."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is int or kind is float:
        yield path, INTEGERS if kind is int else NUMBERS
    elif origin in (typing.Union, types.UnionType):
        for one in inner:
            yield from placed(one, path)
    elif origin is tuple and inner[-1] is not Ellipsis:
        for at, one in enumerate(inner):
            yield from placed(one, (*path, at))
    elif origin is dict and inner[1] is not Any:
        yield from placed(inner[1], (*path, "x"))
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for name, hint in typing.get_type_hints(kind).items():
            yield from placed(hint, (*path, name))


def set_at(data: Any, kind: type[msgspec.Struct], path: tuple[Any, ...], value: float) -> dict[str, Any]:
    """The data with another value at one place; what is null on the way there is made up."""
    changed: dict[str, Any] = copy.deepcopy(data)
    whole, at = sample(kind), changed
    for step in path[:-1]:
        whole = whole[step]
        if at.get(step) is None:
            at[step] = copy.deepcopy(whole)
        at = at[step]
    at[path[-1]] = value
    return changed


def shown(realm: Realm, told: Event) -> list[str]:
    """Every screen, as text and as JSON."""
    seen = sight(realm)
    seen.passing.take(told)
    rows, of_services, of_nodes = instances(seen, everything=True), summaries.services(seen), node_rows(seen)
    of_brokers, of_controllers, status = (
        broker_rows(seen, []), controller_rows(seen), summaries.status(seen, TRUST, []),
    )  # fmt: skip
    one_each = [node_shown(seen, node.node) for node in of_nodes]
    reached = endpoints(seen, Target("web")) if "web" in seen.view.services else []
    for answer in (rows, of_services, of_nodes, of_brokers, of_controllers, status, one_each, reached):
        assert msgspec.json.encode(answer)
    return [
        screens.ps(rows, seen),
        screens.services(of_services, seen),
        member_screens.nodes(of_nodes, seen),
        member_screens.brokers(of_brokers, seen),
        member_screens.controllers(of_controllers, seen),
        screens.status(status, seen),
        *(member_screens.node_shown(node, seen) for node in one_each),
        *(service_screen.screen(one, rows, [told], sight=seen, realm="test") for one in of_services),
        *(left.because for node in of_nodes for left in left_on(seen, node.node)),
    ]


def bases(row: KindRow, realm: Realm, topic: str) -> list[dict[str, Any]]:
    """Data of the row's record: what the realm itself says there, and one that says all that can be said."""
    assert row.record is not None
    full: dict[str, Any] = sample(row.record)
    if "reason" in full and isinstance(full["reason"], dict):
        full["reason"] = to_data(reason("run.exited", exit_code=1, time="2 s"))
    winner = realm.view.winner(topic)
    if winner is not None and "spec" in winner.event.data:
        full["spec"] = winner.event.data["spec"]
    return [full] if winner is None else [dict(winner.event.data), full]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.template)
def test_a_number_out_of_range_is_refused_and_any_other_is_shown(row: KindRow) -> None:
    assert row.record is not None
    topic, source = filled(row.template), source_of(row)
    for base in bases(row, a_realm(), topic):
        for path, values in placed(row.record):
            for value in values:
                data = set_at(base, row.record, path, value)
                about = {"version": 1} if row.shared else {}
                event = signed(source, topic, data, **about).event  # type: ignore[arg-type]
                assert sentence(event)
                assert msgspec.json.encode(plain(event.data))
                realm = a_realm()
                told = realm.say(source, topic, data).event
                realm.decide()
                assert all(shown(realm, told)), (path, value)
                refused = topic in realm.view.quarantined
                try:
                    from_data(row.record, data)
                except UnusableEventError:
                    assert refused or not row.folded, (path, value)
                else:
                    assert not refused, (path, value)


@pytest.mark.parametrize("ms", [-1, LAST_MS + 1, 2**60, 2**63 - 1])
def test_no_record_has_a_time_that_no_calendar_has(ms: int) -> None:
    times = [
        (row.record, path)
        for row in ROWS
        if row.record is not None
        for path, _ in placed(row.record)
        if str(path[-1]).endswith("_ms")
    ]
    assert len(times) >= 15
    for record, path in times:
        with pytest.raises(UnusableEventError):
            from_data(record, set_at(sample(record), record, path, ms))
        from_data(record, set_at(sample(record), record, path, LAST_MS))
    assert rfc3339(LAST_MS) == "9999-12-31T23:59:59.999Z"
