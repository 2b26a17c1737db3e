"""Machine: what a node is and how full it is, as a port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MachineReading:
    """One look at a machine. `load` is the 1-minute load average; the disk is the one that holds the node's data."""

    cpus: int
    memory_bytes: int
    memory_free_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    load: float


class Machine(Protocol):
    """The machine this process runs on."""

    @property
    def boot_id(self) -> str:
        """The boot id, new at each boot."""
        ...

    def read(self) -> MachineReading:
        """Look now; takes well under a millisecond."""
        ...

    def pid_of(self, program: str) -> int | None:
        """The pid of a living program of this node (`spawner`, `container_manager`), as its record says."""
        ...
