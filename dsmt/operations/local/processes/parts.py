"""Parts: who runs of what a home holds, by its records and its locks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from dsmt.agents.rules.container import FILES, LEFT, RECORD
from dsmt.agents.rules.record import dump_record, remembered
from dsmt.operations.local.home.home import KINDS, ROLES, SERVERS, Home, keeper_directory
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.containers import agents_in, containers_in, record_in, records_of_agents, roots_in
from dsmt.system.files import write_atomically
from dsmt.system.marks import MARK, owner_of
from dsmt.system.placed import placed_below
from dsmt.system.procfs import environment_value, is_alive
from dsmt.system.records import has_lock, is_copied, is_copy, lock_holders, process_of
from dsmt.system.removing import remove_tree

NODE_PROGRAMS: Final = ("spawner", "container_manager", "node_monitor")
"""What runs in a node's own directory; the first one ends the others."""


def _is_anothers(program: ProcessIdentity, container: Path) -> bool:
    """Whether a program belongs to the home of which this one is a copy: its mark says so, or its agent, which lives."""
    owner = owner_of(environment_value(program.pid, MARK) or "")
    return is_copied(owner, str(container)) or any(map(is_copy, records_of_agents(container)))


def _clear(container: Path) -> None:
    """Remove what is in a container, and it itself where nothing is left; of what a link there leads to, nothing.

    Its record stays whole until what is left of it is in its place.
    """
    for place in (container.parents[1], container.parents[0], container):
        if place.is_symlink() or not place.is_dir():
            with suppress(OSError):
                place.unlink()
            return
    record = remembered(record_in(container))
    with suppress(OSError):  # a disk that has become read-only, of which nothing is removed
        going = {RECORD, FILES} if record is None else set() if record.installed else {FILES}
        for path in container.iterdir():
            if path.name in LEFT - going:
                continue
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    remove_tree(str(path))
            else:
                path.unlink()
        if record is None:
            container.rmdir()
        else:
            write_atomically(str(container / RECORD), dump_record(record))


class Parts:
    """Who runs, by the records in a home, and by the locks that are held there."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def restarters(self) -> list[ProcessIdentity]:
        """The keeper, and each node's spawner and manager."""
        nodes = self._home.parts("nodes").values()
        found = self._living(keeper_directory(self._home), "spawner")
        return found + [i for node in nodes for i in self._living(node, "spawner", "container_manager")]

    def holders(self) -> list[ProcessIdentity]:
        """Who holds the lock of a spawner here, with a record or without."""
        found = lock_holders(str(keeper_directory(self._home)), str(self._home.root / "nodes"))
        return sorted(found, key=lambda identity: identity.pid)

    def unrecorded(self) -> set[ProcessIdentity]:
        """All of dsmt's own that run here, with a record or without."""
        kinds = (*ROLES, SERVERS, "migration")
        return placed_below(*(str(self._home.root / kind) for kind in kinds))

    def homes_of_spawners(self) -> list[Path]:
        """The directories in which a spawner may run, or may be on its way: those of nodes that never ran are not."""
        nodes = self._home.parts("nodes").values()
        found = [keeper_directory(self._home), *(node for node in nodes if has_lock(str(node)))]
        return [directory for directory in found if directory.is_dir()]

    def controllers(self) -> list[ProcessIdentity]:
        """The controllers."""
        return self._program("controllers", "controller")

    def brokers(self) -> list[ProcessIdentity]:
        """The brokers."""
        return self._program("brokers", "broker")

    def servers(self) -> list[ProcessIdentity]:
        """The NATS servers, also those to which the realm is to move."""
        return self._program("brokers", "nats_server") + self._program(SERVERS, "nats_server")

    def bridges(self) -> list[ProcessIdentity]:
        """The bridge of a move."""
        return self._living(self._home.migration, "bridge")

    def monitors(self) -> list[ProcessIdentity]:
        """The node monitors."""
        return self._program("nodes", "node_monitor")

    def agents(self) -> list[ProcessIdentity]:
        """The deployment agents."""
        return list(dict.fromkeys(one for container in self.containers() for one in agents_in(container)))

    def instances(self) -> list[ProcessIdentity]:
        """The programs that agents started, alive or with children that are."""
        roots = [(root, container) for container in self.containers() for root in roots_in(container)]
        return [root for root, container in roots if not _is_anothers(root, container)]

    def all(self) -> list[ProcessIdentity]:
        """Everybody."""
        living_instances = [identity for identity in self.instances() if is_alive(identity)]
        return [
            *self.restarters(),
            *self.controllers(),
            *self.monitors(),
            *self.agents(),
            *living_instances,
            *self.bridges(),
            *self.brokers(),
            *self.servers(),
        ]

    def things(self) -> list[str]:
        """The brokers, controllers and nodes that run, as topics name them."""
        programs = {"broker": ("broker", "nats_server"), "controller": ("controller",), "node": NODE_PROGRAMS}
        return [
            f"{role}/{name}"
            for role, own in programs.items()
            for name, directory in self._home.parts(KINDS[role]).items()
            if self._living(directory, *own)
        ]

    def _program(self, kind: str, program: str) -> list[ProcessIdentity]:
        directories = self._home.parts(kind).values()
        return [identity for directory in directories for identity in self._living(directory, program)]

    @staticmethod
    def _living(directory: Path, *programs: str) -> list[ProcessIdentity]:
        found = (process_of(directory, program) for program in programs)
        return [identity for identity in found if identity is not None]

    def clear(self) -> None:
        """Clear all containers away, but for what nobody else may have: `LEFT`."""
        for container in self.containers():
            _clear(container)
        for node in self._home.parts("nodes").values():
            for directory in (node / "containers").glob("*/*"):
                with suppress(OSError):  # of what is not empty
                    directory.rmdir()
                    directory.parent.rmdir()

    def containers(self) -> Iterable[Path]:
        """The directories of all containers."""
        for node in self._home.parts("nodes").values():
            yield from containers_in(node)
