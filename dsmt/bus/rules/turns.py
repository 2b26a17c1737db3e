"""Turns: whose messages a broker looks at next, so that nobody waits for another's flood (rule D2).

Rule 1: what a session has sent waits in its own queue, in order. In a turn of the loop each session that has something
    waiting gets about `SLICE` units of work, until the turn is full; one that waits alone gets all of it, and one run more:
    what a commit costs is then paid once for two.
    Who waits for no more than that goes before those who wait for more; they have every other turn at least.
Rule 2: a session has a window: what it has sent and was not answered. Ours wait for answers, so who is over it is closed.
Rule 3: messages with many parts (events, certificates) are cut, so that no turn has much more than `TURN` units.
Rule 4: a session that is held, for it reads no answers or its payer has no tokens left, is passed over. What the network has
    to say of it (`Closed`) waits behind what it had sent.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from dsmt.bus.rules.outbox import WINDOW_BYTES, WINDOW_EVENTS
from dsmt.bus.rules.quota import UNIT_BYTES, Rates
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import MAX_PARTS, pack
from dsmt.errors import RefusedError
from dsmt.event.burst import RUN
from dsmt.event.envelope import MAX_EVENT_BYTES
from dsmt.ports.network import Closed, Message

SLICE: Final = 2
TURN: Final = 6
"""Units of work in one turn of the loop: about 1 ms. A commit to a slow disk pays for more of them."""
TURN_SYNCED: Final = 64
WINDOW: Final = (2 * WINDOW_EVENTS, 2 * (WINDOW_BYTES + MAX_EVENT_BYTES))
"""Units, and bytes: twice what a source has on its way, for one that begins an incarnation says all of it again."""
LARGEST_PART: Final = 2 * MAX_EVENT_BYTES
"""Bytes above which a part is not looked at, to say that it is too large; who sends it is closed."""
_CUT: Final = {
    pack(f.Publish())[0]: MAX_PARTS,
    pack(f.Publish(offered=True))[0]: MAX_PARTS,
    pack(f.Certificates())[0]: f.MAX_CERTIFICATES,
}
"""The maps of the messages that may have many parts, and how many."""
CERTIFICATE_WEIGHT: Final = 4
_WEIGHT: Final = {pack(f.Certificates())[0]: CERTIFICATE_WEIGHT}
"""Units of work for one part, where it is more than one: a certificate is verified and stored alone."""
FEW_PARTS: Final = 4
"""What any kind of message may have: a hello shows the certificates above its own."""

Who = TypeVar("Who")


def cost(message: Message) -> int:
    """Units of work in a message: one for each part, and for each `UNIT_BYTES`; those of a run count twice."""
    size = sum(map(len, message)) + sum(len(part) for part in message[1:] if part[:1] == RUN)
    return _WEIGHT.get(message[0], 1) * max(1, len(message) - 1) + size // UNIT_BYTES


@dataclass(slots=True)
class _Queue:
    waiting: deque[Message | Closed] = field(default_factory=deque)
    units: int = 0
    bytes: int = 0

    def count(self, one: Message | Closed, sign: int) -> int:
        """Count what comes in (1) or goes out (-1); its cost."""
        if isinstance(one, Closed):
            return 1
        units = cost(one)
        self.units += sign * units
        self.bytes += sign * sum(map(len, one))
        return units


class Turns(Generic[Who]):
    """What waits to be looked at. `payer` names who pays for a session, `held` tells that it reads no answers."""

    def __init__(self, rates: Rates, *, turn: int, payer: Callable[[Who], str], held: Callable[[Who], bool]) -> None:
        self._rates, self._turn, self._payer, self._held = rates, turn, payer, held
        self._queues: OrderedDict[Who, _Queue] = OrderedDict()
        """Only of those who have something waiting; who is first is next."""
        self._short_first = False
        """Whether the last turn was of those alone who waited for little."""

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, who: Who, message: Message | Closed) -> None:
        """Take in what a session has sent. Raises `RefusedError` when it is over its window."""
        pieces: list[Message | Closed] = [message] if isinstance(message, Closed) else [*_pieces(message)]
        queue = self._queues.setdefault(who, _Queue())
        for piece in pieces:
            queue.waiting.append(piece)
            queue.count(piece, 1)
        units, size = WINDOW
        if queue.units > units + size // UNIT_BYTES or queue.bytes > size:
            said = f"you have {queue.bytes} bytes on their way that were not answered, the window is {size}"
            raise RefusedError("quota", said, next="wait for acknowledgements and answers before you send more")

    def take(self, now: float) -> list[tuple[Who, Message | Closed]]:
        """What is looked at in this turn, in order; empty when nobody who waits may have anything done now."""
        taken: list[tuple[Who, Message | Closed]] = []
        left, waiting = self._turn, list(self._queues.items())
        most = SLICE if len(waiting) > 1 else self._turn
        short = [one for one in waiting if one[1].units <= SLICE]
        mixed = 0 < len(short) < len(waiting)
        self._short_first = mixed and not self._short_first and any(self._may(*one, now) for one in short)
        for who, queue in short if self._short_first else waiting:
            if left <= 0:
                break
            if self._may(who, queue, now):
                self._queues.move_to_end(who)
                left -= self._slice(who, queue, min(most, left), taken, now, alone=len(waiting) == 1)
        return taken

    def _may(self, who: Who, queue: _Queue, now: float) -> bool:
        if isinstance(queue.waiting[-1], Closed):  # it sends no more, and reads no more
            return True
        return self._rates.may(self._payer(who), now) and not self._held(who)

    def _slice(
        self, who: Who, queue: _Queue, most: int, taken: list[tuple[Who, Message | Closed]], now: float, *, alone: bool
    ) -> int:
        worked = 0
        while queue.waiting and (worked < most or (alone and worked < 2 * most and _is_run(queue.waiting[0]))):
            one = queue.waiting.popleft()
            taken.append((who, one))
            worked += queue.count(one, -1)
        if not queue.waiting:
            del self._queues[who]
        self._rates.spend(self._payer(who), worked, now)
        return worked

    def drop(self, who: Who) -> None:
        """Forget what a session that was refused has sent; that it has closed is kept."""
        queue = self._queues.pop(who, None)
        if queue is not None and isinstance(queue.waiting[-1], Closed):
            self._queues[who] = _Queue(deque([queue.waiting[-1]]))


def _is_run(one: Message | Closed) -> bool:
    return not isinstance(one, Closed) and len(one) == 2 and one[1][:1] == RUN


def _pieces(message: Message) -> list[Message]:
    if message[0] in _CUT and max(map(len, message)) > LARGEST_PART:
        said = f"a part of {max(map(len, message))} bytes is neither an event nor a certificate"
        raise RefusedError("bus.frame", said, next=f"an event has at most {MAX_EVENT_BYTES} bytes; use the depot")
    if len(message) <= 1 + (FEW_PARTS if message[0] not in _CUT else 1):
        return [message]
    most = _CUT.get(message[0])
    if most is None or len(message) - 1 > most:
        said = f"{len(message) - 1} parts are too many for this kind of frame"
        raise RefusedError("bus.frame", said, next="send fewer at once, behind the shortest encoding of the map")
    pieces: list[Message] = [message[:1]]
    for part in message[1:]:
        if cost((*pieces[-1], part)) > SLICE and len(pieces[-1]) > 1:
            pieces.append(message[:1])
        pieces[-1] = (*pieces[-1], part)
    return pieces
