"""The store on SQLite (WAL): rows, retained facts, certificates and the depot in one file; fulfils `ports.store.Store`.

Rule 1: one transaction for each batch. With `synced` it is on the disk when it returns (`synchronous=FULL`), else a crash
    of the process loses nothing but a power failure may lose the last moments.
Rule 2: `winner` marks the retained fact of a topic; at most one row of a topic has it.
Rule 3: trimming is `trimmer`'s; retained facts stay (rule B6, H3).
Rule 4: the file is one process's: who opens it second is told so.
Rule 5: a store has one id for as long as its rows are numbered in one way. One that a machine left, at its end, with rows
    that may not have been on the disk has taken numbers that others know and will use them twice: it takes a new id.
    `unsynced` names the boot in which rows were last stored without that: it is on the disk before the first of them, and
    goes when the store is closed. A `synced` store has none. So does one that is an older copy (`leave_identity`).
Rule 6: the tree over all rows (`event.rowtree`) is in memory; its edge is kept with each trimming and each `EDGE_ROWS`, and
    from there it is brought up to the last row at a start, by rows that are looked at: a head over other leaves would be
    signed as the history's. What is trimmed stands before the kept edge.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from dsmt.bus.store import trimming
from dsmt.bus.store.blobs import BLOB_TABLES, SqliteBlobs
from dsmt.bus.store.bursts import SqliteBursts, bursts_of
from dsmt.bus.store.certificates import SqliteCertificates
from dsmt.bus.store.database import Database
from dsmt.bus.store.elections import Elections
from dsmt.bus.store.high_water import HighWater
from dsmt.bus.store.named import Named
from dsmt.bus.store.sums import sum_of
from dsmt.bus.store.tables import (
    ACCOUNTS,
    CLASSES,
    COUNT_IN,
    COUNT_SIGNED,
    INSERT,
    INSERT_BURST,
    ROW,
    SCHEMA,
    SIGNERS,
    STEPS,
    among,
    checked,
    lacking,
    restored_tree,
    row_of,
    values_of,
)
from dsmt.bus.store.trimmer import Trimmer
from dsmt.bus.store.trimming import Trimmings
from dsmt.errors import FailedError
from dsmt.event.burst import Burst, share_of
from dsmt.event.envelope import EventRange
from dsmt.event.kinds.row import Budget
from dsmt.event.rowtree import Node
from dsmt.ports.store import Append, Lost, Meta, Row, StoreFullError, Trim

GIB: Final = 1024**3
_MEMORY: Final = "file:store?vfs=memdb"
"""A file of this connection only, in memory. In SQLite's own `:memory:` a commit looks through all pages that there are."""
CHECKPOINT_PAGES: Final = 500
"""The log is brought into the file, which waits for the disk, each 2 MiB, and everybody for that: 2 to 4 ms. Each 16 MiB it
takes 16 to 35 ms; what is written again costs once, so a tenth more is stored in a second."""
LOG_BYTES: Final = 8 * CHECKPOINT_PAGES * 1024
"""A log that has more is not brought into the file: it is twice as long as one that is."""

EDGE_ROWS: Final = 4096
SCHEMA_VERSION: Final = 8
"""The form of the tables; 1 had no number. Those from which there are `STEPS` are brought into this one."""


class SqliteStore:
    """A broker's store. `path` may be `:memory:`; `boot` is the present boot id of the machine.

    `identity`, 16 hex digits, is used when the store is new, or takes a new id.
    """

    def __init__(self, path: str, *, identity: str, synced: bool = False, boot: str = "", limit_bytes: int = GIB) -> None:
        self.limit_bytes, self._boot, self.synced, self._checked = limit_bytes, boot, synced, 0
        self._db = Database(path, self._open)
        self.meta: Meta = self._db
        try:
            is_new = self._prepare() == 0
            self._unsynced = self._db.get("unsynced")
            self.identity = self._identified(identity)
            self._tree = restored_tree(self._db)
            self.head = self._tree.rows
            self._high_water = HighWater(path, self.identity)
            if not is_new:
                self._high_water.check(self.head)
        except FailedError:
            self._db.connection.close()  # or it would keep others from the file
            raise
        self.certificates = SqliteCertificates(self._db)
        self._bursts, named = SqliteBursts(self._db), Named(self._rows)
        self.blobs = SqliteBlobs(self._db, named)
        self.elections = Elections(self._db, self._rows, lambda: self.head)
        self._trimmings = Trimmings(self._db.do, tuple(CLASSES), self._db.transaction)
        self.told, self.trimmed_elsewhere = self._trimmings.told, self._trimmings.went_elsewhere
        self._trimmer = Trimmer(
            self._db, self._trimmings, self._tree, self.row_at, bursts=self._bursts, named=named, limit_bytes=limit_bytes
        )

    @property
    def head_hash(self) -> bytes:
        """The head of the tree over all rows."""
        return self._tree.head

    def _prepare(self) -> int:
        """Make it ready; the form that it had, 0 when it is new."""
        self._db.do("PRAGMA locking_mode=EXCLUSIVE")
        journal = "MEMORY" if self._db.path == ":memory:" else "WAL"
        self._db.do(f"PRAGMA journal_mode={journal}")
        self._db.sync(always=self.synced)
        self._db.do(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        self._db.check_pages()
        version = self._version()
        if version == SCHEMA_VERSION:
            self._db.check_values()
        else:
            self._make_tables(version)
        return version

    def _open(self, path: str) -> sqlite3.Connection:
        where, uri = (_MEMORY, True) if path == ":memory:" else (path, False)
        return sqlite3.connect(where, uri=uri, isolation_level=None, check_same_thread=False)

    # --- what is on the disk (rule 5) ----------------------------------------------------------------------------

    def _identified(self, identity: str) -> str:
        """The store's id: the one that was kept, if it still holds all rows that it had under it."""
        kept, boot = self._db.get("identity"), self._boot.encode()
        if kept is not None and self._unsynced in (None, boot):
            identity = kept.decode()
        else:
            self._db.do("UPDATE trims SET record = NULL")  # a trim record names the store: all are said again
            self._surely("identity", identity.encode())
        if self._unsynced is not None and (self.synced or self._unsynced != boot):
            self._all_synced()
        return identity

    def leave_identity(self) -> None:
        """Take a new id at the next opening: this store is a copy of one that went further under its id (rule 5)."""
        self._surely("identity", None)

    def _surely(self, name: str, value: bytes | None) -> None:
        self._db.surely(name, value, synced=self.synced)

    def _not_synced(self) -> None:
        """Rows are about to be stored that may not be on the disk for a while."""
        self._surely("unsynced", self._boot.encode())
        self._unsynced = self._boot.encode()

    def _all_synced(self) -> None:
        self._surely("unsynced", None)
        self._unsynced = None

    def _make_tables(self, version: int) -> None:
        """Make what is missing, and bring the content of a store of an earlier form into this form, step by step.

        All of it is one commit, with the number that says that it is done: a disk that gets full leaves none half made.
        """
        with self._db.transaction():
            for form in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
                for statement in STEPS[form]:
                    self._db.do(statement)
            for statement in (*(SCHEMA + trimming.SCHEMA).split(";"), *ACCOUNTS, *SIGNERS, *BLOB_TABLES):
                self._db.do(statement)
            self._db.made(SCHEMA_VERSION)

    def _version(self) -> int:
        """The form of the tables that are there, 0 where there are none. Raises `FailedError` for one that is not known."""
        version = int(self._db.one("PRAGMA user_version")[0])
        if version == SCHEMA_VERSION or version in STEPS:
            return version
        if self._db.one("SELECT 1 FROM sqlite_master LIMIT 1") is None:
            return 0
        which = "a later" if version > SCHEMA_VERSION else "another"
        raise FailedError(
            "store.version",
            f"the store {self._db.path} was made by {which} version of dsmt: form {version}, not {SCHEMA_VERSION}",
            next="start that version, or move the file away: nodes and controllers say again what they hold",
        )

    # --- events --------------------------------------------------------------------------------------------------

    def append(self, batch: Sequence[Append]) -> list[int]:
        """Store a batch in one commit; the row of each. Raises `FailedError`, also where what was stored reaches no disk."""
        self._db.check_log(LOG_BYTES)
        if self._unsynced is None and not self.synced:
            self._not_synced()
        numbers = list(range(self.head + 1, self.head + 1 + len(batch)))
        winning = {one.signed.event.topic: number for number, one in zip(numbers, batch, strict=True) if one.winner}
        bursts = [*bursts_of(self.head + 1, batch)]
        shared: dict[int, tuple[int, int]] = {}
        for first, last, burst in bursts:
            shared.update(dict.fromkeys(range(first, last + 1), (first, share_of(burst, last + 1 - first))))
        values = [values_of(number, one, winning, shared.get(number)) for number, one in zip(numbers, batch, strict=True)]
        with self._db.transaction() as db:
            if winning:
                db.executemany(
                    "UPDATE events SET winner = 0, ended = ? WHERE topic = ? AND winner = 1",
                    [(number, topic) for topic, number in winning.items()],
                )
            db.executemany(INSERT_BURST, [_burst(*one) for one in bursts])
            db.executemany(INSERT, values)
            _count(db, values)
            for one in batch:
                if one.winner and one.signed.event.ends:
                    self._hide(db, one.signed.event.ends, one.signed.event.epoch or 0)
        self.head += len(batch)
        self._high_water.reached(self.head)
        self._bursts.stored(bursts)
        self._tree.add_all((one.arrived_ms, one.signed.leaf) for one in batch)
        if self.head // EDGE_ROWS > (self.head - len(batch)) // EDGE_ROWS:
            with suppress(StoreFullError):  # the rows are stored: who starts next makes more of the tree anew
                self._db.put("tree", self._tree.dump())
        return numbers

    def _hide(self, db: sqlite3.Connection, thing: str, ended: int) -> None:
        db.execute(
            "UPDATE events SET winner = 0, ended = ?"
            " WHERE winner = 1 AND epoch <= ? AND (topic = ? OR (topic > ? AND topic < ?))",
            (self.head + 1, ended, thing, f"{thing}/", f"{thing}0"),
        )

    def leaf(self, source: str, incarnation: int, sequence: int) -> bytes | None:
        """The leaf hash of a stored event, or None."""
        found = self._db.one(f"{ROW} WHERE source = ? AND incarnation = ? AND sequence = ?", (source, incarnation, sequence))
        return None if found is None else bytes(checked(found, self._db.path)[1])

    def event(self, source: str, incarnation: int, sequence: int) -> Row | None:
        """One stored event by its id."""
        of = "source = ? AND incarnation = ? AND sequence = ?"
        return next(iter(self._rows(of, (source, incarnation, sequence))), None)

    def chain(self, source: str, incarnation: int, topic: str, *, after: int, before: int, limit: int) -> list[Row]:
        """What a source said on a topic between two of its sequence numbers, in order."""
        where = "source = ? AND incarnation = ? AND sequence > ? AND sequence < ? AND topic = ? ORDER BY sequence LIMIT ?"
        return self._rows(where, (source, incarnation, after, before, topic, limit))

    def winner(self, topic: str) -> Row | None:
        """The retained fact of a topic, dead or alive."""
        return next(iter(self._rows("topic = ? AND winner = 1", (topic,))), None)

    def rows(self, after: int, limit: int, *, winners_only: bool = False, signals: bool = False) -> list[Row]:
        """Up to `limit` rows after a row number, in order."""
        only = ("AND (winner = 1 OR fact = 0)" if signals else "AND winner = 1") if winners_only else ""
        return self._rows(f"row > ? {only} ORDER BY row LIMIT ?", (after, limit))

    def among(
        self, ranges: Sequence[tuple[str, str]], after: int, last: int, limit: int, *, winners_only: bool = False
    ) -> list[Row]:
        """Up to `limit` rows behind a row number up to another, in order, in ranges of topics or addressed to anybody."""
        return self._rows(*among(ranges, after, last, limit, winners_only=winners_only))

    def signals(self, topics: Sequence[str], after: int, limit: int) -> list[Row]:
        """Up to `limit` signals that are evidence, on some topics, after a row number, in order."""
        where = f"fact = 0 AND class = 0 AND topic IN ({','.join('?' * len(topics))}) AND row > ? ORDER BY row LIMIT ?"
        return self._rows(where, (*topics, after, limit))

    def facts(self, low: str, high: str, limit: int) -> list[Row]:
        """Up to `limit` retained facts on topics from one to another, the second not included, in the order of topics."""
        return self._rows("winner = 1 AND topic >= ? AND topic < ? ORDER BY topic LIMIT ?", (low, high, limit))

    def mail(self, name: str, after: int, limit: int) -> list[Row]:
        """Up to `limit` retained facts that are addressed to a name, after a row number, in order.

        SQLite does not see by itself that few are addressed to several: without a word it looks at all retained facts.
        """
        one = "winner = 1 AND addressed <> '' AND addressed = ? AND row > ? ORDER BY row LIMIT ?"
        alone = self._rows(one, (name, after, limit))
        some = "winner = 1 AND instr(addressed, char(10)) AND instr(char(10) || addressed || char(10), ?) AND row > ?"
        shared = self._rows(f"{some} ORDER BY row LIMIT ?", (f"\n{name}\n", after, limit), by="INDEXED BY shared_mail")
        return sorted([*alone, *shared], key=lambda row: row.row)[:limit]

    def _rows(self, where: str, values: Sequence[Any], *, by: str = "") -> list[Row]:
        return [row_of(one, self._bursts.get, self._db.path) for one in self._db.do(f"{ROW} {by} WHERE {where}", values)]

    def row_at(self, arrived_ms: int) -> int:
        """The last row that arrived before a time."""
        low, high = 0, self.head
        while low < high:
            middle = (low + high + 1) // 2
            found = self._db.one("SELECT row, arrived FROM events WHERE row <= ? ORDER BY row DESC LIMIT 1", (middle,))
            if found is None or found[1] < arrived_ms:
                low = middle
            else:
                high = int(found[0]) - 1
        return low

    def high_mark(self, source: str) -> tuple[int, int] | None:
        """The greatest (incarnation, sequence) stored of a source."""
        newest = "SELECT incarnation, sequence FROM events WHERE source = ? ORDER BY incarnation DESC, sequence DESC LIMIT 1"
        return None if (found := self._db.one(newest, (source,))) is None else (found[0], found[1])

    def lacking(self, wanted: EventRange) -> list[tuple[int, int]]:
        """Which sequence numbers of a range are not stored, as ranges."""
        return lacking(self._db, wanted)

    def live(self, payer: str | None = None) -> tuple[int, int]:
        """How many retained facts, and bytes of them, are on a payer's account; None: on everybody's."""
        if payer is None:
            found = self._db.one("SELECT live_facts, live_bytes FROM totals")
        else:
            both = "SELECT coalesce(sum(live_facts), 0), coalesce(sum(live_bytes), 0) FROM accounts WHERE payer = ?"
            found = self._db.one(both, (payer,))
        return int(found[0]), int(found[1])

    def live_facts(self, source: str) -> int:
        """How many retained facts a source has."""
        return int(self._db.one("SELECT count(*) FROM events WHERE source = ? AND winner = 1", (source,))[0])

    def expire(self, now_ms: int) -> int:
        """Let dead soft facts be winners no more; how many they were."""
        return self._db.changed(
            "UPDATE events SET winner = 0, ended = ? WHERE winner = 1 AND expires IS NOT NULL AND expires <= ?",
            (self.head, now_ms),
        )

    def trim(self, now_ms: int, limit: int = 5000) -> bool:
        """Keep each class within its share of the size and its age; whether there is more to do at once."""
        return self._trimmer.trim(now_ms, limit)

    @property
    def trimmed(self) -> int:
        """The greatest row number that was trimmed."""
        return self._trimmer.trimmed

    def untold(self) -> list[Trim]:
        """What was trimmed and no record says yet."""
        return self._trimmings.untold()

    def trimmed_between(self, budget: Budget, first: int, last: int) -> int:
        """How many rows of a class were trimmed between two rows, both included."""
        return self._trimmings.between(CLASSES[budget], first, last)

    def history(self, after: int, limit: int) -> list[Row | Node | Lost]:
        """What stands behind a row, in order and without a hole: rows, nodes over what was trimmed, and what was lost."""
        rows, nodes = self.rows(after, limit), self._trimmings.nodes(after, limit)
        return trimming.seamless(rows, nodes, after=after, limit=limit, head=self.head)

    def check(self, limit: int) -> None:
        """Look at the next rows, whether each is what was written."""
        rows = self.rows(self._checked, limit)
        self._checked = rows[-1].row if rows else 0

    def counts(self) -> dict[str, int]:
        """Events, facts, bytes on disk, first row and when it arrived."""
        (events,) = self._db.one("SELECT coalesce(sum(events), 0) FROM accounts")
        first = self._db.one("SELECT row, arrived FROM events ORDER BY row LIMIT 1") or (0, 0)
        pages, size = (self._db.one(f"PRAGMA {name}")[0] for name in ("page_count", "page_size"))
        return {
            "events": int(events),
            "facts": self.live()[0],
            "bytes": pages * size,
            "first_row": first[0],
            "first_ms": first[1],
        }

    def close(self) -> None:
        """Close the file; what it holds is on the disk then."""
        if self._unsynced is not None:
            with suppress(FailedError):  # on a full disk it is left as after a kill
                self._all_synced()
        self._high_water.close()
        self._db.connection.close()


def _burst(first: int, last: int, burst: Burst) -> tuple[Any, ...]:
    """What is inserted for a burst."""
    values = (first, last, burst.protected, burst.signature, burst.leaves)
    return (*values, sum_of(*values))


_ACCOUNT: Final = itemgetter(17, 7)
_SIGNER: Final = itemgetter(13, 1)
_SIZE: Final = itemgetter(8)
_WINS: Final = itemgetter(0)
_WINNER_AND_SIZE: Final = itemgetter(11, 8)
"""Columns of what `values_of` makes."""


def _count(db: sqlite3.Connection, values: Sequence[tuple[Any, ...]]) -> None:
    """Count what was inserted: by payer and class, and by signer."""
    signers = Counter(map(_SIGNER, values))
    accounts = []
    for whose, group in groupby(values, _ACCOUNT):
        each = list(group)
        live = [size for _, size in filter(_WINS, map(_WINNER_AND_SIZE, each))]
        accounts.append((*whose, len(each), sum(map(_SIZE, each)), len(live), sum(live)))
    db.executemany(COUNT_IN, accounts)
    db.executemany(COUNT_SIGNED, [(*whose, count) for whose, count in signers.items()])
