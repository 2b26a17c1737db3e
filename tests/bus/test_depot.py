"""The depot (rule D2): bounded in bytes, keeps what a live fact names, and never holds the loop for long."""

from __future__ import annotations

from hashlib import sha256

import pytest

from dsmt.bus.broker.depot import AGAIN_MS, UNFINISHED_MS
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import CHUNK_BYTES
from dsmt.errors import FailedError
from dsmt.ports.blobs import KEPT_SHARE
from tests.bus.shelves import SIZE, Shelf, content, shelf
from tests.bus.stored import append, service, slot

__all__ = ["shelf"]


def test_for_room_the_oldest_goes_that_no_live_fact_names(shelf):
    for n in range(10):
        assert shelf.put(content(n), payer=f"operator/{n % 3}").ok
        if n == 0:
            shelf.names(content(0))
    assert shelf.put(content(10), payer="operator/z").ok
    assert [n for n in range(11) if not shelf.has(content(n))] == [1]
    left = shelf.store._db.one("SELECT count(*) FROM chunks")[0]
    assert left == 10


def test_what_live_facts_name_is_never_given_for_room(shelf):
    for n in range(10):
        shelf.put(content(n), payer=f"operator/{n % 3}")
        shelf.names(content(n))
    refused = shelf.put(content(10), payer="operator/z")
    assert not refused.ok
    assert "live facts name all" in refused.message


def test_what_a_spec_names_that_slots_still_implement_is_never_given_for_room(shelf):
    for n in range(10):
        shelf.put(content(n), payer=f"operator/{n % 3}")
    (before,) = service(shelf.store, 1, digest=sha256(content(0)).hexdigest())
    service(shelf.store, 2, slots=[(1, slot(before))])
    assert shelf.put(content(10), payer="operator/z").ok
    assert [n for n in range(11) if not shelf.has(content(n))] == [1]
    service(shelf.store, slots=[(2, slot("operator/a#1700000000000-2"))])
    assert shelf.put(content(11), payer="operator/z").ok
    assert [n for n in range(12) if not shelf.has(content(n))] == [0, 1]


def test_one_operator_cannot_fill_it(shelf):
    for n in range(5):
        assert shelf.put(content(n)).ok
        shelf.names(content(n))
    refused = shelf.put(content(5))
    assert not refused.ok
    assert "operator/a" in refused.message
    assert shelf.put(content(6), payer="operator/b").ok


def test_who_puts_one_revision_after_another_is_never_refused_for_the_former_ones(shelf):
    """Of its part the oldest gives way that nothing names any more, and nothing of anybody else's."""
    assert shelf.put(content(100), payer="operator/b").ok
    shelf.put(content(0))
    shelf.names(content(0))
    for n in range(1, 12):
        assert shelf.put(content(n)).ok
        shelf.names(content(n))
        if n > 1:
            shelf.names_no_more(content(n - 1))
    assert [n for n in range(12) if shelf.has(content(n))] == [0, 8, 9, 10, 11]
    assert shelf.has(content(100))


def test_what_was_begun_and_not_gone_on_with_is_removed(shelf):
    shelf.put(content(1), finish=False)
    shelf.depot.expire()
    assert shelf.store.blobs.all()
    shelf.now_ms += UNFINISHED_MS + 10
    shelf.depot.expire()
    while shelf.depot.step():
        pass
    assert not shelf.store.blobs.all()
    assert not shelf.store.blobs.orphans()


def test_what_an_operator_began_to_put_is_fetched_from_nobody_until_it_was_not_gone_on_with(shelf):
    digest = sha256(content(1)).digest()
    shelf.put(content(1), finish=False)
    assert not shelf.depot.begin(digest)
    assert shelf.put(content(1)).ok
    shelf.put(content(2), finish=False)
    shelf.now_ms += UNFINISHED_MS + 1
    assert shelf.depot.begin(sha256(content(2)).digest())


def test_of_a_blob_that_is_being_checked_or_fetched_a_depot_says_that_it_is_busy_and_not_that_it_is_full(shelf):
    one, two, answers = content(1), content(2), []
    digest = sha256(one).digest()
    shelf.depot.put(f.ChunkPut(id=1, digest=digest, number=0), (one,), "operator/a", answers.append)
    shelf.depot.put(f.BlobFinished(id=2, digest=digest, chunks=1), (), "operator/a", answers.append)
    shelf.depot.put(f.ChunkPut(id=3, digest=digest, number=0), (one,), "operator/b", answers.append)
    assert [(one.id, one.ok, one.busy) for one in answers] == [(1, True, False), (3, False, True)]
    assert shelf.depot.begin(sha256(two).digest())
    again = shelf.put(two)
    assert (again.ok, again.busy, again.message) == (False, True, "this blob is just being fetched from another broker")
    assert [(one.id, one.ok, one.size) for one in answers[2:]] == [(2, True, len(one))]


def test_who_puts_what_is_here_already_is_told_so_at_its_first_chunk(shelf):
    shelf.put(content(1))
    assert shelf.put(content(1), finish=False) == f.BlobIs(id=1, size=SIZE)


@pytest.mark.parametrize("small_disk", ["12m"], indirect=True)
def test_no_blob_takes_what_is_kept_of_a_disk_for_events_and_what_nothing_names_gives_way(small_disk):
    shelf = Shelf(small_disk)
    shelf.depot._limit = 2**30
    blobs = [bytes([n]) * CHUNK_BYTES for n in range(60)]
    for blob in blobs:
        shelf.names(blob)
        answer = shelf.put(blob)
        if not answer.ok:
            break
    assert "kept for events" in answer.message
    held = [blob for blob in blobs if shelf.has(blob)]
    for _ in range(50):
        shelf.store.append([append(shelf.store.head + 1, size=5000)])
    assert shelf.store.blobs.disk()[1] < shelf.store.blobs.disk()[0] * KEPT_SHARE
    for blob in held[1:9]:
        shelf.names_no_more(blob)
    shelf.depot.expire()
    assert all(shelf.has(blob) for blob in held), "what was just put may be named in a moment"
    shelf.now_ms += UNFINISHED_MS + 1000
    shelf.depot.expire()
    while shelf.depot.step():
        pass
    gone = [blob for blob in held if not shelf.has(blob)]
    assert gone == held[1 : 1 + len(gone)]
    assert 0 < len(gone) < 8
    assert shelf.store.blobs.disk()[1] >= shelf.store.blobs.disk()[0] * KEPT_SHARE
    assert shelf.put(blobs[-1]).ok
    assert all(shelf.has(blob) for blob in (held[0], *held[9:]))
    shelf.store.close()


def begin(shelf, content: bytes, number: int = 0, *, of: bytes | None = None, payer: str = "operator/b") -> f.BlobIs:
    """Put a chunk, and nothing more; nothing is removed meanwhile."""
    answers: list[f.BlobIs] = []
    digest = sha256(of or content).digest()
    shelf.depot.put(f.ChunkPut(id=1, digest=digest, number=number), (content,), payer, answers.append)
    return answers[-1]


def test_while_room_is_being_made_on_the_disk_nothing_more_gives_way_for_it(shelf, monkeypatch):
    for n in range(3):
        shelf.put(content(n))
    monkeypatch.setattr(shelf.store.blobs, "disk", lambda: (100 * SIZE, 25 * SIZE))  # nothing is free but what is kept
    assert begin(shelf, content(7)).ok
    assert [shelf.has(content(n)) for n in range(3)] == [False, True, True], "the oldest gives way"
    assert begin(shelf, content(8)).ok
    assert [shelf.has(content(n)) for n in range(3)] == [False, True, True], "what goes has not gone yet"
    while shelf.depot.step():
        pass
    assert begin(shelf, content(9)).ok
    assert [shelf.has(content(n)) for n in range(3)] == [False, False, True]


def test_what_is_gone_on_with_late_does_not_give_way_for_itself(shelf):
    for n in range(9):
        shelf.names(content(n))
        assert shelf.put(content(n), f"operator/{n % 2}").ok
    assert begin(shelf, content(20), of=content(20) + content(21)).ok
    shelf.now_ms += UNFINISHED_MS + 1000
    answer = begin(shelf, content(21), 1, of=content(20) + content(21))
    assert (answer.ok, answer.message) == (False, "the depot holds 10000 bytes, and live facts name all of it")
    digest = sha256(content(20) + content(21)).digest()
    assert not shelf.depot.is_removing(digest)
    assert shelf.store.blobs.get(digest) is not None


def test_what_has_another_sha256_is_removed_and_said(shelf):
    digest = bytes(32)
    answers: list[f.BlobIs] = []
    shelf.depot.put(f.ChunkPut(id=1, digest=digest, number=0), (b"x",), "operator/a", answers.append)
    shelf.depot.put(f.BlobFinished(id=2, digest=digest, chunks=1), (), "operator/a", answers.append)
    assert len(answers) == 1
    while shelf.depot.step():
        pass
    assert not answers[-1].ok
    assert shelf.store.blobs.get(digest) is None


def test_what_is_fetched_is_looked_at_once_in_a_while_and_no_blob_that_is_sound_goes(shelf):
    shelf.put(content(1))
    digest, told = sha256(content(1)).digest(), shelf.told

    def fetched() -> int:
        shelf.depot.asked(f.ChunkAsked(id=1, digest=digest, number=0))
        return sum(1 for _ in iter(shelf.depot.step, False))

    assert [fetched() for _ in range(2)] == [1, 0]
    shelf.depot.expire()
    assert fetched() == 0, "it is remembered that it was looked at"
    shelf.now_ms += AGAIN_MS
    shelf.depot.expire()
    assert fetched() == 1
    assert shelf.has(content(1))
    shelf.store._db.do("UPDATE chunks SET chunk = ?", (b"rotten",))
    fetched()
    assert shelf.has(content(1)), "it was looked at just now"
    shelf.now_ms += AGAIN_MS
    fetched()
    assert not shelf.has(content(1))
    assert len(told) == 1
    assert shelf.put(content(1)).ok
    assert shelf.has(content(1))
    shelf.now_ms += AGAIN_MS
    shelf.depot.expire()
    assert not shelf.depot._looked, "of what nobody fetches nothing is remembered"


def test_of_what_went_before_it_was_looked_at_nobody_is_told_that_it_was_wrong(shelf):
    shelf.put(content(1))
    digest, told = sha256(content(1)).digest(), shelf.told
    shelf.depot.asked(f.ChunkAsked(id=1, digest=digest, number=0))
    shelf.store.blobs.forget(digest)
    shelf.store.blobs.remove_chunks(digest, 10)
    while shelf.depot.step():
        pass
    assert told == []


def test_blobs_are_bounded_in_number_and_those_of_one_operator(shelf, monkeypatch):
    monkeypatch.setattr("dsmt.bus.broker.depot.MOST_BLOBS", 8)
    monkeypatch.setattr("dsmt.bus.broker.depot.GIVEN_AT_ONCE", 1)
    assert all(shelf.put(b"a%d" % n, finish=False).ok for n in range(4))
    refused = shelf.put(b"a4")
    assert (refused.ok, refused.message[:65]) == (False, "operator/a keeps as many blobs in the depot as one operator may, ")
    assert shelf.put(b"a0").ok, "one that was begun may be ended"
    assert [shelf.put(b"b%d" % n, "operator/b").ok for n in range(5)] == [True] * 5
    assert [shelf.has(b"b%d" % n) for n in range(5)] == [False, False, True, True, True], "the oldest of its own went"
    assert shelf.put(b"c0", "operator/c").ok
    assert shelf.put(b"c1", "operator/c").ok
    assert len(shelf.store.blobs.all()) <= 8


def test_what_is_held_is_not_counted_anew_for_each_that_comes(shelf, monkeypatch):
    looked: list[None] = []
    every = shelf.store.blobs.all
    monkeypatch.setattr(shelf.store.blobs, "all", lambda: (looked.append(None), every())[1])
    assert all(shelf.put(b"%d" % n, f"operator/{n % 2}").ok for n in range(50))
    assert looked == []
    for payer, number in (("operator/0", 25), (None, 50)):
        assert shelf.store.blobs.held(payer) == (number, sum(one.size for one in every() if payer in (None, one.payer)))
    shelf.put(content(1))
    shelf.store.blobs.forget(sha256(content(1)).digest())
    assert shelf.store.blobs.held() == (50, sum(one.size for one in every()))


def test_who_says_again_and_again_that_a_blob_is_there_has_it_checked_once(shelf):
    digest, answers = sha256(b"abc").digest(), []
    for n, part in enumerate((b"a", b"b", b"c")):
        shelf.depot.put(f.ChunkPut(id=n, digest=digest, number=n), (part,), "operator/a", answers.append)
    answers.clear()
    for n in range(100):
        shelf.depot.put(f.BlobFinished(id=n, digest=digest, chunks=3), (), "operator/a", answers.append)
    steps = sum(1 for _ in iter(shelf.depot.step, False))
    assert steps <= 3 + 100
    assert [(one.id, one.ok, one.size) for one in answers] == [(n, True, 3) for n in range(100)]


def test_hashing_goes_chunk_by_chunk(shelf):
    digest = sha256(b"abc").digest()
    answers: list[f.BlobIs] = []
    for n, part in enumerate((b"a", b"b", b"c")):
        shelf.depot.put(f.ChunkPut(id=n, digest=digest, number=n), (part,), "operator/a", answers.append)
    shelf.depot.put(f.BlobFinished(id=9, digest=digest, chunks=3), (), "operator/a", answers.append)
    steps = 0
    while shelf.depot.step():
        steps += 1
    assert steps == 3
    assert answers[-1].ok
    assert answers[-1].size == 3


def test_of_a_chunk_that_cannot_be_noted_nothing_is_kept(store):
    """What stands in no list is found, and goes, at the next start only."""
    store._db.do("CREATE TEMP TRIGGER full BEFORE INSERT ON blobs BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(FailedError, match="no room"):
        store.blobs.put_chunk(bytes(32), 0, b"x", payer="operator/a", now_ms=1)
    assert store.blobs.orphans() == []
