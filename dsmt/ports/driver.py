"""Driver: how an instance's program is run and contained, as a port.

Contract:
1. `start` returns only when the program has exec'd; what prevents it is a `FailedError` with a `start.` code.
2. An instance is a whole process tree: whatever the program forks belongs to it, also after a double fork,
   and `kill` leaves none of it.
3. `adopt` never takes another process that has got the same pid.
4. A driver is made for one container, and every program that it starts belongs to that container for ever.
5. What a program writes goes to the log files named in `Launch`, whoever of dsmt lives or dies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dsmt.ports.processes import Exit, Identity


@dataclass(frozen=True, slots=True)
class Launch:
    """One program to run: everything the driver needs, nothing it must look up.

    `limits` maps `pids`, `files`, `memory` (bytes, address space) to a number. `stdout` and `stderr` are paths of files
    that are appended to.
    """

    argv: tuple[str, ...]
    directory: str
    env: Mapping[str, str]
    stdout: str
    stderr: str
    limits: Mapping[str, int] = field(default_factory=dict)
    user: str = ""
    """Whom it runs as: a name, or uid[:gid]; empty for the driver's own user."""


class Instance(Protocol):
    """A running program with all that it forked."""

    @property
    def identity(self) -> Identity:
        """The program's own process."""
        ...

    async def wait(self) -> Exit:
        """Wait for the end of the program's own process. May be awaited by several."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group; nothing happens when it is gone."""
        ...

    async def kill(self, *, deadline: float) -> tuple[int, ...]:
        """SIGKILL the whole tree and wait until none of it is left, at most `deadline` seconds.

        Returns the pids that do not die (`stop.stuck`); empty is the good case.
        """
        ...


class Driver(Protocol):
    """A way to run programs. `fence` is `kernel` or `none` (rule C5)."""

    @property
    def fence(self) -> str:
        """Whether the kernel ends the instance with its agent."""
        ...

    @property
    def enforces(self) -> tuple[str, ...]:
        """The limits it can enforce here: of `pids`, `files`, `memory`, `cpu`, `disk`."""
        ...

    @property
    def users(self) -> tuple[str, ...]:
        """As whom it can run programs here: `any`, or the names of its own user."""
        ...

    def start(self, launch: Launch) -> Instance:
        """Start a program; synchronous, since nothing is as urgent. Raises `FailedError` with a `start.` code."""
        ...

    def adopt(self, identity: Identity) -> Instance | None:
        """Take over an instance that an earlier agent started; None when it is gone."""
        ...

    async def clear(self, *, deadline: float, spared: Sequence[Identity] = ()) -> tuple[int, ...]:
        """SIGKILL all programs of the container, whichever agent started them, and wait at most `deadline` s for their end.

        The `spared` ones live on, with all that they forked. For who knows of nothing else that runs: an agent that was
        killed after a start and before it wrote that down has left what no record names. Returns the pids that do not die;
        empty is the good case.
        """
        ...
