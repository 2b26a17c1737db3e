"""Linux machine: what a node is and how full it is, as the kernel tells (proc(5), statvfs(3))."""

from __future__ import annotations

import os

from dsmt.ports.machine import MachineReading
from dsmt.system.procfs import boot, meminfo
from dsmt.system.records import process_of


class LinuxMachine:
    """The `Machine` port; `directory` is the node's: its file system is the disk that counts."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.abspath(directory)

    @property
    def boot_id(self) -> str:
        """The kernel's boot id."""
        return boot()

    def read(self) -> MachineReading:
        """Look now. Processors are those this process may run on; what root alone may have is no part of a disk (df(1))."""
        memory, disk = meminfo(), os.statvfs(self._directory)
        return MachineReading(
            cpus=len(os.sched_getaffinity(0)),
            memory_bytes=memory["MemTotal"],
            memory_free_bytes=memory["MemAvailable"],
            disk_bytes=(disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            load=round(os.getloadavg()[0], 2),
        )

    def pid_of(self, program: str) -> int | None:
        """The pid of a living program of this node."""
        found = process_of(self._directory, program)
        return None if found is None else found.pid
