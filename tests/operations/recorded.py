"""Recorded streams for tests: a realm of real keys whose sources speak into a list."""

import itertools
import time
from hashlib import sha256
from typing import Any

from dsmt.bus.rules.signer import EventSigner
from dsmt.event.envelope import SignedEvent
from dsmt.event.registry import lookup
from dsmt.trust.identity import Identity, delegate, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm, TrustStore

_SEEDS = itertools.count(1)
START_MS = int(time.time() * 1000)


def key() -> SecretKey:
    return SecretKey(sha256(b"recorded %d" % next(_SEEDS)).digest())


class Recording:
    """Sources of one realm; `events` is what they have said, in order."""

    def __init__(self) -> None:
        self.root = key()
        self.trust = TrustStore(Realm(name="test", roots=(self.root.public,)))
        self.events: list[SignedEvent] = []
        self.now_ms = START_MS
        self._signers: dict[str, tuple[EventSigner, Identity]] = {}

    def source(self, name: str, *, known: bool = True, incarnation: int = 0) -> EventSigner:
        """A source that speaks; `known` False keeps its certificate from the trust store."""
        now_s, serial = self.now_ms // 1000, bytes(16)
        if name.startswith("agent/"):
            node = f"node/{name.split('/')[1]}"
            if node not in self._signers:
                self.source(node)
            identity = delegate(name, self._signers[node][1], key=key(), now_s=now_s, serial=serial)
        else:
            own = self.root if name == "root" else key()
            identity = root_issued(name, self.root, key=own, now_s=now_s, serial=serial)
        if known:
            self.trust.add_all([one.raw for one in identity.chain])
        signer = EventSigner(name, identity.key, "0.1")
        signer.begin(incarnation or self.now_ms, self.now_ms, previous=None)
        self._signers[name] = (signer, identity)
        self._flush(signer)
        return signer

    def say(
        self,
        name: str,
        topic: str,
        data: dict[str, Any] | None = None,
        *,
        declares: tuple[int, int] | None = None,
        **about: Any,
    ) -> SignedEvent:
        """Say something; heartbeats bring their own data."""
        signer = self._signers[name][0] if name in self._signers else self.source(name)
        self.now_ms += 10
        if data is None:
            data = signer.heartbeat(0.0, 1.0)
        match = lookup(topic)
        assert match is not None
        signer.say(signer.pending(topic, data, **about), self.now_ms, declares=declares)
        return self._flush(signer)[-1]

    def _flush(self, signer: EventSigner) -> list[SignedEvent]:
        said = [pending.signed for pending in signer.sign() if pending.signed is not None]
        self.events += said
        return said

    def raw(self, without: set[int] | frozenset[int] = frozenset()) -> bytes:
        """The stream, without the events at some places (negative ones count from the end)."""
        dropped = {place % len(self.events) for place in without}
        return b"".join(one.raw for i, one in enumerate(self.events) if i not in dropped)


def whole(beats: int = 3) -> Recording:
    """A recording of everything: a broker and a controller with heartbeats, an agent that says two topics."""
    recording = Recording()
    for name in ("broker/b1", "controller/c1", "node/n1"):
        recording.source(name)
    for number in range(beats):
        recording.say("broker/b1", "broker/b1/heartbeat")
        recording.say("controller/c1", "controller/c1/heartbeat")
        recording.say("node/n1", "node/n1/heartbeat")
        recording.say("operator/alice", f"user/note/{number}", {"number": number})
        recording.say("operator/alice", "user/count", {"number": number})
    return recording
