"""Two simulated machines with a link between them, for tests of what connects machines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import patch

from dsmt.errors import TransportError
from dsmt.ports.network import Closed, How, Peer, Received
from dsmt.simulator.engine import datagrams, network
from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.engine.keys import link_public
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.network import CONNECT_S, LATENCY_S, Hosts, SimFabric, SimLink, SimListener, SimNetwork
from dsmt.simulator.engine.rng import Stream
from dsmt.simulator.engine.run import run

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
        self.roomy: list[Peer] = []
        """Who had room again, as the broker was told."""

    def start(self) -> None:
        """Start the broker, then the client; both go on until they are ended."""
        self.broker = self.there.start("broker", self.serve)
        self.client = self.here.start("client", self._client)

    async def serve(self, process: HostProcess) -> None:
        self.listener = await SimNetwork(self.fabric, process).listen(
            PORT, b"b" * 32, admit=lambda key: key == link_public(b"c" * 32), writable=self.roomy.append
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
