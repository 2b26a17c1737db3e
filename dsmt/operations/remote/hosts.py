"""Hosts: another machine, reached over SSH as its operator reaches it: with their config, agent, keys and known hosts.

Rule 1: asyncssh reads all that; nothing is asked, no key is accepted that is not known, and nothing is shelled out here
    but what their config names (`proxies`).
Rule 2: what is done there is done by `on_host`, run by the host's own Python; as root where a node is for the whole machine.
Rule 3: every error says which host, what, and what to do. What was brought is removed, whatever comes of it; where this
    process is killed, by one there that outlives the connection for that; where the host dies, by who comes next.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import asyncssh
import msgspec

from dsmt.errors import UNDECODABLE, DsmtError, FailedError, InputError, NotFoundError, RefusedError, TransportError
from dsmt.event.addresses import is_number
from dsmt.operations.remote import on_host
from dsmt.operations.remote.proxies import proxied
from dsmt.operations.remote.wheels import Platform

CONNECT_S: Final = 20.0
KEEPALIVE_S: Final = 15
OLDEST: Final = (3, 11)
MOST_PORTS: Final = 65535
ADDRESS: Final = "write [USER@]HOST[:PORT]"
_ADDRESS: Final = re.compile(r"(?:([^@\s]+)@)?(\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_PROBE: Final = r"""
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    command -v $python >/dev/null 2>&1 && $python -c '
import json, os, platform, sys
print("PYTHON " + json.dumps([sys.executable, list(sys.version_info[:2]), platform.machine(), *platform.libc_ver()]))'
done
echo "USER $(id -u)"
echo "REACHED ${SSH_CONNECTION:-}"
sudo -n true >/dev/null 2>&1 && echo SUDO
place=${TMPDIR:-/tmp}
for left in "$place"/dsmt-[0-9]*-????????; do
    connection=${left#"$place"/dsmt-}
    if [ -d "$left" ] && [ ! -L "$left" ] && [ ! -d "/proc/${connection%-*}" ]; then rm -rf "$left" 2>/dev/null; fi
done
stage=$(mktemp -d "$place/dsmt-$PPID-XXXXXXXX")
echo "STAGE $stage"
if [ -n "$stage" ] && kill -0 $PPID 2>/dev/null; then
    (while kill -0 $PPID 2>/dev/null && [ -d "$stage" ]; do sleep 1; done; rm -rf "$stage") </dev/null >/dev/null 2>&1 &
fi
"""
"""What is looked at first; and who removes what was brought when the connection's process there has ended (rule 3)."""
_BY_CODE: Final[Mapping[str, type[DsmtError]]] = {
    "home.": RefusedError, "token.": RefusedError, "bus.": TransportError, "trust.": RefusedError,
}  # fmt: skip


class HostAddress(msgspec.Struct, frozen=True, kw_only=True):
    """[USER@]HOST[:PORT], as it was typed; what is not there is of the operator's SSH config."""

    typed: str
    user: str | None
    host: str
    port: int | None

    def __str__(self) -> str:
        return self.typed

    @property
    def is_number(self) -> bool:
        """Whether it is an address in numbers, which is no name for a node."""
        return is_number(self.host)


def address_of(typed: str) -> HostAddress:
    """What was typed, taken apart. Raises `InputError`."""
    found = _ADDRESS.fullmatch(typed)
    if found is None:
        raise InputError("ssh.address", f"{typed!r} is not the address of a host", next=ADDRESS)
    user, host, port = found.groups()
    if port and not 0 < int(port) <= MOST_PORTS:
        said = f"{typed!r} is not the address of a host: a port is a number from 1 to {MOST_PORTS}"
        raise InputError("ssh.address", said, next=ADDRESS)
    return HostAddress(typed=typed, user=user, host=host.strip("[]"), port=int(port) if port else None)


class ReachedHost:
    """A host that is reached: its Python, who we are there, and a directory for what is brought."""

    def __init__(self, address: HostAddress, connection: asyncssh.SSHClientConnection, *, stage: str) -> None:
        self.address = address
        self._connection, self._stage = connection, stage
        self.python = ""
        self.platform = Platform(version=OLDEST, machine="", libc="", libc_version="")
        self.reached_at = ""
        """Its own address, at which we have reached it."""
        self.root = ""
        """What stands before a command that root is to run; empty for root itself, and where nobody is to."""

    async def bring(self, files: list[str], below: str = "") -> None:
        """Copy files into the directory for what is brought."""
        where = f"{self._stage}/{below}".rstrip("/")
        async with self._connection.start_sftp_client() as sftp:
            await sftp.makedirs(where, exist_ok=True)
            await sftp.put(files, where)

    async def do(self, verb: str, told: Mapping[str, Any], *, given: str = "") -> dict[str, Any]:
        """Have `on_host` do something; what it says. Raises what it says as an error."""
        parameters = msgspec.json.encode(told).decode()
        argv = [*self.root.split(), self.python, f"{self._stage}/{Path(on_host.__file__).name}", verb, parameters]
        done = await _run(self._connection, shlex.join(argv), given)
        lines = str(done.stdout or "").strip().splitlines()
        try:
            answer: dict[str, Any] = msgspec.json.decode(lines[-1], type=dict[str, Any])
        except (IndexError, *UNDECODABLE) as error:
            said = " / ".join(str(done.stderr or "").strip().splitlines()[-3:]) or f"it ended with {done.exit_status}"
            raise FailedError("host.command", f"{self.address}: {verb} has failed: {said}", next="try again") from error
        if "error" in answer:
            told_error = answer["error"]
            kind = next((kind for start, kind in _BY_CODE.items() if told_error["code"].startswith(start)), FailedError)
            raise kind(told_error["code"], f"{self.address}: {told_error['message']}", next=told_error["next"])
        return answer

    async def clean(self) -> None:
        """Remove what was brought."""
        with suppress(asyncssh.Error, OSError):
            await self._connection.run(f"rm -rf {shlex.quote(self._stage)}", check=False)


@asynccontextmanager
async def reached(address: HostAddress, *, for_user: bool) -> AsyncIterator[ReachedHost]:
    """A host for the length of a block. Raises `DsmtError` that names it, also for what its connection does in the block."""
    logging.getLogger("asyncio").addFilter(_is_told)
    proxy = proxied(address.typed, address.host, port=address.port, user=address.user)
    async with proxy as at, _reached(address, at, for_user=for_user) as host:
        yield host


@asynccontextmanager
async def _reached(address: HostAddress, proxy: socket.socket | None, *, for_user: bool) -> AsyncIterator[ReachedHost]:
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await asyncssh.connect(
                address.host,
                port=address.port or (),
                username=address.user or (),
                keepalive_interval=KEEPALIVE_S,
                sock=proxy,
            )
    except (asyncssh.Error, OSError, TimeoutError, ValueError) as error:
        raise _not_reached(address, error) from error
    async with connection:
        try:
            host = await _probed(address, connection, for_user=for_user)
            try:
                await host.bring([on_host.__file__])
                yield host
            finally:
                await asyncio.shield(host.clean())
        except (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded, asyncssh.SFTPFailure) as error:
            said = f"{address}: what is brought cannot be written there: the disk is full"  # OpenSSH's word is "failure"
            raise FailedError("host.full", said, next="free 200 MB there, and try again") from error
        except asyncssh.ChannelOpenError as error:  # commands have run there by then
            said = f"{address}: its sshd takes no files: it refuses SFTP"
            next_step = "have `Subsystem sftp internal-sftp` in its sshd_config, and try again"
            raise FailedError("ssh.sftp", said, next=next_step) from error
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise _lost(address, error) from error
        except asyncssh.SFTPError as error:
            said = f"{address}: what is brought cannot be written there: {_reason(error)}"
            raise FailedError("host.write", said, next="see who may write to TMPDIR there, or /tmp") from error
        except (asyncssh.Error, ConnectionError) as error:
            raise _lost(address, error) from error


def _is_told(record: logging.LogRecord) -> bool:
    """Whether what asyncio complains of is to be told: not what a lost connection was doing; its end is told once."""
    of_it = record.exc_info is not None and isinstance(record.exc_info[1], asyncssh.Error)
    return not of_it and "socket.send() raised" not in str(record.msg)


async def _run(connection: asyncssh.SSHClientConnection, command: str, given: str) -> asyncssh.SSHCompletedProcess:
    """Run a command there to its end. Raises `asyncssh.ConnectionLost` where the connection ended before it."""
    done = await connection.run(command, input=given, check=False)
    if done.exit_status is None:
        raise asyncssh.ConnectionLost("it was closed there")
    return done


async def _probed(address: HostAddress, connection: asyncssh.SSHClientConnection, *, for_user: bool) -> ReachedHost:
    """What the host has. Raises `NotFoundError`, `RefusedError`."""
    done = await _run(connection, "exec sh -s", _PROBE)  # its parent is the connection's own process
    lines = str(done.stdout or "").splitlines()
    words = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    stage = words.get("STAGE", "")
    if not stage:
        said = f"{address}: no directory can be made there: {str(done.stderr or '').strip()[-200:]}"
        raise FailedError("host.full", said, next="see that its disk has room and TMPDIR is writable, and try again")
    host = ReachedHost(address, connection, stage=stage)
    try:
        _choose(host, words, lines, for_user=for_user)
    except BaseException:
        await host.clean()
        raise
    return host


def _choose(host: ReachedHost, words: Mapping[str, str], lines: list[str], *, for_user: bool) -> None:
    """Choose by which Python, and as whom, things are done there. Raises `NotFoundError`, `RefusedError`."""
    pythons = [msgspec.json.decode(line.partition(" ")[2]) for line in lines if line.startswith("PYTHON ")]
    fitting = [one for one in pythons if tuple(one[1]) >= OLDEST]
    if not fitting:
        raise _no_python(host.address, pythons)
    host.python, version, machine, libc, libc_version = fitting[0]
    host.platform = Platform(version=(version[0], version[1]), machine=machine, libc=libc, libc_version=libc_version)
    host.reached_at = "".join(words.get("REACHED", "").split()[2:3])
    if words.get("USER") == "0" or for_user:
        return
    if "SUDO" not in words:
        said = f"{host.address}: a node of the whole machine needs root, and sudo without a password is not allowed there"
        raise RefusedError("host.root", said, next="log in as root, allow sudo, or add it with --user")
    host.root = "sudo -n"


def _lost(address: HostAddress, error: Exception) -> TransportError:
    said = f"{address}: the connection was lost: {_reason(error)}"
    return TransportError("ssh.lost", said, next="try again: what is done there is not done twice")


def _no_python(address: HostAddress, pythons: list[Any]) -> NotFoundError:
    wanted = f"Python {OLDEST[0]}.{OLDEST[1]} or later"
    if not pythons:
        return NotFoundError("host.python", f"{address} has no Python", next=f"install {wanted} there, and try again")
    newest = ".".join(map(str, max(one[1] for one in pythons)))
    said = f"{address} has Python {newest}, which is too old"
    return NotFoundError("host.python", said, next=f"install {wanted} there beside it, and try again")


def _not_reached(address: HostAddress, error: Exception) -> DsmtError:
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        said = f"{address}: its host key is not in known_hosts, or is another one there"
        return RefusedError(
            "ssh.host_key", said, next=f"compare the key that `ssh {address.host}` shows, and accept it there"
        )
    if isinstance(error, asyncssh.PermissionDenied):
        said = f"{address} takes none of your keys"
        return RefusedError("ssh.denied", said, next="see that `ssh -o BatchMode=yes` logs in: ssh-copy-id, ssh-add, USER@")
    if isinstance(error, asyncssh.ConfigParseError | asyncssh.KeyImportError | asyncssh.KeyEncryptionError):
        said = f"{address}: your SSH configuration or key cannot be used: {_reason(error)}"
        return InputError("ssh.config", said, next="mend it, or add the key to an agent: ssh-add")
    if isinstance(error, socket.gaierror):
        return TransportError("ssh.name", f"{address}: nobody knows a host of this name", next="check how it is written")
    return TransportError("ssh.unreachable", f"{address} is not reached: {_reason(error)}", next="see that it runs sshd")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:.0f} s"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return (str(error) or type(error).__name__).strip().rstrip(".").lower()
