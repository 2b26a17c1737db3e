"""Links and datagrams between simulated machines: in order, held by a cut, closed by an end, and reset by a boot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import patch

import pytest

from dsmt.errors import FailedError, TransportError
from dsmt.ports.network import Closed, How, Received
from dsmt.simulator import datagrams, network
from dsmt.simulator.datagrams import FIRST_PORT, SimDatagrams, SimEndpoint
from dsmt.simulator.host import Host, HostProcess
from dsmt.simulator.keys import link_public
from dsmt.simulator.loop import current_loop
from dsmt.simulator.network import (
    BATCH,
    CONNECT_S,
    LATENCY_S,
    LOSS_S,
    RECOVERY_S,
    Hosts,
    SimFabric,
    SimLink,
    SimListener,
    SimNetwork,
)
from dsmt.simulator.rng import Stream
from dsmt.simulator.run import run

PORT = "10.0.0.2:7000"
SOON = 10 * LATENCY_S[1]


class Two:
    """Two machines, a broker's port on the second, and a client's link to it from the first."""

    link: SimLink
    listener: SimListener

    def __init__(self) -> None:
        loop, stream = current_loop(), Stream(7)
        self.net = Hosts(loop, stream.stream("net"))
        self.fabric = SimFabric(self.net, stream.stream("links"))
        self.hosts = []
        for number in (1, 2):
            host = Host(loop, f"h{number}", f"10.0.0.{number}", stream.stream("host", number), [])
            self.net.by_address[host.address] = host
            self.hosts.append(host)
        self.here, self.there = self.hosts
        self.got: list[object] = []
        self.heard: list[bytes] = []
        self.lost_at: float | None = None

    def start(self) -> None:
        """Start the broker, then the client; both go on until they are ended."""
        self.broker = self.there.start("broker", self._broker)
        self.client = self.here.start("client", self._client)

    async def _broker(self, process: HostProcess) -> None:
        self.listener = await SimNetwork(self.fabric, process).listen(
            PORT, b"b" * 32, admit=lambda key: key == link_public(b"c" * 32), writable=lambda _: None
        )
        while True:
            self.got += [(current_loop().time(), one) for one in await self.listener.receive()]

    async def _client(self, process: HostProcess) -> None:
        way = SimNetwork(self.fabric, process)
        self.link = await way.connect(PORT, b"c" * 32, server_key=link_public(b"b" * 32))
        try:
            while True:
                self.heard += [message[0] for message in await self.link.receive()]
        except TransportError:
            self.lost_at = current_loop().time()
            await asyncio.sleep(3600)

    def send(self, *words: bytes) -> None:
        """Have the client send."""
        for word in words:
            current_loop().call_in(self.client.sim, self.link.send, (word,))

    def tell(self, *words: bytes) -> None:
        """Have the broker send."""
        (peer,) = self.listener.links
        for word in words:
            current_loop().call_in(self.broker.sim, self.listener.send, peer, (word,))

    @property
    def words(self) -> list[bytes]:
        """What has come to the broker."""
        return [one.message[0] for _, one in self.got if isinstance(one, Received)]

    @property
    def ended(self) -> list[How]:
        """How the broker's links ended."""
        return [one.how for _, one in self.got if isinstance(one, Closed)]


def with_two(test: Callable[[Two], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in virtual time, on a network that loses nothing of itself."""

    def within() -> None:
        async def main() -> None:
            two = Two()
            two.start()
            await asyncio.sleep(SOON)
            await test(two)
            for host in two.hosts:
                host.cut = host.filtered = False
                host.kill_all()
            await asyncio.sleep(CONNECT_S + 1)

        with patch.object(network, "LOSS", 0.0), patch.object(datagrams, "LOSS", 0.0):
            run(main())

    within.__name__, within.__doc__ = test.__name__, test.__doc__
    return within


def cut(host: Host) -> None:
    host.cut = True


def heal(host: Host) -> None:
    host.cut = False
    for wire in host.wires:
        wire.healed()


WORDS = tuple(str(n).encode() for n in range(3 * BATCH))


@with_two
async def test_what_is_sent_comes_in_order_after_the_latency_of_the_two(two: Two) -> None:
    began = current_loop().time()
    two.send(*WORDS)
    two.tell(*WORDS)
    await asyncio.sleep(SOON)
    assert tuple(two.words) == tuple(two.heard) == WORDS
    latency = two.net.latency(two.here, two.there)
    assert latency == two.net.latency(two.there, two.here)
    assert LATENCY_S[0] <= latency <= LATENCY_S[1]
    assert two.got[0][0] - began == pytest.approx(latency, abs=0.002)


@with_two
async def test_what_was_lost_comes_later_and_nothing_overtakes_it(two: Two) -> None:
    began = current_loop().time()
    with patch.object(network, "LOSS", 1.0):
        two.send(b"lost")
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    two.send(b"next")
    await asyncio.sleep(LOSS_S / 2)
    assert two.words == []
    await asyncio.sleep(LOSS_S)
    assert two.words == [b"lost", b"next"]
    assert two.got[0][0] - began >= LOSS_S


@pytest.mark.parametrize("end", [0, 1])
def test_what_is_sent_during_a_cut_is_held_and_comes_in_order_after_it(end: int) -> None:
    @with_two
    async def scene(two: Two) -> None:
        cut(two.hosts[end])
        two.send(*WORDS[:2])
        two.tell(*WORDS[:2])
        await asyncio.sleep(60)
        assert (two.words, two.heard, two.ended, two.lost_at) == ([], [], [], None), "nobody is told of it"
        heal(two.hosts[end])
        two.send(WORDS[2])
        await asyncio.sleep(RECOVERY_S[0] / 2)
        assert two.words == []
        await asyncio.sleep(RECOVERY_S[1] + SOON)
        assert tuple(two.words) == WORDS[:3]
        assert tuple(two.heard) == WORDS[:2]

    scene()


@with_two
async def test_a_cut_of_both_is_over_when_both_are_there(two: Two) -> None:
    cut(two.here)
    cut(two.there)
    two.send(b"1")
    await asyncio.sleep(1)
    heal(two.here)
    await asyncio.sleep(5)
    assert two.words == []
    heal(two.there)
    await asyncio.sleep(RECOVERY_S[1] + SOON)
    assert two.words == [b"1"]


@with_two
async def test_a_process_that_ends_closes_its_links_and_frees_its_port(two: Two) -> None:
    two.client.sim.kill()
    await asyncio.sleep(SOON)
    assert two.ended == [How.PEER]
    two.broker.sim.kill()
    await asyncio.sleep(SOON)
    assert PORT not in two.fabric.listeners


@with_two
async def test_a_broker_that_ends_is_noticed_at_once(two: Two) -> None:
    two.broker.sim.kill()
    await asyncio.sleep(SOON)
    assert two.lost_at is not None


@with_two
async def test_a_machine_without_power_says_nothing_and_resets_its_links_when_it_has_booted(two: Two) -> None:
    two.there.power_off()
    two.send(b"into the dark")
    await asyncio.sleep(60)
    assert two.lost_at is None
    two.there.power_on()
    await asyncio.sleep(SOON)
    assert two.lost_at is not None
    assert two.words == []


@with_two
async def test_a_client_without_power_is_open_at_its_broker_until_it_has_booted(two: Two) -> None:
    two.here.power_off()
    await asyncio.sleep(60)
    assert two.ended == []
    two.here.power_on()
    await asyncio.sleep(SOON)
    assert two.ended == [How.PEER]


@with_two
async def test_a_middlebox_ends_a_link_at_both_ends(two: Two) -> None:
    (wire,) = two.here.wires
    cut(two.here)
    two.send(b"held")
    await asyncio.sleep(SOON)
    two.here.cut = False
    wire.torn()
    await asyncio.sleep(SOON)
    assert (two.ended, two.words) == ([How.PEER], [])
    assert two.lost_at is not None
    assert not wire.needed
    wire.torn()


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ({"address": "10.0.0.2:7001"}, "link.refused"),
        ({"address": "10.0.0.9:7000"}, "link.timeout"),
        ({"secret": b"x" * 32}, "link.refused"),
        ({"server_key": b"x" * 32}, "link.stranger"),
        ({"there": "cut"}, "link.timeout"),
        ({"there": "filtered"}, "link.timeout"),
        ({"here": "filtered"}, "link.timeout"),
        ({"there": "off"}, "link.timeout"),
    ],
)
def test_who_cannot_be_connected_to_is_told_as_what_it_is(about: dict[str, str], code: str) -> None:
    @with_two
    async def scene(two: Two) -> None:
        for end, word in (("here", about.get("here")), ("there", about.get("there"))):
            if word == "off":
                getattr(two, end).power_off()
            elif word is not None:
                setattr(getattr(two, end), word, True)
        told = {"secret": b"c" * 32, "server_key": link_public(b"b" * 32)}
        told |= {key: value for key, value in about.items() if key in told}
        began, found = current_loop().time(), []

        async def try_it(process: HostProcess) -> None:
            with pytest.raises(TransportError) as refused:
                await SimNetwork(two.fabric, process).connect(about.get("address", PORT), **told)  # type: ignore[arg-type]
            found.append((refused.value.code, current_loop().time() - began))

        two.here.start("late", try_it)
        await asyncio.sleep(CONNECT_S + 1)
        ((word, took),) = found
        assert word == code
        assert took >= CONNECT_S if code == "link.timeout" else took <= SOON

    scene()


@with_two
async def test_who_comes_during_a_cut_is_connected_when_it_is_over(two: Two) -> None:
    cut(two.there)
    found = []

    async def late(process: HostProcess) -> None:
        found.append(await SimNetwork(two.fabric, process).connect(PORT, b"c" * 32, server_key=link_public(b"b" * 32)))
        await asyncio.sleep(3600)

    two.here.start("late", late)
    await asyncio.sleep(CONNECT_S / 2)
    assert not found
    heal(two.there)
    await asyncio.sleep(1)
    assert len(found) == 1


@with_two
async def test_a_port_is_its_process_s_until_that_ends(two: Two) -> None:
    codes, ports = [], []

    async def second(process: HostProcess) -> None:
        way = SimNetwork(two.fabric, process)
        with pytest.raises(FailedError) as refused:
            await way.listen(PORT, b"b" * 32, admit=lambda _: True, writable=lambda _: None)
        codes.append(refused.value.code)
        for _ in range(2):
            made = await way.listen("10.0.0.2:0", b"b" * 32, admit=lambda _: True, writable=lambda _: None)
            ports.append(made.address)

    two.there.start("second", second)
    await asyncio.sleep(SOON)
    assert codes == ["start.port_in_use"]
    assert len(set(ports)) == 2
    assert all(one.startswith("10.0.0.2:") and not one.endswith(":0") for one in ports)
    assert list(two.fabric.listeners) == [PORT], "it has ended"


@with_two
async def test_a_datagram_comes_where_it_was_sent_unless_there_is_nobody(two: Two) -> None:
    came: list[tuple[bytes, str]] = []
    ends: dict[str, SimEndpoint] = {}

    async def one(process: HostProcess) -> None:
        way = SimDatagrams(two.net, process)
        ends[process.host.name] = await way.bind("", 0, lambda *told: came.append(told))
        with pytest.raises(TransportError):
            await way.bind("", FIRST_PORT, lambda *_: None)
        await asyncio.sleep(3600)

    processes = [host.start("udp", one) for host in two.hosts]
    await asyncio.sleep(SOON)

    async def sent(content: bytes, to: str = f"10.0.0.2:{FIRST_PORT}") -> list[tuple[bytes, str]]:
        came.clear()
        current_loop().call_in(processes[0].sim, ends["h1"].send, content, to)
        await asyncio.sleep(SOON)
        return list(came)

    assert await sent(b"1") == [(b"1", f"10.0.0.1:{FIRST_PORT}")]
    assert await sent(bytes(datagrams.MAX_BYTES)) != []
    assert await sent(bytes(datagrams.MAX_BYTES + 1)) == []
    assert await sent(b"2", "10.0.0.9:1") == []
    assert await sent(b"3", "10.0.0.2:1") == []
    two.there.filtered = True
    assert await sent(b"4") != [], "a middlebox lets datagrams pass"
    cut(two.there)
    assert await sent(b"5") == []
    two.there.cut = False
    with patch.object(datagrams, "LOSS", 1.0):
        assert await sent(b"6") == []
    processes[1].sim.kill()
    await asyncio.sleep(SOON)
    assert await sent(b"7") == []
    assert two.there.udp == {}
