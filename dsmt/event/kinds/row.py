"""A row of the registry: one kind of event, and all that follows from it (docs/reference/topics.md).

Rule 1: in a template `<name>` stands for one level, `<name/>` at its end for all that are left.
Rule 2: an owned topic names in its template the one source that may write it; a shared one is written by all sources of
    some roles.
Rule 3: rows of one type say the same thing: they have one record and one sentence, and a view folds all of them or none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

import msgspec

from dsmt.event.envelope import Event

Kind = Literal["fact", "signal"]
Budget = Literal["evidence", "signal", "log"]
CLASSES: Final[tuple[Budget, ...]] = get_args(Budget)
Writers = str | tuple[str, ...]
Record = TypeVar("Record", bound=msgspec.Struct)

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS
AGENT: Final = "agent/<node>/<service>/<component>/<index>"


class KindRow(NamedTuple):
    """One row. One that has neither record nor sentence takes any map, and is shown as it is."""

    template: str
    event_type: str
    kind: Kind | None
    """None: the writer chooses; an event with a version is a fact."""
    writers: Writers
    """The template of an owned topic's only source, or the roles of a shared one's."""
    record: type[msgspec.Struct] | None = None
    says: Callable[[Event, Any], str] | None = None
    """What an event says of its subject, in one line: short, active, in the present tense."""
    ttl_ms: int | None = None
    """None: durable (facts)."""
    budget: Budget = "evidence"
    folded: bool = False
    """Whether a view folds it, with what its index does for the type."""
    routine: bool = False
    """Whether it passes all the time, and `tail` shows it only to who asks for it by its last level."""

    @property
    def owner(self) -> str | None:
        """The one source that may write an owned topic, as a template; None for a shared one."""
        return self.writers if isinstance(self.writers, str) else None

    @property
    def roles(self) -> tuple[str, ...]:
        """The kinds of source that may write a shared topic."""
        return () if isinstance(self.writers, str) else self.writers

    @property
    def shared(self) -> bool:
        """Whether the topic's facts are shared, and so carry versions."""
        return self.owner is None

    def takes_as_fact(self, version: int | None) -> bool:
        """Whether what has this version, or none, is a fact: the latest value of its topic, retained."""
        return version is not None if self.kind is None else self.kind == "fact"


def fact(
    template: str,
    event_type: str,
    writers: Writers,
    record: type[Record],
    says: Callable[[Event, Record], str],
    *,
    ttl_ms: int | None = None,
    budget: Budget = "evidence",
    folded: bool = False,
    routine: bool = False,
) -> KindRow:
    """A row of facts with a record and its sentence."""
    return KindRow(template, event_type, "fact", writers, record, says, ttl_ms, budget, folded, routine)


def signal(
    template: str,
    event_type: str,
    writers: Writers,
    record: type[Record],
    says: Callable[[Event, Record], str],
    *,
    budget: Budget = "signal",
    routine: bool = False,
) -> KindRow:
    """A row of signals with a record and its sentence."""
    return KindRow(template, event_type, "signal", writers, record, says, budget=budget, routine=routine)
