"""A NATS server whose disk hangs: its gate sees that, and kills one of several. A file that nobody reads from hangs, too."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from dsmt.programs import nats_gate
from dsmt.programs.nats_gate import ASKED, ServerDisk
from dsmt.system.asking import AskedDisk
from dsmt.system.procfs import identity_of
from dsmt.system.records import record_path, write_record
from tests.waiting import until


def file_of(directory: Path) -> Path:
    path = directory / ASKED
    path.parent.mkdir(exist_ok=True)
    return path


def answer(path: Path) -> None:
    """Whoever waits for somebody to read it goes on."""
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    path.unlink()


def test_a_server_is_killed_once_for_a_disk_that_hangs_and_again_when_it_hangs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_gate, "ASK_S", 0.01)
    path, killed, looks, ask = file_of(tmp_path), [], [], AskedDisk.ask
    monkeypatch.setattr(AskedDisk, "ask", lambda disk: (looks.append(None), ask(disk)))

    async def main() -> None:
        watching = asyncio.ensure_future(ServerDisk(tmp_path).watch(lambda: killed.append(None)))
        try:
            await until(path.exists)
            for times in (1, 2):
                path.unlink()
                os.mkfifo(path)
                await until(lambda times=times: len(killed) == times)
                seen = len(looks)
                await until(lambda seen=seen: len(looks) > seen + 9)
                assert len(killed) == times
                answer(path)
                await until(path.exists)
        finally:
            watching.cancel()

    asyncio.run(main())


def test_a_disk_that_answers_with_an_error_does_not_hang(tmp_path: Path) -> None:
    asked = AskedDisk(str(tmp_path / "none" / "file"))

    async def main() -> None:
        for _ in range(3):
            asked.ask()
            await until(lambda: asked.answered)

    asyncio.run(main())


def test_one_that_would_not_end_when_it_is_asked_to_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; while :; do sleep 1000; done"], stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            running = identity_of(server.pid)
            assert running is not None
            path = Path(record_path(str(tmp_path), "nats_server"))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_record(str(path), running)
            nats_gate._kill(tmp_path)
            assert server.wait(20) == -signal.SIGKILL
        finally:
            server.kill()
