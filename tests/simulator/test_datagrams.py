"""Datagrams between simulated machines: they come after the latency of the two, to whoever has the port, or are lost."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from dsmt.errors import TransportError
from dsmt.simulator.engine import datagrams
from dsmt.simulator.engine.datagrams import FIRST_PORT, SimDatagrams, SimEndpoint
from dsmt.simulator.engine.host import HostProcess
from dsmt.simulator.engine.loop import current_loop
from tests.simulator.two_machines import SOON, Two, cut, with_two


@with_two
async def test_a_datagram_comes_where_it_was_sent_unless_there_is_nobody(two: Two) -> None:
    came: list[tuple[bytes, str]] = []
    times: list[float] = []
    ends: dict[str, SimEndpoint] = {}

    async def one(process: HostProcess) -> None:
        way = SimDatagrams(two.net, process)
        ends[process.host.name] = await way.bind(
            "", 0, lambda *told: came.append(told) or times.append(current_loop().time())
        )
        await way.bind("", 0, lambda *_: None)
        with pytest.raises(TransportError) as refused:
            await way.bind("", FIRST_PORT, lambda *_: None)
        assert refused.value.code == "datagrams.bind"
        await asyncio.sleep(3600)

    processes = [host.start("udp", one) for host in two.hosts]
    await asyncio.sleep(SOON)

    async def sent(content: bytes, to: str = f"10.0.0.2:{FIRST_PORT}") -> list[tuple[bytes, str]]:
        came.clear()
        current_loop().call_in(processes[0].sim, ends["h1"].send, content, to)
        await asyncio.sleep(SOON)
        return list(came)

    began = current_loop().time()
    assert await sent(b"1") == [(b"1", f"10.0.0.1:{FIRST_PORT}")]
    assert 0 <= times[0] - began - two.net.latency(two.here, two.there) <= 0.001
    processes[1].sim.pause()
    assert await sent(b"paused") == []
    processes[1].sim.resume()
    await asyncio.sleep(0)
    assert [content for content, _ in came] == [b"paused"]
    assert await sent(bytes(datagrams.MAX_BYTES)) != []
    assert await sent(bytes(datagrams.MAX_BYTES + 1)) == []
    assert await sent(b"2", "10.0.0.9:1") == []
    assert await sent(b"3", "10.0.0.2:1") == []
    two.there.filtered = True
    assert await sent(b"4") != [], "a middlebox lets datagrams pass"
    cut(two.there)
    assert await sent(b"5") == []
    two.there.cut = False
    current_loop().call_in(processes[0].sim, ends["h1"].send, b"on its way", f"10.0.0.2:{FIRST_PORT}")
    await asyncio.sleep(0)
    cut(two.there)
    await asyncio.sleep(SOON)
    assert came == []
    two.there.cut = False
    with patch.object(datagrams, "LOSS", 1.0):
        assert await sent(b"6") == []
    processes[1].sim.kill()
    await asyncio.sleep(SOON)
    assert await sent(b"7") == []
    assert two.there.udp == {}
