"""Message socket: a synchronous server of a SOCK_SEQPACKET unix socket, for a program without an event loop.

Rule 1: each message gets one answer; a client that has gone or does not read its answer is dropped.
Rule 2: the socket is for this user only (mode 0600), and bound through its directory's descriptor (unix(7): 108 bytes).
Rule 3: another program of this user may remove it, or put something in its place: that is looked for each `LOOK_S`, and
    another one is bound. While ours is open its inode is nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from typing import Final

from dsmt.system.removing import make_way

MESSAGE_LIMIT: Final = 65536
CLIENTS: Final = 64
"""Connections at once; beyond that it hangs up."""
LOOK_S: Final = 2.0


class MessageSocket:
    """Serves `<directory>/<name>` on a selector whose keys' `data` are functions to call."""

    def __init__(
        self, directory: str, name: str, selector: selectors.BaseSelector, answer: Callable[[bytes], bytes]
    ) -> None:
        self._directory, self._name = directory, name
        self._selector = selector
        self._answer = answer
        self._clients: set[socket.socket] = set()
        self._failed = ""
        self.due = 0.0
        """When `tick` looks next."""
        self._listen()

    def tick(self, now: float) -> str:
        """Look whether the socket is in its place, and listen anew where it is not; what is to be told of it."""
        if now < self.due:
            return ""
        self.due, before = now + LOOK_S, self._listening
        if self._bound is not None and _identity(self._path) == self._bound:
            return ""
        try:
            self._listen()
        except OSError as error:  # a full disk: it is tried again
            told, self._failed = self._failed, f"{self._path} is not in its place, and cannot be made anew: {error}"
            return "" if told == self._failed else self._failed
        self._selector.unregister(before)
        before.close()
        self._failed = ""
        return f"{self._path} was not in its place: it listens anew"

    @property
    def _path(self) -> str:
        return os.path.join(self._directory, self._name)

    def _listen(self) -> None:
        """Take clients at a socket of our own in its place."""
        self._listening = _bind(self._directory, self._name)
        self._bound = _identity(self._path)
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close every descriptor and nothing else: also right in a child that inherited them."""
        self._listening.close()
        for client in self._clients:
            client.close()

    def _accept(self) -> None:
        """Take a client. Raises OSError where there is no descriptor for it: it waits."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _address = self._listening.accept()
            client.setblocking(False)
            if len(self._clients) >= CLIENTS:
                client.close()
                return
            self._clients.add(client)
            self._selector.register(client, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: socket.socket) -> None:
        """Answer one message, or take leave of the client (rule 1)."""
        try:
            message = client.recv(MESSAGE_LIMIT)
            if message:
                client.send(self._answer(message))
                return
        except OSError:
            pass
        self._selector.unregister(client)
        self._clients.discard(client)
        client.close()


def _identity(path: str) -> tuple[int, int, int] | None:
    """What is in a place, and for whom; None where nothing is."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mode


def _bind(directory: str, name: str) -> socket.socket:
    """A socket that listens in the directory, in the place of whatever is there. Raises OSError."""
    path = os.path.join(directory, name)
    make_way(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o177)
    try:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            listening.bind(f"/proc/self/fd/{descriptor}/{name}")
            listening.listen(CLIENTS)
        except OSError:
            listening.close()
            raise
    finally:
        os.umask(before)
        os.close(descriptor)
    return listening
