"""Disks: what simulated programs write survives them, and their machine's reboot."""

from __future__ import annotations

from collections.abc import Iterator

from dsmt.ports.logs import Begun

Tree = dict[str, "Tree | bytes"]


class Disk:
    """One machine's disk; paths are absolute and slash-separated."""

    def __init__(self) -> None:
        self._root: Tree = {}

    def read(self, path: str) -> bytes | None:
        """A file's content, or None."""
        node = self._find(path)
        return node if isinstance(node, bytes) else None

    def write(self, path: str, content: bytes) -> None:
        """Replace a file."""
        above, _, name = path.rpartition("/")
        self.make(above)[name] = content

    def append(self, path: str, content: bytes) -> None:
        """Add to a file."""
        self.write(path, (self.read(path) or b"") + content)

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        node = self._find(path)
        return sorted(node) if isinstance(node, dict) else []

    def remove(self, path: str) -> None:
        """Remove a file or a directory; the root is emptied."""
        above, _, name = path.rstrip("/").rpartition("/")
        node = self._find(above)
        if isinstance(node, dict):
            node.pop(name, None)

    def make(self, path: str) -> Tree:
        """A directory, made when missing. A file in its way is replaced."""
        node = self._root
        for name in path.split("/"):
            if name:
                below = node.get(name)
                if not isinstance(below, dict):
                    below = node[name] = {}
                node = below
        return node

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file: its path and content."""
        waiting: list[tuple[str, Tree | bytes]] = [("", self._root)]
        while waiting:
            path, node = waiting.pop()
            if isinstance(node, bytes):
                yield path, node
            else:
                waiting += [(f"{path}/{name}", below) for name, below in node.items()]

    def _find(self, path: str) -> Tree | bytes | None:
        node: Tree | bytes | None = self._root
        for name in path.split("/"):
            if name:
                if not isinstance(node, dict):
                    return None
                node = node.get(name)
        return node


class SimFiles:
    """Fulfils `ports.files.Files` on a disk."""

    __slots__ = ("_disk", "_root")

    def __init__(self, disk: Disk, root: str) -> None:
        self._disk, self._root = disk, root

    @property
    def root(self) -> str:
        """The root's absolute path."""
        return self._root

    def read(self, path: str) -> bytes | None:
        """The whole content, or None when there is no such file."""
        return self._disk.read(f"{self._root}/{path}")

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:  # noqa: ARG002 - nobody else is here
        """Replace a file."""
        self._disk.write(f"{self._root}/{path}", content)

    def give(self, path: str, user: str) -> None:
        """Nobody else is here to be kept out."""

    def write_given(self, path: str, name: str, content: bytes, *, user: str, mode: int) -> None:  # noqa: ARG002
        """Write a file below a directory that was given."""
        self.write(f"{path}/{name}", content, mode=mode)

    async def synced(self, path: str) -> None:
        """Nothing is held back here."""

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        return self._disk.names(f"{self._root}/{path}")

    def remove(self, path: str) -> None:
        """Remove a file or a whole directory."""
        self._disk.remove(f"{self._root}/{path}")

    async def removed(self, path: str) -> None:
        """The same."""
        self.remove(path)

    def below(self, path: str, *, made: bool = True) -> SimFiles:
        """The same port rooted at a directory below this one."""
        if made:
            self._disk.make(f"{self._root}/{path}")
        return SimFiles(self._disk, f"{self._root}/{path}")


class SimLogs:
    """Fulfils `ports.logs.Logs` for one instance: files below `root`."""

    __slots__ = ("_disk", "_root")

    def __init__(self, disk: Disk, root: str) -> None:
        self._disk, self._root = disk, root

    def path(self, name: str) -> str:
        """The file to append to."""
        return f"{self._root}/{name}.log"

    def begin(self, name: str, *, size_bytes: int, keep: int) -> Begun:  # noqa: ARG002 - one old file is enough here
        """Rotate a file that is over its size."""
        if self.end(name) <= size_bytes:
            return Begun(self.end(name), rotated=False)
        self._disk.write(f"{self.path(name)}.1", self._disk.read(self.path(name)) or b"")
        self._disk.write(self.path(name), b"")
        return Begun(0, rotated=True)

    def end(self, name: str) -> int:
        """The file's end now."""
        return len(self._disk.read(self.path(name)) or b"")

    def trim(self, name: str, *, size_bytes: int, keep: int) -> None:
        """Free the oldest bytes: simulated programs write too little for that."""

    def read(self, name: str, start: int, end: int | None, *, back: int = 0, most: int = 65536) -> bytes:
        """The last `most` bytes between two offsets."""
        path = f"{self.path(name)}.{back}" if back else self.path(name)
        return (self._disk.read(path) or b"")[start:end][-most:]
