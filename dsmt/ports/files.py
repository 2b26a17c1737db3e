"""Files: a process's own directory on the machine it runs on, as a port."""

from __future__ import annotations

from typing import Protocol


class Files(Protocol):
    """Small state below one root directory. Paths are relative, slash-separated, and never leave the root."""

    def read(self, path: str) -> bytes | None:
        """The whole content, or None when there is no such file.

        Raises `FailedError` (`node.files`) where it cannot be read. Its field `other` tells whether that is since something
        else stands there: a directory, a pipe, a link to elsewhere.
        """
        ...

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        """Replace the file atomically (written beside it, then renamed); makes parent directories.

        Raises `FailedError`: `fetch.no_space` on a full disk, `node.files` where it cannot be, as where a directory stands.
        """
        ...

    def give(self, path: str, user: str) -> None:
        """Give a directory that we have made, with all in it, to a user, who alone may enter it from then on.

        It is given once: what was given before is not walked again, since it may hold links to what is somebody else's.
        Raises `FailedError` for a user that this machine does not have.
        """
        ...

    def write_given(self, path: str, name: str, content: bytes, *, user: str, mode: int) -> None:
        """Write a file, as `write` does, below a directory that was given to a user, none of whose links is followed."""
        ...

    async def synced(self, path: str) -> None:
        """Wait until all that anybody has written below a directory survives a power cut.

        Raises `FailedError`: `node.files` where that cannot be.
        """
        ...

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; empty when there is none. Raises `FailedError` (`node.files`) as `read` does."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or a whole directory; nothing happens when there is none.

        Raises `FailedError` (`node.files`) where it cannot be removed, as where something is mounted in it; then part of it
        may be gone.
        """
        ...

    async def removed(self, path: str) -> None:
        """The same for what may be large: others have their turn meanwhile."""
        ...

    def below(self, path: str, *, made: bool = True) -> Files:
        """The same port rooted at a directory below this one; it is there then, unless it need not be `made`.

        Raises `FailedError` with code `fetch.no_space` when a full disk has no room for it.
        """
        ...

    @property
    def root(self) -> str:
        """The root as the operating system names it, for what is given to other programs."""
        ...
