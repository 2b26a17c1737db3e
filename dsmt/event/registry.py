"""The registry of topics: what may be said where, by whom, and how it is kept (docs/reference/topics.md).

Rule 1: a topic that no row takes cannot be published.
Rule 2: `owner` names the one source that may write an owned topic; `roles` the kinds of source that may write a
    shared one.
Rule 3: grants, the validator's schema, fact order, time to live and budget follow from the row.
Rule 4: `<name>` stands for one level, `<name/>` for all that are left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from typing import Final, Literal, NamedTuple

import msgspec

from dsmt.event import records as r
from dsmt.event.envelope import Event
from dsmt.event.topic import MAX_LEVELS, matches

Kind = Literal["fact", "signal"]
Budget = Literal["evidence", "signal", "log"]

_MINUTE: Final = 60_000
_DAY: Final = 24 * 60 * _MINUTE


class Row(NamedTuple):
    """One row. `ttl_ms` None is durable (facts). `record` None takes any map."""

    template: str
    event_type: str
    kind: Kind | None
    """None: the writer chooses; an event with a version is a fact."""
    owner: str | None
    roles: tuple[str, ...]
    record: type[msgspec.Struct] | None
    ttl_ms: int | None = None
    budget: Budget = "evidence"

    @property
    def shared(self) -> bool:
        """Whether the topic's facts are shared, and so carry versions."""
        return self.owner is None


_AGENT: Final = "agent/<node>/<service>/<component>/<index>"


def _owned(template: str, event_type: str, owner: str, record: type[msgspec.Struct] | None, ttl_ms: int | None) -> Row:
    return Row(template, event_type, "fact", owner, (), record, ttl_ms)


def _shared(template: str, event_type: str, roles: tuple[str, ...], record: type[msgspec.Struct] | None) -> Row:
    return Row(template, event_type, "fact", None, roles, record)


def _signal(
    template: str, event_type: str, owner: str, record: type[msgspec.Struct] | None, budget: Budget = "signal"
) -> Row:
    return Row(template, event_type, "signal", owner, (), record, None, budget)


TOPICS: Final[tuple[Row, ...]] = (
    _owned("node/<node>/attributes", "dsmt.node.attributes", "monitor/<node>", r.NodeAttributes, _DAY),
    _signal("node/<node>/heartbeat", "dsmt.heartbeat", "node/<node>", r.Heartbeat),
    _owned("node/<node>/probe/<observer>", "dsmt.node.probe", "monitor/<observer>", r.Probe, 10 * _MINUTE),
    _shared("node/<node>/verdict", "dsmt.node.verdict", ("controller", "operator"), r.NodeVerdict),
    _signal("node/<node>/agent/<service>/<component>/<index>/heartbeat", "dsmt.heartbeat", _AGENT, r.Heartbeat),
    _signal("node/<node>/monitor/heartbeat", "dsmt.heartbeat", "monitor/<node>", r.Heartbeat),
    _signal("broker/<broker>/heartbeat", "dsmt.heartbeat", "broker/<broker>", r.Heartbeat),
    _signal("controller/<controller>/heartbeat", "dsmt.heartbeat", "controller/<controller>", r.Heartbeat),
    _owned(
        "controller/<controller>/state",
        "dsmt.controller.state",
        "controller/<controller>",
        r.ControllerState,
        _DAY,
    ),
    _signal("broker/<broker>/keeper", "dsmt.keeper", "broker/<broker>", r.KeeperReplaced, "evidence"),
    _signal("controller/<controller>/keeper", "dsmt.keeper", "controller/<controller>", r.KeeperReplaced, "evidence"),
    _signal("node/<node>/keeper", "dsmt.keeper", "node/<node>", r.KeeperReplaced, "evidence"),
    _shared("node/<node>/control", "dsmt.node.control", ("operator",), r.NodeControl),
    _owned("broker/<broker>/session/<source/>", "dsmt.session", "broker/<broker>", r.Session, _DAY),
    _signal("broker/<broker>/stats", "dsmt.broker.stats", "broker/<broker>", r.BrokerStats, "evidence"),
    _signal("broker/<broker>/trimmed", "dsmt.trimmed", "broker/<broker>", r.TrimRecord, "evidence"),
    _signal("broker/<broker>/notice", "dsmt.notice", "broker/<broker>", r.BrokerNotice, "evidence"),
    _signal("source/<source/>", "dsmt.source.started", "<source/>", r.Started, "evidence"),
    _shared("service/<service>/spec", "dsmt.service.spec", ("operator",), r.SpecFact),
    _shared("nodeset/<name>", "dsmt.nodeset", ("operator",), r.NodesetFact),
    _shared("service/<service>/control/<component>/<index>", "dsmt.slot.control", ("operator",), r.SlotControl),
    _shared("service/<service>/slot/<component>/<index>", "dsmt.slot", ("controller",), r.Slot),
    _owned(
        "service/<service>/status/<component>/<index>/<node>/container",
        "dsmt.status",
        "node/<node>",
        r.Status,
        _DAY,
    ),
    _owned(
        "service/<service>/status/<component>/<index>/<node>/agent",
        "dsmt.status",
        "node/<node>",
        r.Status,
        _DAY,
    ),
    _owned(
        "service/<service>/status/<component>/<index>/<node>/application",
        "dsmt.status",
        _AGENT,
        r.Status,
        _DAY,
    ),
    _signal("service/<service>/progress/<component>/<index>/<node>", "dsmt.progress", _AGENT, r.Progress),
    Row(
        "service/<service>/command/<component>/<index>",
        "dsmt.command",
        "signal",
        None,
        ("operator", "controller"),
        r.Command,
        None,
        "evidence",
    ),
    _owned("service/<service>/health/<component>/<index>/<node>", "dsmt.health", _AGENT, r.Health, _DAY),
    Row(
        "service/<service>/endpoint/<component>/<index>/<node>",
        "dsmt.endpoint",
        "fact",
        _AGENT,
        (),
        r.Endpoint,
        90_000,
        "signal",
    ),
    _owned(
        "service/<service>/barrier/<name>/arrived/<component>/<index>/<node>",
        "dsmt.barrier.arrived",
        _AGENT,
        None,
        _DAY,
    ),
    _shared("service/<service>/barrier/<name>/released", "dsmt.barrier.released", ("controller",), None),
    _signal("service/<service>/log/<component>/<index>/<node>/<stream>", "dsmt.log", _AGENT, r.LogLines, "log"),
    _signal("controller/<controller>/decision", "dsmt.decision", "controller/<controller>", r.Decision, "evidence"),
    _shared("tombstone/service/<service>", "dsmt.tombstone", ("operator", "controller"), r.Tombstone),
    _shared("tombstone/node/<node>", "dsmt.tombstone", ("operator",), r.Tombstone),
    _shared("tombstone/nodeset/<name>", "dsmt.tombstone", ("operator",), r.Tombstone),
    _shared("config/brake", "dsmt.config.brake", ("operator",), r.Brake),
    _shared("config/clock/<broker>", "dsmt.config.clock", ("operator",), r.ClockWord),
    _shared("config/<name/>", "dsmt.config", ("operator",), None),
    _owned("trust/revoked/<key>/<source/>", "dsmt.trust.revoked", "<source/>", r.Revoked, None),
    _shared("trust/<name/>", "dsmt.trust", ("root", "issuer", "operator"), None),
    Row("reaction/<id>", "dsmt.reaction", "fact", None, ("operator",), None, _DAY),
    Row("verdict/<id>", "dsmt.verdict", "fact", None, ("operator",), None, _DAY),
    Row("app/<service>/<name/>", "dsmt.app", None, None, ("agent",), None, None, "signal"),
    Row("user/<name/>", "dsmt.user", None, None, ("operator",), None, None, "signal"),
)


class Match(NamedTuple):
    """A topic's row and what its named levels are."""

    row: Row
    levels: Mapping[str, str]


def _compile(row: Row) -> re.Pattern[str]:
    def group(found: re.Match[str]) -> str:
        name = found[1]
        return f"(?P<{name[:-1]}>.+)" if name.endswith("/") else f"(?P<{name}>[^/]+)"

    return re.compile(re.sub(r"<([a-z]+/?)>", group, row.template))


_ROWS: Final = tuple((_compile(row), row) for row in TOPICS)


@lru_cache(maxsize=65536)
def lookup(topic: str) -> Match | None:
    """The first row that takes the topic, or None."""
    for pattern, row in _ROWS:
        found = pattern.fullmatch(topic)
        if found is not None:
            return Match(row, found.groupdict())
    return None


@lru_cache(maxsize=65536)
def owner_of(topic: str) -> str | None:
    """The one source that may write an owned topic; None for a shared topic or an unknown one."""
    match = lookup(topic)
    if match is None or match.row.owner is None:
        return None
    return re.sub(r"<([a-z]+)/?>", lambda found: match.levels[found[1]], match.row.owner)


def is_fact(event: Event) -> bool:
    """Whether the event is a fact: the latest value of its topic, retained."""
    match = lookup(event.topic)
    if match is None:
        return False
    return event.version is not None if match.row.kind is None else match.row.kind == "fact"


def as_pattern(template: str, levels: Mapping[str, str]) -> str:
    """A row's template as a topic pattern, with what is known filled in and `+` elsewhere."""
    filled = re.sub(r"<([a-z]+)/>$", lambda found: levels.get(found[1], ""), template)
    return re.sub(r"<([a-z]+)>", lambda found: levels.get(found[1], "+"), filled)


def can_match(pattern: str, template: str) -> bool:
    """Whether a topic pattern may take a topic of a row."""
    if pattern == "/":
        return True
    wanted, levels = pattern.rstrip("/").split("/"), template.removesuffix("/>").split("/")
    subtree = pattern.endswith("/")
    if template.endswith("/>"):  # its last level stands for one level or more
        levels += [levels[-1]] * (len(wanted) + subtree - len(levels))
    if not all(want in {"+", level} or level[0] == "<" for want, level in zip(wanted, levels, strict=False)):
        return False
    return len(levels) > len(wanted) if subtree else len(levels) == len(wanted)


def take_everything(patterns: Iterable[str]) -> bool:
    """Whether some pattern takes each topic that can be published on.

    Tried with names of which no pattern speaks: only what takes any name takes those.
    """
    known = tuple(patterns)
    spoken = {level for pattern in known for level in pattern.split("/")}
    name = next(name for name in (f"any{n}" for n in count()) if name not in spoken)
    return all(any(matches(pattern, topic) for pattern in known) for row in TOPICS for topic in _examples(row, name))


def _examples(row: Row, name: str) -> Iterator[str]:
    """A topic of the row for each number of levels that it may have, with this name at each open level."""
    levels = [name if level.startswith("<") else level for level in row.template.removesuffix("/>").split("/")]
    yield "/".join(levels)
    for more in range(1, MAX_LEVELS - len(levels) + 1) if row.template.endswith("/>") else ():
        yield "/".join([*levels, *[name] * more])


def unify(template: str, name: str) -> Mapping[str, str] | None:
    """The levels under which an owner template becomes a name, or None when it cannot."""
    levels: dict[str, str] = {}
    if template == "<source/>":
        return {"source": name}
    want, have = template.split("/"), name.split("/")
    if len(want) != len(have):
        return None
    for w, h in zip(want, have, strict=True):
        if w.startswith("<"):
            levels[w[1:-1]] = h
        elif w != h:
            return None
    return levels
