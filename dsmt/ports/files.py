"""Files: a process's own directory on the machine it runs on, as a port."""

from __future__ import annotations

from typing import Protocol


class Files(Protocol):
    """Small state below one root directory. Paths are relative, slash-separated, and never leave the root."""

    def read(self, path: str) -> bytes | None:
        """The whole content, or None when there is no such file."""
        ...

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        """Replace the file atomically (written beside it, then renamed); makes parent directories.

        Raises `FailedError` with code `fetch.no_space` on a full disk.
        """
        ...

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; empty when there is none."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or a whole directory; nothing happens when there is none."""
        ...

    def below(self, path: str) -> Files:
        """The same port rooted at a directory below this one (made when missing)."""
        ...

    @property
    def root(self) -> str:
        """The root as the operating system names it, for what is given to other programs."""
        ...
