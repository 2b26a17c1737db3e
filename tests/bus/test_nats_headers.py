"""Headers and subjects on NATS that no source of dsmt writes, and who reads what bears them."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats.headers import headers_of, row_in_source, size_of
from dsmt.bus.nats.link import NatsLink, Publication
from dsmt.bus.nats.streams import StreamMessage, delivered, last_of_each
from dsmt.errors import TransportError
from dsmt.ports.bus import Draft, Start
from tests.bus.realm import reading
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import told

FALSE_ROW = (
    b"NATS/1.0\r\nXNats-Stream-SourceNats-Stream-Source: x\r\n Nats-Stream-Source: H 9 a\r\n"
    b"Nats-Stream-Source: H 99999 a\r\nX: YZ"
)
"""A server sees no such header behind the first of these lines, and the row that it adds ends up in the last one."""
SAID = (b"N", b"NATS/1.0", b"NATS/1.0 \xff\xff", b"\xff\x00", b"NATS/1.0\r\n Nats-Stream-Source: x\r\n\r\n", FALSE_ROW)


@pytest.mark.parametrize("block", [b"", *SAID, b"NATS/1.0 1", b"NATS/1.0\r\n\xff: \xff\r\n\r\n", b"NATS/1.0\r\n:\r\n\r\n"])
def test_whatever_stands_above_a_message_is_read_and_names_no_row(block: bytes) -> None:
    assert row_in_source(headers_of(block)) == 0


def test_what_a_server_adds_is_read_and_not_what_looks_like_it() -> None:
    added = b"Nats-Stream-Source: H-r 15 > > d.r.s.x\r\nNats-Msg-Size: 7\r\n\r\n"
    assert row_in_source(headers_of(b"NATS/1.0\r\nA: b\r\n" + added)) == 15
    assert size_of(headers_of(b"NATS/1.0\r\n" + added), 9) == 7
    assert row_in_source(headers_of(b"NATS/1.0\r\nA: b" + added)) == 0
    assert row_in_source(headers_of(FALSE_ROW[:-2] + added)) == 0
    assert size_of(headers_of(b"NATS/1.0\r\nNats-Msg-Size: 1\r\nA: b" + added), 9) == 9
    assert headers_of(b"NATS/1.0 404 No Messages\r\n\r\n") == {"Status": "404", "Description": "No Messages"}
    assert headers_of(b"NATS/1.0 100\r\nA:  b \r\n\r\n") == {"Status": "100", "Description": "", "A": "b"}


def test_what_a_message_takes_is_its_subject_all_its_headers_and_what_it_says() -> None:
    row, block = "$JS.ACK.F.c.1.5.5.1000000.0", b"NATS/1.0\r\nA: b\r\nA: c\r\nNats-Msg-Size: 7\r\n\r\n"
    message: Any = SimpleNamespace(subject="d." + "s" * 40_000, reply=row, headers=headers_of(block), data=b"123")
    assert delivered(message).size == 40_002 + len(block) + 3
    assert delivered(message, sizes=True).size == 40_002 + len(block) + 7
    message.headers = None
    assert delivered(message).size == 40_005


async def sent(link: NatsLink, subject: bytes, block: bytes, payload: bytes = b"x", reply: bytes = b"") -> None:
    """Publish what the library would not."""
    name, sizes = (b"HPUB", b"%d " % len(block)) if block else (b"PUB", b"")
    line = b"%b %b %b %b%d\r\n%b%b\r\n" % (name, subject, reply, sizes, len(block + payload), block, payload)
    await link._client._send_command(line)
    await link._client._flush_pending()
    await link.heard()


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_headers_and_subjects_that_no_source_writes_keep_nobody_from_reading_what_others_say(k: Kept) -> None:
    """Each of them ended readers, or their links, again and again; the last one hid all facts that came after it."""
    alice, bob = [await k.bus(k.identities[name]) for name in ("operator/alice", "operator/bob")]
    node, gate, link = await k.link("node/n1"), k.gates.running[0], await bob.held()
    beat, fact = [k.subjects.event("node/n1", "node/n1/heartbeat", fact=one) for one in (False, True)]
    async with reading(bob, "/") as got:
        for header in ({"Status": "100"}, {"Status": "409"}, {"Nats-Msg-Size": "x"}):
            for subject in (beat, fact):
                await node.publish(Publication(subject, b"x", header))
        for end in (b"\xff", b"a\x0bb", b"a\x0cb"):
            await sent(node, k.subjects.offered("node/n1", "node/n1", "x").encode() + b"." + end, b"")
        for reply in (b"\xff", b"a\x0cb"):
            await sent(node, beat.encode(), b"", reply=reply)
        for block in SAID:
            for subject in (beat, fact):
                await sent(node, subject.encode(), block)
        await alice.publish(Draft("user/t", {"n": 1}))
        await got.until(lambda g: g.of("user/t"))
    async with reading(bob, "/") as got:
        await alice.publish(Draft("user/f", {"n": 2}, version=1))
        await got.until(lambda g: g.of("user/f"))
    async with reading(bob, "/", start=Start.HISTORY) as got:
        await got.until(lambda g: g.of("user/t") and g.of("user/f"))
    assert (k.gates.running[0], await bob.held()) == (gate, link)


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_who_looks_at_what_stands_is_told_no_end_of_it_by_what_somebody_has_published(k: Kept) -> None:
    """A source judges itself by that, and learns by it who has signed."""
    alice, node = await k.bus(k.identities["operator/alice"]), await k.link("node/n1")
    await node.publish(Publication(k.subjects.event("node/n1", "node/n1/heartbeat", fact=True), b"x", {"Status": "204"}))
    await alice.publish(Draft("user/f", {"n": 1}, version=1))
    both = [k.subjects.event("node/n1", "node/n1/heartbeat", fact=True), k.subjects.event(alice.source, "user/f", fact=True)]

    async def found(stream: str) -> bool:
        return [one.subject for one in await last_of_each(node, stream, both)] == both

    for stream in (k.subjects.history, k.subjects.facts):
        await told(partial(found, stream), f"both in {stream}", 10.0)


async def _told_by(headers: dict[str, str]) -> list[StreamMessage]:
    """What is found on a subject, where a server answers with these headers alone."""
    inbox: Any = None
    link: Any = SimpleNamespace(question=lambda *_: "", next_of=_answer(SimpleNamespace(headers=headers, data=b"")))
    link.listen, link.send, link.deaf = _answer((inbox, inbox)), _answer(None), _answer(None)
    return await last_of_each(link, "F-test", ["o.>"])


def _answer(told: Any) -> Any:
    async def answer(*_: Any) -> Any:
        return told

    return answer


def test_that_nobody_answers_is_no_message_though_it_names_a_subject() -> None:
    """A server (2.15) names there what was asked: while one of three was killed each look ended its asker."""
    with pytest.raises(TransportError, match="no server has stream F-test now") as found:
        asyncio.run(_told_by({"Status": "503", "Description": "", "Nats-Subject": "$JS.API.DIRECT.GET.F-test"}))
    assert "A lost disk" in found.value.next
    assert asyncio.run(_told_by({"Status": "204"})) == []
