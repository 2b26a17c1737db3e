"""Sessions: which of several brokers' words on a source's attachments counts (rule F1).

Rule 1: of all words on a source the one on the greatest attachment decides, whoever wrote it; between two on one
    attachment the later, then the one of the lower broker.
Rule 2: a word counts only while its broker is alive; when that broker is lost the source is `unknown` since then.
Rule 3: a broker is lost when the broker that the reader is attached to says that its link to it is silent or closed, and
    no other one that is not lost is linked to it: what it says comes by that one (E1). Where the first says nothing, or the
    reader is attached to none, the newest word of any other broker decides.
Rule 4: a word in the place of a lost broker is for those who are to probe the source; by rule 2 it is unknown already.
Rule 5: who moves is closed at the broker that it came from within seconds. One name that is open at two brokers for
    `TWICE_MS`, in which both were linked to others, is two processes (A11).
Rule 6: a leaf is linked to one broker at a time (E5): it is lost when it is linked to none that is not lost. Who is
    attached to a leaf sees what that one's upstream sees, and no other broker while it has none.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from dsmt.event.kinds.broker import SessionFact

State = Literal["open", "silent", "closed", "unknown"]

TWICE_MS: Final = 20_000
_BROKER: Final = "broker/"


class KeptSession(Protocol):
    """A broker's word as its reader keeps it: with the whole event, or with less."""

    @property
    def record(self) -> SessionFact:
        """What it says."""
        ...


Kept = TypeVar("Kept", bound=KeptSession)


class AttachmentState(NamedTuple, Generic[Kept]):
    """What counts of a source's newest attachment: its state, and since when (realm ms)."""

    state: State
    since_ms: int
    broker: str
    held: Kept

    @property
    def by_peer(self) -> bool:
        """Whether the source itself closed it, by FIN or RST."""
        return self.state == "closed" and self.held.record.how == "peer"


class Twice(NamedTuple):
    """Two processes of one name: since when (realm ms), and the brokers to which they are attached."""

    since_ms: int
    brokers: list[str]


class Attachments(Generic[Kept]):
    """All words on one source."""

    __slots__ = ("newest", "source", "words")

    def __init__(self, source: str) -> None:
        self.source = source
        self.words: dict[str, Kept] = {}
        self.newest: tuple[str, Kept] | None = None

    def put(self, broker: str, held: Kept | None) -> None:
        """Take a broker's word on the source, or take it back (None)."""
        if held is None or held.record.instead_of:
            self.words.pop(broker, None)
        else:
            self.words[broker] = held
        self.newest = max(self.words.items(), key=_order, default=None)

    @property
    def attachment(self) -> int:
        """The number of the newest attachment; 0 when none is known."""
        return 0 if self.newest is None else self.newest[1].record.attachment


def _order(word: tuple[str, KeptSession]) -> tuple[int, int, tuple[int, ...]]:
    broker, held = word
    return held.record.attachment, held.record.since_ms, tuple(-ord(c) for c in broker)


class SourceSessions(Generic[Kept]):
    """The words of all brokers on all sources."""

    def __init__(self) -> None:
        self.of: dict[str, Attachments[Kept]] = {}
        self.brokers: set[str] = set()
        """Brokers on whose links another has said something."""
        self._lost_to: dict[str, dict[str, int]] = {}
        """What `lost` has found since the last word came: it is asked for at each look, and words are few."""

    def put(self, broker: str, source: str, held: Kept | None) -> Attachments[Kept]:
        """Take one word, or take it back (None); the attachments of that source."""
        self._lost_to.clear()
        attachments: Attachments[Kept] = self.of.setdefault(source, Attachments(source))
        attachments.put(broker, held)
        if source.startswith(_BROKER):
            self.brokers.add(source.removeprefix(_BROKER))
        if attachments.newest is None:
            del self.of[source]
            self.brokers.discard(source.removeprefix(_BROKER))
        return attachments

    def lost(self, attached: str) -> Mapping[str, int]:
        """The brokers that are lost, as seen by a reader attached to `attached`, and since when (realm ms).

        `attached` is a broker's name, or its name as a source (`broker/b1`); empty for none.
        """
        found = self._lost_to.get(attached)
        if found is None:
            found = self._lost_to[attached] = self._lost_as_seen_at(attached.removeprefix(_BROKER))
        return found

    def _lost_as_seen_at(self, attached: str) -> dict[str, int]:
        leaves = {broker for broker in self.brokers if self._is_leaf(broker)}
        if attached not in leaves:
            return self._lost(attached, leaves)
        words = {broker: self.of[_BROKER + broker].words.get(attached) for broker in sorted(self.brokers - leaves)}
        own = {broker: held.record for broker, held in words.items() if held is not None}
        linked = [broker for broker, record in own.items() if record.state == "open"]
        if linked or not own:
            found = self._lost(max(linked, key=lambda broker: own[broker].attachment, default=""), leaves)
            return {broker: since_ms for broker, since_ms in found.items() if broker != attached}
        since_ms = max(record.since_ms for record in own.values())
        return dict.fromkeys(sorted(self.brokers - {attached}), since_ms)

    def twice(self, source: str, lost: Container[str], now_ms: int) -> Twice | None:
        """Where a source is attached at once at brokers that are not lost (rule 5); None for one that is so once."""
        known = self.of.get(source)
        words = {} if known is None else known.words
        at = {by: held.record for by, held in words.items() if by not in lost and held.record.state == "open"}
        if len(at) < 2:
            return None
        since_ms = max(record.since_ms for record in at.values())
        links = (self.of[_BROKER + by].words.values() for by in at if _BROKER + by in self.of)
        linked_ms = max((held.record.since_ms for of in links for held in of), default=0)
        return Twice(since_ms, sorted(at)) if now_ms - max(since_ms, linked_ms) >= TWICE_MS else None

    def apart(self, lost: Container[str]) -> dict[str, dict[str, int]]:
        """Of brokers that are not lost, and no leaves: those that each does not reach, and since when (realm ms)."""
        leaves = {broker for broker in self.brokers if self._is_leaf(broker)}
        there = sorted(broker for broker in self.brokers - leaves if broker not in lost)
        found: dict[str, dict[str, int]] = {}
        for one in there:
            for by, held in sorted(self._links(one, leaves).items()):
                if by in there and held.record.state != "open":
                    found.setdefault(one, {})[by] = held.record.since_ms
        return found

    def _links(self, broker: str, leaves: set[str]) -> dict[str, Kept]:
        """What others that are no leaves say of their links to a broker."""
        return {by: held for by, held in self.of[_BROKER + broker].words.items() if by != broker and by not in leaves}

    def _is_linked(self, links: Mapping[str, Kept], lost: Container[str]) -> bool:
        """Whether one that is known and not lost is linked to whom these words are on (rule 3)."""
        return any(held.record.state == "open" and by in self.brokers and by not in lost for by, held in links.items())

    def _ended_ms(self, links: Mapping[str, Kept], lost: Container[str]) -> int:
        """When the last link that one had which is not lost ended (realm ms); 0 where none says so."""
        ended = (held.record.since_ms for by, held in links.items() if by not in lost and held.record.state != "open")
        return max(ended, default=0)

    def _is_leaf(self, broker: str) -> bool:
        return any(held.record.leaf for held in self.of[_BROKER + broker].words.values())

    def _lost(self, attached: str, leaves: set[str]) -> dict[str, int]:
        """Those that are lost as seen at a broker that is no leaf, or at none."""
        links = {broker: self._links(broker, leaves) for broker in sorted(self.brokers - leaves - {attached})}
        found: dict[str, int] = {}
        for broker, words in links.items():
            deciding = words.get(attached) or max(words.items(), key=_order, default=("", None))[1]
            if deciding is not None and deciding.record.state != "open":
                found[broker] = deciding.record.since_ms
        while passed := [broker for broker in found if self._is_linked(links[broker], found)]:
            for broker in passed:
                del found[broker]
        found = {broker: self._ended_ms(links[broker], found) or since_ms for broker, since_ms in found.items()}
        for leaf in sorted(leaves):
            if not self.upstream(leaf, found):
                said = self.of[_BROKER + leaf].words.items()
                found[leaf] = max(max(held.record.since_ms, found.get(broker, 0)) for broker, held in said)
        return found

    def upstream(self, broker: str, lost: Container[str]) -> str:
        """The broker to which a leaf is linked, if that one is not lost; empty for none, and for who is no leaf."""
        known = self.of.get(_BROKER + broker)
        words = {} if known is None else {by: held.record for by, held in known.words.items() if by not in lost}
        linked = [by for by, record in words.items() if record.leaf and record.state == "open"]
        return max(linked, key=lambda by: (words[by].attachment, by), default="")


def is_open(words: Sequence[AttachmentState[Kept]]) -> bool:
    """Whether one of a node's sources is open: then it lives."""
    return any(word.state == "open" for word in words)


def is_closed(words: Sequence[AttachmentState[Kept]]) -> bool:
    """Whether all of a node's sources closed themselves: the first way to be dead (F2). Any other way is the second."""
    return all(word.by_peer for word in words)


def word(attachments: Attachments[Kept], lost: Mapping[str, int]) -> AttachmentState[Kept] | None:
    """What counts of a source's newest attachment, given the brokers that are lost; None when there is no word."""
    if attachments.newest is None:
        return None
    broker, held = attachments.newest
    if broker in lost:
        return AttachmentState("unknown", max(lost[broker], held.record.since_ms), broker, held)
    return AttachmentState(held.record.state, held.record.since_ms, broker, held)
