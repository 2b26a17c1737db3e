"""Probes: a node's monitor answers a nonce with its signature, and others ask it when it has fallen silent (F4).

Rule 1: only the monitor's own signed answer to the nonce is `passed`: a stopped process still accepts connections.
    `passed` carries that answer and the nonce, so that every reader can check it.
Rule 2: above `RATE` in a second no request is answered.
Rule 3: the asker trusts the key that signed the node's attributes, which the bus has checked.
Rule 4: a result counts for two periods of the one who says it, and later than the node's last word only. So it is said
    each `PROBE_S` in the first `EARLY_S` of an episode of silence, later each `LATE_PROBE_S` and whenever it changes; each
    names its period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from msgspec.structs import replace

from dsmt.errors import DsmtError, TransportError, UnusableEventError
from dsmt.event.addresses import host_port
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.node import NodeAttributes, Probe
from dsmt.event.records import from_data, readable, to_data
from dsmt.monitors.rules.silence import ProbeTarget, Silence
from dsmt.ports.bus import Arrived, Bus, Delivery, Draft, Interest
from dsmt.ports.clock import Clock
from dsmt.ports.datagrams import Datagrams, DatagramSocket
from dsmt.ports.entropy import Entropy
from dsmt.ports.listening import arrivals, listen
from dsmt.trust.keys import Key, verify
from dsmt.trust.probing import NONCE_BYTES, Answered, answer, answered, request
from dsmt.trust.proven import Verify
from dsmt.view.liveness import LATE_PROBE_S, PROBE_S

TIMEOUT_S: Final = 1.0
SESSION: Final = "dsmt.session"
EARLY_S: Final = 60.0
LONGEST: Final = 500
"""Characters of what is said of a probe that failed: the address in it is another node's word."""
RATE: Final = 50
"""Requests answered in a second."""


class Responder:
    """Answers requests for one node. `said` is what it answers: its monitor's present attachment, and realm time."""

    def __init__(self, node: str, key: Key, clock: Clock, said: Callable[[], Answered]) -> None:
        self._node = node
        self._key = key
        self._clock = clock
        self._said = said
        self._endpoint: DatagramSocket | None = None
        self._second = 0.0
        self._count = 0

    async def bind(self, datagrams: Datagrams, address: str) -> int:
        """Listen on a free port of this address; the port. Raises `TransportError`."""
        self._endpoint = await datagrams.bind(address, 0, self._received)
        return self._endpoint.port

    def close(self) -> None:
        """Answer no more."""
        if self._endpoint is not None:
            self._endpoint.close()

    def _received(self, content: bytes, sender: str) -> None:
        now = self._clock.boottime()
        if now - self._second >= 1.0:
            self._second, self._count = now, 0
        self._count += 1
        if self._count > RATE or self._endpoint is None:
            return
        told = answer(content, self._key, self._key.public, self._node, self._said())
        if told is not None:
            self._endpoint.send(told, sender)


class _Place(NamedTuple):
    """Where a node's monitor answers, and by which key."""

    address: str
    key_id: bytes


class Prober:
    """Probes the silent nodes that brokers name to this monitor (F6)."""

    def __init__(
        self, node: str, *, bus: Bus, datagrams: Datagrams, clock: Clock, entropy: Entropy, check: Verify = verify
    ) -> None:
        self._node = node
        self._bus = bus
        self._datagrams = datagrams
        self._clock = clock
        self._entropy = entropy
        self._check = check
        self._silence = Silence(f"monitor/{node}")
        self._probing: dict[str, tuple[ProbeTarget, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Hear what is addressed to this monitor, and probe, for ever."""
        interest = Interest((), inbox=True, conflate=True, signals=False)
        async with asyncio.TaskGroup() as group:
            await listen(self._bus, interest, self._take, after=lambda: self._turn(group), anew=self._silence.forget)

    def _take(self, delivery: Delivery) -> None:
        if not isinstance(delivery, Arrived):
            return
        event = delivery.signed.event
        if event.type != SESSION:
            return
        with suppress(UnusableEventError):
            source = event.topic.split("/", 3)[3]
            self._silence.session(source, from_data(SessionFact, event.data), event.to, event.id)

    def _turn(self, group: asyncio.TaskGroup) -> None:
        """Begin and end probing as the targets of now ask for."""
        targets = {target.node: target for target in self._silence.targets()}
        for node, (target, probing) in list(self._probing.items()):
            if targets.get(node) != target:
                probing.cancel()
                del self._probing[node]
        for node, target in targets.items():
            if node not in self._probing:
                self._probing[node] = (target, group.create_task(self._probe(target)))

    async def _probe(self, target: ProbeTarget) -> None:
        """Probe one node until its silence ends."""
        await asyncio.sleep(max(0.0, (target.since_ms - self._bus.now_ms()) / 1000))
        first, before, again, at = self._clock.boottime(), None, 0.0, None
        while True:
            began = self._clock.boottime()
            at = at or await self._find(target.node)  # a store that is not whole yet may have yet to learn it
            told = await self._once(target.node, at)
            every = PROBE_S if began - first < EARLY_S else LATE_PROBE_S
            if told.result != before or began >= again:
                before, again = told.result, began + every - PROBE_S / 2
                topic = f"node/{target.node}/probe/{self._node}"
                data = to_data(replace(told, every_s=every))
                self._bus.emit(Draft(topic, data, subject=f"node/{target.node}", cause=(target.cause,)))
            await asyncio.sleep(max(0.0, PROBE_S - (self._clock.boottime() - began)))

    async def _find(self, node: str) -> _Place | None:
        """Where its monitor answers, as it said last: it says nothing while it is not heard. None if it has not said so."""
        interest, said = (
            Interest((f"node/{node}/attributes",), conflate=True, signals=False, follow=False),
            list[SignedEvent](),
        )
        with suppress(DsmtError):
            said = await arrivals(self._bus, interest)
        return next((place for one in reversed(said) if (place := _place(one)) is not None), None)

    async def _once(self, node: str, at: _Place | None) -> Probe:
        """One probe."""
        if at is None:
            return _failed("its monitor has named no port for probes")
        nonce = self._entropy.bytes(NONCE_BYTES)
        answer_to: asyncio.Future[tuple[Answered, bytes]] = asyncio.get_running_loop().create_future()

        def receive(content: bytes, _sender: str) -> None:
            told = answered(content, nonce, node, at.key_id, self._check)
            if told is not None and not answer_to.done():
                answer_to.set_result((told, content))

        endpoint: DatagramSocket | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                address = await self._datagrams.found(at.address)
                began = self._clock.boottime()
                endpoint = await self._datagrams.bind("::" if address.startswith("[") else "0.0.0.0", 0, receive)  # noqa: S104 - any way out
                endpoint.send(request(nonce), address)
                said, content = await answer_to
        except TimeoutError:
            return _failed(f"no signed answer from {at.address} in {TIMEOUT_S:g} s")
        except TransportError as error:
            return _failed(str(error))
        finally:
            if endpoint is not None:
                endpoint.close()
        took = self._clock.boottime() - began
        return Probe(
            result="passed",
            reason="signed answer to the nonce",
            round_trip_s=round(took, 6),
            attachment=said.attachment,
            nonce=nonce,
            answer=content,
        )


def _place(signed: SignedEvent) -> _Place | None:
    said = readable(NodeAttributes, signed.event.data)
    if said is None or said.udp_port is None:
        return None
    return _Place(host_port(said.address, said.udp_port), signed.key_id)


def _failed(why: str) -> Probe:
    return Probe(result="failed", reason=why[:LONGEST], round_trip_s=None)
