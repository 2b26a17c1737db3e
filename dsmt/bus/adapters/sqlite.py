"""The store on SQLite (WAL): rows, retained facts, certificates and the depot in one file; fulfils `ports.store.Store`.

Rule 1: one transaction for each batch. With `synced` it is on the disk when it returns (`synchronous=FULL`), else a crash
    of the process loses nothing but a power failure may lose the last moments.
Rule 2: `winner` marks the retained fact of a topic; at most one row of a topic has it.
Rule 3: trimming is `trimming`'s; retained facts stay (rule B6, H3). A class is trimmed by age, and when it is over its
    budget by what each payer has above the common share (`shares`). Each class, and each payer in it, has a place up to
    which it was trimmed, so that a step reads only what is behind it; an index for this would cost every append a page.
Rule 4: the file is one process's: who opens it second is told so.
Rule 5: a store has one id for as long as its rows are numbered in one way. One that a machine left, at its end, with rows
    that may not have been on the disk has taken numbers that others know and will use them twice: it takes a new id.
    `unsynced` names the boot in which rows were last stored without that: it is on the disk before the first of them, and
    goes when the store is closed. A `synced` store has none.
Rule 6: what SQLite raises is translated here: `store.full` passes when there is room, `store.damaged` does not pass.
Rule 7: the tree over all rows (`event.rowtree`) is in memory; its edge is kept with each trimming, and from there it is
    brought up to the last row at a start. What is trimmed stands before the kept edge.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from dsmt.bus.adapters import trimming
from dsmt.bus.adapters.blobs import BLOB_TABLES, Blobs
from dsmt.bus.adapters.named import Named
from dsmt.bus.adapters.tables import (
    ACCOUNTS,
    BUDGETS,
    CLASSES,
    COUNT_SIGNERS,
    INSERT,
    ROW,
    SCHEMA,
    SHELF,
    SIGNERS,
    row_of,
    values_of,
)
from dsmt.bus.adapters.trimming import Candidate, Chosen, Trimmings, oldest_first
from dsmt.bus.rules.shares import owed
from dsmt.errors import FailedError
from dsmt.event.kinds.row import Budget
from dsmt.event.rowtree import Node, RowTree
from dsmt.ports.store import ROW_BYTES, Append, Lost, Row, Shelved, Trim

GIB: Final = 1024**3
CHECKPOINT_PAGES: Final = 500
"""The log is brought into the file, which waits for the disk, each 2 MiB, and everybody for that: 2 to 4 ms. Each 16 MiB it
takes 16 to 35 ms; what is written again costs once, so a tenth more is stored in a second."""
PASS_MS: Final = 3600 * 1000
"""How often trimming begins at the first row again, for what has ceased to be a retained fact since it passed."""

SCHEMA_VERSION: Final = 5
"""The form of the tables; 1 had no number. The one before, which did not count signers, is taken over."""


class SqliteStore(Blobs):
    """A broker's store. `path` may be `:memory:`; `boot` is the present boot id of the machine.

    `identity`, 16 hex digits, is used when the store is new, or takes a new id.
    """

    def __init__(self, path: str, *, identity: str, synced: bool = False, boot: str = "", limit_bytes: int = GIB) -> None:
        self._path, self.limit_bytes, self._boot = path, limit_bytes, boot
        self.synced = synced
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self._do("PRAGMA locking_mode=EXCLUSIVE")
        self._do("PRAGMA journal_mode=WAL")
        self._sync(always=synced)
        self._do(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        self._check_version()
        for statement in (*(SCHEMA + trimming.SCHEMA).split(";"), *ACCOUNTS, *SIGNERS, *BLOB_TABLES):
            self._do(statement)
        self._take_over()
        self._unsynced = self.get_meta("unsynced")
        self.identity = self._identified(identity)
        trimmed = self.get_meta("trimmed")
        self.trimmed = 0 if trimmed is None else int(trimmed)
        self._places = dict.fromkeys(CLASSES.values(), 0)
        """Up to which row the old were trimmed of each class."""
        self._given: dict[tuple[int, str], int] = {}
        """Up to which row a class was trimmed of a payer's rows."""
        self._passed_ms = dict.fromkeys(CLASSES.values(), 0)
        self._horizons = self._restored_horizons()
        self._trimmings = Trimmings(self._do, tuple(CLASSES))
        self._named = Named(self._do)
        self._tree = self._restored_tree()
        self.head = self._tree.rows

    @property
    def head_hash(self) -> bytes:
        """The head of the tree over all rows."""
        return self._tree.head

    def _restored_tree(self) -> RowTree:
        """The tree as its edge was kept, and the rows that came after; a row that was lost by damage has no leaf."""
        kept = self.get_meta("tree")
        tree = RowTree() if kept is None else RowTree.restored(kept)
        while rows := self._do("SELECT row, arrived, leaf FROM events WHERE row > ? ORDER BY row LIMIT 1000", (tree.rows,)):
            for row, arrived, leaf in rows:
                while tree.rows < row - 1:
                    tree.add(0, bytes(32))
                tree.add(arrived, bytes(leaf))
        return tree

    def _restored_horizons(self) -> dict[int, int]:
        kept = self.get_meta("horizons")
        return dict(enumerate([0] * len(CLASSES) if kept is None else [int(one) for one in kept.split()]))

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    # --- what is on the disk (rule 5) ----------------------------------------------------------------------------

    def _identified(self, identity: str) -> str:
        """The store's id: the one that was kept, if it still holds all rows that it had under it."""
        kept, boot = self.get_meta("identity"), self._boot.encode()
        if kept is not None and self._unsynced in (None, boot):
            identity = kept.decode()
        else:
            self._do("UPDATE trims SET record = NULL")  # a trim record names the store: all are said again
            self._surely("INSERT OR REPLACE INTO meta VALUES ('identity', ?)", (identity.encode(),))
        if self._unsynced is not None and (self.synced or self._unsynced != boot):
            self._all_synced()
        return identity

    def _sync(self, *, always: bool) -> None:
        self._do(f"PRAGMA synchronous={'FULL' if always else 'NORMAL'}")

    def _surely(self, statement: str, values: Sequence[Any] = ()) -> None:
        """A commit that is on the disk when this returns, with all before it."""
        self._sync(always=True)
        try:
            self._do(statement, values)
        finally:
            self._sync(always=self.synced)

    def _not_synced(self) -> None:
        """Rows are about to be stored that may not be on the disk for a while."""
        self._surely("INSERT OR REPLACE INTO meta VALUES ('unsynced', ?)", (self._boot.encode(),))
        self._unsynced = self._boot.encode()

    def _all_synced(self) -> None:
        self._surely("DELETE FROM meta WHERE name = 'unsynced'")
        self._unsynced = None

    def _check_version(self) -> None:
        version = int(self._one("PRAGMA user_version")[0])
        known = version in (SCHEMA_VERSION, SCHEMA_VERSION - 1)
        if not known and self._one("SELECT 1 FROM sqlite_master LIMIT 1") is not None:
            raise FailedError(
                "store.version",
                f"the store {self._path} was made by another version of dsmt: form {version}, not {SCHEMA_VERSION}",
                next="start that version, or move the file away: nodes and controllers say again what they hold",
            )

    def _take_over(self) -> None:
        """Bring the content of a store of the form before this one into this form; the number says that it is done."""
        if self._one("PRAGMA user_version")[0] != SCHEMA_VERSION:
            self._do(COUNT_SIGNERS)
            self._do(f"PRAGMA user_version={SCHEMA_VERSION}")

    # --- statements ----------------------------------------------------------------------------------------------

    def _translated(self, error: sqlite3.Error) -> FailedError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return FailedError(
                "store.damaged",
                f"the store {self._path} is damaged: {error}",
                next="move it away; sources send again what they hold",
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return FailedError(
                "store.locked", f"the store {self._path} is in use by another process", next="stop that one first"
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return FailedError(
                "store.full", f"the store {self._path} cannot be written: {error}", next="free space on its disk"
            )
        return FailedError(
            "store.failed",
            f"the store {self._path} cannot be used: {error}",
            next="see that its directory exists and may be written",
        )

    def _do(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        found = self._do(statement, values)
        return found[0] if found else None

    def _changed(self, statement: str, values: Sequence[Any]) -> int:
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._translated(error) from error

    # --- events --------------------------------------------------------------------------------------------------

    def append(self, batch: Sequence[Append]) -> list[int]:
        """Store a batch in one commit; the row of each."""
        if self._unsynced is None and not self.synced:
            self._not_synced()
        numbers = list(range(self.head + 1, self.head + 1 + len(batch)))
        winning = {one.signed.event.topic: number for number, one in zip(numbers, batch, strict=True) if one.winner}
        values = [values_of(number, one, winning) for number, one in zip(numbers, batch, strict=True)]
        try:
            if len(values) > 1 or winning:
                self._db.execute("BEGIN IMMEDIATE")
            if winning:
                self._db.executemany(
                    "UPDATE events SET winner = 0, ended = ? WHERE topic = ? AND winner = 1",
                    [(number, topic) for topic, number in winning.items()],
                )
            if len(values) == 1:
                self._db.execute(INSERT, values[0])
            else:
                self._db.executemany(INSERT, values)
            for one in batch:
                if one.winner and one.signed.event.ends:
                    self._hide(one.signed.event.ends, one.signed.event.epoch or 0)
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._translated(error) from error
        self.head += len(batch)
        for one in batch:
            self._tree.add(one.arrived_ms, one.signed.leaf)
        return numbers

    def _hide(self, thing: str, ended: int) -> None:
        self._db.execute(
            "UPDATE events SET winner = 0, ended = ?"
            " WHERE winner = 1 AND epoch <= ? AND (topic = ? OR (topic > ? AND topic < ?))",
            (self.head + 1, ended, thing, f"{thing}/", f"{thing}0"),
        )

    def leaf(self, source: str, incarnation: int, sequence: int) -> bytes | None:
        """The leaf hash of a stored event, or None."""
        found = self._one(
            "SELECT leaf FROM events WHERE source = ? AND incarnation = ? AND sequence = ?",
            (source, incarnation, sequence),
        )
        return None if found is None else bytes(found[0])

    def event(self, source: str, incarnation: int, sequence: int) -> Row | None:
        """One stored event by its id."""
        found = self._one(f"{ROW} WHERE source = ? AND incarnation = ? AND sequence = ?", (source, incarnation, sequence))
        return None if found is None else row_of(found)

    def chain(self, source: str, incarnation: int, topic: str, *, after: int, before: int, limit: int) -> list[Row]:
        """What a source said on a topic between two of its sequence numbers, in order."""
        found = self._do(
            f"{ROW} WHERE source = ? AND incarnation = ? AND sequence > ? AND sequence < ? AND topic = ?"
            " ORDER BY sequence LIMIT ?",
            (source, incarnation, after, before, topic, limit),
        )
        return [row_of(one) for one in found]

    def winner(self, topic: str) -> Row | None:
        """The retained fact of a topic, dead or alive."""
        found = self._one(f"{ROW} WHERE topic = ? AND winner = 1", (topic,))
        return None if found is None else row_of(found)

    def rows(self, after: int, limit: int, *, winners_only: bool = False, signals: bool = False) -> list[Row]:
        """Up to `limit` rows after a row number, in order."""
        only = ("AND (winner = 1 OR fact = 0)" if signals else "AND winner = 1") if winners_only else ""
        found = self._do(f"{ROW} WHERE row > ? {only} ORDER BY row LIMIT ?", (after, limit))
        return [row_of(one) for one in found]

    def row_at(self, arrived_ms: int) -> int:
        """The last row that arrived before a time."""
        low, high = 0, self.head
        while low < high:
            middle = (low + high + 1) // 2
            found = self._one("SELECT row, arrived FROM events WHERE row <= ? ORDER BY row DESC LIMIT 1", (middle,))
            if found is None or found[1] < arrived_ms:
                low = middle
            else:
                high = int(found[0]) - 1
        return low

    def high_mark(self, source: str) -> tuple[int, int] | None:
        """The greatest (incarnation, sequence) stored of a source."""
        found = self._one(
            "SELECT incarnation, sequence FROM events WHERE source = ? ORDER BY incarnation DESC, sequence DESC LIMIT 1",
            (source,),
        )
        return None if found is None else (found[0], found[1])

    def has_signed(self, key_id: bytes, source: str) -> bool:
        """Whether an event of a source is stored that this key signed."""
        return self._one("SELECT 1 FROM signers WHERE key_id = ? AND source = ?", (key_id, source)) is not None

    def live(self, payer: str | None = None) -> tuple[int, int]:
        """How many retained facts, and bytes of them, are on a payer's account; None: on everybody's."""
        both = "SELECT coalesce(sum(live_facts), 0), coalesce(sum(live_bytes), 0) FROM accounts"
        found = self._one(both) if payer is None else self._one(both + " WHERE payer = ?", (payer,))
        return int(found[0]), int(found[1])

    def live_facts(self, source: str) -> int:
        """How many retained facts a source has."""
        return int(self._one("SELECT count(*) FROM events WHERE source = ? AND winner = 1", (source,))[0])

    def expire(self, now_ms: int) -> int:
        """Let dead soft facts be winners no more; how many they were."""
        return self._changed(
            "UPDATE events SET winner = 0, ended = ? WHERE winner = 1 AND expires IS NOT NULL AND expires <= ?",
            (self.head, now_ms),
        )

    def trim(self, now_ms: int, limit: int = 5000) -> bool:
        """Keep each class within its share of the size and its age; whether there is more to do at once."""
        more = False
        for budget, (share, age_ms) in BUDGETS.items():
            number = CLASSES[budget]
            aged = self._trim_old(number, self.row_at(now_ms - age_ms), limit)
            given = self._trim_owed(number, int(self.limit_bytes * share), limit)
            if aged or given:
                more = True
            elif now_ms - self._passed_ms[number] > PASS_MS:
                self._passed_ms[number], self._places[number] = now_ms, 0
                self._given = {place: row for place, row in self._given.items() if place[0] != number}
        self.put_meta("tree", self._tree.dump())
        return more

    def _trim_old(self, number: int, old: int, limit: int) -> bool:
        """Trim one class of what is old, reading `limit` rows; whether there are more to read."""
        rows = self._candidates(self._places[number], limit)
        chosen = self._chosen(number, rows, old=old, due={})
        self._places[number] = max(self._places[number], chosen.place)
        return len(rows) == limit and not chosen.stopped

    def _trim_owed(self, number: int, budget: int, limit: int) -> bool:
        """Trim the oldest rows of those payers who are over their share of a class that is over its budget."""
        accounts = self._do("SELECT payer, bytes - live_bytes, live_bytes FROM accounts WHERE class = ?", (number,))
        live = sum(one[2] for one in accounts)
        due = owed({payer: size for payer, size, _ in accounts}, budget - live)
        if not due:
            return False
        rows = self._candidates(min(self._given.get((number, payer), 0) for payer in due), limit)
        chosen = self._chosen(number, rows, old=0, due=due)
        for payer in due:
            self._given[number, payer] = max(self._given.get((number, payer), 0), chosen.paid.get(payer, chosen.place))
        return len(rows) == limit and not chosen.stopped

    def _candidates(self, place: int, limit: int) -> list[Candidate]:
        found = self._do(
            "SELECT row, class, ended, size, arrived, leaf, payer, topic FROM events WHERE row > ? ORDER BY row LIMIT ?",
            (place, limit),
        )
        return [Candidate(*one) for one in found]

    def _chosen(self, number: int, rows: Sequence[Candidate], *, old: int, due: dict[str, int]) -> Chosen:
        """Delete what is to go among these; what that was."""
        chosen = oldest_first(rows, number, due=due, old=old, horizon=self._horizons[number], stays=self._stays)
        self._horizons[number] = max(self._horizons[number], chosen.place)
        if chosen.taken:
            self._delete(number, chosen.taken)
        return chosen

    def _stays(self, one: Candidate) -> bool:
        return one.row in self._trimmings.pins or self._named.holds(one.topic, one.row)

    def _delete(self, number: int, taken: Sequence[Candidate]) -> None:
        last = max(self.trimmed, *(one.row for one in taken))
        self._do("BEGIN IMMEDIATE")
        try:
            for one in taken:
                self._do("DELETE FROM events WHERE row = ?", (one.row,))
            self._trimmings.went(number, taken)
            self.put_meta("trimmed", str(last).encode())
            self.put_meta("horizons", " ".join(map(str, self._horizons.values())).encode())
            self.put_meta("tree", self._tree.dump())
            self._do("COMMIT")
        except FailedError:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self.trimmed = last

    def untold(self) -> list[Trim]:
        """What was trimmed and no record says yet."""
        return self._trimmings.untold()

    def told(self, number: int, row: int) -> None:
        """A record of the broker in this row says that trimming."""
        self._trimmings.told(number, row)

    def trimmed_between(self, budget: Budget, first: int, last: int) -> int:
        """How many rows of a class were trimmed between two rows, both included."""
        return self._trimmings.between(CLASSES[budget], first, last)

    def history(self, after: int, limit: int) -> list[Row | Node | Lost]:
        """What stands behind a row, in order and without a hole: rows, nodes over what was trimmed, and what was lost."""
        rows, nodes = self.rows(after, limit), self._trimmings.nodes(after, limit)
        return trimming.seamless(rows, nodes, after=after, limit=limit, head=self.head)

    def counts(self) -> dict[str, int]:
        """Events, facts, bytes on disk, first row and when it arrived."""
        events, facts = self._one("SELECT coalesce(sum(events), 0), coalesce(sum(live_facts), 0) FROM accounts")
        first = self._one("SELECT row, arrived FROM events ORDER BY row LIMIT 1") or (0, 0)
        pages, size = (self._one(f"PRAGMA {name}")[0] for name in ("page_count", "page_size"))
        return {
            "events": int(events),
            "facts": int(facts),
            "bytes": pages * size,
            "first_row": first[0],
            "first_ms": first[1],
        }

    def put_certificate(self, key_id: bytes, raw: bytes) -> None:
        """Keep a certificate."""
        self._do("INSERT OR IGNORE INTO certificates VALUES (?, ?)", (raw, key_id))

    def drop_certificate(self, raw: bytes) -> None:
        """Keep a certificate no more."""
        self._do("DELETE FROM certificates WHERE raw = ?", (raw,))

    def certificates(self) -> Iterable[tuple[bytes, bytes]]:
        """Every kept certificate that is not on the shelf."""
        return [(bytes(k), bytes(r)) for k, r in self._do("SELECT key_id, raw FROM certificates ORDER BY key_id, raw")]

    def shelve(self, certificates: Sequence[Shelved]) -> None:
        """Put certificates on the shelf, in one commit."""
        self._do("BEGIN IMMEDIATE")
        try:
            for one in certificates:
                self._do("DELETE FROM certificates WHERE raw = ?", (one.raw,))
                if one.raw not in self.shelved(one.key_id):
                    size = len(one.raw) + ROW_BYTES
                    self._do(
                        "INSERT INTO shelf (key_id, name, issuer, size, payer, raw) VALUES (?, ?, ?, ?, ?, ?)",
                        (one.key_id, one.name, one.issuer_key_id, size, one.payer, one.raw),
                    )
            self._do("COMMIT")
        except FailedError:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def shelved(self, key_id: bytes) -> list[bytes]:
        """The certificates of a key that are on the shelf."""
        return [bytes(raw) for (raw,) in self._do("SELECT raw FROM shelf WHERE key_id = ? ORDER BY raw", (key_id,))]

    def upholds(self, key_id: bytes) -> bool:
        """Whether a key has signed a certificate that is on the shelf."""
        return self._one("SELECT 1 FROM shelf WHERE issuer = ? LIMIT 1", (key_id,)) is not None

    def shelf_bytes(self, payer: str | None = None) -> int:
        """What the certificates on the shelf cost on a payer's account; None: on everybody's."""
        every = "SELECT coalesce(sum(bytes), 0) FROM accounts WHERE class = ?"
        found = self._one(every, (SHELF,)) if payer is None else self._one(every + " AND payer = ?", (SHELF, payer))
        return int(found[0])

    def get_meta(self, key: str) -> bytes | None:
        """A small named value."""
        found = self._one("SELECT value FROM meta WHERE name = ?", (key,))
        return None if found is None else bytes(found[0])

    def put_meta(self, key: str, value: bytes) -> None:
        """Keep a small named value."""
        self._do("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def close(self) -> None:
        """Close the file; what it holds is on the disk then."""
        if self._unsynced is not None:
            with suppress(FailedError):  # on a full disk it is left as after a kill
                self._all_synced()
        self._db.close()
