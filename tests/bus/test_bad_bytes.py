"""Bytes on the port that are no handshake, too many or for another: they harm nobody else."""

from __future__ import annotations

import asyncio
import os
import struct

import pytest

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import FailedError, TransportError
from dsmt.ports.bus import Draft
from dsmt.trust.keys import SecretKey, link_key
from tests.bus.realm import TestRealm, realm


def _on_the_port(test):
    @pytest.mark.real
    def run(tmp_path):
        async def within():
            network = ZmqNetwork()
            try:
                async with asyncio.timeout(45), realm(network, tmp_path) as r:
                    await test(r)
            finally:
                network.close()

        asyncio.run(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)
BYTES = {
    "garbage": os.urandom(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a greeting": _GREETING[:20],
    "a greeting and then nothing": _GREETING,
    "a greeting and a broken command": _GREETING + b"\x04\xc8\x05HELLO" + os.urandom(194),
    "a greeting and a frame of 2^62 bytes": _GREETING + b"\x02" + struct.pack(">Q", 2**62),
    "a greeting without encryption": _GREETING[:12] + b"NULL" + bytes(16) + bytes(32) + b"\x04\x26\x05READY",
    "nothing": b"",
}


@_on_the_port
async def test_bytes_that_are_no_handshake_harm_nobody(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    host, _, port = broker.address.rpartition(":")
    writers = []
    for content in BYTES.values():
        for _ in range(5):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(content)
            await writer.drain()
            writers.append(writer)
        await asyncio.wait_for(alice.publish(Draft("user/t", {})), 5)
    for writer in writers:
        writer.close()
    bob = await r.client("operator/bob")
    await bob.publish(Draft("user/t", {}))
    assert len(broker._sessions.by_peer) == 2


@_on_the_port
async def test_a_frame_over_the_limit_closes_its_own_connection_only(r: TestRealm):
    await r.broker()
    alice = await r.client("operator/alice")
    raw = await r.raw("operator/eve")
    raw.send(f.Publish(), bytes(3 * 1024 * 1024))
    await raw.closed()
    await alice.publish(Draft("user/t", {}))


@_on_the_port
async def test_a_broker_with_another_key_is_not_spoken_to(r: TestRealm):
    broker = await r.broker()
    identity = r.identity("operator/eve")
    with pytest.raises(TransportError) as refused:
        await r.network.connect(
            broker.address, identity.key.link_secret(), server_key=link_key(SecretKey(os.urandom(32)).public)
        )
    assert refused.value.code == "link.refused"
    assert broker.address in refused.value.message


@_on_the_port
async def test_a_port_in_use_is_said(r: TestRealm):
    broker = await r.broker()
    with pytest.raises(FailedError) as taken:
        await r.broker("b2", address=broker.address)
    assert taken.value.code == "start.port_in_use"


@_on_the_port
async def test_a_flood_from_one_session_does_not_starve_another(r: TestRealm):
    broker = await r.broker()
    alice, flood = await r.client("operator/alice"), await r.raw("operator/eve")
    garbage = tuple(os.urandom(200) for _ in range(64))
    stop = asyncio.Event()

    async def pour():
        while not stop.is_set():
            try:
                if not flood.link.send(pack(f.Publish(), *garbage)):
                    await flood.link.writable()
                await asyncio.sleep(0)
            except TransportError:
                return

    pouring = asyncio.create_task(pour())
    try:
        for _ in range(20):
            await asyncio.wait_for(alice.publish(Draft("user/t", {})), 10)
            assert len(broker._outgoing.listener._arrivals) <= 5001
    finally:
        stop.set()
        await pouring
