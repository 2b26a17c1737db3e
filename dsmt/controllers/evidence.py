"""Evidence: what closed sessions and probes prove, as facts that everybody can check (rule F2, F4).

Rule 1: the managers of more than max(2, 5 %) of a broker's nodes, closed within `MASS_WINDOW_MS` of each other, prove
    nothing: a middlebox that forgets its connections looks the same. Those that have attached anew since then count, too,
    however late, and those that are at another broker by now: who is the last to come back is not dead for that. (An
    attachment's number is not below the realm time at which it was granted, A11.)
Rule 2: a probe counts for two of its periods, and no period is longer than `LATE_PROBE_S`.
Rule 3: `passed` is evidence by the accused's own signed answer alone, under the key that signed its attributes, whoever
    brings it; and as old as the answer says.
Rule 4: `failed` is evidence when another node says it that is alive.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import Final, NamedTuple

from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.node import Probe
from dsmt.trust.probing import Answered, answered
from dsmt.trust.proven import Verify
from dsmt.view import Fleet, Held
from dsmt.view.entries import NodeEntry
from dsmt.view.liveness import LATE_PROBE_S
from dsmt.view.sessions import is_closed

MASS_WINDOW_MS: Final = 1_000
MASS_LEAST: Final = 2
MASS_PERCENT: Final = 5

_answered = lru_cache(maxsize=4096)(answered)


class Closes:
    """When the managers of nodes were closed, and attached, as each broker says it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._times: dict[str, tuple[list[int], list[int]]] = {}

    def are_many(self, node: str) -> bool:
        """Whether a node that closed its sessions was one of too many (rule 1)."""
        words = self._fleet.words(node)
        if not is_closed(words):
            return False
        first = words[0]
        managers = len(self._fleet.view.managers_by_broker.get(first.broker, ()))
        closed, returned = self._of(first.broker)
        count = _between(closed, first.since_ms - MASS_WINDOW_MS, first.since_ms + MASS_WINDOW_MS)
        count += len(returned) - bisect_right(returned, first.since_ms)
        return count > MASS_LEAST and count * 100 > managers * MASS_PERCENT

    def _of(self, broker: str) -> tuple[list[int], list[int]]:
        """When managers were closed at a broker, and before when they were, if they have attached to it anew since.

        It is the broker's own last word on each that counts here, also on those that are at another one by now.
        """
        times = self._times.get(broker)
        if times is None:
            closed, returned = [], []
            for name, entry in self._fleet.view.nodes.items():
                attachments = entry.sources.get(f"node/{name}")
                held = None if attachments is None else attachments.words.get(broker)
                if held is None:
                    continue
                said = held.record
                if said.state == "closed":
                    closed.append(said.since_ms)
                    returned.append(min(said.attachment, said.since_ms - MASS_WINDOW_MS))
                else:
                    returned.append(said.since_ms if said.state == "open" else said.attachment)
            times = self._times[broker] = sorted(closed), sorted(returned)
        return times


def _between(times: list[int], first: int, last: int) -> int:
    return bisect_right(times, last) - bisect_left(times, first)


class Probes(NamedTuple):
    """The probes of a node that count now."""

    passed_until_ms: int | None
    """Until when an answer of its own acquits it; None for none."""
    failed: list[tuple[str, Held[Probe]]]
    """Those that failed, by observer."""


def probes(fleet: Fleet, entry: NodeEntry, heard_ms: int, check: Verify) -> Probes:
    """What probes say of a node of which nothing was heard since `heard_ms`."""
    passed, failed = [], []
    for observer, probe in sorted(entry.probes.items()):
        if probe.time_ms <= heard_ms:
            continue
        lives_ms = round(2000 * min(probe.record.every_s, LATE_PROBE_S))
        if probe.record.result == "failed":
            if fleet.now_ms < probe.time_ms + lives_ms and fleet.state(observer) == "alive":
                failed.append((observer, probe))
            continue
        said = _signed_answer(entry, probe.record, check)
        if said is None or not heard_ms < said.time_ms <= fleet.now_ms + BOUND_MS:
            continue
        until = min(said.time_ms, probe.time_ms) + lives_ms
        if fleet.now_ms < until:
            passed.append(until)
    return Probes(max(passed, default=None), failed)


def _signed_answer(entry: NodeEntry, probe: Probe, check: Verify) -> Answered | None:
    if entry.attributes is None or not probe.answer:
        return None
    return _answered(probe.answer, probe.nonce, entry.name, entry.attributes.signed.key_id, check)
