"""Proving: a history file, held against the head that its broker has signed (rule J3).

Rule 1: every row, and every hash in the place of one, enters the tree; its head must be the one that ends the file,
    signed by the broker whose store it is. So a row that was removed, added, changed or moved is noticed, and so is its
    time of arrival.
Rule 2: so must be each head that the broker signed on the way, where the rows do not hide it: no broker has rewritten
    what it had signed before.
Rule 3: a row that is not there must have been trimmed, by a record of the broker that names it, or not wanted by a file
    that says that it holds only some topics. What is neither is missing. A row that is there is proven by the tree, also
    where a record names it: it was read before it went. Such a record explains no hole around it. One that names no row
    says between which rows things are missing that others had trimmed before the broker read them: a hole around such rows
    is explained, and the verdict says that what was lost among them is not known.
Rule 4: an event of a revoked key is believed if its row stands before the revocation's: the broker witnesses the order.
    A broker whose own key the reader knows as revoked witnesses nothing.
Rule 5: the file proves what was stored up to its head; the later history is another file's. What never came to the broker it
    does not hold: a hole in a chain is told as a gap unless rows between its neighbours were trimmed or not wanted.
Rule 6: which topics were wanted is the word of who wrote the file, and signed by nobody; what a row held that is not there
    its hash does not tell. So it is held against all that is known: no row that is there is of another topic; a hole in the
    chain of a wanted topic is a gap, which rows that were not wanted do not explain; and where every topic is wanted that
    anybody may write on, no row was left out. Beyond that it is not proven, and the verdict says so.
Rule 7: of heads and trim records those count that are the broker's that ends the file; what it holds of other brokers are
    events like all others (B9), and so is what another key has said under its name (R8). A store takes a new id after a
    power cut, keeps its rows, and never goes back to one it had. What it said as the gate of a NATS server names no head,
    and ends no file. Of heads those count that it had signed when it stored them: one that stands behind a word of a later
    incarnation of its own was brought back by others, as when an older copy of its store is put back. It may stand over rows
    that are not here, which the verdict says.
Rule 8: of a file that begins with a later row only the fewest hashes that bear the tree stand before that row. Nothing is
    claimed of what was there; a hole is no gap where what it lacks may stand there, for its lower end came late.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.broker import BrokerStats, TrimRecord
from dsmt.event.records import from_data
from dsmt.event.registry import take_everything
from dsmt.event.rowset import MAX_RUNS, RowSet, Run
from dsmt.event.rowtree import RowTree, row_hash
from dsmt.event.topic import check_pattern, matches
from dsmt.operations.offline.followed import Followed, PlacedGap
from dsmt.operations.offline.history import ALWAYS, VERSION, is_history, read
from dsmt.operations.offline.verifying import Faults, HistoryHead, Verified, verified, verify_stream
from dsmt.operations.offline.worth import NOTHING, worth
from dsmt.operations.words.telling import Tell, silent
from dsmt.operations.words.times import time_or_null
from dsmt.trust.opening import opened
from dsmt.trust.store import Signer, TrustStore

HEAD: Final = "dsmt.broker.stats"
TRIMMED: Final = "dsmt.trimmed"
HEADS_BACK: Final = 256
"""How many rows back a signed head may look."""


class _Head(NamedTuple):
    """A head among the rows: the store that it names, and what is wrong with it, if it is this store's.

    `back`: others brought it back (rule 7).
    """

    store: str
    signed: SignedEvent
    wrong: str
    right: bool
    back: bool


@dataclass(slots=True)
class _Said:
    """What a broker has said by one key, among the rows of a file."""

    incarnation: int = 0
    """The latest in which it has said anything."""
    heads: list[_Head] = field(default_factory=list)
    """In their order."""
    trims: list[tuple[EventId, bytes]] = field(default_factory=list)
    """Its words on which rows of this store it has trimmed."""
    lacks: list[Run] = field(default_factory=list)
    """Between which rows of this store things are missing that others had trimmed."""


def verify(raw: bytes, trust: TrustStore, tell: Tell = silent) -> Verified:
    """Check a file, whichever it is. `trust` knows the realm's root, and what was revoked."""
    return verify_history(raw, trust, lambda *_: None, tell) if is_history(raw) else verify_stream(raw, trust, tell)


def verify_history(
    raw: bytes, trust: TrustStore, believed: Callable[[int, SignedEvent], object], tell: Tell = silent
) -> Verified:
    """Check a history file; `believed` is given each row whose event can be."""
    return _Proof(trust, believed).run(raw, tell)


class _Proof:
    def __init__(self, trust: TrustStore, believed: Callable[[int, SignedEvent], object]) -> None:
        self._reader, self._trust, self._believed = trust, trust.fresh(), believed
        self._faults, self._followed, self._tree = Faults(), Followed(), RowTree()
        self._certificates: list[bytes] = []
        self._back: deque[RowTree] = deque([RowTree()], maxlen=HEADS_BACK)
        self._left: list[Run] = []
        self._said: defaultdict[Signer, _Said] = defaultdict(_Said)
        """By broker and key."""
        self._lost = self._heads = self._before = 0
        self._begins_ms: int | None = None
        self._late: set[int] = set()
        """Rows of events that were signed before the first row arrived (rule 8)."""
        self._store = ""
        self._wanted: tuple[str, ...] = ()
        """What the file says that was wanted; empty: everything."""
        self._unexplained = RowSet()
        self._end: tuple[SignedEvent, BrokerStats] | None = None
        self._begun = False

    def run(self, raw: bytes, tell: Tell) -> Verified:
        """Read all, then judge."""
        try:
            for at, (letter, parts) in enumerate(read(raw, tell)):
                self._item(at, letter, parts)
        except UnusableEventError as error:
            self._faults.wrong(error.code, error.message)
        if self._end is None:
            self._wrong("history.cut", "the file does not end with a signed head: its end is missing")
        left, trimmed = self._judge_left()
        gaps = sorted(
            one.gap
            for one in self._followed.chains()
            if not (self._came_before(one) or self._is_elsewhere(one))
            and not _hidden(one, trimmed if self._wants(one.gap.topic or "") else left)
        )
        history = self._history(left)
        return verified(self._followed, self._faults, gaps, self._worth(history), history)

    def _wrong(self, code: str, message: str, event: object = None) -> None:
        self._faults.wrong(code, message, event)

    # --- items ---------------------------------------------------------------------------------------------------

    def _item(self, at: int, letter: str, parts: list[Any]) -> None:
        if (letter == "H") != (at == 0) or self._end is not None or (letter == "C" and self._begun):
            self._wrong("history.order", f"item {at} of the file stands where it must not")
        match letter:
            case "H":
                self._header(*parts)
            case "C":
                self._certificates.append(parts[0])
            case "E":
                self._begin()
                self._ended(parts[0])
            case "F":
                self._begin()
                self._from_here()
            case _:
                self._begin()
                self._place(letter, *parts)

    def _header(self, version: int, realm: str, store: str, patterns: list[Any]) -> None:
        self._store = store
        if version != VERSION:
            self._wrong("history.version", f"the file is of version {version}, this program reads {VERSION}")
        if realm != self._trust.realm.name:
            self._wrong("history.realm", f"the file is of realm {realm}, not of {self._trust.realm.name}")
        try:
            self._wanted = tuple(check_pattern(pattern) for pattern in patterns)
        except (InputError, TypeError):
            self._wrong("history.form", "the header names something that is not a topic pattern")

    def _wants(self, topic: str) -> bool:
        """Whether the file says that it holds a topic."""
        return not self._wanted or any(matches(pattern, topic) for pattern in (*self._wanted, *ALWAYS))

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if len(set(self._certificates)) < len(self._certificates):
            self._wrong("history.order", "a certificate is in the file twice")
        try:
            self._trust.add_all(self._certificates)
        except UnusableEventError as error:
            self._wrong(error.code, error.message)

    def _place(self, letter: str, *parts: Any) -> None:
        """A row, or what is in its place."""
        if parts[0] != self._tree.rows + 1:
            self._wrong("history.order", f"row {parts[0]} follows row {self._tree.rows}")
        first = self._tree.rows + 1
        if letter == "R":
            self._row(*parts)
        elif letter == "N":
            self._node(*parts[1:])
            self._left.append((first, self._tree.rows))
        elif parts[1] < first:
            self._wrong("history.order", f"rows {parts[0]} to {parts[1]} follow row {self._tree.rows}")
        else:
            self._lost += parts[1] - first + 1
            self._wrong(
                "history.lost", f"rows {first} to {parts[1]} are lost: its broker no longer has them, and did not trim them"
            )
            self._tree = RowTree(parts[1])
        self._back.append(self._tree.copy())

    def _from_here(self) -> None:
        """Rule 8."""
        if self._left != [(one.first, one.last) for one in self._tree.peaks]:
            self._wrong("history.order", "more than hashes stands before the row with which the file says that it begins")
        self._before = self._tree.rows
        self._left.clear()

    def _node(self, level: int, hashed: bytes) -> None:
        try:
            if len(hashed) != 32:
                raise ValueError(f"a hash of {len(hashed)} bytes stands behind row {self._tree.rows}")  # noqa: TRY301
            self._tree.add_node(level, hashed)
        except ValueError as error:
            raise UnusableEventError("history.form", str(error)) from error

    def _row(self, row: int, arrived_ms: int, raw: bytes) -> None:
        try:
            signed, _ = opened(self._trust, raw)
        except UnusableEventError as error:
            self._faults.unusable(error, raw)
            self._tree.add_node(0, bytes(32))
            return
        self._tree.add_node(0, row_hash(row, arrived_ms, signed.leaf))
        self._begins_ms = arrived_ms if self._begins_ms is None else self._begins_ms
        if self._before and signed.event.time_ms < self._begins_ms:
            self._late.add(row)
        if not self._followed.add(signed, row):
            self._wrong("history.twice", f"row {row} holds an event that another row holds", signed.id)
        if not self._wants(signed.event.topic):
            said = f"row {row} is of {signed.event.topic}, which was not asked for: the file was made from another one"
            self._wrong("history.pattern", said, signed.id)
        self._trust.revoke(signed)
        self._believed(row, signed)
        if signed.event.source.startswith("broker/"):
            broker = self._said_by(signed)
            broker.incarnation = max(broker.incarnation, signed.id.incarnation)
        if signed.event.type == HEAD:
            self._check_head(row, signed)
        elif signed.event.type == TRIMMED:
            self._note_trim(row, signed)

    # --- what the broker has signed ------------------------------------------------------------------------------

    def _said_by(self, signed: SignedEvent) -> _Said:
        return self._said[signed.key_id, signed.event.source]

    def _check_head(self, row: int, signed: SignedEvent) -> None:
        """Note whether a head is right, if it is this store's (rule 2)."""
        stats, wrong = from_data(BrokerStats, signed.event.data), ""
        if not stats.head_hash:  # it is of a gate, and stands over nothing
            return
        tree = next((tree for tree in reversed(self._back) if tree.rows == stats.head), None)
        if stats.head >= row:
            wrong = f"the head in row {row} stands over row {stats.head}, which follows it"
        elif tree is not None and tree.head != stats.head_hash:
            wrong = f"the head that was signed over row {stats.head} is not that of these rows"
        broker, right = self._said_by(signed), tree is not None and not wrong
        broker.heads.append(_Head(stats.store, signed, wrong, right, back=signed.id.incarnation < broker.incarnation))

    def _note_trim(self, row: int, signed: SignedEvent) -> None:
        record, broker = from_data(TrimRecord, signed.event.data), self._said_by(signed)
        if record.store != self._store:
            return  # it was said again when the store took a new id
        if record.count:
            broker.trims.append((signed.id, record.rows))
        elif record.last < row:
            broker.lacks.append((record.first, record.last))

    def _ended(self, raw: bytes) -> None:
        """Rule 1."""
        try:
            signed, _ = opened(self._trust, raw)
        except UnusableEventError as error:
            self._faults.unusable(error, raw)
            return
        if signed.event.type != HEAD:
            self._wrong(
                "history.head", f"the file ends with an event of {signed.event.topic}, which signs no head", signed.id
            )
            return
        stats = from_data(BrokerStats, signed.event.data)
        self._end = signed, stats
        if self._reader.is_revoked(signed.key_id, signed.event.source):
            self._faults.unwitness(signed.id)
        if stats.store != self._store:
            self._wrong("history.head", f"the head is of store {stats.store}, the file of {self._store}", signed.id)
        self._judge_heads(signed.event.source, stats.store)
        if stats.head != self._tree.rows:
            self._wrong(
                "history.head", f"the head stands over {stats.head} rows, the file ends at {self._tree.rows}", signed.id
            )
        elif stats.head_hash != self._tree.head:
            self._wrong(
                "history.head", "the signed head is not that of these rows: one was removed, added, changed or moved"
            )
        else:
            self._heads += 1

    def _judge_heads(self, broker: str, store: str) -> None:
        """Rules 2 and 7."""
        heads = [head for head in self._own.heads if not head.back]
        self._heads += sum(head.right for head in self._own.heads)
        for head in heads:
            if head.wrong:
                self._wrong("history.head", head.wrong, head.signed.id)
        ids = Counter(one for one, _ in groupby((*(head.store for head in heads), store)))
        for twice in (one for one, times in ids.items() if times > 1):
            said = f"heads of {broker} name store {twice} before and after another: rows of two stores are mixed here"
            self._wrong("history.store", said)

    # --- judging -------------------------------------------------------------------------------------------------

    def _came_before(self, missing: PlacedGap) -> bool:
        """Whether what a hole lacks may stand before the first row (rule 8)."""
        return not self._wanted and missing.after_row in self._late and missing.gap.last - missing.gap.first < self._before

    def _judge_left(self) -> tuple[RowSet, RowSet]:
        """Rule 3; the rows that are not there, and those of them that were trimmed."""
        left = RowSet(self._left)
        unexplained = left - self._trimmed()
        if not self._wanted or take_everything(self._wanted):
            for first, last in unexplained.runs:
                said = "every topic was asked for, and no record says that they were trimmed"
                self._wrong("history.missing", f"rows {first} to {last} are missing: {said}")
        self._unexplained = unexplained
        return left, left - unexplained

    def _trimmed(self) -> RowSet:
        """The rows that the history's own broker says it has trimmed: few bytes say many runs, so no other's are read."""
        runs: list[Run] = []
        for identity, rows in self._own.trims:
            try:
                runs += (run for run in RowSet.read(rows).runs if run[0] <= self._tree.rows)
            except UnusableEventError as error:
                self._wrong(error.code, error.message, identity)
            if len(runs) > MAX_RUNS:
                runs = [*RowSet(runs).runs]
        return RowSet(runs)

    @property
    def _own(self) -> _Said:
        """What the broker has said that ends the file, by the same key."""
        return _Said() if self._end is None else self._said_by(self._end[0])

    def _is_elsewhere(self, missing: PlacedGap) -> bool:
        """Whether the broker says that things are missing between a gap's neighbours which others had trimmed."""
        low, high = missing.between
        return any(low <= last and first <= high for first, last in self._own.lacks)

    def _worth(self, history: HistoryHead | None) -> tuple[list[str], list[str]]:
        if history is None or self._faults.any:
            return NOTHING
        elsewhere = [head.signed for head in self._own.heads if head.back and head.wrong]  # over rows that are not here
        return worth(history, elsewhere, others_trimmed=bool(self._own.lacks))

    def _history(self, left: RowSet) -> HistoryHead | None:
        if self._end is None:
            return None
        signed, stats = self._end
        never_came: Counter[str] = Counter()
        for one in self._followed.lost(signed.event.source):
            never_came[one.source] += one.last - one.first + 1
        return HistoryHead(
            store=stats.store,
            broker=signed.event.source,
            rows=self._tree.rows,
            signed_at=rfc3339(signed.event.time_ms),
            trimmed=len(left) - len(self._unexplained),
            left_out=len(self._unexplained),
            wanted=tuple(pattern for pattern in self._wanted if pattern not in ALWAYS),
            lost=self._lost,
            never_came=never_came.total(),
            never_came_of=dict(never_came.most_common()),
            before=self._before,
            begins=time_or_null(self._begins_ms),
            heads=self._heads,
            head_hash=stats.head_hash.hex(),
        )


def _hidden(missing: PlacedGap, left: RowSet) -> bool:
    """Whether rows between a gap's neighbours are not there: as many as it lacks, at least."""
    return left.within(*missing.between) >= missing.gap.last - missing.gap.first + 1
