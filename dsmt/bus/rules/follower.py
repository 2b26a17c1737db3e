"""The chain follower of a reader: what arrives is delivered, held back, dropped or noticed (rule B1, B4, B5).

Rule 1: next in its chain: delivered. Known with the same hash: dropped. Known with another hash: both are kept, and noticed.
Rule 2: beyond a gap: the missing part is `wanted` from the broker, and what is behind it held back, at most `HOLD_BACK`
    seconds. If it comes in that time, all is delivered in order and nobody is told.
Rule 3: else a notice says that there is a gap, and it is closed by another: `filled` when what was missing comes, `declared`
    when its source says that it dropped it, `trimmed` or `lost` when the broker has it no more. What comes when that was
    closed is delivered all the same, and told as `filled`: a broker that was away for long had it alone.
Rule 4: the first event of a topic or of an incarnation is a baseline: nothing is missing before it. What comes of that
    nevertheless is delivered, and so is what an incarnation has said when a later one has begun.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dsmt.event.chain import ChainPosition, ChainReader, Judged, Line
from dsmt.event.envelope import Event
from dsmt.ports.bus import Arrived, Delivery, Notice

HOLD_BACK: Final = 0.2
CREDIT: Final = 2 * 1024 * 1024
"""How far a subscription is filled ahead of its reader, in bytes."""
MAIL: Final = 16 * 1024
"""How many ids of what was addressed to its reader are remembered: more than come in the minute that is read again."""

Pair = tuple[str, str]
"""Source and topic."""


class MissingPart(NamedTuple):
    """A part of a chain that is missing: what its source said on its topic between two of its sequence numbers."""

    source: str
    incarnation: int
    topic: str
    after: int
    before: int


class Closing(NamedTuple):
    """The answer to it: of the part before this sequence number, what becomes of what did not come with it."""

    source: str
    incarnation: int
    """0: it does not say which."""
    topic: str
    before: int
    closing: str
    """`lost` or `trimmed`; `more`: it is asked for again."""


@dataclass(slots=True, eq=False)
class _Gap:
    """A missing range of a chain, and how the broker is asked for it."""

    low: int
    high: int
    wanted: MissingPart
    told: bool = False
    came: list[Arrived] = field(default_factory=list)
    """What has come of it while it was not told, in order."""

    @property
    def line(self) -> Line:
        return self.wanted.source, self.wanted.topic, self.wanted.incarnation

    def has(self, event: Event) -> bool:
        """Whether this event of its pair is of this range."""
        return event.incarnation == self.wanted.incarnation and self.low <= event.chain.number <= self.high


class ChainFollower:
    """Follows one unconflated subscription. `now` is boot-time seconds."""

    def __init__(self) -> None:
        self._chains = ChainReader()
        self._gaps: dict[Pair, list[_Gap]] = {}
        self._held: dict[Pair, tuple[float, list[Delivery | _Gap]]] = {}
        self._wanted: list[MissingPart] = []

    def wanted(self) -> list[MissingPart]:
        """What is missing and was not asked for yet."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def again(self) -> None:
        """The link was lost: what is still missing is wanted anew."""
        self._wanted = [gap.wanted for gaps in self._gaps.values() for gap in gaps]

    @property
    def deadline(self) -> float | None:
        """When `timer` is next due, in boot-time seconds."""
        return min((deadline for deadline, _ in self._held.values()), default=None)

    # --- events --------------------------------------------------------------------------------------------------

    def arrived(self, arrived: Arrived, now: float) -> list[Delivery]:
        """What to deliver for an event that has come."""
        event = arrived.signed.event
        pair = (event.source, event.topic)
        judged = self._chains.judge(arrived.signed)
        match judged.position:
            case ChainPosition.NEXT | ChainPosition.BASELINE:
                return [*self._forgotten(judged), *self._declared(event), *self._in_order(pair, arrived)]
            case ChainPosition.GAP:
                found = self._gap(pair, arrived, judged, now)
                return [*self._declared(event), *found]
            case ChainPosition.LATE:
                return [*self._lost(event, judged), *self._late(pair, arrived)]
            case ChainPosition.EARLIER | ChainPosition.FOUND as position:
                filled = [_filled(event)] if position is ChainPosition.FOUND else []
                return [*self._lost(event, judged), arrived, *filled]
            case ChainPosition.EQUIVOCATION:
                message = f"{event.source} signed two different events as {event.topic} #{event.chain.number}"
                return [arrived, Notice("dsmt.notice.equivocation", message, _number(event))]
            case _:
                return []

    def _in_order(self, pair: Pair, arrived: Arrived) -> list[Delivery]:
        held = self._held.get(pair)
        if held is None:
            return [arrived]
        held[1].append(arrived)
        return []

    def _gap(self, pair: Pair, arrived: Arrived, judged: Judged, now: float) -> list[Delivery]:
        event = arrived.signed.event
        low, high = judged.missing or (0, 0)
        gap = _Gap(low, high, MissingPart(event.source, event.incarnation, event.topic, judged.after, event.sequence))
        self._gaps.setdefault(pair, []).append(gap)
        if event.declares is None or not event.declares[0] <= low <= high <= event.declares[1]:
            self._wanted.append(gap.wanted)
        held = self._held.setdefault(pair, (now + HOLD_BACK, []))
        held[1].extend([gap, arrived])
        return self._lost(event, judged)

    def _late(self, pair: Pair, arrived: Arrived) -> list[Delivery]:
        """What was missing has come: it takes its place among what is held back, or is delivered as late."""
        event = arrived.signed.event
        gap = next(g for g in self._gaps[pair] if g.has(event))
        if gap.told:
            return [arrived, _filled(event)]
        insort(gap.came, arrived, key=lambda one: one.signed.event.chain.number)
        return []

    def _declared(self, event: Event) -> list[Delivery]:
        """Close what an event's source says that it dropped."""
        pair = (event.source, event.topic)
        if event.declares is None or pair not in self._gaps:
            return []
        return self._close((*pair, event.incarnation), "declared", *event.declares)

    def _lost(self, event: Event, judged: Judged) -> list[Delivery]:
        if judged.lost is None:
            return []
        pair, line = (event.source, event.topic), (event.source, event.topic, event.incarnation)
        self._gaps[pair] = [gap for gap in self._gaps.get(pair, ()) if gap.line != line or gap.high > judged.lost[1]]
        return [_closed(line, "lost", *judged.lost)]

    def _forgotten(self, judged: Judged) -> list[Delivery]:
        """Of a chain that is followed no more nothing is waited for."""
        if judged.forgotten is None:
            return []
        line, missing = judged.forgotten
        left = [gap for gap in self._gaps.pop(line[:2], ()) if gap.line != line]
        if left:
            self._gaps[line[:2]] = left
        return [_closed(line, "lost", *part) for part in missing]

    # --- gaps close ----------------------------------------------------------------------------------------------

    def repaired(self, repair: Closing, arrivals: Sequence[Arrived], now: float) -> list[Delivery]:
        """Take in the broker's answer to what was wanted."""
        pair, closing = (repair.source, repair.topic), repair.closing
        found: list[Delivery] = []
        for one in arrivals:
            found.extend(self.arrived(one, now))
        gap = next((g for g in self._gaps.get(pair, ()) if _answers(repair, g.wanted)), None)
        if gap is None:
            return found
        if closing == "more" and arrivals and self._open_parts(gap):
            gap.wanted = gap.wanted._replace(after=arrivals[-1].signed.event.sequence)
            self._wanted.append(gap.wanted)
            return found
        return [*found, *self._close(gap.line, "lost" if closing == "more" else closing, gap.low, gap.high)]

    def _close(self, line: Line, word: str, low: int, high: int) -> list[Delivery]:
        """Close all of a chain's gaps within a range; release what its pair holds back once none is left open."""
        pair = line[:2]
        found: list[Delivery] = []
        left = []
        for gap in self._gaps.get(pair, []):
            if gap.line != line or not low <= gap.low <= gap.high <= high:
                left.append(gap)
                continue
            notices: list[Delivery] = []
            for part in self._open_parts(gap):
                if not gap.told and word != "declared":
                    notices.append(_told(line, *part))
                notices.append(_closed(line, word, *part))
            self._chains.forgive(line, gap.low, gap.high)
            held = self._held.get(pair)
            if gap.told or held is None:
                found.extend(notices)
            else:
                place = held[1].index(gap)
                held[1][place : place + 1] = [*notices, *gap.came]
        if left:
            self._gaps[pair] = left
        else:
            self._gaps.pop(pair, None)
            found.extend(self._release(pair))
        return found

    def _open_parts(self, gap: _Gap) -> list[tuple[int, int]]:
        missing = self._chains.missing(gap.line)
        return [(max(a, gap.low), min(b, gap.high)) for a, b in missing if a <= gap.high and gap.low <= b]

    def timer(self, now: float) -> list[Delivery]:
        """What was held back long enough; a gap that was filled meanwhile is not told."""
        found: list[Delivery] = []
        for pair in [pair for pair, (deadline, _) in self._held.items() if deadline <= now]:
            found.extend(self._release(pair))
        return found

    def _release(self, pair: Pair) -> list[Delivery]:
        """Everything that was held back of a pair, with a notice for each gap that is still open."""
        found: list[Delivery] = []
        for one in self._held.pop(pair, (0.0, []))[1]:
            if isinstance(one, _Gap):
                one.told = True
                found.extend(_told(one.line, *part) for part in self._open_parts(one))
                found.extend(one.came)
            else:
                found.append(one)
        return found


def _answers(repair: Closing, wanted: MissingPart) -> bool:
    return repair.before == wanted.before and repair.incarnation in (0, wanted.incarnation)


def _filled(event: Event) -> Notice:
    return Notice("dsmt.notice.filled", f"{event.topic} #{event.chain.number} has come", _number(event))


def _number(event: Event) -> dict[str, object]:
    return {"source": event.source, "incarnation": event.incarnation, "topic": event.topic, "number": event.chain.number}


def _range(line: Line, low: int, high: int) -> dict[str, object]:
    source, topic, incarnation = line
    return {"source": source, "incarnation": incarnation, "topic": topic, "from": low, "to": high}


def _told(line: Line, low: int, high: int) -> Notice:
    return Notice("dsmt.notice.gap", f"{line[1]} #{low}..#{high} of {line[0]}: not seen yet", _range(line, low, high))


_WHY: Final = {
    "lost": "nobody has it any more",
    "trimmed": "trimmed from the history",
    "declared": "dropped by its source, which says so",
}


def _closed(line: Line, word: str, low: int, high: int) -> Notice:
    said = f"{line[1]} #{low}..#{high} of {line[0]}: {_WHY[word]}"
    return Notice(f"dsmt.notice.{word}", said, _range(line, low, high))
