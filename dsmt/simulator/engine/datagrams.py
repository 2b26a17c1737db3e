"""Simulated UDP: datagrams between hosts, which may be lost; fulfils `ports.datagrams.Datagrams`."""

from __future__ import annotations

from typing import Final

from dsmt.errors import TransportError
from dsmt.ports.datagrams import MAX_BYTES, Receive
from dsmt.simulator.engine.host import HostProcess
from dsmt.simulator.engine.network import Hosts

LOSS: Final = 0.01
FIRST_PORT: Final = 40_000


class SimEndpoint:
    """A bound socket of one process; fulfils `ports.datagrams.Endpoint`."""

    def __init__(self, hosts: Hosts, process: HostProcess, port: int, receive: Receive) -> None:
        self.port = port
        self._hosts, self._process, self._receive = hosts, process, receive

    def send(self, content: bytes, to: str) -> None:
        """Send to `host:port`."""
        here, there = self._process.host, self._hosts.at(to)
        here.loop.require_alive()
        if there is None or len(content) > MAX_BYTES or not Hosts.reachable(here, there) or here.stream.chance(LOSS):
            return
        when = here.loop.time() + self._hosts.latency(here, there)
        here.loop.call_in_at(None, when, self._arrive, content, to)

    def _arrive(self, content: bytes, to: str) -> None:
        here, there = self._process.host, self._hosts.at(to)
        if there is None or not Hosts.reachable(here, there):
            return
        endpoint = there.udp.get(int(to.rpartition(":")[2]))
        if isinstance(endpoint, SimEndpoint):
            endpoint.deliver(content, f"{here.address}:{self.port}")

    def deliver(self, content: bytes, sender: str) -> None:
        """A datagram has come for this socket."""
        process = self._process
        process.host.loop.call_in(process.sim, self._receive, content, sender)

    @property
    def closed(self) -> bool:
        """Whether the port is no more its own."""
        return self._process.host.udp.get(self.port) is not self

    def close(self) -> None:
        """Stop receiving and free the port."""
        self.vanish()

    def vanish(self) -> None:
        """The process is gone, or is done."""
        if self._process.host.udp.get(self.port) is self:
            del self._process.host.udp[self.port]

    def forget(self) -> None:
        """Its machine is without power, and has dropped every socket."""


class SimDatagrams:
    """One process's way to UDP."""

    def __init__(self, hosts: Hosts, process: HostProcess) -> None:
        self._hosts, self._process = hosts, process

    @staticmethod
    async def found(to: str) -> str:
        """There are no names."""
        return to

    async def bind(self, address: str, port: int, receive: Receive) -> SimEndpoint:
        """Bind to a local address; port 0 takes a free one. Raises `TransportError` (`datagrams.bind`)."""
        udp = self._process.host.udp
        if port == 0:
            port = next(number for number in range(FIRST_PORT, 65_536) if number not in udp)
        if port in udp:
            raise TransportError("datagrams.bind", f"{address}:{port} is in use", next="choose another port")
        endpoint = SimEndpoint(self._hosts, self._process, port, receive)
        udp[port] = endpoint
        self._process.hold(endpoint)
        return endpoint
