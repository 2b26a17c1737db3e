"""The drivers: every word of `driver`, what it does, and where its adapter is; the one table of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class DriverRow(NamedTuple):
    """One driver. `contains`: of other instances and of dsmt a program sees only what is mounted for it.

    `adapter` is `module:class`, which fulfils `dsmt.ports.driver`; empty while it is not built.
    """

    about: str
    contains: bool = True
    adapter: str = ""


DRIVERS: Final[Mapping[str, DriverRow]] = {
    "process": DriverRow(
        "a plain process in a session of its own, with resource limits",
        contains=False,
        adapter="dsmt.agents.drivers.process:ProcessDriver",
    ),
    "bubblewrap": DriverRow("namespaces of its own: it sees the machine's programs, and of all else only what is its own"),
    "podman": DriverRow("a container of an OCI image"),
    "systemd": DriverRow("a transient unit of the machine's service manager"),
}

BUILT: Final = tuple(word for word, row in DRIVERS.items() if row.adapter)
"""The drivers that this version has."""
