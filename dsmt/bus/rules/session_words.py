"""What a broker, or the gate of a NATS server, says of sessions: of those that it holds, and of those that a lost one held.

Rule 1: session facts follow `presence`.
Rule 2: words on a node that nobody hears are addressed to those who are to probe it (`observers`), and are said again when
    others are. Whom somebody hears is seen by the words of all brokers: the processes of a node may be attached to several.
Rule 3: of what a broker held that is lost for `REATTACH_GRACE_MS` and has not attached elsewhere, the first of the brokers
    that are left says that it is silent, in the place of the lost one: or nobody would be named to probe it (F1, F4).
Rule 4: whoever has named somebody says when that is over.
Rule 5: of a broker that is a leaf it is said that it is one, and whether it was read to its end here: its next upstream goes
    on from there (E5).
Rule 6: what was said under this broker's name, and others have brought, is its past: a greater attachment there counts as
    one that was open when this broker last ended, and each is said anew (R8). Who was closed on the other side of a
    partition, by a broker with another key, and has not been here since, stays so; of this one's own past, from before its
    disk was lost, it is as if it stood in its store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from dsmt.bus.rules.observers import Observers
from dsmt.bus.rules.presence import AttachedSource, How, Presence
from dsmt.errors import UnusableEventError
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import from_data
from dsmt.ports.store import Row
from dsmt.view.liveness import REATTACH_GRACE_MS, ROLES
from dsmt.view.sessions import SourceSessions

HEARTBEAT_S: Final = 1.0
STATS_S: Final = 30.0
"""How often who lets sources in vouches for what it has said, and tells how it is."""
PASSED_TTL_MS: Final = 600_000
"""How long the session of a command line is remembered after its end; each is a source of its own."""
_FOLLOWED: Final = (*ROLES, "broker")

_Word = tuple[str, SessionFact]


class _Held(NamedTuple):
    record: SessionFact


class Says(Protocol):
    """Signs and publishes what is said."""

    def say(
        self,
        topic: str,
        record: msgspec.Struct,
        *,
        subject: str = "",
        ttl_ms: int | None = None,
        payer: str = "",
        to: tuple[str, ...] = (),
    ) -> None:
        """Say something of the broker's own."""
        ...


class SessionWords:
    """Those of one broker. `now` is boot-time seconds, `now_ms` realm ms.

    `leaves` are the brokers that are leaves, and whether each is read to its end here now (E5).
    """

    def __init__(self, name: str, words: Says, now: float, leaves: Callable[[], Mapping[str, bool]] = dict) -> None:
        self._prefix, self._own, self._words = f"{name}/session/", name.partition("/")[2], words
        self.presence = Presence(now)
        self._observers = Observers()
        self._known: SourceSessions[_Held] = SourceSessions()
        """The words of all brokers on managers, monitors and brokers."""
        self._gone: frozenset[str] = frozenset()
        """Brokers that are lost for longer than the grace."""
        self._addressed: set[str] = set()
        """Sources on which this broker's last word is addressed."""
        self._restored: list[_Word] = []
        self._leaves = leaves

    # --- the beginning -------------------------------------------------------------------------------------------

    def restore(self, row: Row, now: float, now_ms: int) -> None:
        """Take in a retained fact of the past, if it is one of a session."""
        if not row.topic.startswith(self._prefix):
            self._elsewhere(row)
            return
        source, record = row.topic.removeprefix(self._prefix), _read(row)
        self._observers.restore(source, row.to)
        if row.to:
            self._addressed.add(source)
        if record is None or record.instead_of:
            return  # of another version: the next attachment says it anew
        again = self.presence.restore(source, record, now, now_ms)
        if source.partition("/")[0] in _FOLLOWED:
            self._put(self._own, source, again or record)
        if again is not None:
            self._restored.append((source, again))

    def started(self) -> None:
        """Say what of the past is to be said anew."""
        ended = self._note(self._known.of)
        for source, record in self._restored:
            self._publish(source, record, ())
        self._restored = []
        self._end(ended)
        self._name()

    def taken_over(self, row: Row, now: float, now_ms: int, *, own: bool = False) -> None:
        """Say anew what was said under this name of a source; `own`: by this broker, before its disk was lost (rule 6)."""
        if not row.topic.startswith(self._prefix):
            return
        source, record = row.topic.removeprefix(self._prefix), _read(row)
        held = self.presence.attachment_of(source)
        if record is not None and (
            record.attachment == held or (record.attachment > held and (own or record.state != "closed"))
        ):
            self.restore(row, now, now_ms)
            self._restored = []
        known = self.presence.record_of(source)
        if known is not None:
            self._say([(source, known)])

    # --- what sessions do ----------------------------------------------------------------------------------------

    def opened(self, session: AttachedSource, now: float, now_ms: int) -> None:
        """A session has attached."""
        self._say([(session.name, self.presence.opened(session, now, now_ms))])

    def heard(self, session: AttachedSource, now: float, now_ms: int) -> bool:
        """A session has said something; whether it had been silent."""
        record = self.presence.heard(session.name, now, now_ms, session.payer)
        if record is not None:
            self._say([(session.name, record)])
        return record is not None

    def closed(self, session: AttachedSource, how: How, now: float, now_ms: int) -> None:
        """A session's connection has ended."""
        record = self.presence.closed(session.name, session.attachment, how, now, now_ms)
        if record is not None:
            self._say([(session.name, record)])

    def settle(self, is_revoked: Callable[[bytes, str], bool]) -> None:
        """Let in again who was kept out by a certificate, by key and name, that is revoked."""
        self._say(self.presence.settle(is_revoked))

    def stored(self, rows: Iterable[Row]) -> None:
        """Note what other brokers have said."""
        changed = [source for row in rows if row.brought and (source := self._elsewhere(row))]
        if changed:
            self._end(self._note(changed))

    def tick(self, now: float, now_ms: int, expected: float) -> None:
        """Say what is due, `expected` seconds after the last time."""
        self._say(self.presence.tick(now, now_ms, expected))
        self._say([word for source in self._leaves() if (word := self._outdated(source)) is not None])
        lost = self._known.lost(self._own)
        gone = frozenset(broker for broker, since_ms in lost.items() if now_ms >= since_ms + REATTACH_GRACE_MS)
        if gone != self._gone:
            changed, self._gone = gone ^ self._gone, gone
            self._end(self._note(source for source in self._known.of if self._last(source)[0] in changed))
            for node in self._observers.unheard:  # who is the first of those that are left may have changed
                self._say_again(node)
        self._observers.keep(lambda source: source in self._known.of)
        self._name()

    # --- who is unheard ------------------------------------------------------------------------------------------

    def _elsewhere(self, row: Row) -> str:
        """Take in another broker's word, if it is one on a source that is followed here: which."""
        role, _, rest = row.topic.partition("/")
        broker, _, source = rest.partition("/session/")
        if role != "broker" or broker == self._own or source.partition("/")[0] not in _FOLLOWED:
            return ""
        self._put(broker, source, _read(row))
        self._observers.restore(source, row.to)
        return source

    def _put(self, broker: str, source: str, record: SessionFact | None) -> None:
        self._known.put(broker, source, None if record is None or record.instead_of else _Held(record))

    def _last(self, source: str) -> tuple[str, SessionFact | None]:
        """The broker at which a source has attached last, and its word on that; empty, and None, when none is known."""
        known = self._known.of.get(source)
        holder, held = ("", None) if known is None or known.newest is None else known.newest
        return holder, None if held is None else held.record

    def _note(self, sources: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
        """Note how these are now; by node that is heard again, to whom that is said."""
        found = [(source, *self._last(source)) for source in sources]
        return self._observers.noted(
            (source, "silent" if holder in self._gone else record.state) for source, holder, record in found if record
        )

    def _name(self) -> None:
        """Say the words on nodes again that others are to probe now (rule 2)."""
        for node in self._observers.due():
            self._say_again(node)

    def _say_again(self, node: str) -> None:
        for source in (f"{role}/{node}" for role in ROLES):
            holder, record = self._last(source)
            if record is not None and holder == self._own and record.state != "open":
                self._publish(source, record, self._observers.addressed(source))
            elif record is not None and holder in self._gone and self._is_first:
                self._publish(source, self._in_place(record, holder, "silent"), self._observers.addressed(source))

    @property
    def _is_first(self) -> bool:
        """Whether this one is the first of the brokers that are left (rule 3)."""
        return self._own == min((self._own, *(self._known.brokers - self._gone)))

    def _in_place(self, record: SessionFact, holder: str, state: Literal["silent", "open"]) -> SessionFact:
        since_ms = max(record.since_ms, self._known.lost(self._own).get(holder, 0))
        return msgspec.structs.replace(record, state=state, how=None, since_ms=since_ms, instead_of=f"broker/{holder}")

    def _end(self, ended: Mapping[str, tuple[str, ...]]) -> None:
        """Say that nodes are heard again to those who were named here (rule 4)."""
        for node, to in ended.items():
            for source in (f"{role}/{node}" for role in ROLES):
                holder, record = self._last(source)
                if record is None or source not in self._addressed:
                    continue
                if holder != self._own:
                    self._publish(source, self._in_place(record, holder, "open"), to)
                else:
                    self._publish(source, record, to if record.state == "open" else self._observers.addressed(source))

    # --- saying --------------------------------------------------------------------------------------------------

    def _say(self, told: Sequence[_Word]) -> None:
        words = [(source, self._marked(source, record)) for source, record in told]
        for source, record in words:
            if source.partition("/")[0] in _FOLLOWED:
                self._put(self._own, source, record)
        ended = self._note([source for source, _ in words])
        for source, record in words:
            role, _, node = source.partition("/")
            ends = record.state == "open" and role in ROLES
            self._publish(source, record, ended.get(node, ()) if ends else self._observers.addressed(source))
        self._end(ended)

    def _outdated(self, source: str) -> _Word | None:
        """What is to be said anew of a leaf that is attached here, for it is read to its end now, or is no more (rule 5)."""
        record, said = self.presence.record_of(source), self._own_word(source)
        if record is None or said is None or record.state != "open":
            return None
        return None if self._marked(source, record).leaf == said.leaf else (source, record)

    def _own_word(self, source: str) -> SessionFact | None:
        known = self._known.of.get(source)
        held = None if known is None else known.words.get(self._own)
        return None if held is None else held.record

    def _marked(self, source: str, record: SessionFact) -> SessionFact:
        """A word on a leaf says so; one on its end says what was so before (rule 5)."""
        leaves = self._leaves()
        if source not in leaves:
            return record
        said = self._own_word(source)
        ends = record.state != "open" and said is not None and said.attachment == record.attachment and said.leaf == "read"
        return msgspec.structs.replace(record, leaf="read" if leaves[source] or ends else "behind")

    def _publish(self, source: str, record: SessionFact, to: tuple[str, ...]) -> None:
        (self._addressed.add if to and record.state != "open" else self._addressed.discard)(source)
        passed = record.state == "closed" and source.startswith("operator/")
        ttl_ms = PASSED_TTL_MS if passed else None
        self._words.say(
            f"{self._prefix}{source}",
            record,
            subject=source,
            ttl_ms=ttl_ms,
            payer=self.presence.payer_of(source),
            to=to,
        )


def _read(row: Row) -> SessionFact | None:
    try:
        return from_data(SessionFact, row.read().event.data)
    except UnusableEventError:
        return None  # damaged, or of another version
