"""The keeper of a home, as who starts it sees it."""

from __future__ import annotations

import asyncio
import errno
import selectors
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from dsmt.errors import FailedError
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.home.making import init
from dsmt.operations.local.processes import keeping
from dsmt.operations.local.up.wanted import MOST_NODES
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.processes import SOCKET, Request
from dsmt.system.procfs import boot
from dsmt.system.seqpacket import MessageSocket


@contextmanager
def keeper_of(home: Home, nodes: int) -> Iterator[None]:
    """A keeper that has begun so many nodes, as far as it answers."""
    identity = msgspec.to_builtins(ProcessIdentity(123_456, 123_456_789, boot()))
    places = (str(home.part("nodes", f"n{number}")) for number in range(nodes))
    rows = [{"program": "spawner", "directory": place, **identity} for place in places]

    def answer(message: bytes) -> bytes:
        asked = msgspec.json.decode(message, type=Request)
        return msgspec.json.encode({"processes": rows} if asked.op == "list" else {"unknown": True})

    keeper_directory(home).mkdir(parents=True, exist_ok=True)
    over, selector = threading.Event(), selectors.DefaultSelector()
    served = MessageSocket(str(keeper_directory(home)), SOCKET, selector, answer)

    def serve() -> None:
        while not over.is_set():
            for key, _ in selector.select(0.05):
                key.data()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        served.close()
        selector.close()


def test_a_keeper_of_as_many_nodes_as_a_machine_takes_is_seen_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    monkeypatch.setattr(keeping, "start_spawner", lambda *_: None)
    with keeper_of(home, MOST_NODES):
        asyncio.run(asyncio.wait_for(keeping.start_keeper(home), 20))


def test_a_disk_that_does_not_tell_which_run_this_is_ends_no_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    run = keeping.begin(home)
    (keeper_directory(home) / keeping.BEGUN_ANEW).touch()  # it is kept

    def failing(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", failing)
        keeping.check_goes_on(home, run)
        assert keeping.begin(home) != run, "of what is not known nobody says that it goes on"
    with pytest.raises(FailedError, match="dsmt down, typed elsewhere"):
        keeping.check_goes_on(home, run)
