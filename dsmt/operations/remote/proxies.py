"""Proxies: the `ProxyCommand` of an operator's SSH configuration, of which it is told how it has failed.

Rule 1: asyncssh reads which one it is, and is given a socket to it. Left to itself it tells of one that fails as of a lost
    connection, and takes what that says on stderr for the word of the host.
Rule 2: it ends with the connection.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncssh

from dsmt.errors import InputError, TransportError

ENDS_S: Final = 1.0
"""How long one whose connection was lost may take to end."""
SAID_MOST: Final = 200


@asynccontextmanager
async def proxied(typed: str, host: str, *, port: int | None, user: str | None) -> AsyncIterator[socket.socket | None]:
    """A socket to the proxy of a host, for the length of a block; None where it has none.

    Raises `InputError` for one that cannot be started, and `TransportError` where it has ended and so the connection.
    """
    command = await _command(host, port, user)
    if not command:
        yield None
        return
    ours, its = socket.socketpair()
    with ours:
        with its:
            process = await _started(typed, command, its)
        said = asyncio.ensure_future(_last_line(process))
        try:
            yield ours
        except TransportError as error:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), ENDS_S)
            if process.returncode is None or (process.returncode == 0 and error.code == "ssh.lost"):
                raise
            raise _ended(typed, command, process.returncode, await said) from error
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            said.cancel()


async def _command(host: str, port: int | None, user: str | None) -> Sequence[str]:
    """The command, with no proxy before it; none where the configuration cannot be read: who connects says why."""
    with suppress(asyncssh.Error, OSError, ValueError):
        about: dict[str, object] = {"host": host, "port": port or (), "username": user or ()}
        options = await asyncssh.SSHClientConnectionOptions.construct(config=(), **about)
        return () if options.tunnel else options.proxy_command or ()
    return ()


async def _started(typed: str, command: Sequence[str], its: socket.socket) -> Process:
    try:
        return await asyncio.create_subprocess_exec(*command, stdin=its.fileno(), stdout=its.fileno(), stderr=PIPE)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        said = f"{typed}: the ProxyCommand of your SSH configuration cannot be started: {command[0]}: {why}"
        raise InputError("ssh.proxy", said, next="mend it in your SSH configuration") from error


async def _last_line(process: Process) -> str:
    """The last that it says on stderr, of which all is read."""
    last, stream = b"", process.stderr
    while stream is not None and (piece := await stream.read(4096)):
        last = (last + piece)[-2 * SAID_MOST :]
    lines = last.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[-SAID_MOST:] if lines else ""


def _ended(typed: str, command: Sequence[str], code: int, said: str) -> TransportError:
    how = f"ended with {code}" if code >= 0 else f"was ended by signal {-code}"
    message = f"{typed}: the ProxyCommand of your SSH configuration {how}{f': {said}' if said else ''}"
    return TransportError("ssh.proxy", message, next=f"see what this says: {shlex.join(command)}")
