"""Linux machine: what a node is and how full it is, as psutil and /proc tell."""

from __future__ import annotations

import os

import psutil

from dsmt.ports.machine import Reading
from dsmt.system.procfs import boot
from dsmt.system.records import living, record_path


class LinuxMachine:
    """The `Machine` port; `directory` is the node's: its file system is the disk that counts."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.abspath(directory)

    @property
    def boot_id(self) -> str:
        """The kernel's boot id."""
        return boot()

    def read(self) -> Reading:
        """Look now. Processors are those this process may run on."""
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(self._directory)
        return Reading(
            cpus=len(os.sched_getaffinity(0)),
            memory_bytes=memory.total,
            memory_free_bytes=memory.available,
            disk_bytes=disk.total,
            disk_free_bytes=disk.free,
            load=round(os.getloadavg()[0], 2),
        )

    def pid_of(self, program: str) -> int | None:
        """The pid of a living program of this node."""
        found = living(record_path(self._directory, program))
        return None if found is None else found.pid
