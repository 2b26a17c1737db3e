"""What a program with our uid has put in the place of a file of ours: nobody waits for it, or fails at it for ever."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dsmt.agents.rules.container import PROCESS, RECORD
from dsmt.bus.client.incarnation import KeptIncarnation
from dsmt.errors import FailedError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import Parts
from dsmt.programs.containers import agents_in, record_in
from dsmt.programs.node_process import bus_of_agent
from dsmt.system.files import DiskFiles
from dsmt.system.fork import open_log
from dsmt.system.logs import DiskLogs
from dsmt.system.records import read_record

ODD = [os.mkdir, os.mkfifo, lambda path: Path(path).symlink_to(path), lambda path: Path(path).write_bytes(b"\xff{")]
IDS = ["directory", "pipe", "link to itself", "noise"]
JSON = [b'{"boot": "\xff"}', b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"]
"""What msgspec does not tell as what is no JSON."""


@pytest.mark.parametrize(
    "make",
    [*ODD, *(lambda path, noise=noise: Path(path).write_bytes(noise) for noise in JSON)],
    ids=[*IDS, "text in no code", "lists in lists"],
)
@pytest.mark.parametrize("name", [PROCESS, RECORD])
def test_down_finds_what_runs_whatever_a_containers_records_are(
    name: str, make: Callable[[str], None], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    container = home.part("nodes", "n1") / "containers" / "web" / "app" / "0"
    container.mkdir(parents=True)
    make(str(container / name))
    assert (record_in(container), read_record(str(container / name)), agents_in(container)) == (None, None, [])
    parts = Parts(home)
    assert (parts.agents(), parts.instances()) == ([], [])
    parts.clear()
    assert not container.exists()


@pytest.mark.parametrize("make", ODD[:3], ids=IDS[:3])
def test_what_is_in_the_place_of_a_log_is_read_as_nothing_and_goes_before_the_next_start(
    make: Callable[[str], None], tmp_path: Path
) -> None:
    logs = DiskLogs(str(tmp_path / "logs"))
    make(logs.path("stdout"))
    assert logs.read("stdout", 0, None) == b""
    logs.begin("stdout", size_bytes=100, keep=1)
    assert not os.path.lexists(logs.path("stdout"))


@pytest.mark.parametrize("make", ODD[1:], ids=IDS[1:])
def test_what_is_in_the_place_of_the_logs_goes(make: Callable[[str], None], tmp_path: Path) -> None:
    make(str(tmp_path / "logs"))
    logs = DiskLogs(str(tmp_path / "logs"))
    Path(logs.path("stdout")).write_bytes(b"said")
    assert logs.read("stdout", 0, None) == b"said"


@pytest.mark.parametrize("make", [*ODD[:3], lambda path: Path(path).symlink_to("/etc/hostname")], ids=[*IDS[:3], "link"])
def test_who_begins_makes_way_for_its_log_and_begins_without_one_where_that_cannot_be(
    make: Callable[[str], None], tmp_path: Path
) -> None:
    make(str(tmp_path / "agent.log"))
    log = open_log(str(tmp_path), "agent")
    os.write(log, b"said")
    os.close(log)
    assert ((tmp_path / "agent.log").read_bytes(), (tmp_path / "agent.log").is_symlink()) == (b"said", False)
    nowhere = open_log(str(tmp_path / "agent.log"), "agent")
    assert Path(f"/proc/self/fd/{nowhere}").readlink() == Path(os.devnull)
    os.close(nowhere)


@pytest.mark.parametrize("make", [*ODD[:3], lambda path: Path(path).symlink_to("/etc/hostname")], ids=[*IDS[:3], "link"])
@pytest.mark.parametrize("name", ["bus", "bus/incarnation"])
def test_what_is_in_the_place_of_what_an_agents_client_has_learnt_goes(
    name: str, make: Callable[[str], None], tmp_path: Path
) -> None:
    """Else no agent would begin there any more."""
    container = DiskFiles(str(tmp_path / "0"))
    container.write("bus/brokers", b"learnt")
    if name == "bus":
        container.remove("bus")
    make(f"{container.root}/{name}")
    incarnation = KeptIncarnation(DiskFiles(bus_of_agent(container)))
    assert incarnation.last is None
    incarnation.began(7)
    container.write("bus/brokers", b"learnt")
    assert KeptIncarnation(DiskFiles(bus_of_agent(container))).last == 7
    assert container.read("bus/brokers") == b"learnt"


def test_who_has_no_descriptor_left_does_not_take_a_record_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def has_none(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    record = tmp_path / PROCESS
    record.write_bytes(b"{}")
    monkeypatch.setattr(os, "open", has_none)
    with pytest.raises(OSError, match="too many"):
        read_record(str(record))
    with pytest.raises(OSError, match="too many"):
        record_in(tmp_path)
    with pytest.raises(FailedError, match="cannot be read: too many open files") as told:
        DiskFiles(str(tmp_path)).read(PROCESS)
    assert told.value.fields["other"] is False


def test_what_stands_in_the_place_of_a_log_or_goes_while_it_is_looked_at_ends_nobody_who_frees_what_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that met it would be started again, and meet it again."""
    logs, large, other = DiskLogs(str(tmp_path / "logs")), bytes(300_000), tmp_path / "another"
    other.write_bytes(large.replace(b"\0", b"x"))
    Path(logs.path("stdout")).write_bytes(large.replace(b"\0", b"x"))
    beside = Path(logs.path("stdout") + ".1")
    beside.mkdir()
    (beside / "held").touch()
    logs.trim("stdout", size_bytes=100_000, keep=1)
    assert not beside.exists()
    Path(logs.path("stderr")).symlink_to(other)
    logs.trim("stderr", size_bytes=100_000, keep=1)
    assert other.read_bytes() == large.replace(b"\0", b"x"), "what is no log of this instance is left alone"
    monkeypatch.setattr("dsmt.system.logs._taken", lambda _: 10**6)
    logs.trim("gone", size_bytes=100_000, keep=1)
