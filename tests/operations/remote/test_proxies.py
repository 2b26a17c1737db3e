"""Hosts behind a `ProxyCommand`: they are reached through it, and it is told how it has failed."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import asyncssh
import pytest

from dsmt.errors import DsmtError
from dsmt.operations.remote.hosts import address_of, reached

RELAY = """
import socket, sys, threading
there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def pump(take, give):
    while piece := take(65536):
        give(piece)
threading.Thread(target=pump, args=(there.recv, lambda piece: (sys.stdout.buffer.write(piece), sys.stdout.flush())), daemon=True).start()
pump(sys.stdin.buffer.read1, there.sendall)
"""  # noqa: E501


def configured(directory: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("HOME", str(directory))
    (directory / ".ssh").mkdir()
    (directory / ".ssh" / "config").write_text(f"Host far\n  ProxyCommand {command}\n")


async def refused() -> DsmtError:
    with pytest.raises(DsmtError) as told:
        async with asyncio.timeout(30), reached(address_of("me@far"), for_user=True):
            pass
    return told.value


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("false", "ssh.proxy", "me@far: the ProxyCommand of your SSH configuration ended with 1"),
        ("true", "ssh.proxy", "me@far: the ProxyCommand of your SSH configuration ended with 0"),
        ("/no/such/proxy %h %p", "ssh.proxy", "cannot be started: /no/such/proxy: no such file or directory"),
        ("sh -c 'echo far: no route for %h >&2; exit 3'", "ssh.proxy", "ended with 3: far: no route for far"),
        ("sh -c 'kill -9 $$'", "ssh.proxy", "was ended by signal 9"),
        ("sh -c 'echo SSH-2.0-x; exit 3'", "ssh.proxy", "ended with 3"),
    ],
)
def test_one_that_fails_is_told_as_that_and_not_as_a_lost_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: str, said: str
) -> None:
    configured(tmp_path, monkeypatch, command)
    told = asyncio.run(refused())
    assert (told.code, told.message.endswith(said)) == (code, True), told.message
    assert told.next


def test_a_host_is_reached_through_it_and_it_ends_with_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, began = tmp_path / "relay.py", tmp_path / "began"
    relay.write_text(RELAY)

    async def main() -> DsmtError:
        server = await asyncssh.listen("127.0.0.1", 0, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")])
        async with server:
            argv = shlex.join([sys.executable, str(relay), str(server.get_port())])
            configured(tmp_path, monkeypatch, f"sh -c 'echo $$ >{began}; exec {argv}'")
            return await refused()

    assert asyncio.run(main()).code == "ssh.host_key", "the host has shown its key"
    assert not Path(f"/proc/{began.read_text().strip()}").exists()
