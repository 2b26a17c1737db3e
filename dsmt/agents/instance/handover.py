"""Hand-over: an update that starts the new copy beside the old one (`update.order: start_first`).

Rule 1: the old copy is let go only when it is ready and the new one is installed; it stays served, at its ports, until
    the new one is ready. Then the endpoint changes in one fact, readers have `FOLLOW_S` from its acknowledgement to follow
    it, and the old one is stopped. Where no broker acknowledges it within `HEARD_S` nobody is waited for.
Rule 2: whatever becomes of the new copy leaves the old one served, also when it was ready for a moment and readers were sent
    to it already; when its revision is wanted again, it is taken back.
Rule 3: who hands over is on disk, and whom the new one is: an agent that was killed meanwhile is followed by one that takes
    both over, serves the one that was served, and goes on; it ends only what was started and not written down.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.present import Present, Run
from dsmt.agents.instance.serving import Serving
from dsmt.agents.instance.stopping import Stopper
from dsmt.agents.rules import after

FOLLOW_S: Final = 1.0
HEARD_S: Final = 60.0


class HandOver:
    """What is done with the old copy, while there is one (`Present.old`)."""

    def __init__(self, present: Present, memory: Memory, serving: Serving, stopper: Stopper) -> None:
        self._present = present
        self._memory = memory
        self._serving = serving
        self._stopper = stopper

    def begin(self, run: Run) -> None:
        """Let a run go, which goes on and stays served."""
        self.resume(run)
        record = self._memory.record
        if run.instance is None:
            return
        self._memory.save(**after.handed_over(record, run.goal, handle=run.instance.handle, began=run.began))
        self._serving.hold()

    def resume(self, run: Run) -> None:
        """Take over the old copy that an earlier agent has let go (rule 3)."""
        run.unchecked()
        self._present.old = run

    def died(self) -> None:
        """The old copy has ended by itself: it is served no more."""
        self._present.old = None
        self._memory.save(**after.before_ended(self._memory.record))
        self._serving.let_go("the copy before has ended")

    async def heard(self) -> None:
        """Wait until readers can know where they are sent now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARD_S):
                await self._serving.heard()

    def serve_again(self) -> None:
        """The new copy, which may have been served already, is not ready any more: the old one is, unless it is ended."""
        kept = self._memory.record.outgoing
        old = self._present.old
        if old is not None and old.life.alive and kept is not None:
            self._serving.go_back(kept.ports, old.goal.generation)

    async def end(self) -> None:
        """Stop the old copy, if there is one."""
        run = self._present.old
        if run is None:
            return
        run.silence()
        self._serving.let_go("it is being stopped")
        await self._stopper.stop(run)
        self._present.old = None
        self._memory.save(**after.before_ended(self._memory.record))

    def take_back(self) -> Run | None:
        """The old copy, which is the instance again."""
        run, kept = self._present.old, self._memory.record.outgoing
        if run is None or kept is None:
            return None
        self._present.old = None
        self._memory.save(**after.taken_back(self._memory.record, kept, check=run.check))
        self._serving.resume()
        return run
