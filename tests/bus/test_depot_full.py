"""The depot on a disk that is full, and on one that is damaged (rule D2)."""

from __future__ import annotations

from hashlib import sha256

import pytest

from dsmt.bus.store.sums import damaged
from dsmt.bus.wire import frames as f
from dsmt.errors import FailedError
from tests.bus.shelves import content, shelf
from tests.bus.spoiled import Full

__all__ = ["shelf"]


def test_a_full_disk_ends_nothing_and_what_it_kept_from_being_done_is_done_later(shelf, monkeypatch):
    asked: list[int] = []
    shelf.depot._due = lambda: asked.append(1)
    shelf.put(content(1), finish=False)
    digest = sha256(content(1)).digest()
    answers: list[f.BlobIs] = []
    shelf.depot.put(f.BlobFinished(id=2, digest=digest, chunks=1), (), "operator/a", answers.append)

    with monkeypatch.context() as patch:
        patch.setattr(shelf.store.blobs, "keep", Full())
        while shelf.depot.step():
            pass
        assert answers == []
        asked.clear()
        shelf.depot.expire()
        assert asked, "it is tried again"
    while shelf.depot.step():
        pass
    assert [one.ok for one in answers] == [True]

    shelf.depot._remove(sha256(content(2)).digest())
    with monkeypatch.context() as patch:
        patch.setattr(shelf.store.blobs, "remove_chunks", Full())
        assert not shelf.depot.step()
    while shelf.depot.step():
        pass
    assert not shelf.depot._removing


def test_a_damaged_store_is_no_full_disk(shelf, monkeypatch):
    def broken(*_, **__):
        raise damaged("store.db", "row 40")

    shelf.put(content(2), finish=False)
    with monkeypatch.context() as patch:
        patch.setattr(shelf.depot, "_remove", broken)
        with pytest.raises(FailedError, match="is damaged: row 40"):
            shelf.depot.ended(sha256(content(2)).digest())
    monkeypatch.setattr(shelf.store.blobs, "remove_chunks", broken)
    shelf.depot._remove(sha256(content(2)).digest())
    with pytest.raises(FailedError, match="is damaged: row 40"):
        shelf.depot.step()


def test_who_puts_what_a_full_disk_does_not_take_is_told_why(shelf, monkeypatch):
    monkeypatch.setattr(shelf.store.blobs, "put_chunk", Full())
    answer = shelf.put(content(0))
    assert (answer.ok, answer.message) == (False, "the disk is full. make room")


def test_what_is_looked_at_again_and_cannot_go_for_a_full_disk_goes_later(shelf, monkeypatch):
    """Nothing else asks for a step: a blob that is wrong would be given to everybody who fetches it."""
    asked: list[int] = []
    shelf.put(content(1))
    shelf.depot._due = lambda: asked.append(1)
    digest = sha256(content(1)).digest()
    shelf.store._db.do("UPDATE chunks SET chunk = ?", (b"rotten",))
    shelf.depot.asked(f.ChunkAsked(id=1, digest=digest, number=0))

    with monkeypatch.context() as patch:
        patch.setattr(shelf.store.blobs, "forget", Full())
        while shelf.depot.step():
            pass
        assert shelf.has(content(1))
        asked.clear()
        shelf.depot.expire()
        assert asked, "it is tried again"
    while shelf.depot.step():
        pass
    assert not shelf.has(content(1))
