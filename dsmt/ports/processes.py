"""Processes: starting and watching dsmt's own processes on a node, as a port.

The container manager uses it to start deployment agents. The Linux adapter asks the node's spawner, whose
forks are warm and whose death leaves them running; the simulator starts a simulated process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import msgspec


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process for ever: a pid alone may be used again.

    `started` is its start time in clock ticks since boot (/proc/PID/stat field 22), `boot` the boot id.
    """

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended; both None when nobody saw it (`run.vanished`)."""

    code: int | None
    signal: int | None

    @property
    def seen(self) -> bool:
        """Whether anybody saw how it ended."""
        return self.code is not None or self.signal is not None

    def __str__(self) -> str:
        """How it ended, as a log says it."""
        if self.signal is not None:
            return f"was killed by signal {self.signal}"
        return "ended, and nobody saw how" if self.code is None else f"exited with code {self.code}"


UNSEEN: Final = Exit(None, None)


class Process(Protocol):
    """A process that was started or found again."""

    @property
    def identity(self) -> ProcessIdentity:
        """Which process this is."""
        ...

    async def wait(self) -> Exit:
        """Wait for its end. May be awaited by several, and after the end."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to this process only; nothing happens when it is gone."""
        ...

    def handles(self, number: int) -> bool:
        """Whether it would act on a signal, or is gone: one with no handler yet has not begun its work, or is stopped."""
        ...


class Processes(Protocol):
    """The spawner, as the container manager sees it."""

    async def start_agent(self, directory: str) -> Process:
        """Start a deployment agent for the container in `directory`.

        Raises `TransportError` with code `spawner.gone` when the spawner does not answer (it is being restarted).
        """
        ...

    def find(self, identity: ProcessIdentity) -> Process | None:
        """The process if it still lives, else None. Never another one with the same pid."""
        ...
