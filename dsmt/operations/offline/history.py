"""The history file: a broker's store as it stands, with what proves that it is whole (rule J3).

Rule 1: it is a CBOR sequence (RFC 8742) of arrays, each in its deterministic encoding, that begin with a letter:
    `H` header: version, realm, store, patterns of what was wanted (none: everything); first, once;
    `C` a certificate;
    `R` a row: number, time of arrival (realm ms), the signed event; in the order of their numbers;
    `N` a node in the place of rows that are not here: first row, level, hash (`event.rowtree`);
    `L` rows that the store has lost: first, last;
    `F` here it begins, where a history from a time on was wanted: what stands before are no rows; once at most;
    `E` the broker's stats with the signed head over all rows up to here; last, once.
Rule 2: nothing in it is trusted: certificates count as far as the realm's root that the reader knows vouches for them.
Rule 3: what is left out (trimmed, or not wanted) leaves its hash: trim records and signed heads are always taken along, but
    for those before `F`.
Rule 4: from a time on is from the first row on that arrived then, from an event on from the row of that event on. So how
    much is not claimed is a number of rows, which the tree proves, and nobody's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from tempfile import SpooledTemporaryFile
from typing import Any, Final, NamedTuple

import cbor2

from dsmt.errors import FailedError, NotFoundError, UnusableEventError
from dsmt.event.codec import decode
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.broker import BrokerStats
from dsmt.event.phrases import another_certificate
from dsmt.event.records import from_data
from dsmt.event.rowtree import RowTree, row_hash
from dsmt.event.topic import check_pattern, matches
from dsmt.operations.offline.items import items
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader, HistoryPage
from dsmt.trust.store import TrustStore

VERSION: Final = 1
_IN_MEMORY: Final = 64 * 1024 * 1024
_PIECE: Final = 1024 * 1024
ATTEMPTS: Final = 5
"""How often an export begins again because what was trimmed meanwhile has met what it had written."""
LATER_S: Final = 0.3
"""After how long a head that is older than what was read is asked for anew: a broker signs one in a second at most."""
READ_ON_MS: Final = 5_000
"""What arrives so long after an export has begun is not waited for to be all: over a slow link there is always more."""
RENEWED_S: Final = 1.2
"""After how long a head is asked for that was signed since: all who ask within a second get one and the same."""
ALWAYS: Final = ("broker/+/trimmed", "broker/+/stats")
"""What is taken along whatever is wanted: by it the rest is judged."""


Since = int | EventId | None
"""A realm time in ms, an event, or the beginning."""


class Item(NamedTuple):
    """One item: its letter and what follows."""

    letter: str
    parts: list[Any]


_SHAPES: Final[dict[str, tuple[type, ...]]] = {
    "H": (int, str, str, list),
    "C": (bytes,),
    "R": (int, int, bytes),
    "N": (int, int, bytes),
    "L": (int, int),
    "F": (),
    "E": (bytes,),
}
_MAX: Final = 2**62


BEGINS: Final = 16
"""How many bytes tell what a file is."""


def is_history(raw: bytes) -> bool:
    """Whether a file begins as a history does: an array whose first part is `H`."""
    return raw[:3] == b"\x85aH"


def packed(letter: str, *parts: Any) -> bytes:
    """An item's bytes."""
    return cbor2.dumps([letter, *parts], canonical=True)


def read(raw: bytes, tell: Tell = silent) -> Iterator[Item]:
    """The items of a history file. Raises `UnusableEventError` at the first that is none."""
    for at, item in enumerate(items(raw, tell)):
        try:
            value = cbor2.loads(item)
            letter, *parts = value
            kinds = _SHAPES[letter]
        except Exception as error:
            raise UnusableEventError("history.form", f"item {at} of the file does not belong in a history") from error
        if tuple(map(type, parts)) != kinds or cbor2.dumps(value, canonical=True) != item:
            raise UnusableEventError("history.form", f"item {at} of the file does not belong in a history")
        if any(not 0 <= part < _MAX for part in parts if type(part) is int):
            raise UnusableEventError("history.form", f"a number in item {at} of the file is out of range")
        yield Item(letter, parts)


def certificates(raw: bytes) -> list[bytes]:
    """The certificates of a history file, which stand before its rows."""
    with suppress(UnusableEventError):
        return [one.parts[0] for one in takewhile(lambda item: item.letter in "HC", read(raw)) if one.letter == "C"]
    return []


# --- writing -------------------------------------------------------------------------------------------------------------


class Exported(NamedTuple):
    """What was written: how many rows, of how many, and the broker that signed the head; how many it begins behind."""

    rows: int
    head: int
    broker: str
    store: str
    before: int = 0


class _Again(Exception):  # noqa: N818 - no error: a part that was written has changed meanwhile
    """It is to be read anew, up to a row if one is named."""

    def __init__(self, upto: int | None = None) -> None:
        super().__init__()
        self.upto = upto


async def export(
    bus: BusReader,
    trust: TrustStore,
    write: Callable[[bytes], object],
    patterns: tuple[str, ...] = (),
    *,
    since: Since = None,
    beside: str | None = None,
) -> Exported:
    """Write the history of the broker that `bus` is attached to, whole or `since` a realm time or an event (rule 4).

    Raises `FailedError` when it never stands still, `NotFoundError` for an event that it does not hold. What is read of a
    large one waits on the disk of the directory `beside`, till its end is known.
    """
    for pattern in patterns:
        check_pattern(pattern)
    upto: int | None = None
    for _ in range(ATTEMPTS):
        with SpooledTemporaryFile(max_size=_IN_MEMORY, dir=beside) as body:
            try:
                exported = await _Export(bus, patterns, body.write, upto, since).run()
            except _Again as again:
                upto = again.upto
                continue
            write(packed("H", VERSION, trust.realm.name, exported.store, list(patterns)))
            for certificate in cbor2.loads(trust.export())["certificates"]:
                write(packed("C", certificate))
            body.seek(0)
            while piece := body.read(_PIECE):
                write(piece)
            return exported
    raise FailedError("history.moving", "the store was trimmed while it was read, again and again", next="export it again")


class _Export:
    """One attempt: all that is stored, or had come until soon after it began; then up to a head that is signed after that.

    A broker whose store is full signs none: then another attempt goes `upto` the last one that it has.
    """

    def __init__(
        self, bus: BusReader, patterns: tuple[str, ...], write: Callable[[bytes], object], upto: int | None, since: Since
    ) -> None:
        self._bus, self._write, self._upto = bus, write, upto
        self._patterns = (*patterns, *ALWAYS) if patterns else ()
        self._store = ""
        self._at = self._rows = self._begins = self._arrived_ms = 0
        self._since, self._before = since, None if since is None else RowTree()

    async def run(self) -> Exported:
        ends_ms, page = self._bus.now_ms() + READ_ON_MS, await self._bus.history(0)
        while (page.rows or page.nodes or page.lost) and self._at != self._upto:
            self._take(page, until=self._upto)
            if self._arrived_ms > ends_ms:
                await asyncio.sleep(RENEWED_S)  # what the head says was trimmed has to hold what was seen to be
                break
            page = await self._bus.history(self._at)
        signed = await self._head()
        stats = from_data(BrokerStats, signed.event.data)
        for _ in range(ATTEMPTS):
            if stats.head >= self._at or stats.store != self._store:
                break
            await asyncio.sleep(LATER_S)  # it was signed for another who asked, before the last of what was read was stored
            signed = await self._head()
            stats = from_data(BrokerStats, signed.event.data)
        else:
            raise _Again(stats.head)
        while self._at < stats.head:
            self._take(await self._bus.history(self._at), until=stats.head)
        if self._at != stats.head or stats.store != self._store:
            raise _Again
        if self._before is not None and isinstance(self._since, EventId):
            said = f"the history of {self._bus.broker} does not hold {self._since}"
            raise NotFoundError("event.unknown", said, next="name a time instead")
        self._begin()
        self._write(packed("E", signed.raw))
        return Exported(self._rows, stats.head, signed.event.source, stats.store, self._begins)

    async def _head(self) -> SignedEvent:
        """The broker's signed word on all that it has stored. Raises `FailedError` when nobody may believe it."""
        try:
            return await self._bus.head()
        except UnusableEventError as error:
            broker = self._bus.broker
            said = f"the head that {broker} signs cannot be believed, and proves nothing: {error.message}"
            advice = another_certificate(broker) if error.code == "trust.expired" else f"dsmt cert list {broker}"
            raise FailedError("history.head", said, next=advice) from error

    def _take(self, page: HistoryPage, *, until: int | None) -> None:
        if self._store not in ("", page.store):
            raise _Again
        self._store = page.store
        pieces: list[tuple[int, int, str, tuple[Any, ...]]] = [
            *((row, row, "R", (row, *parts)) for row, *parts in page.rows),
            *((node[0], node[0] + (1 << node[1]) - 1, "N", node) for node in page.nodes),
            *((*lost, "L", lost) for lost in page.lost),
        ]
        before = self._at
        for first, last, letter, parts in sorted(pieces):
            if until is not None and first > until:
                break
            if first != self._at + 1 or (until is not None and last > until):
                raise _Again
            if not self._is_before(letter, *parts):
                piece = self._row(*parts) if letter == "R" else packed(letter, *parts)
                self._write(piece)
                self._rows += piece[1:3] == b"aR"
            self._at = last
            self._arrived_ms = parts[1] if letter == "R" else self._arrived_ms
        if self._at == before:
            raise _Again

    def _row(self, row: int, arrived_ms: int, raw: bytes) -> bytes:
        if self._patterns:  # only then is it to be read: where everything is wanted that costs more than to write it
            signed = decode(raw)
            if not any(matches(pattern, signed.event.topic) for pattern in self._patterns):
                return packed("N", row, 0, row_hash(row, arrived_ms, signed.leaf))
        return packed("R", row, arrived_ms, raw)

    def _is_before(self, letter: str, *parts: Any) -> bool:
        """Whether something stands before what was wanted, of which only the tree is told (rule 4)."""
        if self._before is None:
            return False
        if letter == "N":
            self._before.add_node(*parts[1:])
        elif letter == "R":
            _, arrived_ms, raw = parts
            signed = None if isinstance(self._since, int) and arrived_ms >= self._since else decode(raw)
            if signed is None or signed.id == self._since:
                self._begin()
                return False
            self._before.add(arrived_ms, signed.leaf)
        else:
            said = "the broker has lost rows before that, which nothing stands for: what follows them proves nothing"
            raise FailedError("history.lost", said, next="export the whole history; what is lost is named in it")
        return True

    def _begin(self) -> None:
        """What is wanted begins here."""
        if self._before is not None:
            for node in self._before.peaks:
                self._write(packed("N", node.first, node.level, node.hash))
            self._write(packed("F"))
            self._before, self._begins = None, self._at
