"""A reader's side of the chains: what arrives is delivered, held back, dropped or noticed (SEMANTICS B1, B4, B5).

Rule 1: next in its chain: delivered. Known with the same hash: dropped. Known with another hash: both are kept, and noticed.
Rule 2: beyond a gap: held back at most `HOLD_BACK` seconds, then a notice, then delivered.
Rule 3: what was missing and comes is delivered with a `late` notice and closes its part of the gap (`filled`).
Rule 4: a range that its source declares as dropped closes as `declared`.
Rule 5: the first event of a topic or of a newer incarnation is a baseline.
"""

from __future__ import annotations

from typing import Final

from dsmt.event.chain import ChainReader, Verdict
from dsmt.ports.bus import Arrived, Delivery, Notice

HOLD_BACK: Final = 0.2


class Reader:
    """Follows one unconflated subscription. `now` is boot-time seconds."""

    def __init__(self) -> None:
        self._chains = ChainReader()
        self._held: dict[tuple[str, str], tuple[float, list[Delivery]]] = {}

    def arrived(self, arrived: Arrived, now: float) -> list[Delivery]:
        """What to deliver for an event that has come."""
        event = arrived.signed.event
        key = (event.source, event.topic)
        judged = self._chains.judge(arrived.signed)
        match judged.verdict:
            case Verdict.NEXT | Verdict.BASELINE:
                return self._in_order(key, [arrived])
            case Verdict.GAP:
                return self._gap(key, arrived, judged.missing or (0, 0), now)
            case Verdict.LATE:
                fields = {"source": event.source, "topic": event.topic, "number": event.chain.number}
                filled = Notice("dsmt.notice.filled", f"{event.topic} #{event.chain.number} has come", fields)
                return [arrived, filled]
            case Verdict.EQUIVOCATION:
                fields = {"source": event.source, "topic": event.topic, "number": event.chain.number}
                message = f"{event.source} signed two different events as {event.topic} #{event.chain.number}"
                return [arrived, Notice("dsmt.notice.equivocation", message, fields)]
            case _:
                return []

    def _in_order(self, key: tuple[str, str], deliveries: list[Delivery]) -> list[Delivery]:
        held = self._held.get(key)
        if held is None:
            return deliveries
        held[1].extend(deliveries)
        return []

    def _gap(self, key: tuple[str, str], arrived: Arrived, missing: tuple[int, int], now: float) -> list[Delivery]:
        event = arrived.signed.event
        first, last = missing
        fields = {"source": event.source, "topic": event.topic, "from": first, "to": last}
        declared = event.declares
        if declared is not None and declared[0] <= first and last <= declared[1]:
            self._chains.forgive(event.source, event.topic, last)
            said = f"{event.source} had to drop {event.topic} #{first}..#{last} and says so"
            return self._in_order(key, [Notice("dsmt.notice.declared", said, fields), arrived])
        said = f"{event.topic} #{first}..#{last} of {event.source}: not seen yet"
        notice = Notice("dsmt.notice.gap", said, fields)
        held = self._held.setdefault(key, (now + HOLD_BACK, []))
        held[1].extend([notice, arrived])
        return []

    def timer(self, now: float) -> list[Delivery]:
        """What was held back long enough; a gap that was filled meanwhile is not told."""
        due = [key for key, (deadline, _) in self._held.items() if deadline <= now]
        found: list[Delivery] = []
        for key in due:
            missing = self._chains.missing(*key)
            for delivery in self._held.pop(key)[1]:
                if isinstance(delivery, Notice) and delivery.type == "dsmt.notice.gap":
                    low, high = delivery.fields["from"], delivery.fields["to"]
                    if not any(first <= high and low <= last for first, last in missing):
                        continue
                found.append(delivery)
        return found

    @property
    def deadline(self) -> float | None:
        """When `timer` is next due, in boot-time seconds."""
        return min((deadline for deadline, _ in self._held.values()), default=None)
