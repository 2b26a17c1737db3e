"""Trimming: what a store lets go of, and what it keeps in its place, so that its history can still be proven (rule B6, H3).

Rule 1: a class is trimmed oldest first: what is older than its age, and of each payer as much as it has to give (`shares`).
Rule 2: of a fact that was superseded goes only what was superseded before the class's horizon: so each topic keeps its
    winner as of the horizon, and every decision behind it can be decided again.
    What slots name stays though it was superseded (`named`).
Rule 3: in the same commit as the rows go, their hashes enter `nodes`, where siblings become their parent; and their numbers
    enter `trims`, until a signed record says them. So at no crash is anything gone of which nobody knows that it was
    trimmed.
Rule 4: the row of a trim record stays as long as what it explains is not said by a later one.
Rule 5: what records say is put together, and said anew by fewer of them: of a class, when it has more than `RECORDS` that
    have room; of all classes, as far as evidence has gone, where records overlap. Rows of one class alone never meet, for
    those of the others lie between; what is left of all is as much as there are runs of rows in the store.
Rule 6: a step of that reads a few records, of which nothing is read that is put together already: so it costs the same
    after any number of rows.
Rule 7: where another broker was read that had trimmed something, a record with no rows says between which rows here that is
    missing. Of a class there are at most `PARTS`: the newest one is made longer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

from dsmt.event.kinds.row import Budget
from dsmt.event.rowset import RowSet
from dsmt.event.rowtree import Node, joined, row_hash
from dsmt.ports.store import Lost, Row, Trim

RECORD_BYTES: Final = 8 * 1024
"""How many bytes of rows one record says."""
RECORDS: Final = 128
"""How many records of a class with room there may be before they are put together."""
ALL: Final = -1
"""The class of a record that says rows of all classes."""
ROOM_BYTES: Final = RECORD_BYTES // 4
"""A record with no more has room."""
STEP_BYTES: Final = 2 * RECORD_BYTES
"""How many bytes of records are read in one step."""
PARTS: Final = 64
"""How many parts of a class there are at most in which something is missing that others had trimmed."""
_NONE: Final = RowSet().dump()
_EVIDENCE: Final = 0

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS nodes (first INTEGER PRIMARY KEY, level INTEGER NOT NULL, hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS trims (
    number INTEGER PRIMARY KEY AUTOINCREMENT, class INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    rows BLOB NOT NULL, record INTEGER);
"""

Do = Callable[..., list[Any]]


class Candidate(NamedTuple):
    """A row that trimming looks at. `ended` is the row behind which it is no retained fact any more; None: it still is."""

    row: int
    of: int
    ended: int | None
    size: int
    arrived_ms: int
    leaf: bytes
    payer: str
    topic: str


class Chosen(NamedTuple):
    """What is to go, the row up to which was looked at, and up to which each payer has given all that it had to."""

    taken: list[Candidate]
    place: int
    paid: dict[str, int]
    stopped: bool


def oldest_first(
    rows: Iterable[Candidate],
    of: int,
    *,
    due: Mapping[str, int],
    old: int,
    horizon: int,
    stays: Callable[[Candidate], bool],
) -> Chosen:
    """Rule 1 and 2: of one class, all up to row `old`, and of each payer beyond it as many bytes as are `due`.

    `stays` is asked of each that would go.
    """
    taken: list[Candidate] = []
    waiting: list[tuple[int, int, Candidate]] = []
    left, paid, place = dict(due), dict[str, int](), 0
    for one in rows:
        if one.row > old and not left:
            return Chosen(taken, place, paid, stopped=True)
        place = one.row
        if one.of == of and one.ended is not None:
            heapq.heappush(waiting, (one.ended, one.row, one))
        while waiting and waiting[0][0] <= max(place, old, horizon):
            gone = heapq.heappop(waiting)[2]
            if (gone.row > old and gone.payer not in left) or stays(gone):
                continue
            taken.append(gone)
            if gone.payer in left:
                left[gone.payer] -= gone.size
                if left[gone.payer] <= 0:
                    del left[gone.payer]
                    paid[gone.payer] = place
    return Chosen(taken, place, paid, stopped=False)


class Trimmings:
    """What is kept in the place of trimmed rows. `do` runs a statement, within the transaction of the caller.

    What is done within a block of `one` is one commit, for who calls outside of any.
    """

    def __init__(self, do: Do, classes: Sequence[Budget], one: Callable[[], AbstractContextManager[object]]) -> None:
        self._do, self._classes, self._one = do, classes, one
        self.pins = {row for (row,) in do("SELECT record FROM trims WHERE record IS NOT NULL")}
        """The rows of trim records that stay (rule 4)."""

    def went(self, of: int, taken: Sequence[Candidate]) -> None:
        """Note what goes in this transaction (rule 3)."""
        self._collapse([Node(one.row, 0, row_hash(one.row, one.arrived_ms, one.leaf)) for one in taken])
        self._note(of, RowSet.of(one.row for one in taken))

    def _note(self, of: int, rows: RowSet) -> None:
        for part in rows.parts(RECORD_BYTES):
            first, last = part.runs[0][0], part.runs[-1][1]
            self._do("INSERT INTO trims (class, first, last, rows) VALUES (?, ?, ?, ?)", (of, first, last, part.dump()))

    def went_elsewhere(self, budget: Budget, first: int, last: int) -> None:
        """Note that between two rows things of a class are missing which another broker had trimmed (rule 7)."""
        of = self._classes.index(budget)
        with self._one():
            found = self._do(
                "SELECT number, first, record FROM trims WHERE class = ? AND rows = ? ORDER BY number DESC LIMIT ?",
                (of, _NONE, PARTS),
            )
            for number, begun, record in found[:1] if len(found) == PARTS else ():
                first = begun
                self.pins.discard(record)
                self._do("DELETE FROM trims WHERE number = ?", (number,))
            self._do("INSERT INTO trims (class, first, last, rows) VALUES (?, ?, ?, ?)", (of, first, last, _NONE))

    def _collapse(self, new: Sequence[Node]) -> None:
        low, high = min(one.first for one in new), max(one.first for one in new)
        kept = {
            first: Node(first, level, bytes(hashed))
            for first, level, hashed in self._do(
                "SELECT first, level, hash FROM nodes WHERE first >= ? AND first <= ?", (low, high)
            )
        }
        known = set(kept)
        for node in new:
            while (sibling := self._sibling(node, kept, known, low, high)) is not None:
                del kept[sibling.first]
                node = joined(node, sibling)  # noqa: PLW2901 - it rises
            kept[node.first] = node
        ended = [first for first in known if first not in kept]
        for first in ended:
            self._do("DELETE FROM nodes WHERE first = ?", (first,))
        for node in kept.values():
            self._do("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", (node.first, node.level, node.hash))

    def _sibling(self, node: Node, kept: dict[int, Node], known: set[int], low: int, high: int) -> Node | None:
        first = node.sibling
        if first not in kept and not low <= first <= high and first not in known:
            for level, hashed in self._do("SELECT level, hash FROM nodes WHERE first = ?", (first,)):
                kept[first] = Node(first, level, bytes(hashed))
                known.add(first)
        found = kept.get(first)
        return found if found is not None and found.level == node.level else None

    # --- what the broker says of it ------------------------------------------------------------------------------

    def untold(self) -> list[Trim]:
        """What no record says yet; what has become too many records is put together first, whole or not at all."""
        loose = set[int]()
        with self._one():
            for of in (*range(len(self._classes)), ALL):
                loose.update(self._put_together(of))
            loose.update(self._put_classes_together())
        self.pins -= loose
        found = self._do("SELECT number, class, first, last, rows FROM trims WHERE record IS NULL ORDER BY number")
        return [Trim(number, self._class(of), first, last, bytes(rows)) for number, of, first, last, rows in found]

    def _class(self, of: int) -> Budget:
        return self._classes[max(of, _EVIDENCE)]

    def _put_together(self, of: int) -> list[int]:
        """Of a class the oldest records that have room, when these are too many (rule 5); the rows that are loose then."""
        small = self._do(
            "SELECT number, length(rows) FROM trims WHERE class = ? AND record IS NOT NULL AND length(rows) <= ?"
            " AND rows <> ? ORDER BY number",
            (of, ROOM_BYTES, _NONE),
        )
        return self._say_together(of, small[: len(small) // 2 + 1]) if len(small) > RECORDS else []

    def _put_classes_together(self) -> list[int]:
        """Of all classes the first full records that overlap, as far as evidence has gone (rule 5); the same."""
        full = "record IS NOT NULL AND (class = ? OR length(rows) > ?)"
        told = self._do(
            f"SELECT number, length(rows), first, last FROM trims WHERE {full} AND last <="  # noqa: S608 - no input
            f" (SELECT max(last) FROM trims WHERE {full} AND class IN (?, ?)) ORDER BY first",
            (ALL, ROOM_BYTES, ALL, ROOM_BYTES, _EVIDENCE, ALL),
        )
        for place, (before, after) in enumerate(pairwise(told)):
            if after[2] <= before[3]:
                return self._say_together(ALL, [(number, size) for number, size, _, _ in told[place:]])
        return []

    def _say_together(self, of: int, records: Sequence[tuple[int, int]]) -> list[int]:
        """Say anew what the first of these records say, whose numbers and bytes these are (rule 6); where they stood."""
        ends = list(accumulate(size for _, size in records))
        numbers = [number for place, (number, _) in enumerate(records) if place < 2 or ends[place] <= STEP_BYTES]
        one = "SELECT number, rows, record FROM trims WHERE number = ?"
        told = [found for number in numbers for found in self._do(one, (number,))]
        self._note(of, RowSet(run for _, rows, _ in told for run in RowSet.read(bytes(rows)).runs))
        for number, _, _ in told:
            self._do("DELETE FROM trims WHERE number = ?", (number,))
        return [record for _, _, record in told]

    def told(self, number: int, row: int) -> None:
        """A record that says it stands in a row."""
        self._do("UPDATE trims SET record = ? WHERE number = ? AND record IS NULL", (row, number))
        self.pins.add(row)

    def between(self, of: int, first: int, last: int) -> int:
        """How many rows of a class were trimmed between two, both included; or of any, where all classes have gone.

        What another broker had trimmed of it counts as one (rule 7).
        """
        found = self._do("SELECT rows FROM trims WHERE class IN (?, ?) AND last >= ? AND first <= ?", (of, ALL, first, last))
        return sum(1 if rows == _NONE else RowSet.read(rows).within(first, last) for (rows,) in found)

    def nodes(self, after: int, limit: int) -> list[Node]:
        """The first `limit` nodes that end behind a row, in order."""
        spanning = self._do("SELECT first, level, hash FROM nodes WHERE first <= ? ORDER BY first DESC LIMIT 1", (after,))
        found = self._do("SELECT first, level, hash FROM nodes WHERE first > ? ORDER BY first LIMIT ?", (after, limit))
        nodes = [Node(first, level, bytes(hashed)) for first, level, hashed in (*spanning, *found)]
        return [node for node in nodes if node.last > after]


def seamless(rows: Sequence[Row], nodes: Sequence[Node], *, after: int, limit: int, head: int) -> list[Row | Node | Lost]:
    """Rows and nodes behind a row in order, with what is lost between them; as far as both are known.

    Of each there were at most about `limit`; who has fewer has all of them up to the head.
    """
    ends = [rows[-1].row] if len(rows) >= limit else []
    ends += [nodes[-1].first] if len(nodes) >= limit else []
    beyond = min(ends, default=head)
    pieces: list[tuple[int, int, Row | Node]] = [(row.row, row.row, row) for row in rows]
    pieces += [(node.first, node.last, node) for node in nodes]
    found: list[Row | Node | Lost] = []
    for first, last, one in sorted(pieces, key=lambda piece: piece[0]):
        if first > beyond:
            break
        if first > after + 1:
            found.append(Lost(after + 1, first - 1))
        found.append(one)
        after = last
    if after < beyond:
        found.append(Lost(after + 1, beyond))
    return found
