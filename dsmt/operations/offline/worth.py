"""Worth: what a history that is as its broker signed it proves, and what it cannot prove, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.operations.offline.verifying import HistoryHead

NOTHING: Final[tuple[list[str], list[str]]] = ([], ["anything: it is not what its broker signed"])


def worth(history: HistoryHead, elsewhere: Sequence[SignedEvent], *, others_trimmed: bool) -> tuple[list[str], list[str]]:
    """What is proven, and what is not: `elsewhere` are heads over rows that its broker has no more.

    `others_trimmed` says that things are missing that others had trimmed before the broker read them.
    """
    begins = f"from row {history.before + 1} " if history.before else ""
    rows = f"{begins}up to row {history.rows}"
    proves = [f"that {history.broker} had stored these rows, in this order and at these times, {rows}"]
    cannot = [f"what was stored after {history.signed_at}", "that nothing was said that never reached this broker"]
    if elsewhere:
        until = rfc3339(max(head.event.time_ms for head in elsewhere))
        heads = "a head" if len(elsewhere) == 1 else f"{len(elsewhere)} heads"
        said = "of a store that it has no more (an older copy was put back, or the realm came back from NATS)"
        cannot.append(f"what {history.broker} had stored up to {until}, when it signed {heads} {said}")
    if history.left_out:
        others = f"topics other than {', '.join(history.wanted)}"
        proves.append("of each topic of each incarnation of a source here: everything between its first and its last event")
        says = "the writer of the file says so, and nobody has signed it"
        cannot[:0] = [
            f"that the {history.left_out} rows left out are of {others}: {says}",
            "that a topic that was asked for had nothing before its first or after its last event here",
        ]
    else:
        there = f" {rows}" if history.before else ""
        proves.append(f"that no other row was there{there}" + (", but for those trimmed" if history.trimmed else ""))
    if history.before:
        arrived = "" if history.begins is None else f", which arrived at {history.begins}"
        cannot.insert(0, f"what stood before row {history.before + 1}{arrived}: only hashes of that are left")
    if others_trimmed:
        cannot.append("that nothing was lost among what others had trimmed before this broker read them")
    if history.trimmed:
        cannot.insert(0, f"what the {history.trimmed} trimmed rows held: only their hashes are left")
    return proves, cannot
