"""What a broker sends: in the order in which it was said, and counted with what a message costs beside its bytes (D2)."""

from typing import Any

from dsmt.bus.broker.outgoing import MESSAGE_COST, MOST_UNREAD_BYTES, Outgoing
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import unpack
from dsmt.ports.network import Peer

PEER = Peer(b"p")


class Line:
    """A listener that has room, or not."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.has_room = True

    def send(self, _peer: Peer, message: Any) -> bool:
        if self.has_room:
            self.sent.append(unpack(message)[0])
        return self.has_room


def test_what_must_not_be_lost_comes_in_order_also_where_there_is_room_before_that_is_told() -> None:
    made, line = Outgoing(lambda _: None, lambda: bytes(8)), Line()
    made.listener = line  # type: ignore[assignment]
    line.has_room = False
    assert made.send(PEER, f.BlobIs(id=1, size=None))
    line.has_room = True
    assert made.send(PEER, f.BlobIs(id=2, size=None))
    assert not made.send(PEER, f.Deliver(id=1, rows=(1,), live=True))
    assert line.sent == []
    made.writable(PEER)
    assert [one.id for one in line.sent] == [1, 2]


def test_who_reads_no_small_messages_is_cut_off_by_what_they_cost() -> None:
    cut: list[Peer] = []
    made = Outgoing(cut.append, lambda: bytes(8))
    made.listener = Line()  # type: ignore[assignment]
    for number in range(MOST_UNREAD_BYTES // MESSAGE_COST + 1):
        made.send(PEER, f.BlobIs(id=number, size=None))
    assert cut
