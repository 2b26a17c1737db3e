"""Hosts: what an operator is told while one is reached."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
from pathlib import Path

import asyncssh
import pytest

from dsmt.errors import FailedError, TransportError
from dsmt.operations.remote.hosts import _PROBE, address_of, reached
from tests.waiting import seen


def test_who_loses_a_connection_is_told_so_once_and_of_no_single_write(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            with pytest.raises(TransportError):
                async with reached(address_of(f"127.0.0.1:{nobody.getsockname()[1]}"), for_user=True):
                    pass

    asyncio.run(main())
    logger = logging.getLogger("asyncio")
    logger.warning("socket.send() raised exception.")
    lost = (asyncssh.ConnectionLost("lost"), asyncssh.SFTPNoConnection("not open"), asyncssh.SFTPConnectionLost("closed"))
    for error in (*lost, ValueError("something else")):
        logger.error("Task exception was never retrieved", exc_info=error)
    told = [record.exc_info for record in caplog.records if record.name == "asyncio"]
    assert [one[1] and str(one[1]) for one in told if one is not None] == ["something else"]
    assert len(told) == 1


class Open(asyncssh.SSHServer):
    """An sshd that lets in whoever comes."""

    def begin_auth(self, username: str) -> bool:
        return False


async def sh(process: asyncssh.SSHServerProcess[str]) -> None:
    """Run what is asked for, as an sshd does."""
    given = await process.stdin.read() if process.command == "exec sh -s" else ""  # the end is not said of what is nothing
    argv = ["sh", "-c", str(process.command)]
    ran = await asyncio.create_subprocess_exec(*argv, stdin=-1, stdout=-1, env={"PATH": "/usr/bin:/bin"})
    said, _ = await ran.communicate(given.encode())
    process.stdout.write(said.decode())
    process.exit(0)


def test_a_host_whose_sshd_has_no_sftp_is_told_as_that_and_not_as_a_lost_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.create_server(Open, "127.0.0.1", 0, server_host_keys=[key], process_factory=sh)
        port = server.get_port()
        (tmp_path / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
        with pytest.raises(FailedError, match=r"refuses SFTP") as told:
            async with server, asyncio.timeout(30), reached(address_of(f"me@127.0.0.1:{port}"), for_user=True):
                pass
        assert told.value.code == "ssh.sftp"

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    asyncio.run(main())
    assert not list(tmp_path.glob("dsmt-*")), "what was made there is removed"


def test_what_was_brought_to_a_host_that_died_meanwhile_is_removed_by_who_comes_next(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    names = (f"{ended.pid}-aB3xY9zQ", f"{os.getpid()}-aaaaaaaa", "mine")
    dead, living, strange = (tmp_path / f"dsmt-{name}" for name in names)
    for directory in (dead, living, strange, tmp_path / f"other-{ended.pid}-aaaaaaaa"):
        (directory / "wheels").mkdir(parents=True)
    link = tmp_path / f"dsmt-{ended.pid}-linklink"
    link.symlink_to(strange)
    argv = ["sh", "-c", "sh -s; :"]
    said = subprocess.check_output(argv, input=_PROBE.encode(), env={**os.environ, "TMPDIR": str(tmp_path)}).decode()
    (stage,) = (Path(line.partition(" ")[2]) for line in said.splitlines() if line.startswith("STAGE "))
    left = {path.name for path in tmp_path.iterdir()} - {stage.name}
    assert left == {living.name, strange.name, link.name, f"other-{ended.pid}-aaaaaaaa"}
    assert (strange / "wheels").exists()
    seen(lambda: not stage.exists(), "it goes with its connection", 20)
