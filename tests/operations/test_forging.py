"""Forged histories: what somebody with a good key of the realm, and no key of its broker, makes of an honest export."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import pytest

from dsmt.bus.store.sqlite import SqliteStore
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import BrokerNotice, BrokerStats, TrimRecord
from dsmt.event.kinds.source import Heartbeat
from dsmt.event.records import from_data, to_data
from dsmt.event.rowset import RowSet
from dsmt.event.rowtree import RowTree, row_hash
from dsmt.operations.offline.history import packed
from dsmt.operations.offline.proving import verify
from dsmt.operations.offline.replaying import replay_file
from dsmt.operations.offline.verifying import Verified
from dsmt.trust.identity import Identity
from tests.bus.realm import Pen, memory_network, realm
from tests.operations.histories import DAY_MS, Run, decoded, exported, judged, lived, said, trim

OTHER = "f" * 16
FORGERS = [
    ("node/n1", "node/n1/keeper"),
    ("operator/mallory", "user/x"),
    ("controller/c1", "controller/c1/keeper"),
    ("broker/b9", "broker/b9/stats"),
]
"""Who has a good key, and a topic that they may write."""


class Row(NamedTuple):
    arrived_ms: int
    signed: SignedEvent


class Scene(NamedTuple):
    """An honest export, one of user/alice/ only, one from before any row was trimmed; and keys of its realm."""

    run: Run
    some: Run
    before: Run
    keys: dict[str, Identity]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    async def main() -> Scene:
        async with lived(tmp_path_factory.mktemp("run"), 60) as (made, broker, reader):
            await exported(made, reader)
            await said(made, [await made.client("operator/dave")], 20)
            before = await exported(made, reader)
            trim(broker, broker.now_ms() + DAY_MS)
            keys = {name: made.identity(name) for name, _ in FORGERS} | {"broker/b1": made.identities[broker]}
            return Scene(await exported(made, reader), await exported(made, reader, "user/alice/"), before, keys)

    return asyncio.run(main())


def parts(run: Run, letter: str) -> list[list[Any]]:
    return [whole[1:] for whole in map(cbor2.loads, run.items) if whole[0] == letter]


def rows(run: Run) -> list[Row]:
    return [Row(at, decoded(raw)) for _, at, raw in parts(run, "R")]


def of(run: Run, topic: str) -> list[SignedEvent]:
    return [row.signed for row in rows(run) if row.signed.event.topic == topic]


def stats(store: str, tree: RowTree) -> BrokerStats:
    counts = {"sessions": 1, "events": 1, "facts": 1, "disk_bytes": 1, "history_from_ms": 0, "dropped": 0, "lag_s": 0.0}
    return BrokerStats(store=store, head=tree.rows, head_hash=tree.head, pid=1, version="0.1", address="", **counts)


def header(run: Run, store: str | None = None, patterns: list[str] | None = None) -> bytes:
    version, name, own, wanted = parts(run, "H")[0]
    return packed("H", version, name, store or own, wanted if patterns is None else patterns)


def certified(run: Run, *identities: Identity) -> list[bytes]:
    held = [raw for (raw,) in parts(run, "C")]
    held += [one.raw for identity in identities for one in identity.chain if one.raw not in held]
    return [packed("C", raw) for raw in held]


def rebuilt(run: Run, kept: list[Row], forger: Identity, topic: str, **event: Any) -> list[bytes]:
    """These rows under another store's id, and a head of the forger's own over them."""
    tree, out = RowTree(), []
    for number, (at, signed) in enumerate(kept, 1):
        tree.add(at, signed.leaf)
        out.append(packed("R", number, at, signed.raw))
    end = Pen(forger).write(topic, to_data(stats(OTHER, tree)), **event)
    return [header(run, OTHER), *certified(run, forger), *out, packed("E", end.raw)]


def codes(found: Verified) -> set[str]:
    return {fault.code for fault in found.faults}


def not_whole(run: Run, changed: list[bytes]) -> set[str]:
    """The codes of what is wrong; `replay` says the same."""
    found = judged(run, changed)
    assert not found.ok
    replayed = replay_file(b"".join(changed), run.trust())
    assert (replayed.ok, replayed.verified) == (False, False)
    return codes(found)


@pytest.mark.parametrize(("who", "topic"), FORGERS)
def test_who_has_a_good_key_of_the_realm_ends_no_history_but_its_broker(scene: Scene, who: str, topic: str) -> None:
    """Shortened, without alice, two rows swapped, later than they came; under another store's id and a head of one's own."""
    run, kept = scene.before, rows(scene.before)
    assert judged(run, run.items).ok
    kept = [
        Row(row.arrived_ms + 12345, row.signed) for row in kept[: len(kept) * 2 // 3] if "alice" not in str(row.signed.event)
    ]
    kept[5], kept[9] = kept[9], kept[5]
    forged = rebuilt(run, kept, scene.keys[who], topic, type="dsmt.broker.stats")
    if who == "broker/b9":  # what other brokers have may be in its store: it is its word, and the verdict says whose
        found = judged(run, forged)
        assert found.history is not None
        assert found.history.broker == "broker/b9"
        assert all("broker/b1" not in sentence for sentence in found.proves)
    else:
        assert "event.schema" in not_whole(run, forged)


@pytest.mark.parametrize(("who", "topic"), FORGERS[:3])
def test_a_head_on_its_broker_s_topic_is_signed_by_that_broker_alone(scene: Scene, who: str, topic: str) -> None:
    del topic
    forged = rebuilt(scene.before, rows(scene.before)[:-5], scene.keys[who], "broker/b1/stats")
    assert "trust.denied" in not_whole(scene.before, forged)


def test_an_end_that_is_the_broker_s_and_no_head_ends_nothing(scene: Scene) -> None:
    notice = BrokerNotice(kind="clock", source="node/n1", topic=None, first=0, last=0, message="")
    end = Pen(scene.keys["broker/b1"]).write("broker/b1/notice", to_data(notice))
    assert {"history.head", "history.cut"} <= not_whole(scene.run, [*scene.run.items[:-1], packed("E", end.raw)])


def test_another_broker_s_key_signs_histories_in_its_own_name_only(scene: Scene) -> None:
    """It can leave out, reorder and redate what others signed, as what it has stored itself; the verdict names it."""
    run, b9 = scene.before, scene.keys["broker/b9"]
    kept = [row for row in rows(run) if row.signed.event.source.startswith("operator/")]
    found = judged(run, rebuilt(run, kept, b9, "broker/b9/stats"))
    assert found.ok
    assert found.history is not None
    assert (found.history.broker, found.history.store) == ("broker/b9", OTHER)
    assert all("broker/b1" not in sentence for sentence in found.proves)


def test_what_another_broker_says_of_this_store_counts_for_nothing(scene: Scene) -> None:
    """A row that b9 says b1 has trimmed is missing, and what it says of the head is an event like any other."""
    run, b1, b9 = scene.before, scene.keys["broker/b1"], scene.keys["broker/b9"]
    kept, pen = rows(run), Pen(b9)
    gone = TrimRecord(
        store=OTHER, number=1, budget="evidence", first=1, last=9, count=9, rows=RowSet.of(range(1, 10)).dump()
    )
    words = [pen.write("broker/b9/trimmed", to_data(gone)), pen.write("broker/b9/stats", to_data(stats(OTHER, RowTree())))]
    said = [Row(kept[-1].arrived_ms, word) for word in words]
    whole = rebuilt(run, [*kept, *said], b1, "broker/b1/stats")
    whole = [whole[0], *certified(run, b1, b9), *whole[-len(kept) - 3 :]]
    assert judged(run, whole).ok
    row = next(at for at, item in enumerate(whole) if item[1:3] == b"aR")
    number, arrived, raw = cbor2.loads(whole[row])[1:]
    hidden = packed("N", number, 0, row_hash(number, arrived, decoded(raw).leaf))
    assert "history.missing" in not_whole(run, [*whole[:row], hidden, *whole[row + 1 :]])


def test_what_another_broker_says_was_trimmed_of_this_store_is_not_even_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two kilobytes tell of a million runs, and a thousand such words fill the memory of who verifies."""
    run, b1, b9 = scene.before, scene.keys["broker/b1"], scene.keys["broker/b9"]
    kept, own, other = rows(run), Pen(b1), Pen(b9)
    bomb = RowSet((row, row) for row in range(1, 2_000_000, 2)).dump()
    assert len(bomb) < 8192
    words = [(other, "broker/b9/trimmed", bomb)] * 3 + [(own, "broker/b1/trimmed", RowSet.of((1,)).dump())]
    gone = {"store": OTHER, "number": 1, "budget": "evidence", "first": 1, "last": 9, "count": 9}
    said = [Row(kept[-1].arrived_ms, pen.write(topic, {**gone, "rows": raw})) for pen, topic, raw in words]
    whole = rebuilt(run, [*kept, *said], b1, "broker/b1/stats")
    whole = [whole[0], *certified(run, b1, b9), *whole[-len(kept) - 5 :]]
    read: list[bytes] = []
    reads = RowSet.read
    monkeypatch.setattr("dsmt.operations.offline.proving.RowSet.read", lambda raw: (read.append(raw), reads(raw))[1])
    assert judged(run, whole).ok
    assert read == [RowSet.of((1,)).dump()]


@pytest.mark.parametrize(("store", "explains"), [(OTHER, True), ("e" * 16, False)], ids=["this store", "another"])
def test_what_its_broker_has_trimmed_of_another_store_explains_nothing_that_is_missing(
    scene: Scene, store: str, explains: bool
) -> None:
    """Rows of an older copy of it have the same numbers, and are others."""
    run, b1, kept = scene.before, scene.keys["broker/b1"], rows(scene.before)
    every = RowSet.of(range(1, 10)).dump()
    gone = TrimRecord(store=store, number=1, budget="evidence", first=1, last=9, count=9, rows=every)
    whole = rebuilt(
        run, [*kept, Row(kept[-1].arrived_ms, Pen(b1).write("broker/b1/trimmed", to_data(gone)))], b1, "broker/b1/stats"
    )
    assert judged(run, whole).ok
    at = next(place for place, item in enumerate(whole) if item[1:3] == b"aR")
    number, arrived, raw = cbor2.loads(whole[at])[1:]
    hidden = packed("N", number, 0, row_hash(number, arrived, decoded(raw).leaf))
    found = judged(run, [*whole[:at], hidden, *whole[at + 1 :]])
    assert codes(found) == (set() if explains else {"history.missing"})


def test_an_older_head_with_the_rows_behind_it_cut_proves_what_was_there_then_and_says_when(scene: Scene) -> None:
    run = scene.before
    whole = judged(run, run.items).history
    *_, signed = of(run, "broker/b1/stats")
    head = from_data(BrokerStats, signed.event.data).head
    found = judged(run, [*run.items[: run.rows[0] + head], packed("E", signed.raw)])
    assert found.ok
    assert found.history is not None
    assert whole is not None
    assert 0 < found.history.rows == head < whole.rows
    assert str(found.history.signed_at) < str(whole.signed_at)
    assert found.cannot_prove[0] == f"what was stored after {found.history.signed_at}"


def test_a_trim_record_that_is_replaced_hides_nothing(scene: Scene) -> None:
    """By its hash, or by a record that a node signed."""
    run, node = scene.run, scene.keys["node/n1"]
    assert judged(run, run.items).ok
    at = next(one for one in run.rows if b"dsmt.trimmed" in run.items[one])
    row, arrived_ms, raw = cbor2.loads(run.items[at])[1:]
    signed = decoded(raw)
    by_hash = packed("N", row, 0, row_hash(row, arrived_ms, signed.leaf))
    by_node = packed("R", row, arrived_ms, Pen(node).write("node/n1/keeper", signed.event.data, type="dsmt.trimmed").raw)
    certificates, body = certified(run, node), next(at for at, one in enumerate(run.items) if one[1:3] in (b"aR", b"aN"))
    for item, code in ((by_hash, "history.missing"), (by_node, "event.schema")):
        assert code in not_whole(run, [header(run), *certificates, *run.items[body:at], item, *run.items[at + 1 :]])


def test_rows_that_are_there_hide_no_hole_though_they_were_said_to_be_trimmed(scene: Scene) -> None:
    run, b9 = scene.before, scene.keys["broker/b9"]
    cut = of(run, "user/alice/fact")[2]
    kept = [row for row in rows(run) if row.signed.event.source.startswith("operator/") and row.signed != cut]
    every = RowSet.of(range(1, len(kept) + 1))
    record = TrimRecord(store=OTHER, number=1, budget="signal", first=1, last=len(kept), count=len(kept), rows=every.dump())
    said = Row(kept[-1].arrived_ms, Pen(b9).write("broker/b9/trimmed", to_data(record)))
    found = judged(run, rebuilt(run, [*kept, said], b9, "broker/b9/stats"))
    assert not found.faults
    assert [(gap.topic, gap.first, gap.last) for gap in found.gaps] == [("user/alice/fact", 3, 3)]


def test_a_row_that_was_left_out_is_replaced_by_nothing(scene: Scene) -> None:
    """By another hash, by an event of a wanted topic, by more rows or fewer."""
    run = scene.some
    assert judged(run, run.items).ok
    alice = next(row for row in rows(scene.before) if row.signed.event.topic == "user/alice/fact")
    hidden = [place for place, item in enumerate(run.items) if item[1:3] == b"aN"]
    for place in hidden[::7]:
        row, level, hashed = cbor2.loads(run.items[place])[1:]
        nodes = (packed("N", row, level, bytes(32)), packed("N", row, level + 1, hashed))
        for other in (*nodes, packed("R", row, alice.arrived_ms, alice.signed.raw)):
            not_whole(run, [*run.items[:place], other, *run.items[place + 1 :]])


def test_rows_of_two_stores_make_no_history(tmp_path: Path) -> None:
    """Two lives of one broker, with one key, each honest: no end of the one fits what holds rows of the other."""

    async def main() -> tuple[Run, Run]:
        async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
            broker = await made.broker(store=str(tmp_path / "first.db"))
            reader = await made.client("operator/reader")
            await said(made, [reader], 20)
            first = await exported(made, reader)
            identity = made.identities[broker]
            await made.stop(broker)
            broker._store.close()
            await made.broker(identity=identity, store=str(tmp_path / "second.db"))
            reader = await made.client("operator/reader")
            await said(made, [reader], 20)
            return first, await exported(made, reader)

    first, second = asyncio.run(main())
    assert parts(first, "H") != parts(second, "H")
    for one, other in ((first, second), (second, first)):
        assert judged(one, one.items).ok
        certificates = list(dict.fromkeys((*certified(one), *certified(other))))
        mine, theirs = ([run.items[at] for at in run.rows] for run in (one, other))
        for head in (header(one), header(other)):
            for body in (mine, [*mine[:10], *theirs[10:]], [*mine, *theirs[len(mine) :]]):
                not_whole(one, [head, *certificates, *body, other.items[-1]])


def test_an_id_that_was_left_does_not_come_back(scene: Scene) -> None:
    """Even the broker's own key does not mix two of its stores by a head over both."""
    run, b1 = scene.before, scene.keys["broker/b1"]
    kept = [row for row in rows(run) if row.signed.event.source != "broker/b1"]
    pen, tree = Pen(b1), RowTree()
    for store in ("a" * 16, "b" * 16, "a" * 16):
        kept.insert(0, Row(1, pen.write("broker/b1/stats", to_data(stats(store, tree)))))
    found = judged(run, rebuilt(run, kept, b1, "broker/b1/stats"))
    assert "history.store" in codes(found)


def test_a_head_over_rows_of_another_life_is_told_whatever_store_it_names(scene: Scene) -> None:
    """A broker's key over rewritten rows: a head that it signed before, and a head over rows that follow it."""
    run, b1 = scene.before, scene.keys["broker/b1"]
    kept = [row for row in rows(run) if row.signed.event.source != "operator/alice"]
    assert not_whole(run, rebuilt(run, kept, b1, "broker/b1/stats")) == {"history.head"}
    tree = RowTree(len(kept) + 9)
    ahead = Row(1, Pen(b1).write("broker/b1/stats", to_data(stats(OTHER, tree))))
    kept = [row for row in kept if row.signed.event.source != "broker/b1"]
    assert not_whole(run, rebuilt(run, [ahead, *kept], b1, "broker/b1/stats")) == {"history.head"}


def test_a_store_that_took_a_new_id_after_a_power_cut_is_still_whole(tmp_path: Path) -> None:
    """Its rows hold heads of the id before, which are held against the rows too."""

    def store(boot: str) -> SqliteStore:
        return SqliteStore(str(tmp_path / "b1.db"), identity=os.urandom(8).hex(), boot=boot)

    async def main() -> tuple[Run, str]:
        async with lived(tmp_path, 40, kept=store("one")) as (made, broker, reader):
            await exported(made, reader)
            trim(broker, broker.now_ms() + DAY_MS)
            await made.stop(broker)
            broker._store._db.connection.close()  # as a kill leaves it
            await made.broker(identity=made.identities[broker], address=broker.address, kept=store("two"))
            return await exported(made, await made.client("operator/again")), broker._store.identity

    run, before = asyncio.run(main())
    named = [from_data(BrokerStats, one.event.data).store for one in of(run, "broker/b1/stats")]
    assert before in named
    assert before not in parts(run, "H")[0]
    found = judged(run, run.items)
    assert found.ok, found.faults
    assert found.history is not None
    assert found.history.trimmed > 0
    assert found.history.heads > len(named) - named.count(before)


@pytest.mark.parametrize("recorded", [False, True], ids=["exported", "recorded whole"])
@pytest.mark.parametrize("who", ["node/n1", "operator/mallory"])
def test_a_gap_is_explained_by_nobody_s_notice(scene: Scene, who: str, recorded: bool) -> None:
    run, forger = scene.before, scene.keys[who]
    trust = run.trust()
    trust.add_all([raw for (raw,) in parts(run, "C")])
    trust.add_all([one.raw for key in scene.keys.values() for one in key.chain])
    cut = [row.signed.raw for row in rows(run) if row.signed not in of(run, "user/alice/fact")[2:3]]
    if recorded:  # heartbeats, too: then sequences are followed as well as chains
        beat = Heartbeat(incarnation=1, sequence=1, lag_s=0.0, emit_rate_s=30.0)
        cut.append(Pen(scene.keys["broker/b1"]).write("broker/b1/heartbeat", to_data(beat), type="dsmt.heartbeat").raw)
    assert [(gap.topic, gap.first, gap.last) for gap in verify(b"".join(cut), trust).gaps] == [("user/alice/fact", 3, 3)]
    notice = BrokerNotice(
        kind="trimmed", source="operator/alice", topic="user/alice/fact", first=3, last=3, message="", unit="number"
    )
    pen = Pen(forger)
    for topic in (dict(FORGERS)[who], "broker/b1/notice", "broker/b9/notice"):
        forged = pen.write(topic, to_data(notice), type="dsmt.notice")
        found = verify(b"".join([*cut, forged.raw]), trust)
        assert (found.ok, len(found.gaps), found.bad_signatures) == (False, 1, 1)
    said = Pen(scene.keys["broker/b1"]).write("broker/b1/notice", to_data(notice))
    assert len(verify(b"".join([*cut, said.raw]), trust).gaps) == 1


def test_what_is_said_to_have_never_reached_the_broker_is_what_it_says_itself(scene: Scene) -> None:
    run, own = scene.before, scene.keys["broker/b1"]
    gap = BrokerNotice(kind="gap", source="node/n1", topic=None, first=2, last=4, message="")
    told = [Row(1, Pen(scene.keys[who]).write(f"{who}/notice", to_data(gap))) for who in ("broker/b1", "broker/b9")]
    made = rebuilt(run, [*rows(run), *told], own, "broker/b1/stats")
    found = judged(run, [made[0], *certified(run, *scene.keys.values()), *made[-len(run.rows) - 3 :]])
    assert found.history is not None
    assert (found.history.broker, found.history.never_came_of) == ("broker/b1", {"node/n1": 3})


FAKES: list[tuple[str, Callable[[Pen], SignedEvent]]] = [
    ("event.schema", lambda pen: pen.write("user/x", {"sequence": 99}, type="dsmt.heartbeat")),
    ("event.schema", lambda pen: pen.write("user/x", {}, type="dsmt.decision")),
    ("event.schema", lambda pen: pen.write("nodeset/a", {"expression": 5}, version=1)),
    ("event.schema", lambda pen: pen.write("nodeset/a", {"expression": "all_nodes"})),
]


@pytest.mark.parametrize(("code", "fake"), FAKES)
def test_what_a_broker_would_not_take_a_reader_of_a_file_does_not_believe(
    scene: Scene, code: str, fake: Callable[[Pen], SignedEvent]
) -> None:
    mallory = scene.keys["operator/mallory"]
    run, raw = scene.before, fake(Pen(mallory)).raw
    trust = run.trust()
    trust.add_all([one.raw for one in mallory.chain])
    found = verify(raw, trust)
    assert (found.ok, found.events, codes(found)) == (False, 0, {code})
    forged = rebuilt(run, [*rows(run), Row(1, decoded(raw))], scene.keys["broker/b1"], "broker/b1/stats")
    assert code in not_whole(run, [forged[0], *certified(run, mallory, *scene.keys.values()), *forged[-len(run.rows) - 2 :]])
