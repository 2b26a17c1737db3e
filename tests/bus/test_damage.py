"""A store's files under attack: what was not written so is given to nobody (rule B11)."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.store import remains
from dsmt.bus.store.high_water import SUFFIX
from dsmt.bus.store.remains import StoreRemains
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import FailedError
from dsmt.event.chain import SourceChain
from dsmt.event.codec import prepare, protected_header, sign_burst
from dsmt.event.envelope import Event
from dsmt.event.hlc import hlc
from dsmt.ports.store import Append, Row
from dsmt.trust.keys import SecretKey
from tests.bus.stored import copy_store

KEY = SecretKey(bytes(range(32)))
PAGE = 4096
TOPICS = [f"user/t{n}" for n in range(8)]


def filled(path: Path, rng: random.Random) -> SqliteStore:
    """A store with a little of everything, the last of it in the log."""
    store = SqliteStore(str(path), identity="a" * 16, boot="boot")
    chain, protected = SourceChain(1_700_000_000_000), protected_header(KEY.algorithm, KEY.key_id)
    for turn in range(12):
        prepared = []
        for n in range(rng.randrange(1, 5)):
            topic = TOPICS[rng.randrange(len(TOPICS))]
            sequence, link = chain.next(topic)
            event = Event(
                source="operator/a",
                incarnation=chain.incarnation,
                sequence=sequence,
                chain=link,
                type="dsmt.user",
                topic=topic,
                subject=topic,
                time=hlc(1_700_000_000_000 + turn),
                data={"n": n, "pad": "x" * rng.randrange(600)},
                to=("node/n1",) if n == 1 else (),
            )
            one = prepare(event, protected)
            chain.signed(event, one.leaf)
            prepared.append(one)
        budget, fact = "signal" if turn == 1 else "evidence", turn % 3 == 0
        store.append([Append(one, 1000 + turn, budget, fact, fact, None, "operator/a") for one in sign_burst(prepared, KEY)])
        if turn == 6:
            store.meta.put("incarnation", b"17")
            store.trim(1005 + 3600 * 1000)
            store._db.do("PRAGMA wal_checkpoint(TRUNCATE)")
    return store


def asked(store: SqliteStore) -> list[tuple[str, Callable[[], Any]]]:
    """Everything that a broker asks of a store's history, by name."""
    rows = [(f"row {n}", lambda n=n: store.rows(n - 1, 1)) for n in range(1, 40)]
    ids = [(f"event {n}", lambda n=n: store.event("operator/a", 1_700_000_000_000, n)) for n in range(1, 40)]
    leaves = [(f"leaf {n}", lambda n=n: store.leaf("operator/a", 1_700_000_000_000, n)) for n in range(1, 40)]
    winners = [(f"winner {topic}", lambda topic=topic: store.winner(topic)) for topic in TOPICS]
    return [
        *rows,
        *ids,
        *leaves,
        *winners,
        ("facts", lambda: store.facts("user/", "user0", 100)),
        ("mail", lambda: store.mail("node/n1", 0, 100)),
        ("winners", lambda: store.rows(0, 100, winners_only=True)),
        ("mark", lambda: store.high_mark("operator/a")),
        ("identity", lambda: store.identity),
        ("head", lambda: (store.head, store.head_hash)),
        ("incarnation", lambda: store.meta.get("incarnation")),
    ]


def told(found: Any) -> Any:
    """What was found, without what is made anew each time it is read."""
    if isinstance(found, list):
        return [told(one) for one in found]
    if isinstance(found, Row):
        return (found.row, found.arrived_ms, found.topic, found.to, found.fact, found.key_id, found.raw)
    return found


def flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 1, 8])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def flip_in_the_first_page(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(PAGE)] ^= 1 << rng.randrange(8)


def garble(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at : at + 200] = rng.randbytes(min(200, len(content) - at))


def empty_a_page(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content) // PAGE) * PAGE
    content[at : at + PAGE] = bytes(PAGE)


def one_page_for_another(content: bytearray, rng: random.Random) -> None:
    one, other = (rng.randrange(len(content) // PAGE) * PAGE for _ in range(2))
    content[one : one + PAGE] = content[other : other + PAGE]


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(1, len(content)) :]


def cut_at_a_page(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(1, len(content) // PAGE) * PAGE :]


WAYS = [flip, flip_in_the_first_page, garble, empty_a_page, one_page_for_another, cut, cut_at_a_page]
SEEDS = 12
"""Of each way, in the file and in its log: 168 in all."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store's files as a process has left them that was stopped, or killed; and what it answers."""
    path = tmp_path_factory.mktemp("sound") / "s.db"
    store = filled(path, random.Random(0))
    answers = {name: told(ask()) for name, ask in asked(store)}
    killed, stopped = path.parent / "killed", path.parent / "stopped"
    killed.mkdir()
    copy_store(path, killed / path.name)
    store.close()
    stopped.mkdir()
    copy_store(path, stopped / path.name)
    assert (killed / "s.db-wal").stat().st_size > 10 * PAGE
    return {"s.db": stopped, "s.db-wal": killed}, answers


def opened(directory: Path) -> SqliteStore:
    return SqliteStore(str(directory / "s.db"), identity="b" * 16, boot="boot")


@pytest.mark.parametrize("file", ["s.db", "s.db-wal"])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_becomes_of_its_files_a_store_gives_what_was_written_or_says_that_it_is_damaged(sound, tmp_path, way, file):
    left, answers = sound
    found = 0
    for seed in range(SEEDS):
        directory = tmp_path / str(seed)
        shutil.copytree(left[file], directory)
        content = bytearray((directory / file).read_bytes())
        way(content, random.Random(f"{way.__name__} {file} {seed}"))
        (directory / file).write_bytes(content)
        store = answer(lambda at=directory: opened(at))
        if isinstance(store, str):
            assert store in ("store.damaged", "store.version"), seed
            found += 1
            continue
        for name, ask in asked(store):
            given = answer(ask)
            assert given in (answers[name], "store.damaged"), (seed, name)
            found += given == "store.damaged"
        store.close()
    assert found > 0


def answer(ask: Callable[[], Any]) -> Any:
    """What is found, or the code of the error."""
    try:
        return told(ask())
    except FailedError as error:
        return error.code


def test_a_log_that_was_cut_is_noticed_though_sqlite_takes_it_for_whole(sound, tmp_path):
    left, _ = sound
    shutil.copytree(left["s.db-wal"], tmp_path / "s")
    log = tmp_path / "s" / "s.db-wal"
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    with pytest.raises(FailedError, match=r"is damaged: its rows \d+ to \d+ are lost") as error:
        opened(tmp_path / "s")
    assert error.value.code == "store.damaged"
    (tmp_path / "s" / f"s.db{SUFFIX}").unlink()
    opened(tmp_path / "s").close()  # nothing else could have told


def test_a_row_is_looked_at_in_its_turn_though_nobody_reads_it(sound, tmp_path):
    left, _ = sound
    shutil.copytree(left["s.db-wal"], tmp_path / "s")
    store = opened(tmp_path / "s")
    store.meta.put("tree", store._tree.dump())
    store.close()
    with closing(sqlite3.connect(tmp_path / "s" / "s.db")) as db:
        db.execute("UPDATE events SET arrived = arrived + 1 WHERE row = 20")
        db.commit()
    store = opened(tmp_path / "s")
    store.check(10)
    with pytest.raises(FailedError, match="row 20 is not what was written"):
        store.check(10)
    store.close()


def test_when_all_rows_were_looked_at_the_first_is_looked_at_again(sound, tmp_path):
    left, _ = sound
    shutil.copytree(left["s.db-wal"], tmp_path / "s")
    store = opened(tmp_path / "s")

    def passed() -> None:
        for _ in range(store.head // 10 + 2):
            store.check(10)

    passed()
    store._db.do("UPDATE events SET arrived = arrived + 1 WHERE row = (SELECT min(row) FROM events)")
    with pytest.raises(FailedError, match="is not what was written"):
        passed()
    store.close()


def test_of_a_store_of_which_a_burst_s_proof_is_not_sound_the_rest_is_given(sound, tmp_path):
    left, _ = sound
    shutil.copytree(left["s.db"], tmp_path / "s")
    whole = [part for parts in StoreRemains(str(tmp_path / "s" / "s.db")).parts() for part in parts]
    with closing(sqlite3.connect(tmp_path / "s" / "s.db")) as db:
        db.execute("UPDATE bursts SET sum = sum + 1 WHERE first = (SELECT min(first) FROM bursts)")
        db.commit()
    rest = [part for parts in StoreRemains(str(tmp_path / "s" / "s.db")).parts() for part in parts]
    assert 0 < len(rest) < len(whole)
    assert {*rest} < {*whole}


def test_what_cannot_be_read_here_and_there_does_not_end_what_is_given_of_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(remains, "_MISSED", 3)
    bad = {3, 4, 7, 8, 11, 12}
    asked = []

    def rows(_db, after):
        asked.append(after)
        return [], after if after + 1 in bad else after + 1, after >= 20

    opened(tmp_path).close()
    left = StoreRemains(str(tmp_path / "s.db"))
    monkeypatch.setattr(left, "_rows", rows)
    assert len(list(left.parts())) == len(asked)
    assert asked == list(range(21))


DIGEST = sha256(b"ab").digest()


@pytest.mark.parametrize(
    "wrong",
    [
        "UPDATE blobs SET chunks = 1 << 60",
        "UPDATE blobs SET chunks = 'many'",
        "UPDATE blobs SET chunks = 1e300",
        "UPDATE blobs SET payer = x'ff'",
        "UPDATE blobs SET digest = 'text'",
        "UPDATE chunks SET chunk = 'text' WHERE number = 1",
        "UPDATE chunks SET number = 'text' WHERE number = 1",
    ],
)
def test_any_value_of_a_damaged_depot_ends_nobody_who_takes_it_over(tmp_path: Path, wrong: str) -> None:
    with closing(SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)) as store:
        for number, chunk in enumerate((b"a", b"b")):
            store.blobs.put_chunk(DIGEST, number, chunk, payer="operator/a", now_ms=1000)
        store.blobs.keep(DIGEST, 2, now_ms=1000)
        assert store.blobs.get(DIGEST) is not None
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as db:
        db.execute(wrong)
    found = list(islice(StoreRemains(str(tmp_path / "s.db")).chunks(), 1000))
    assert len(found) <= 2
    assert all(isinstance(digest, bytes) and isinstance(payer, str) for digest, payer, _, _ in found)
    assert all(isinstance(chunk, bytes) for _, _, _, chunk in found)
