"""A hostile node, as a process of its own: `python -m tests.bus.hostile WAY DIRECTORY ADDRESS BROKER_KEY ROOT_KEY`.

It has a good certificate and minds no rule; when it is closed it comes back.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import cbor2

from dsmt.bus.client.attaching import greet, sign_attachment
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack, unpack
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import DsmtError
from dsmt.event.chain import SourceChain
from dsmt.event.codec import prepare, protected_header, sign_burst
from dsmt.event.envelope import Event
from dsmt.event.hlc import hlc
from dsmt.ports.network import Link, Message
from dsmt.ports.realm import About
from dsmt.trust.identity import Identity, delegate, load
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.store import Realm, TrustStore

STATUS = {"status": "healthy", "state": "defined"}


class Hostile:
    """One attached session after the other."""

    def __init__(self, identity: Identity, link: Link) -> None:
        self.identity, self.link = identity, link
        self.chain = SourceChain(int(time.time() * 1000))

    async def push(self, message: Message) -> None:
        """Send as fast as the network takes it."""
        while not self.link.send(message):
            await self.link.writable()
        await asyncio.sleep(0)

    def events(self, count: int, *, size: int = 10) -> tuple[bytes, ...]:
        prepared = []
        for _ in range(count):
            topic = "user/flood"
            sequence, link = self.chain.next(topic)
            event = Event(
                source=self.identity.name,
                incarnation=self.chain.incarnation,
                sequence=sequence,
                chain=link,
                type="dsmt.user",
                topic=topic,
                subject=topic,
                time=hlc(int(time.time() * 1000)),
                data={"pad": "x" * size},
            )
            one = prepare(event, protected_header(self.identity.key.algorithm, self.identity.key.key_id))
            self.chain.signed(event, one.leaf)
            prepared.append(one)
        return tuple(one.raw for one in sign_burst(prepared, self.identity.key))

    async def flood(self) -> None:
        """Good events, as many as the window allows: it reads its acknowledgements."""
        flying = 0
        while True:
            while flying < 1024 - 64:
                await self.push((pack(f.Publish())[0], *self.events(64)))
                flying += 64
            for message in await self.link.receive():
                frame, _ = unpack(message)
                if isinstance(frame, f.Acked):
                    flying -= sum(last - first + 1 for _, _, first, last in frame.ranges)
                elif isinstance(frame, f.Nacked):
                    flying -= 1
                elif isinstance(frame, f.Tally):
                    await self.push(pack(f.Tallied(token=frame.token)))

    async def overflow(self) -> None:
        """Good events, as fast as they can be made."""
        while True:
            await self.push((pack(f.Publish())[0], *self.events(64)))

    async def parts(self) -> None:
        """Frames of 200,000 parts."""
        message = (pack(f.Publish())[0], *([b"x"] * 200_000))
        while True:
            await self.push(message)

    async def unread(self) -> None:
        """Large events, asked for again and again; nothing is read."""
        raws = [self.events(1, size=60_000)[0] for _ in range(4)]
        await self.push((pack(f.Publish())[0], *raws))
        ids = tuple((self.identity.name, self.chain.incarnation, n) for n in range(1, 5))
        while True:
            await self.push(pack(f.Fetch(id=1, ids=ids)))

    async def certificates(self) -> None:
        """A new agent with each turn."""
        now = int(time.time())
        while True:
            raws = []
            for _ in range(32):
                made = delegate(
                    f"agent/n1/web/app/{os.urandom(3).hex()}",
                    self.identity,
                    key=SecretKey(os.urandom(32)),
                    now_s=now,
                    serial=os.urandom(16),
                )
                raws.append(made.chain[0].raw)
            await self.push((pack(f.Certificates())[0], *raws))

    async def giants(self) -> None:
        """Frames that are just not too large for the network."""
        message = (pack(f.Publish())[0], bytes(500 * 1024))
        while True:
            await self.push(message)

    async def subscriptions(self) -> None:
        """Subscriptions from the beginning of history, without end."""
        number = 0
        while True:
            number = (number + 1) % 60
            await self.push(pack(f.Subscribe(id=number, patterns=("/",), start="history")))

    async def blobs(self) -> None:
        """Chunks of blobs that nobody wants."""
        count = 0
        while True:
            count += 1
            digest = sha256(str(count).encode()).digest()
            await self.push((pack(f.ChunkPut(id=count, digest=digest, number=0))[0], bytes(256 * 1024)))
            await self.push(pack(f.BlobFinished(id=count, digest=digest, chunks=1)))

    async def bombs(self) -> None:
        """Maps that grow when they are unpacked."""
        value = b"\xd8\x1c\x81\x00"
        for depth in range(60):
            value = b"\xd8\x1c\x82" + value + b"\xd8\x1d" + cbor2.dumps(60 - depth)
        while True:
            await self.push((b"\xa2\x61t\x64told\x61d" + value,))


async def attack(way: str, directory: Path, address: str, broker: bytes, root: bytes) -> None:
    identity = load((directory / way).read_bytes(), where=way)
    network = ZmqNetwork()
    while True:
        link = None
        with suppress(DsmtError):
            link = await network.connect(address, identity.key.link_secret(), server_key=link_key(broker))
            trust = TrustStore(Realm(name="test", roots=(root,)))
            about = About(1, "raw", "")
            sign_attachment(link, identity, await greet(link, identity, trust, about, incarnation=0, attachment=1))
            run: Callable[[], Awaitable[None]] = getattr(Hostile(identity, link), way)
            sys.stdout.write("attached\n")
            sys.stdout.flush()
            await run()
        if link is not None:
            await link.close()
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    if sys.argv[1] == "spin":  # the same strain on the machine, and none on the broker
        sys.stdout.write("attached\n")
        sys.stdout.flush()
        while True:
            pass
    asyncio.run(attack(sys.argv[1], Path(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4]), bytes.fromhex(sys.argv[5])))
