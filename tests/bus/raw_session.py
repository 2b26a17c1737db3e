"""A session of which each frame is in the test's hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack, unpack
from dsmt.errors import TransportError
from dsmt.ports.network import Link
from dsmt.trust.identity import Identity


@dataclass
class RawSession:
    """A session spoken by hand, frame by frame."""

    link: Link
    frames: list[tuple[f.Frame, tuple[bytes, ...]]] = field(default_factory=list)

    def send(self, frame: f.Frame, *parts: bytes) -> None:
        self.link.send(pack(frame, *parts))

    async def next(self, kind: type[Any], seconds: float = 10.0) -> Any:
        """The next frame of a kind, with its parts; those before it are kept in `frames`."""
        async with asyncio.timeout(seconds):
            while True:
                for at, (frame, parts) in enumerate(self.frames):
                    if isinstance(frame, kind):
                        del self.frames[at]
                        return frame, parts
                for message in await self.link.receive():
                    self.frames.append(unpack(message))

    async def closed(self, seconds: float = 10.0) -> None:
        """Wait for the link's end."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    for message in await self.link.receive():
                        self.frames.append(unpack(message))
                except TransportError:
                    return


def hello(r: Any, identity: Identity, **more: Any) -> f.Hello:
    """What a client of an identity says first in a test's realm, but for what is told otherwise."""
    values = {
        "protocol": f.PROTOCOL,
        "realm": r.name,
        "name": identity.name,
        "incarnation": 0,
        "firm": False,
        "attachment": 1,
        "pid": 1,
        "version": "",
        "address": "",
    }
    return f.Hello(**{**values, **more})
