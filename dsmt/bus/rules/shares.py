"""Shares: what each party gives when a class of history is over its budget (rule B6)."""

from __future__ import annotations

from collections.abc import Mapping


def owed(sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """How many bytes each payer has to give, so that all together keep `budget`: nobody gives below the common share.

    The share is the level at which what everybody keeps, up to it, is the budget: who has less keeps all, however much
    others say.
    """
    left, found = max(0, budget), {}
    for place, (payer, size) in enumerate(sorted(sizes.items(), key=lambda one: (one[1], one[0]))):
        share = left // (len(sizes) - place)
        kept = min(size, share)
        left -= kept
        if kept < size:
            found[payer] = size - kept
    return found
