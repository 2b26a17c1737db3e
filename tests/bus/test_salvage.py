"""What is taken over of a store that was damaged, whatever the disk of the new one is like (rule B11)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.others import salvage
from dsmt.bus.broker.others.salvage import Salvage
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.store.sums import damaged
from dsmt.errors import FailedError
from dsmt.event.codec import decode_part
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import from_data
from dsmt.ports.store import StoreFullError
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import TrustStore
from tests.bus.realm import Pen, TestRealm, memory_network, scenario
from tests.waiting import until

BLOB = [os.urandom(100), os.urandom(50)]
DIGEST = sha256(b"".join(BLOB)).digest()
BROKEN = bytes(32)


class Remains:
    """Two blobs, of which one is not what it was, and some events."""

    said = "the store was damaged"

    def __init__(self, events: Sequence[SignedEvent] = (), certificates: Sequence[bytes] = ()) -> None:
        self._events, self._certificates, self.all_taken = events, certificates, False

    def certificates(self) -> list[bytes]:
        return list(self._certificates)

    def parts(self) -> Iterator[list[bytes]]:
        yield [one.raw for one in self._events]

    def chunks(self) -> Iterator[tuple[bytes, str, int, bytes]]:
        yield from ((digest, "operator/a", number, one) for digest in (BROKEN, DIGEST) for number, one in enumerate(BLOB))

    def taken(self) -> None:
        self.all_taken = True


class Failing:
    """Blobs of a new store on which each act fails as often as is left for it."""

    def __init__(self, blobs: Any, error: FailedError, **left: int) -> None:
        self._blobs, self._error, self.left = blobs, error, left

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._blobs, name)

        def tried(*told: Any, **more: Any) -> Any:
            if self.left.get(name, 0):
                self.left[name] -= 1
                raise self._error
            return act(*told, **more)

        return tried


def salvaged(remains: Remains, blobs: Any, trust: TrustStore) -> tuple[Salvage, list[SignedEvent]]:
    taken = list[SignedEvent]()

    def take(_broker: str, events: Sequence[SignedEvent], _proofs: object) -> int:
        taken.extend(events)
        return 0

    words: Any = SimpleNamespace(damaged=lambda _: None)
    made = Salvage([remains], "broker/b1", trust, blobs, words=words, take=take, now_ms=lambda: 1000)
    asyncio.run(made.run())
    return made, taken


@pytest.fixture
def r(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestRealm:
    monkeypatch.setattr(salvage, "_AGAIN_S", 0.0)
    return TestRealm(memory_network(), tmp_path)


def test_what_finds_no_room_on_a_full_disk_waits_for_it_and_ends_no_broker(r: TestRealm) -> None:
    full = StoreFullError("store.full", "the disk is full", next="make room")
    blobs = Failing(SqliteStore(":memory:", identity="0" * 16).blobs, full, put_chunk=2, keep=2, forget=2)
    made, _ = salvaged(remains := Remains(), blobs, r.trust())
    assert blobs.left == {"put_chunk": 0, "keep": 0, "forget": 0}
    assert [one.digest for one in blobs.all() if one.whole] == [DIGEST]
    assert blobs.get(BROKEN) is None
    assert (remains.all_taken, made.reads) == (True, False)


@pytest.mark.parametrize("act", ["put_chunk", "keep", "forget"])
def test_that_the_new_store_is_damaged_too_is_waited_for_by_nobody(r: TestRealm, act: str) -> None:
    wrong = damaged("b1.db", "a page is not what was written")
    remains, blobs = Remains(), Failing(SqliteStore(":memory:", identity="0" * 16).blobs, wrong, **{act: 1})
    with pytest.raises(FailedError, match="a page is not what was written"):
        salvaged(remains, blobs, r.trust())
    assert not remains.all_taken


def test_what_a_key_had_said_that_was_revoked_later_is_taken_over_and_nothing_of_a_stranger(r: TestRealm) -> None:
    """It was stored before that; and what is taken over is judged as what another broker has."""
    trust, eve, stranger = r.trust(), r.identity("operator/eve"), TestRealm(r.network, r.directory).identity("operator/x")
    said = Pen(eve).write("user/t", {"n": 1})
    trust.revoke(Pen(r.identity("root")).write(topic_of(eve.key.key_id, "root"), {"by": "root"}))
    chain = [one.raw for one in (*eve.chain, *stranger.chain)]
    _, taken = salvaged(
        Remains([said, Pen(stranger).write("user/t", {"n": 2})], chain),
        SqliteStore(":memory:", identity="0" * 16).blobs,
        trust,
    )
    assert [one.id for one in taken] == [said.id]
    assert trust.certificates() == [], "they are known to who takes over what they prove"


@scenario
async def test_who_was_attached_when_a_store_was_damaged_is_silent_by_the_word_of_its_broker(r: TestRealm) -> None:
    """It died in the same moment, as in a power cut, and no other broker tells what this one has said."""
    node, topic = "node/died", "broker/b1/session/node/died"
    b1, died = await r.broker("b1"), await r.client(node)
    await until(lambda: b1._store.winner(topic) is not None)
    for one in (b1, died):
        await r.stop(one)
    rows, kept = b1._store.rows(0, 10_000), [raw for _, raw in b1._store.certificates.all()]
    remains = Remains([row.read() for row in rows], kept)
    again = await r.broker("b1", identity=r.identities[b1], store=":memory:", born=False, remains=(remains,))
    await until(lambda: remains.all_taken)

    def said() -> str:
        row = again._store.winner(topic)
        return "" if row is None else from_data(SessionFact, row.read().event.data).state

    assert said() == "open"
    (head,) = decode_part(again._reporter.signed_head).events
    assert head.event.data["store"] == again._store.identity, "that of before is no head of this store"
    await until(lambda: said() == "silent", 25)
