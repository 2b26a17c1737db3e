"""What a broker makes of an event that many live readers take: it is made once for all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.lags import ALL
from dsmt.bus.broker.session import Session
from dsmt.bus.wire.frames import Certificates, Deliver, Frame, Subscribe
from dsmt.ports.network import Peer
from dsmt.ports.store import Row


class Many:
    """Many readers of one broker, and how often it was asked what proves a signer."""

    def __init__(self, count: int) -> None:
        self.asked = 0
        self.got: list[tuple[Session, Frame, tuple[bytes, ...]]] = []
        store: Any = SimpleNamespace(head=0, identity="00", trimmed=0, rows=lambda *_, **__: [])
        trust: Any = SimpleNamespace(sole_name=lambda _: "node/n1", proof=self.proof)
        self.deliveries = FanOut(
            store, trust, send=self.send, now_ms=lambda: 200_000, whole=lambda: True, had=lambda *_: ALL
        )
        self.sessions = [Session(Peer(b"%d" % n), b"k") for n in range(count)]
        for session in self.sessions:
            certificate: Any = SimpleNamespace(read=("/",))
            session.certificate = certificate
            self.deliveries.subscribe(session, Subscribe(id=1, patterns=("user/",), start="live"))
        while self.deliveries.pump():
            pass
        self.got.clear()

    def proof(self, _key_id: bytes, _name: str) -> tuple[bytes, ...]:
        self.asked += 1
        return (b"certificate",)

    def send(self, session: Session, frame: Frame, parts: tuple[bytes, ...]) -> bool:
        self.got.append((session, frame, parts))
        return True


def test_what_many_live_readers_take_is_made_once_for_all_of_them() -> None:
    many = Many(100)
    topics = ("user/a/b", "user/c")
    many.deliveries.routed([Row(n, 1, topic, (), False, b"k", b"x" * 300) for n, topic in enumerate(topics, 1)])
    deliveries = [one for one in many.got if isinstance(one[1], Deliver)]
    assert [session for session, _, _ in deliveries] == many.sessions
    assert many.asked == 1
    assert len({id(frame) for _, frame, _ in deliveries}) == len({id(parts) for _, _, parts in deliveries}) == 1
    introduced = [session for session, frame, _ in many.got if isinstance(frame, Certificates)]
    assert introduced == many.sessions, "each of them is shown who signed it"
