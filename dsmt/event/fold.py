"""The fold: facts and tombstones into the winner of each topic; one for readers, nodes and views (rules A1, A6, E3).

Rule 1: it is a join: any order, any number of times, one state.
Rule 2: of a topic the greatest fact in fact order is held, unless a tombstone hides it; then the topic has none, until a
    fact of a later epoch comes.
Rule 3: of a thing that has ended, its last ended epoch and the latest one that was heard of are remembered for ever; of any
    other thing, the latest one until its last fact is let go.
Rule 4: it forgets what a winner has displaced. So who holds the word of a key that has ended begins anew (J3); but nodes
    take back a tombstone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dsmt.event.envelope import Event, SignedEvent, thing_of
from dsmt.event.order import is_over, newer


class WinnerChange(NamedTuple):
    """A topic whose winner is another now; None where there was, or is, none."""

    topic: str
    before: SignedEvent | None
    after: SignedEvent | None


class Fold:
    """The winners of the topics of which facts were taken."""

    def __init__(self) -> None:
        self._winners: dict[str, SignedEvent] = {}
        self._ended: dict[str, int] = {}
        self._latest: dict[str, int] = {}
        self._of: dict[str, set[str]] = {}
        """By thing, the topics on which shared facts stand."""

    def __len__(self) -> int:
        return len(self._winners)

    def __iter__(self) -> Iterator[SignedEvent]:
        return iter(self._winners.values())

    def get(self, topic: str) -> SignedEvent | None:
        """The winner of a topic."""
        return self._winners.get(topic)

    def ended(self, thing: str) -> int:
        """The last epoch of a thing that has ended; 0 when none has."""
        return self._ended.get(thing, 0)

    def epoch(self, topic: str) -> int:
        """The epoch in which a shared fact on a topic is said now: that of its thing, or what follows the last one."""
        thing = thing_of(topic)
        return max(self._latest.get(thing, 0), self.ended(thing) + 1)

    def is_over(self, event: Event) -> bool:
        """Whether a tombstone that was taken hides a fact."""
        return event.epoch is not None and is_over(event, self.ended(thing_of(event.topic)))

    def take(self, signed: SignedEvent) -> list[WinnerChange]:
        """Take in a fact; what changed by it, the topics that it hides first, in order of their names."""
        event = signed.event
        changes = self._end(event.ends, event.epoch or 0) if event.ends else []
        if event.epoch is not None:
            thing = thing_of(event.topic)
            self._latest[thing] = max(event.epoch, self._latest.get(thing, 0))
        before = self._winners.get(event.topic)
        if not self.is_over(event) and (before is None or newer(event, before.event)):
            self._winners[event.topic] = signed
            if event.epoch is not None:
                self._of.setdefault(thing_of(event.topic), set()).add(event.topic)
            changes.append(WinnerChange(event.topic, before, signed))
        return changes

    def _end(self, thing: str, epoch: int) -> list[WinnerChange]:
        if epoch <= self.ended(thing):
            return []
        self._ended[thing] = epoch
        hidden = [topic for topic in sorted(self._of.get(thing, ())) if is_over(self._winners[topic].event, epoch)]
        return [WinnerChange(topic, self.drop(topic), None) for topic in hidden]

    def exhume(self, is_disowned: Callable[[SignedEvent], bool]) -> None:
        """Take back tombstones of keys that have ended (J3): what each hid is to be taken again, but for earlier epochs."""
        for signed in [one for one in self._winners.values() if one.event.ends and is_disowned(one)]:
            self.drop(signed.event.topic)
            self._ended[signed.event.ends] = (signed.event.epoch or 1) - 1

    def drop(self, topic: str) -> SignedEvent:
        """Let go of a topic's winner, which is dead. Raises `KeyError` when there is none."""
        signed = self._winners.pop(topic)
        if signed.event.epoch is not None:
            topics = self._of[thing_of(topic)]
            topics.discard(topic)
            if not topics:
                del self._of[thing_of(topic)]
                if thing_of(topic) not in self._ended:
                    del self._latest[thing_of(topic)]
        return signed
