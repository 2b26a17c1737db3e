"""Probes: a node's monitor answers a nonce with its signature, and others ask it when it has fallen silent (F4).

Rule 1: only the monitor's own signed answer to the nonce is `passed`: a stopped process still accepts connections.
Rule 2: a request is as long as its answer, so that nobody can be flooded through us; above `RATE` none is answered.
Rule 3: the asker trusts the key that signed the node's attributes, which the bus has checked.
Rule 4: a result is published first in each episode of silence, whenever it changes, and each `AGAIN_S`: only one that is
    later than the node's last word counts, which an agent may have said since then, and it lives for ten minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import cbor2

from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.codec import assemble, canonical, open_envelope, protected_header, sig_structure
from dsmt.event.records import NodeAttributes, Probe, Session, from_data, to_data
from dsmt.monitors.silence import ROLES, Silence, Target
from dsmt.ports.bus import Arrived, Bus, Delivery, Draft, Interest
from dsmt.ports.clock import Clock
from dsmt.ports.datagrams import Datagrams, Endpoint
from dsmt.ports.entropy import Entropy
from dsmt.ports.listening import listen
from dsmt.trust.keys import Key, key_id_of, verify

TIMEOUT_S: Final = 1.0
EACH_S: Final = 2.0
AGAIN_S: Final = 60.0
NONCE_BYTES: Final = 16
REQUEST_BYTES: Final = 320
RATE: Final = 50
"""Requests answered in a second."""

Verify = Callable[[int, bytes, bytes, bytes], bool]


def request(nonce: bytes) -> bytes:
    """A request, padded to the length of its answer."""
    bare = canonical({"nonce": nonce, "pad": b""})
    return canonical({"nonce": nonce, "pad": bytes(max(0, REQUEST_BYTES - len(bare) - 2))})


def answer(content: bytes, key: Key, node: str, attachment: int) -> bytes | None:
    """The signed answer to a request (COSE_Sign1); None when it is none."""
    if not REQUEST_BYTES - 8 <= len(content) <= REQUEST_BYTES + 8:
        return None
    nonce = _map(content).get("nonce")
    if type(nonce) is not bytes or len(nonce) != NONCE_BYTES:
        return None
    body = canonical({"nonce": nonce, "node": node, "attachment": attachment, "key": key.public})
    protected = protected_header(key.algorithm, key.key_id)
    return assemble(protected, body, key.sign(sig_structure(protected, body)))


def attachment_in(content: bytes, nonce: bytes, target: Target, check: Verify) -> int | None:
    """The attachment in an answer to our nonce by the target's own key; None when it is not that."""
    try:
        envelope = open_envelope(content)
    except UnusableEventError:
        return None
    told = _map(envelope.payload)
    public = told.get("key")
    if envelope.key_id != target.key_id or type(public) is not bytes or key_id_of(public) != target.key_id:
        return None
    if told.get("nonce") != nonce or told.get("node") != target.node or type(told.get("attachment")) is not int:
        return None
    if not check(envelope.algorithm, public, envelope.to_be_signed(), envelope.signature):
        return None
    number: int = told["attachment"]
    return number


def _map(content: bytes) -> dict[str, Any]:
    try:
        told = cbor2.loads(content)
    except (cbor2.CBORDecodeError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


class Responder:
    """Answers requests for one node. `attachment` tells the number of its monitor's present attachment."""

    def __init__(self, node: str, key: Key, clock: Clock, attachment: Callable[[], int]) -> None:
        self._node = node
        self._key = key
        self._clock = clock
        self._attachment = attachment
        self._endpoint: Endpoint | None = None
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
        told = answer(content, self._key, self._node, self._attachment())
        if told is not None:
            self._endpoint.send(told, sender)


class Prober:
    """Watches sessions and attributes, and probes the silent nodes whose turn it is to be probed from here."""

    def __init__(
        self, node: str, *, bus: Bus, datagrams: Datagrams, clock: Clock, entropy: Entropy, check: Verify = verify
    ) -> None:
        self._node = node
        self._bus = bus
        self._datagrams = datagrams
        self._clock = clock
        self._entropy = entropy
        self._check = check
        self._silence = Silence(node)
        self._probing: dict[str, tuple[Target, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Watch and probe, for ever."""
        sessions = tuple(f"broker/+/session/{role}/" for role in (*ROLES, "broker"))
        interest = Interest((*sessions, "node/+/attributes"), conflate=True, signals=False)
        async with asyncio.TaskGroup() as group:
            await listen(self._bus, interest, self._take, after=lambda: self._turn(group))

    def _take(self, delivery: Delivery) -> None:
        if not isinstance(delivery, Arrived):
            return
        event = delivery.signed.event
        try:
            if event.topic.startswith("node/"):
                attributes = from_data(NodeAttributes, event.data)
                self._silence.attributes(event.topic.split("/")[1], attributes, delivery.signed.key_id)
            else:
                _, broker, _, source = event.topic.split("/", 3)
                self._silence.session(broker, source, from_data(Session, event.data), event.id)
        except UnusableEventError:
            return

    def _turn(self, group: asyncio.TaskGroup) -> None:
        """Begin and end probing as the targets of now ask for."""
        targets = {target.node: target for target in self._silence.targets(self._bus.broker)}
        for node, (target, probing) in list(self._probing.items()):
            if targets.get(node) != target:
                probing.cancel()
                del self._probing[node]
        for node, target in targets.items():
            if node not in self._probing:
                self._probing[node] = (target, group.create_task(self._probe(target)))

    async def _probe(self, target: Target) -> None:
        """Probe one node until its silence ends."""
        await asyncio.sleep(max(0.0, (target.since_ms - self._bus.now_ms()) / 1000))
        before, again = None, 0.0
        while True:
            began = self._clock.boottime()
            told = await self._once(target)
            if told.result != before or began >= again:
                before, again = told.result, began + AGAIN_S
                topic = f"node/{target.node}/probe/{self._node}"
                cause = () if target.cause is None else (target.cause,)
                self._bus.emit(Draft(topic, to_data(told), subject=f"node/{target.node}", cause=cause))
            await asyncio.sleep(max(0.0, EACH_S - (self._clock.boottime() - began)))

    async def _once(self, target: Target) -> Probe:
        """One probe."""
        if target.address is None:
            return _failed("its monitor has named no port for probes")
        nonce = self._entropy.bytes(NONCE_BYTES)
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def receive(content: bytes, _sender: str) -> None:
            number = attachment_in(content, nonce, target, self._check)
            if number is not None and not answered.done():
                answered.set_result(number)

        began = self._clock.boottime()
        try:
            endpoint = await self._datagrams.bind("::" if target.address.count(":") > 1 else "0.0.0.0", 0, receive)  # noqa: S104 - any way out
        except TransportError as error:
            return _failed(str(error))
        try:
            endpoint.send(request(nonce), target.address)
            async with asyncio.timeout(TIMEOUT_S):
                attachment = await answered
        except TimeoutError:
            return _failed(f"no signed answer from {target.address} in {TIMEOUT_S:g} s")
        finally:
            endpoint.close()
        took = self._clock.boottime() - began
        return Probe(
            result="passed", reason="signed answer to the nonce", round_trip_s=round(took, 6), attachment=attachment
        )


def _failed(why: str) -> Probe:
    return Probe(result="failed", reason=why, round_trip_s=None)
