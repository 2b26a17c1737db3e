"""Driver: how an instance's program is run and contained, as a port.

Contract (`tests/agents/drivers/contract.py` holds every driver to it):
1. `prepare` makes ready what a launch needs and may take long; whoever cancels it leaves nothing half made. `start` finds
   that done. What prevents either is a `FailedError` with a code of the reason list, mostly one of `start.`.
2. `start` returns only when the program has exec'd, and limits, user, mounts and descriptors are in force then. Where a
   start takes no time, it gives no other task a turn.
3. An instance is a whole process tree: whatever the program forks belongs to it, also after a double fork,
   and `kill` leaves none of it: also none that belonged to it when it was asked to end, whatever that has become since.
4. A handle is the driver's own: others keep it, and give it back; a later driver of the same container adopts by it, and
   never takes another program for it.
5. A driver is made for one container, and every program that it starts belongs to that container for ever.
6. What a program writes goes to the log files named in `Launch`, whoever of dsmt lives or dies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NewType, Protocol

import msgspec

from dsmt.ports.processes import Exit

Handle = NewType("Handle", dict[str, Any])
"""What names a started program for ever: a map that JSON can hold. Nobody but the driver that made it reads it."""


class Mount(msgspec.Struct, frozen=True):
    """A path that the program sees as it is on the machine; unless it is `writable` it changes nothing there."""

    path: str
    writable: bool = False


class Launch(msgspec.Struct, frozen=True):
    """One program to run: everything the driver needs, nothing it must look up.

    `limits` maps `pids`, `files`, `memory` (bytes, address space) to a number. `stdout` and `stderr` are paths of files
    that are appended to.
    """

    argv: tuple[str, ...]
    directory: str
    env: Mapping[str, str]
    stdout: str
    stderr: str
    limits: Mapping[str, int] = msgspec.field(default_factory=dict)
    user: str = ""
    """Whom it runs as: a name, or uid[:gid]; empty for the driver's own user."""
    image: str = ""
    """The OCI image that is its root; empty for the machine's own."""
    mounts: tuple[Mount, ...] = ()
    """What it must see. A driver that contains shows it nothing else that is an instance's or dsmt's; others show all."""
    descriptors: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Open descriptors by name, such as listening sockets: the program has them from 3 on, as sd_listen_fds(3) says."""


KILL_S: Final = 5.0
"""How long the kernel may take to end what was killed, before it is told as stuck."""


class Instance(Protocol):
    """A running program with all that it forked."""

    @property
    def handle(self) -> Handle:
        """What a later agent adopts it by."""
        ...

    @property
    def pid(self) -> int | None:
        """The number of the program's own process, to be shown; None when it has none here."""
        ...

    async def wait(self) -> Exit:
        """Wait for the end of the program's own process. May be awaited by several."""
        ...

    def look(self) -> None:
        """It is about to be asked to end: note who belongs to it now, where nothing else tells that later."""
        ...

    def signal(self, number: int) -> None:
        """Look, and send a signal to the program's process group; nothing happens when it is gone."""
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

    def available(self) -> str:
        """Why it can run nothing here, as a sentence for people; empty when it can."""
        ...

    async def prepare(self, launch: Launch) -> None:
        """Make ready what the launch needs: root, mounts, image. Repeatable, and at once when nothing is missing.

        Raises `FailedError`, also for what this driver can never do.
        """
        ...

    async def start(self, launch: Launch) -> Instance:
        """Start a program that was prepared for. Raises `FailedError`. Cancelled, it leaves nothing running."""
        ...

    async def adopt(self, handle: Handle) -> Instance | None:
        """Take over an instance that an earlier agent started; None when it is gone."""
        ...

    async def ended(self, handle: Handle) -> Exit:
        """How an instance ended that could not be adopted; `Exit(None, None)` when nobody saw it."""
        ...

    async def clear(self, *, deadline: float, spared: Sequence[Handle] = ()) -> tuple[int, ...]:
        """End at once all programs of the container, whichever agent started them; wait at most `deadline` s for that.

        The `spared` ones live on, with all that they forked; handles of other drivers may be among them, and say
        nothing. For who knows of nothing else that runs: an agent that was killed after a start and before it wrote
        that down has left what no record names. Returns the pids that do not die; empty is the good case.
        """
        ...
