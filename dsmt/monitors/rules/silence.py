"""Silence: which nodes this one is named to probe, and from when on (rule F2, F4, F6).

Rule 1: a broker's word on a node's manager or monitor that is addressed to this monitor names it, if it is among the first
    `OBSERVERS` of those to whom it is addressed; any other word that is addressed to it ends that, as does one that is open.
Rule 2: who is named probes from then on; when all words on a node's sources say that they closed themselves, only
    `REATTACH_GRACE_MS` later: mostly nobody needs it then.
Rule 3: of an episode the cause is the first word that named this monitor; another cause is another target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import SessionFact
from dsmt.view.liveness import OBSERVERS, REATTACH_GRACE_MS, ROLES


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """A node to probe from `since_ms` (realm ms; 0 is at once) on, and what told of it."""

    node: str
    cause: EventId
    since_ms: int


@dataclass(slots=True)
class _Named:
    cause: EventId
    words: dict[str, SessionFact] = field(default_factory=dict)

    @property
    def since_ms(self) -> int:
        if all(word.state == "closed" and word.how == "peer" for word in self.words.values()):
            return max(word.since_ms for word in self.words.values()) + REATTACH_GRACE_MS
        return 0


class Silence:
    """What the monitor `own`, named as a source, is named for."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._named: dict[str, _Named] = {}

    def session(self, source: str, session: SessionFact, to: Sequence[str], cause: EventId) -> None:
        """Take in a broker's word on a session that is addressed to this monitor."""
        role, _, node = source.partition("/")
        if role not in ROLES or not node:
            return
        if session.state == "open" or self._own not in to[:OBSERVERS]:
            self._named.pop(node, None)
        else:
            self._named.setdefault(node, _Named(cause)).words[role] = session

    def forget(self) -> None:
        """All that counts is told anew."""
        self._named.clear()

    def targets(self) -> list[ProbeTarget]:
        """The nodes that this one is to probe, in order of their names."""
        return [ProbeTarget(node, named.cause, named.since_ms) for node, named in sorted(self._named.items())]
