"""Message socket: a synchronous server of a SOCK_SEQPACKET unix socket, for a program without an event loop.

Rule 1: each message gets one answer; a client that has gone or does not read its answer is dropped.
Rule 2: the socket is for this user only (mode 0600), and bound through its directory's descriptor (unix(7): 108 bytes).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from typing import Final

MESSAGE_LIMIT: Final = 65536
CLIENTS: Final = 64
"""Connections at once; beyond that it hangs up."""


class MessageSocket:
    """Serves `<directory>/<name>` on a selector whose keys' `data` are functions to call."""

    def __init__(
        self, directory: str, name: str, selector: selectors.BaseSelector, answer: Callable[[bytes], bytes]
    ) -> None:
        self._selector = selector
        self._answer = answer
        self._clients: set[socket.socket] = set()
        self._listening = _bind(directory, name)
        self._listening.listen(CLIENTS)
        selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close every descriptor and nothing else: also right in a child that inherited them."""
        self._listening.close()
        for client in self._clients:
            client.close()

    def _accept(self) -> None:
        """Take a client."""
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


def _bind(directory: str, name: str) -> socket.socket:
    """The socket in the directory, in the place of one that a dead process left."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, name))
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o177)
    try:
        listening.bind(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.umask(before)
        os.close(descriptor)
    return listening
