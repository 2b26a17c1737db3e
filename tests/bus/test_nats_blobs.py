"""The depot on NATS, and who would fill it or spoil what is there, on a real server with its gate (rule D2)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from dsmt.bus.nats import blobs, depot, room
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.link import ApiError, Publication
from dsmt.bus.nats.streams import LOW_MS, StreamMessage, close_blobs, head, last_of_each, last_on
from dsmt.errors import FailedError
from dsmt.ports.bus import Draft
from tests.bus.realm import Facts
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import told, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]
ALICE, BOB = "operator/alice", "operator/bob"
CONTENT = os.urandom(3 * depot.PIECE)
DIGEST = hashlib.sha256(CONTENT).digest()


async def chunks(content: bytes = CONTENT) -> AsyncIterator[bytes]:
    yield content


async def got(bus: NatsBus, digest: bytes = DIGEST) -> bytes:
    return b"".join([piece async for piece in bus.get_blob(digest)])


async def on(k: Kept, digest: bytes = DIGEST) -> list[str]:
    """The subjects of all pieces that there are of a blob."""
    link = await k.servers.administrator()
    try:
        return [one.subject for one in await last_of_each(link, k.subjects.blobs, [k.subjects.blob(digest)])]
    finally:
        await link.close()


async def pieces_of(bus: NatsBus, k: Kept) -> list[StreamMessage]:
    """The same, over the link of who has one already."""
    return await last_of_each(await bus.held(), k.subjects.blobs, [k.subjects.blob(DIGEST)])


async def come(k: Kept, wanted: Callable[[list[str]], bool], digest: bytes = DIGEST) -> None:
    """Wait until the pieces of a blob are as wanted."""

    async def came() -> bool:
        return wanted(await on(k, digest))

    await told(came, "the pieces that are wanted", 20.0)


@on_nats
async def test_nothing_takes_the_place_of_a_piece_of_a_blob(k: Kept) -> None:
    """A server answers on whatever subject it is told to; what its operator itself sends there is not taken either."""
    alice, bob, own = await k.bus(k.identities[ALICE]), await k.link(BOB), await k.link(ALICE)
    await alice.put_blob(chunks(), DIGEST)
    pieces = await on(k)
    assert len(pieces) == 4
    for subject in pieces:
        await bob.send(Publication(k.subjects.event(BOB, "user/s", fact=False), b"x", {}), subject)
        with pytest.raises(ApiError):
            await own.publish(Publication(subject, b"7", {}))
    await bob.publish(Publication(k.subjects.event(BOB, "user/s", fact=False), b"last", {}))
    assert await got(alice) == CONTENT


@on_nats
async def test_a_blob_that_somebody_says_is_there_and_is_not_keeps_nobody_from_putting_it(k: Kept) -> None:
    bob, alice = await k.link(BOB), await k.bus(k.identities[ALICE])
    wrong = [Publication(k.subjects.piece(BOB, DIGEST, f"{n}"), b"wrong", {}) for n in range(3)]
    for one in (*wrong, Publication(k.subjects.piece(BOB, DIGEST, "count"), b"3", {})):
        await bob.publish(one)
    await bob.send(
        Publication(k.subjects.event(BOB, "user/s", fact=False), b"x", {}), k.subjects.piece(ALICE, DIGEST, "count")
    )
    await come(k, lambda pieces: not pieces)
    await alice.put_blob(chunks(), DIGEST)
    assert await got(alice) == CONTENT
    assert len(await on(k)) == 4


@on_nats
async def test_what_was_put_wrong_while_no_gate_was_there_keeps_nobody_from_putting_it_and_goes_when_one_is(k: Kept) -> None:
    alice, bob = await k.bus(k.identities[ALICE]), await k.link(BOB)
    await k.gates.close(0)
    for name, raw in (("0", b"wrong"), ("count", b"1")):
        await bob.publish(Publication(k.subjects.piece(BOB, DIGEST, name), raw, {}))
    await alice.put_blob(chunks(), DIGEST)
    assert await got(alice) == CONTENT
    assert len(await pieces_of(alice, k)) == 6
    k.gates.open(0)
    await come(k, lambda pieces: len(pieces) == 4)
    assert await got(alice) == CONTENT


@on_nats
async def test_what_stands_in_the_way_of_a_piece_is_told_and_not_in_the_way_of_the_next_who_puts_it(
    k: Kept,
) -> None:
    alice, real = await k.bus(k.identities[ALICE]), os.urandom
    taken = k.subjects.piece(ALICE, DIGEST, f"{b'same'.hex()}-1")
    bob = await k.link(BOB)
    await bob.send(Publication(k.subjects.event(BOB, "user/s", fact=False), b"x", {}), taken)
    await come(k, lambda pieces: pieces == [taken])
    depot.os.urandom = lambda count: b"same" if count == 4 else real(count)  # type: ignore[assignment]
    try:
        with pytest.raises(FailedError, match="other bytes stand where a piece of it is to be") as refused:
            await alice.put_blob(chunks(), DIGEST)
    finally:
        depot.os.urandom = real
    assert refused.value.next == "put it again"
    await alice.put_blob(chunks(), DIGEST)
    assert await got(alice) == CONTENT


def test_while_little_is_left_of_a_disk_nobody_puts_a_blob_whatever_rule_it_minds(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.05)

    async def within(k: Kept) -> None:
        alice, link = await k.bus(k.identities[ALICE]), await k.link(ALICE)
        other = hashlib.sha256(b"other").digest()
        await alice.put_blob(chunks(), DIGEST)
        k.gates.low = True
        for n in range(10_000):  # until it is heard of
            try:
                await link.publish(Publication(k.subjects.piece(ALICE, other, f"{n}"), b"x" * 1000, {}))
            except ApiError:
                break
        else:
            pytest.fail("an operator puts as much as it likes")
        with pytest.raises(FailedError, match="little is left of a server's disk, which is kept for events") as refused:
            await alice.put_blob(chunks(b"other"), other)
        assert refused.value.code == "depot.full"
        assert await got(alice) == CONTENT
        await alice.publish(Draft("user/t", {"n": 1}))
        k.gates.low = False
        async with asyncio.timeout(20):
            while not await last_on(
                await k.servers.administrator(), k.subjects.blobs, k.subjects.piece(ALICE, other, "count")
            ):
                try:
                    await alice.put_blob(chunks(b"other"), other)
                except FailedError:
                    await asyncio.sleep(0.05)
        assert await got(alice, other) == b"other"

    on_nats(within)(tmp_path)


@on_nats
async def test_a_gate_has_a_depot_of_before_take_nothing_in_the_place_of_a_piece_either(k: Kept) -> None:
    link, asked = await k.servers.administrator(), f"STREAM.INFO.{k.subjects.blobs}"
    before = (await link.api(asked))["config"] | {"discard": "old", "discard_new_per_subject": False}
    await link.api(f"STREAM.UPDATE.{k.subjects.blobs}", before)
    own = await k.link(ALICE)
    for n in range(3):  # so pieces were called
        await own.publish(
            Publication(k.subjects.piece(ALICE, DIGEST, f"{n}"), CONTENT[n * depot.PIECE :][: depot.PIECE], {})
        )
    await own.publish(Publication(k.subjects.piece(ALICE, DIGEST, "count"), b"3", {}))
    await k.gates.close(0)
    k.gates.open(0)
    async with asyncio.timeout(20):
        while not (await link.api(asked))["config"].get("discard_new_per_subject"):
            assert not link.lost.done()
    assert await got(await k.bus(k.identities[BOB])) == CONTENT


@on_nats
async def test_the_word_of_a_server_that_is_given_up_is_forgotten_and_that_of_one_is_not_another_s(k: Kept) -> None:
    link, now = await k.servers.administrator(), time.time_ns() // 10**6  # the gate says its own word by that, too

    async def closed() -> bool:
        return (await link.api(f"STREAM.INFO.{k.subjects.blobs}"))["config"]["max_bytes"] == 1

    await close_blobs(link, k.subjects, "b8", low=True, now_ms=now)
    await close_blobs(link, k.subjects, "b9", low=True, now_ms=now)
    await close_blobs(link, k.subjects, "b9", low=False, now_ms=now + 1000)
    assert await closed()
    await close_blobs(link, k.subjects, "b9", low=False, now_ms=now + LOW_MS)
    assert not await closed()


def test_while_little_is_left_of_a_disk_blobs_go_that_nothing_names_before_any_history(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.05)
    monkeypatch.setattr(room, "LEAST_BYTES", 2**30)

    async def within(k: Kept) -> None:
        alice, controller = await k.bus(k.identities[ALICE]), await k.bus(k.made.identity("controller/c1"))
        contents = [os.urandom(1000) for _ in range(2)]
        named, unnamed = (hashlib.sha256(one).digest() for one in contents)
        await controller.publish(Draft("service/web/barrier/b/released", {"of": named.hex()}, version=1))
        for content, digest in zip(contents, (named, unnamed), strict=True):
            await alice.put_blob(chunks(content), digest)
        k.gates.low = True
        async with asyncio.timeout(20):
            with suppress(FailedError):  # then it has looked
                while True:
                    await alice.put_blob(chunks(content := os.urandom(10)), hashlib.sha256(content).digest())
        assert len(await on(k, unnamed)) == 2, "what was put within ten minutes is not named yet, perhaps"
        monkeypatch.setattr(blobs, "UNFINISHED_MS", -10_000)
        await come(k, lambda pieces: not pieces, unnamed)
        assert len(await on(k, named)) == 2

    on_nats(within)(tmp_path)


def test_that_little_is_left_of_a_disk_is_said_again_while_it_is_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.05)
    monkeypatch.setattr(blobs, "SAY_S", 0.2)

    async def within(k: Kept) -> None:
        link = await k.servers.administrator()

        said_ms = {0}

        async def is_said_twice() -> bool:
            stream = await link.api(f"STREAM.INFO.{k.subjects.blobs}")
            said_ms.add(int((stream["config"].get("metadata") or {}).get("low-s0", 0)))
            return len(said_ms) > 2

        k.gates.low = True
        await told(is_said_twice, "that it is said again", 20.0)  # or it would be forgotten after five minutes

    on_nats(within)(tmp_path)


def test_what_a_former_spec_of_a_service_names_is_kept_on_a_full_disk_for_slots_may_go_back_to_it(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.05)
    monkeypatch.setattr(blobs, "UNFINISHED_MS", -10_000)

    async def within(k: Kept) -> None:
        alice = await k.bus(k.identities[ALICE])
        contents = [os.urandom(1000) for _ in range(3)]
        former, present, unnamed = digests = [hashlib.sha256(one).digest() for one in contents]
        facts = Facts(alice)
        for digest in (former, present):
            spec = {"artifact": {"sha256": digest.hex()}}
            await facts.publish("service/web/spec", {"spec": spec, "by": "a", "reason": ""})
        for content, digest in zip(contents, digests, strict=True):
            await alice.put_blob(chunks(content), digest)
        k.gates.low = True
        await come(k, lambda pieces: not pieces, unnamed)
        assert [len(await on(k, one)) for one in (former, present)] == [2, 2]

    on_nats(within)(tmp_path)


def test_what_little_history_there_is_stays_though_something_else_fills_the_disk(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.05)
    real, looks = room.NatsRoom._give_way, []

    async def looked(self: room.NatsRoom) -> None:
        await real(self)
        looks.append(1)

    monkeypatch.setattr(room.NatsRoom, "_give_way", looked)

    async def within(k: Kept) -> None:
        alice = await k.bus(k.identities[ALICE])
        for n in range(20):
            await alice.publish(Draft("user/t", {"n": n}))
        k.gates.low = True
        await until(lambda: len(looks) > 3, 20)
        assert (await head(await k.servers.administrator(), k.subjects.history)).first == 1

    on_nats(within)(tmp_path)
