"""Tables: how a store's rows stand in SQLite, and the classes that pay for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from dsmt.bus.store.database import Database
from dsmt.bus.store.sums import damaged, is_event, of_event
from dsmt.event.burst import Burst, Member, raw_of
from dsmt.event.envelope import EventRange
from dsmt.event.kinds.row import DAY_MS, Budget
from dsmt.event.rowtree import RowTree
from dsmt.ports.store import ROW_BYTES, Append, Row

GREATEST: Final = 2**63 - 1
"""No number in SQLite is greater."""
BUDGETS: Final[dict[Budget, tuple[float, int]]] = {
    "evidence": (0.70, 7 * DAY_MS),
    "signal": (0.20, 3600 * 1000),
    "log": (0.10, 7 * DAY_MS),
}
"""Share of the size, and age in ms, of each class of rule B6."""
CLASSES: Final = {name: number for number, name in enumerate(BUDGETS)}
SHELF: Final = 3
"""The class under which the accounts have the certificates on the shelf; the triggers name it."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    row INTEGER PRIMARY KEY, source TEXT NOT NULL, incarnation INTEGER NOT NULL, sequence INTEGER NOT NULL,
    topic TEXT NOT NULL, epoch INTEGER, arrived INTEGER NOT NULL, class INTEGER NOT NULL, size INTEGER NOT NULL,
    addressed TEXT NOT NULL, fact INTEGER NOT NULL, winner INTEGER NOT NULL, expires INTEGER,
    key_id BLOB NOT NULL, leaf BLOB NOT NULL, body BLOB NOT NULL, ended INTEGER, payer TEXT NOT NULL,
    burst INTEGER, place INTEGER, sum INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS events_id ON events (source, incarnation, sequence);
CREATE UNIQUE INDEX IF NOT EXISTS winners ON events (topic) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS winner_rows ON events (row) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS winner_sources ON events (source) WHERE winner = 1;
CREATE INDEX IF NOT EXISTS mail ON events (addressed) WHERE winner = 1 AND addressed <> '';
CREATE INDEX IF NOT EXISTS shared_mail ON events (row, addressed) WHERE winner = 1 AND instr(addressed, char(10));
CREATE INDEX IF NOT EXISTS soft ON events (expires) WHERE winner = 1 AND expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS signals ON events (topic) WHERE fact = 0 AND class = 0;
CREATE TABLE IF NOT EXISTS bursts (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, protected BLOB NOT NULL, signature BLOB NOT NULL,
    leaves BLOB NOT NULL, sum INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS certificates (raw BLOB PRIMARY KEY, key_id BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS shelf (
    number INTEGER PRIMARY KEY, key_id BLOB NOT NULL, name TEXT NOT NULL, issuer BLOB NOT NULL, size INTEGER NOT NULL,
    payer TEXT NOT NULL, raw BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS shelf_keys ON shelf (key_id);
CREATE INDEX IF NOT EXISTS shelf_issuers ON shelf (issuer);
CREATE TABLE IF NOT EXISTS signers (
    key_id BLOB, source TEXT, events INTEGER NOT NULL, PRIMARY KEY (key_id, source)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL, sum INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS accounts (
    payer TEXT, class INTEGER, events INTEGER NOT NULL, bytes INTEGER NOT NULL, live_facts INTEGER NOT NULL,
    live_bytes INTEGER NOT NULL, PRIMARY KEY (payer, class)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (live_facts INTEGER NOT NULL, live_bytes INTEGER NOT NULL);
INSERT INTO totals SELECT (SELECT coalesce(sum(live_facts), 0) FROM accounts),
    (SELECT coalesce(sum(live_bytes), 0) FROM accounts) WHERE NOT EXISTS (SELECT 1 FROM totals);
"""
ACCOUNTS: Final = (
    """CREATE TRIGGER IF NOT EXISTS account_live AFTER UPDATE OF winner ON events BEGIN
    UPDATE accounts SET live_facts = live_facts + new.winner - old.winner,
    live_bytes = live_bytes + (new.winner - old.winner) * new.size WHERE payer = new.payer AND class = new.class; END""",
    """CREATE TRIGGER IF NOT EXISTS account_out AFTER DELETE ON events BEGIN
    UPDATE accounts SET events = events - 1, bytes = bytes - old.size, live_facts = live_facts - old.winner,
    live_bytes = live_bytes - old.winner * old.size WHERE payer = old.payer AND class = old.class; END""",
    """CREATE TRIGGER IF NOT EXISTS total_new AFTER INSERT ON accounts BEGIN
    UPDATE totals SET live_facts = live_facts + new.live_facts, live_bytes = live_bytes + new.live_bytes; END""",
    """CREATE TRIGGER IF NOT EXISTS total_live AFTER UPDATE OF live_facts, live_bytes ON accounts
    WHEN new.live_facts <> old.live_facts OR new.live_bytes <> old.live_bytes BEGIN
    UPDATE totals SET live_facts = live_facts + new.live_facts - old.live_facts,
    live_bytes = live_bytes + new.live_bytes - old.live_bytes; END""",
)
"""What each payer has of each class, exact at any time; what comes in is counted once for a batch, by `COUNT_IN`. The
sums of all payers are asked for with each commit, and there is a payer for each node."""
COUNT_IN: Final = """
INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET events = events + excluded.events, bytes = bytes + excluded.bytes,
live_facts = live_facts + excluded.live_facts, live_bytes = live_bytes + excluded.live_bytes"""
COUNT_SIGNED: Final = "INSERT INTO signers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET events = events + excluded.events"
SIGNERS: Final = (
    """CREATE TRIGGER IF NOT EXISTS signer_out AFTER DELETE ON events BEGIN
    UPDATE signers SET events = events - 1 WHERE key_id = old.key_id AND source = old.source;
    DELETE FROM signers WHERE key_id = old.key_id AND source = old.source AND events <= 0; END""",
    """CREATE TRIGGER IF NOT EXISTS signer_gone AFTER DELETE ON signers BEGIN
    DELETE FROM shelf WHERE key_id = old.key_id AND name = old.source; END""",
    """CREATE TRIGGER IF NOT EXISTS shelf_in AFTER INSERT ON shelf BEGIN
    INSERT INTO accounts VALUES (new.payer, 3, 0, new.size, 0, 0)
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes; END""",
    """CREATE TRIGGER IF NOT EXISTS shelf_out AFTER DELETE ON shelf BEGIN
    UPDATE accounts SET bytes = bytes - old.size WHERE payer = old.payer AND class = 3; END""",
)
"""How many events are stored of each key under each name; with the last of them go its certificates on the shelf."""
_SUMMED: Final = (
    "key_id, leaf, body, row, source, incarnation, sequence, topic, epoch, arrived, class, size, addressed, fact, expires,"
    " payer, burst, place"
)
"""What an event's sum is of, in the order of `sums.of_event`: `winner` and `ended` change."""
STEPS: Final[dict[int, tuple[str, ...]]] = {
    5: (
        "DROP TRIGGER IF EXISTS account_in",
        "DROP TRIGGER IF EXISTS signer_in",
        "ALTER TABLE events RENAME COLUMN raw TO body",
        "ALTER TABLE events ADD COLUMN burst INTEGER",
        "ALTER TABLE events ADD COLUMN place INTEGER",
        """CREATE TABLE bursts (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, protected BLOB NOT NULL,
        signature BLOB NOT NULL, leaves BLOB NOT NULL)""",
    ),
    6: (
        "ALTER TABLE events ADD COLUMN sum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE bursts ADD COLUMN sum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE meta ADD COLUMN sum INTEGER NOT NULL DEFAULT 0",
        f"UPDATE events SET sum = sum_of_event({_SUMMED})",  # noqa: S608 - names of columns
        "UPDATE bursts SET sum = sum_of(first, last, protected, signature, leaves)",
        "UPDATE meta SET sum = sum_of(name, value)",
    ),
    7: (),
}
"""What makes of a store of each form one of the next. In form 5 each event stood alone, form 6 had no sums, 7 no totals."""
ROW: Final = f"SELECT {_SUMMED}, sum FROM events"  # noqa: S608 - the same
INSERT: Final = """
INSERT INTO events VALUES (?,?,?,?,?,nullif(?,0),?,?,?,?,?,?,nullif(?,0),?,?,?,nullif(?,0),?,nullif(?,0),nullif(?,-1),?)"""
"""What `values_of` makes; a null, a bool and bytes cost Python's SQLite as much as four numbers, a bytearray does not."""
INSERT_BURST: Final = "INSERT INTO bursts VALUES (?,?,?,?,?,?)"
BURST: Final = "SELECT first, last, protected, signature, leaves, sum FROM bursts WHERE first = ?"
DROP_BURSTS: Final = """
DELETE FROM bursts WHERE first BETWEEN ? AND ?
AND NOT EXISTS (SELECT 1 FROM events WHERE row BETWEEN bursts.first AND bursts.last)"""


def values_of(number: int, one: Append, winning: Mapping[str, int], shared: tuple[int, int] | None) -> tuple[Any, ...]:
    """What is inserted for an event. `winning` is the row of each topic that wins in its batch.

    `shared` is the first row of those with which it shares its burst, and its share of that in bytes; None: it is alone.
    """
    signed, event, sealed = one.signed, one.signed.event, one.signed.sealed
    member = sealed if shared is not None and isinstance(sealed, Member) else None
    body, (burst, share) = (raw_of(sealed) if member is None else member.body), shared or (None, 0)
    said = (number, event.source, event.incarnation, event.sequence, event.topic, event.epoch)
    kept = (one.arrived_ms, CLASSES[one.budget], len(body) + share + ROW_BYTES, "\n".join(event.to), int(one.fact))
    blobs = (signed.key_id, signed.leaf, body)
    place = (burst, None if member is None else member.index)
    ended = _ended(number, one, winning)
    return (
        *said[:5],
        event.epoch or 0,
        *kept,
        0 if ended else 1,
        one.expires_ms or 0,
        signed.key_id,
        bytearray(signed.leaf),
        bytearray(body),
        ended,
        one.payer,
        burst or 0,
        -1 if member is None else member.index,
        of_event((*blobs, *said, *kept, one.expires_ms, one.payer, *place)),
    )


def _ended(number: int, one: Append, winning: Mapping[str, int]) -> int:
    """The row behind which it is no retained fact any more: its own if it never was one, 0 while it is."""
    winner = winning[one.signed.event.topic] if one.winner else number
    return 0 if one.winner and winner == number else winner


def checked(found: Sequence[Any], path: str) -> Sequence[Any]:
    """What `ROW` selected, without its sum. Raises `FailedError` where it is not what was written."""
    if not is_event(found):
        raise damaged(path, f"row {found[3]} is not what was written")
    return found[:-1]


def restored_tree(db: Database) -> RowTree:
    """The tree as its edge was kept, and the rows that came after; a row that was lost by damage has no leaf.

    Raises `FailedError` where one of these is not what was written.
    """
    kept = db.get("tree")
    tree = RowTree() if kept is None else RowTree.restored(kept)
    while rows := db.do(f"{ROW} WHERE row > ? ORDER BY row LIMIT 1000", (tree.rows,)):
        for _, leaf, _, row, *_, arrived in (checked(one, db.path)[:10] for one in rows):
            while tree.rows < row - 1:
                tree.add(0, bytes(32))
            tree.add(arrived, bytes(leaf))
    return tree


def among(
    ranges: Sequence[tuple[str, str]], after: int, last: int, limit: int, *, winners_only: bool
) -> tuple[str, tuple[Any, ...]]:
    """What selects the rows of a stretch that are on topics in some ranges, or addressed to anybody."""
    only = "AND (winner = 1 OR fact = 0) " if winners_only else ""
    topics = " OR ".join(["(topic >= ? AND topic < ?)"] * len(ranges))
    where = f"row > ? AND row <= ? AND ({topics} OR addressed <> '') {only}ORDER BY row LIMIT ?"
    return where, (after, last, *(end for one in ranges for end in one), limit)


def lacking(db: Database, wanted: EventRange) -> list[tuple[int, int]]:
    """Which sequence numbers of a range have no row, as ranges."""
    source, incarnation, first, last = wanted
    found = db.do(
        "SELECT sequence FROM events WHERE source = ? AND incarnation = ? AND sequence BETWEEN ? AND ? ORDER BY sequence",
        (source, incarnation, first, min(last, GREATEST)),
    )
    known = [first - 1, *(sequence for (sequence,) in found), last + 1]
    return [(low + 1, high - 1) for low, high in pairwise(known) if high > low + 1]


def row_of(found: Sequence[Any], burst_of: Callable[[int], Burst], path: str) -> Row:
    """What `ROW` selected, as a row; `burst_of` gives a burst by its first row. Raises `FailedError` where it is damaged."""
    values = checked(found, path)
    key_id, _, body, row, _, _, _, topic, _, arrived, _, _, addressed, fact, _, _, burst, place = values
    to = tuple(addressed.split("\n")) if addressed else ()
    sealed = body if burst is None else Member(burst_of(burst), place, body)
    return Row(row, arrived, topic, to, bool(fact), key_id, sealed)
