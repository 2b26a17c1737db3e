"""Excusing: an agent that dsmt itself ends in the middle of a step has not ended by that step (C13).

Rule 1: before it is ended it is written down in its container that it is; who ends it may be killed at any moment after.
Rule 2: the next agent reads that, takes back what it would count against the step, and then removes it. So of its record
    there is one writer, and nothing is lost where several agents end before one has read it.
Rule 3: one that is ended because it hangs is not excused: that may be the step's doing.
"""

from __future__ import annotations

import contextlib
import signal

from dsmt.agents.rules.container import OUTCOME, AgentOutcome
from dsmt.errors import FailedError
from dsmt.ports.files import Files
from dsmt.ports.processes import Process


async def end_excused(agent: Process, files: Files) -> None:
    """End an agent of a container, now, and wait for its end (rule 1)."""
    with contextlib.suppress(FailedError):  # the disk is full: it is ended all the same
        files.write(OUTCOME, AgentOutcome.EXCUSED.encode())
    agent.signal(signal.SIGKILL)
    await agent.wait()


def heeded(files: Files, outcome: str) -> None:
    """Have the next agent of a container find that the last one is excused, if its outcome says so; any other goes."""
    if outcome == AgentOutcome.FOLLOWED:
        with contextlib.suppress(FailedError):
            files.write(OUTCOME, AgentOutcome.EXCUSED.encode())
            return
    files.remove(OUTCOME)
