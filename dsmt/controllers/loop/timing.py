"""Timing: the time that a controller decides at: its own realm time, and never ahead of its broker's (rule F2, J4).

Rule 1: what a broker says of sessions has its realm time. A controller's own follows that slowly, and may be ten seconds
    ahead: a link that is back in a moment would have been away for too long at once. So it decides at no later time than
    that of the newest mark, and what has passed since that came.
Rule 2: where its own is behind that counts, as what agents and controllers say is timed: nothing was good for longer.
Rule 3: within one view it never goes back: what has died of age stays dead, and decisions replay in their order. Where its
    own does, for the clock of NATS servers was put back, all facts are read anew: else nothing would be decided meanwhile.
"""

from __future__ import annotations

from dsmt.event.hlc import BOUND_MS


class Timing:
    """The time of one view. `now` is boot-time seconds, the rest is realm ms."""

    def __init__(self) -> None:
        self._marked: tuple[int, float] | None = None
        self._last = 0

    def marked(self, time_ms: int, now: float) -> None:
        """A mark of the broker came, which says its time."""
        self._marked = (time_ms, now)

    def now_ms(self, now: float, own_ms: int) -> int:
        """The time; `own_ms` is the controller's own."""
        if self._marked is None:
            return own_ms  # nothing is decided yet
        time_ms, at = self._marked
        self._last = max(self._last, min(own_ms, time_ms + int(max(0.0, now - at) * 1000)))
        return self._last

    def is_left(self, own_ms: int) -> bool:
        """Whether its own realm time was put back: what is said at the time of this view nobody believes (rule 3)."""
        return self._last > own_ms + BOUND_MS
