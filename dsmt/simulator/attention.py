"""Attention: a controller that can be asked what it has overlooked: what its agenda leaves out would give no intent."""

from __future__ import annotations

from dsmt.controllers.decide import decide
from dsmt.controllers.loop.runner import ControllerRunner


class WatchedRunner(ControllerRunner):
    """The real runner."""

    def overlooked(self) -> list[str]:
        """What a look at everything decides now, though this one has nothing to look at."""
        now = self._clock.boottime()
        if self._gate.cursor(now) is None or self.watching or self.view.changed:
            return []
        now_ms = self._now_ms(now)
        if self._agenda.due(now_ms):
            return []
        decided = decide(self.view, now_ms, may_accuse=self._could_accuse, broker=self._broker, check=self._check)
        return [f"{intent.topic}: {intent.because}" for intent in decided.intents]
