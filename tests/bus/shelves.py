"""A depot of ten small blobs, on a store of its own."""

from __future__ import annotations

from hashlib import sha256

import pytest
from msgspec.structs import replace

from dsmt.bus.broker.depot import Depot
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.wire import frames as f
from tests.bus.stored import append

SIZE = 1000


class Shelf:
    """A depot of ten small blobs."""

    def __init__(self, path) -> None:
        self.store = SqliteStore(str(path / "s.db"), identity="a" * 16)
        self.now_ms = 1
        self.told: list[str] = []
        self.depot = Depot(self.store.blobs, self, limit=10 * SIZE, now_ms=lambda: self.now_ms, due=lambda: None)

    def damaged(self, message: str) -> None:
        self.told.append(message)

    def put(self, content: bytes, payer: str = "operator/a", *, finish: bool = True) -> f.BlobIs:
        self.now_ms += 1
        digest = sha256(content).digest()
        answers: list[f.BlobIs] = []
        self.depot.put(f.ChunkPut(id=1, digest=digest, number=0), (content,), payer, answers.append)
        if finish and answers[-1].ok:
            self.depot.put(f.BlobFinished(id=2, digest=digest, chunks=1), (), payer, answers.append)
        while self.depot.step():
            pass
        return answers[-1]

    def has(self, content: bytes) -> bool:
        blob = self.store.blobs.get(sha256(content).digest())
        return blob is not None and blob.whole

    def names(self, content: bytes) -> None:
        one = append(self.store.head + 1, topic=f"service/s{content[0]}/spec", winner=True)
        raw = b"..." + sha256(content).hexdigest().encode() + b"..."
        signed = type(one.signed)(one.signed.event, raw, one.signed.leaf, one.signed.key_id)
        self.store.append([replace(one, signed=signed)])

    def names_no_more(self, content: bytes) -> None:
        self.store._db.do("UPDATE events SET winner = 0 WHERE topic = ?", (f"service/s{content[0]}/spec",))


def content(n: int) -> bytes:
    return bytes([n]) * SIZE


@pytest.fixture
def shelf(tmp_path):
    made = Shelf(tmp_path)
    yield made
    made.store.close()
