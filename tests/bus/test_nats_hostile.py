"""What NATS or a member may put where a source reads, and ends nobody."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats import gate
from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.consumer import PAGE_BYTES
from dsmt.bus.nats.gate import NatsGate
from dsmt.bus.nats.link import ApiError, Publication, any_server
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import StreamMessage, last_of_each, last_on
from dsmt.bus.nats.subscription import NatsSubscription
from dsmt.bus.wire.nats_tokens import connection_name, read_connection_name
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.kinds.numbers import GREATEST_COUNT
from dsmt.ports.bus import Bookmark, Draft, Interest, Start
from dsmt.ports.realm import About
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm, TrustStore
from tests.bus.realm import reading
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import told

SUBJECTS = Subjects("r")
LONG = 30_000


def subscription() -> NatsSubscription:
    opener: Any = SimpleNamespace(subjects=SUBJECTS, revocations=0)
    return NatsSubscription(
        "operator/alice",
        Interest(("user/",), bookmarks=True),
        opener=opener,
        held=lambda: asyncio.sleep(3600),  # type: ignore[arg-type, return-value]
        now=lambda: 0.0,
        now_ms=lambda: 1000,
    )


@pytest.mark.parametrize("raw", [b"", b'{"type":"io.nats.jetstream.api.v1.info"}', b"-1", b"\xff", b"9" * 5000, b"1_0"])
def test_what_a_server_answers_where_a_reader_has_its_tokens_ends_no_reader(raw: bytes) -> None:
    """Who asks a server says on which subject it answers, and needs no permission for that."""

    async def play() -> None:
        one, link = subscription(), Any
        one.mark(3)
        place = SUBJECTS.mark("operator/alice", one._number, begins=False)
        await one._one(link, StreamMessage(place, 1, 1000, raw))  # type: ignore[arg-type]
        await one._one(link, StreamMessage(place, 2, 1000, b"4"))  # type: ignore[arg-type]  # nobody has asked for it yet
        await one._one(link, StreamMessage(place, 3, 1000, b"3"))  # type: ignore[arg-type]
        one._deliveries.hand_on()
        marks = [told for told in await one._deliveries.next() if isinstance(told, Bookmark)]
        assert [mark.token for mark in marks] == [3]

    asyncio.run(play())


def test_that_no_certificates_are_stored_is_tried_again_by_who_attaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of a server may be full: who has just been born has none there yet."""
    key = SecretKey(os.urandom(32))
    trust = TrustStore(Realm(name="r", roots=(key.public,)))
    publisher = root_issued("operator/alice", key, key=key, now_s=0, serial=bytes(16))

    class Link:
        async def publish(self, *_: object) -> None:
            raise ApiError(10047, "insufficient storage resources available")

    async def nothing(*_: object) -> list[StreamMessage]:
        return []

    monkeypatch.setattr("dsmt.bus.nats.opener.held_on", nothing)
    link: Any = Link()
    with pytest.raises(TransportError, match="insufficient storage"):
        asyncio.run(NatsOpener(trust, SUBJECTS, lambda: 0.0).introduce(link, publisher))


@pytest.mark.parametrize("numbers", [(GREATEST_COUNT + 1, 1, 1), (1, GREATEST_COUNT + 1, 1), (1, 1, GREATEST_COUNT + 1)])
def test_a_connection_that_names_a_number_of_which_no_fact_can_tell_is_no_source(numbers: tuple[int, int, int]) -> None:
    """A gate's words of one turn are said together: none of the others would be."""
    attachment, incarnation, pid = numbers
    with pytest.raises(UnusableEventError):
        read_connection_name(connection_name("operator/a", About(pid, "1", ""), attachment, incarnation), "r")


@pytest.mark.parametrize("authority", ["", "no certificate"])
@pytest.mark.parametrize("server", ["x:99999999", "[::1:1", "a..b:1", "", ":1", "[zz]:1"])
def test_what_an_operator_gave_as_the_address_of_a_server_and_is_none_ends_nobody_who_tries_it(
    server: str, authority: str
) -> None:
    realm = NatsRealm((server,), 1, synced=False, authority=authority)
    with pytest.raises(TransportError) as refused:
        asyncio.run(any_server((server,), 0, realm, key=SecretKey(os.urandom(32)), name="operator/a"))
    assert refused.value.code == "link.lost"


def test_who_asks_a_gate_that_is_not_open_is_not_kept_waiting_longer_than_its_server_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a majority nobody is let in for hours, and all ask again and again: each question would stay in memory."""

    async def play() -> None:
        made = NatsGate.__new__(NatsGate)
        made._open, made._answering = asyncio.Event(), set()
        message: Any = SimpleNamespace(data=b"")
        for _ in range(3):
            await made._asked(message)
        assert len(made._answering) == 3
        await asyncio.wait(set(made._answering), timeout=20)
        assert not made._answering

    asked: Any = SimpleNamespace(name="node/n1 0 0 0 1 - says")
    monkeypatch.setattr(gate, "read_asked", lambda _: asked)
    monkeypatch.setattr(gate, "CALLOUT_S", 0.01, raising=False)
    asyncio.run(play())


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_an_answer_that_is_larger_than_a_page_keeps_nobody_from_reading_on(k: Kept) -> None:
    """A server is asked which subjects there are, some of them long, and to say so where who asks speaks."""
    alice, bob = [await k.bus(k.identities[name]) for name in ("operator/alice", "operator/bob")]
    node, history = await k.link("node/n1"), k.subjects.history
    for n in range(PAGE_BYTES // LONG + 1):
        await node.publish(Publication(k.subjects.mark("node/n1", "x" * LONG + str(n), begins=False), b"", {}))
    beat = k.subjects.event("node/n1", "node/n1/heartbeat", fact=False)
    await node.send(node.question(f"STREAM.INFO.{history}", {"subjects_filter": ">"}), beat)
    await told(lambda: last_on(node, history, beat), "the answer in the stream", 10.0)
    await alice.publish(Draft("user/t", {"n": 1}))
    async with reading(bob, "/", start=Start.HISTORY) as got:
        await got.until(lambda g: g.of("user/t"))


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_what_a_thousand_are_said_to_have_offered_keeps_nobody_from_replacing_a_fact(k: Kept) -> None:
    """A server gives the last of a thousand subjects at once, and says no where they are more."""
    alice, node = await k.bus(k.identities["operator/alice"]), await k.link("node/n1")
    first = alice.emit(Draft("user/f", {"n": 1}, version=1))
    await first.acknowledged()
    for n in range(0, 1100, 100):
        said = [k.subjects.offered("node/n1", f"x{n + more}", "user/f") for more in range(100)]
        await node.publish(*(Publication(one, b"x", {}) for one in said))
    bob = await k.bus(k.identities["operator/bob"])
    assert (await bob.publish(Draft("user/f", {"n": 2}, replaces=first))).level is bob.can.level
    both = [k.subjects.offered_on("user/f"), k.subjects.on("user/f")]
    assert len(await last_of_each(node, k.subjects.history, both)) == 1102
