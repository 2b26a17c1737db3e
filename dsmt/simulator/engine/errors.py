"""What goes wrong in a simulation itself, as opposed to in what is simulated.

These are bugs of a scenario or of the code it runs, so they stand outside the tree of `dsmt.errors`: code under
simulation that drops or retries a `DsmtError` must not drop one of these.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that went wrong beside the main coroutine.

    `time` is in virtual seconds; `process` names the simulated process it happened in, if it is known;
    `text` is what a person reads, with the traceback when there was an exception.
    """

    time: float
    process: str | None
    text: str

    def __str__(self) -> str:
        where = f" in {self.process}" if self.process else ""
        return f"[{self.time:.3f} s{where}] {self.text}"


class SimulationError(Exception):
    """The root of what the simulator itself raises."""


class DeadlockError(SimulationError):
    """Nothing is ready and no timer is set, but the main coroutine is not done.

    The message has the name and the stack of each live task, and each paused process.
    """


class LivelockError(SimulationError):
    """Too many callbacks ran within one instant: virtual time stands still."""


class NotSimulatedError(SimulationError):
    """The code reached for a thread, a socket, a subprocess or a signal; it must use a port."""


class LeftoverError(SimulationError):
    """The main coroutine succeeded, but something was left behind or went wrong unseen.

    `findings` lists it all, in the order in which it was found.
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        lines = "\n".join(str(finding) for finding in findings)
        super().__init__(f"{len(findings)} found after the run:\n{lines}")
        self.findings = findings


class ForkError(SimulationError):
    """A fork of a run raised something, or died."""


class ProcessKilled(BaseException):
    """The code runs in a simulated process that is dead: an order to unwind, as GeneratorExit is, and no error."""
