"""The socket at which a spawner is asked: whatever another program of our user does in its place, it is there again."""

import os
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsmt.system.seqpacket import LOOK_S, MessageSocket

NAME = "spawner.sock"


def another_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(path)


def directory_with_more(path: str) -> None:
    Path(path, "a", "b").mkdir(parents=True)
    Path(path, "a", "c").write_bytes(b"c")


IN_THE_PLACE: dict[str, Callable[[str], None]] = {
    "nothing": lambda _: None,
    "file": lambda path: Path(path).write_bytes(b"\xff{"),
    "directory": directory_with_more,
    "pipe": os.mkfifo,
    "link": lambda path: Path(path).symlink_to("/etc/hostname"),
    "another socket": another_socket,
}


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


def answered(directory: Path, selector: selectors.BaseSelector) -> bytes:
    """What it answers to who connects now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(10)
        client.connect(str(directory / NAME))
        client.send(b"ask")
        for _ in range(2):  # it is let in, and answered
            for key, _events in selector.select(10):
                key.data()
        return client.recv(100)


@pytest.mark.parametrize("what", IN_THE_PLACE)
def test_what_is_in_the_place_of_a_spawners_socket_goes_and_it_listens_anew(
    what: str, tmp_path: Path, selector: selectors.BaseSelector
) -> None:
    place = tmp_path / NAME
    IN_THE_PLACE[what](str(place))
    at = MessageSocket(str(tmp_path), NAME, selector, lambda message: b"to " + message)
    assert at.tick(100.0) == ""
    assert answered(tmp_path, selector) == b"to ask"
    place.unlink()
    IN_THE_PLACE[what](str(place))
    assert at.due == 100.0 + LOOK_S
    assert at.tick(at.due - 0.1) == "", "it is not looked for at each turn"
    assert at.tick(at.due) == f"{place} was not in its place: it listens anew"
    assert answered(tmp_path, selector) == b"to ask"
    assert at.tick(at.due) == ""
    assert place.stat().st_mode & 0o777 == 0o600
    at.close()


def test_a_socket_whose_rights_were_taken_away_is_made_anew(tmp_path: Path, selector: selectors.BaseSelector) -> None:
    at = MessageSocket(str(tmp_path), NAME, selector, lambda message: b"to " + message)
    (tmp_path / NAME).chmod(0)
    assert at.tick(100.0) != ""
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert answered(tmp_path, selector) == b"to ask"
    at.close()


def test_one_that_cannot_be_made_anew_is_told_once_and_tried_again(tmp_path: Path, selector: selectors.BaseSelector) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    at = MessageSocket(str(home), NAME, selector, lambda message: b"to " + message)
    home.rename(elsewhere)
    before = set(Path("/proc/self/fd").iterdir())
    assert "cannot be made anew" in at.tick(100.0)
    assert at.tick(at.due) == ""
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert answered(elsewhere, selector) == b"to ask", "the one that it has is kept"
    home.mkdir()
    assert at.tick(at.due) != ""
    assert answered(home, selector) == b"to ask"
    at.close()
