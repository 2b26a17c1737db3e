"""Brokers: what they say of the sources attached to them, of their stores, and of faults of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import Count, Ms, Offset, Seconds
from dsmt.event.kinds.row import DAY_MS, Budget, KindRow, fact, signal

SILENT_S: Final = 3.0
"""How long a source that lives may go unheard before a broker says that it is silent: it was asked, and did not answer."""


class SessionFact(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's word on one attachment of a source (F1, F2). `how` says how it was closed."""

    attachment: Count
    state: Literal["open", "silent", "closed"]
    how: Literal["peer", "timeout", "local"] | None
    since_ms: Ms
    incarnation: int
    pid: Count | None
    version: str
    address: str
    instead_of: str = ""
    """The broker whose session it was, when that one is lost and this is said in its place."""
    leaf: Literal["behind", "read"] | msgspec.UnsetType = msgspec.UNSET
    """Of a leaf (E5): whether this broker had read it to its end, and what others have; not said of others."""
    kept_out: str | msgspec.UnsetType = msgspec.UNSET
    """The id of the key with which two processes took turns under the name: nobody is let in with it (A11)."""
    kept_out_issued: Count | msgspec.UnsetType = msgspec.UNSET
    """When the certificate was issued with which they did (realm s): nobody is let in with one that is older, either."""


class BrokerStats(msgspec.Struct, frozen=True, kw_only=True):
    """A broker on itself, each 30 s, on start and when somebody exports: the signed head of its store is the witness of J3.

    `head` is the last row that it stands over, `head_hash` the head of the tree over all of them (`event.rowtree`).
    """

    store: str
    head: Count
    head_hash: bytes
    sessions: Count
    events: Count
    facts: Count
    disk_bytes: Count
    history_from_ms: Ms
    dropped: Count
    lag_s: Seconds
    pid: Count | None
    version: str
    address: str
    clock_ahead_s: Offset = 0.0
    """Its machine's clock minus realm time."""
    early_s: Offset = 0.0
    """By how much what was decided before, and is brought back to it, is ahead of realm time and refused for that."""
    whole: bool = True
    """Whether it has everything that the realm holds, as far as it knows (A4)."""
    damaged: str | msgspec.UnsetType = msgspec.UNSET
    """Where a store of it lies that was damaged, and why (B11); not said where there is none."""
    full: str | msgspec.UnsetType = msgspec.UNSET
    """The directory of its NATS server, which stores nothing, for that disk is full; not said where there is room."""


class BrokerNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's signed word on a fault of the stream: `gap`, `equivocation`, `clock`, `clone`, `damaged`, `older`.

    `first` and `last` are in one `unit`: sequences of the source, numbers of the topic's chain, or rows of the store.
    """

    kind: str
    source: str
    topic: str | None
    first: int
    last: int
    message: str
    unit: Literal["sequence", "number", "row"] = "sequence"


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's word on another one that does not give what it has said to hold (E4); `count` 0: it gives it again.

    `source`, `incarnation` and `sequence` are of the first of these events.
    """

    count: Count
    source: str
    incarnation: int
    sequence: int


class TrimRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a store its broker let go (B6): `count` rows between two, as the bytes of a `RowSet`.

    They are of one class, `budget`. Where records of all classes were put together, that is `evidence`.
    `count` 0: between these two rows things of the class are missing which another broker had trimmed before it was read.
    `number` is the store's own, for the broker to know that it has said it.
    """

    store: str
    number: Count
    budget: Budget
    first: Count
    last: Count
    count: Count
    rows: bytes


_CLOSED: Final[Mapping[str, str]] = {"peer": "the peer closed it", "timeout": "it timed out"}


def _session(event: Event, said: SessionFact) -> str:
    broker = event.topic.split("/")[1]
    if said.state == "open":
        return f"is connected to {broker}"
    if said.state == "silent":
        return f"is silent at {broker}"
    if said.kept_out:
        return f"is kept out by {broker}: two processes took turns under its name"
    return f"is disconnected from {broker} ({_CLOSED.get(said.how or '', f'{broker} closed it')})"


def _stats(_: Event, said: BrokerStats) -> str:
    return f"holds {said.facts} facts, {said.events} events, {said.sessions} connections"


def _notice(_: Event, said: BrokerNotice) -> str:
    return f"reports {said.kind}: {said.message}"


def _withheld(event: Event, said: Withheld) -> str:
    by = event.topic.split("/")[1]
    if not said.count:
        return f"gives {by} all that it has said to hold"
    return f"does not give {by} what it has said to hold: {said.source} #{said.sequence}"


def _trimmed(_: Event, said: TrimRecord) -> str:
    of = "" if said.budget == "evidence" else f" of {said.budget}"
    if not said.count:
        return f"lacks what another broker had dropped{of}, from #{said.first} to #{said.last}"
    return f"drops {said.count} old rows{of}, from #{said.first} to #{said.last}"


ROWS: Final[tuple[KindRow, ...]] = (
    fact(
        "broker/<broker>/session/<source/>", "dsmt.session", "broker/<broker>", SessionFact, _session,
        ttl_ms=DAY_MS, folded=True,
    ),
    signal(
        "broker/<broker>/stats", "dsmt.broker.stats", "broker/<broker>", BrokerStats, _stats,
        budget="evidence", routine=True,
    ),
    fact(
        "broker/<broker>/withheld/<other>", "dsmt.broker.withheld", "broker/<broker>", Withheld, _withheld, ttl_ms=DAY_MS,
    ),
    signal("broker/<broker>/trimmed", "dsmt.trimmed", "broker/<broker>", TrimRecord, _trimmed, budget="evidence"),
    signal("broker/<broker>/notice", "dsmt.notice", "broker/<broker>", BrokerNotice, _notice, budget="evidence"),
)  # fmt: skip
