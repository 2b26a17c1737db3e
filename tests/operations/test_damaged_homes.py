"""What of a home is damaged is told by its name, and what is whole is started without it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from dsmt.errors import FailedError, InputError
from dsmt.operations.local.home.home import Home, is_up, keeper_directory
from dsmt.operations.local.home.making import ensure_controller, ensure_node, init
from dsmt.operations.local.home.steadiness import last_words
from dsmt.operations.local.members import certificates
from dsmt.operations.local.members.brokers import made_ms, meshed, note_announced
from dsmt.operations.local.members.settling import settle_nodes
from dsmt.operations.local.processes import keeping
from dsmt.operations.local.up import machine, startable
from dsmt.operations.local.up.machine import StartedRealm, up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.programs.configuration import read_identity
from dsmt.system import processes
from dsmt.trust.store import TrustStore


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_of_a_file_that_is_none_it_is_told_whose_it_is(home: Home) -> None:
    """`up` ended by it, and had begun all the rest."""
    init(home, name="test")
    ensure_node(home, "n1")
    ensure_node(home, "n2")
    for file in ("nodes/n1/identity", "nodes/n2/node.cbor"):
        (home.root / file).unlink()
        (home.root / file).mkdir()
    assert settle_nodes(home) == []
    told = startable.damaged(home)
    assert list(told) == ["node n1", "node n2"]
    assert told["node n1"].startswith(f"{home.root / 'nodes/n1/identity'} cannot be read: is a directory; node n1 lacks it")
    assert certificates.learn(TrustStore(home.realm().realm), home, role="node/") == {
        read_identity(home.root / "nodes/n2/identity").key.key_id
    }


def test_a_broker_whose_files_are_damaged_keeps_no_other_one_from_starting(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three one was damaged, and after a power cut the realm stayed down."""
    begun: list[list[str]] = []

    async def start(_: Home, brokers: list[str], *__: object, **___: object) -> StartedRealm:
        begun.append(brokers)
        return StartedRealm("test", (), (), (), made=False)

    monkeypatch.setattr(machine, "start", start)
    init(home, name="test", brokers=3)
    damaged, lost, whole = (home.part("brokers", name) / "identity" for name in ("b1", "b2", "b3"))
    damaged.write_bytes(b"x")
    (lost.parent / "broker.log").write_text("")
    lost.unlink()
    started = asyncio.run(up(home, Wanted(nodes=0, controllers=1)))
    assert begun == [["b3"]]
    assert not lost.exists()
    assert list(started.amiss) == ["b1", "b2"]
    said = f"broker b1 does not start, and the others do without it: {damaged} is damaged: it holds no identity"
    assert started.amiss["b1"].startswith(f"{said}. Next: restore it from a backup")
    assert list(meshed(home, started.amiss)) == ["b3"]
    note_announced(home, ["b3"])
    assert made_ms(home, started.amiss) == {"b3": 0}
    whole.write_bytes(b"x")
    with pytest.raises(InputError, match=f"{whole} is damaged"):
        asyncio.run(up(home, Wanted()))


def test_a_node_of_which_no_spawner_can_be_begun_keeps_no_other_one_from_starting(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock was root's, who had typed a command there."""
    asked, code = list[str](), ["start.driver"]

    async def nothing(*_: object) -> None:
        pass

    async def ask(_: Home, *words: object) -> None:
        asked.append(Path(str(words[-1])).name)
        if asked[-1] == "n1":
            raise FailedError(code[0], "the spawner could not: [Errno 13] Permission denied: 'spawner.lock'")

    for name, act in (("start_keeper", nothing), ("keep", nothing), ("ask_keeper", ask)):
        monkeypatch.setattr(machine, name, act)
    init(home, name="test")
    started = asyncio.run(machine.start(home, ["b1"], [], ["n1", "n2"]))
    assert (asked, list(started.refused)) == (["n1", "n2"], ["node n1"])
    assert started.refused["node n1"].startswith("node n1 does not start: the spawner could not: [Errno 13] Permission")
    code[0] = "start.failed"
    with pytest.raises(FailedError):
        asyncio.run(machine.start(home, ["b1"], [], ["n1", "n2"]))


@pytest.mark.parametrize("file", ["nodes/n1/identity", "nodes/n1/node.cbor", "controllers/c1/issuer"])
def test_of_a_file_of_another_realm_it_is_told_whose_it_is(home: Home, file: str, tmp_path: Path) -> None:
    """`up` waited half a minute for the node."""
    for one in (home, other := Home(tmp_path / "other")):
        init(one, name=one.root.name)
        ensure_node(one, "n1")
        ensure_controller(one, "c1")
    assert startable.damaged(home) == {}
    (home.root / file).write_bytes((other.root / file).read_bytes())
    kind, name, _ = file.split("/")
    ((whose, said),) = startable.damaged(home).items()
    assert whose == f"{kind.removesuffix('s')} {name}"
    assert said.startswith(f"{home.root / file} is ")
    assert f"; {whose} lacks it. Next: restore it from a backup" in said
    (home.root / "brokers/b1/broker.cbor").write_bytes((other.root / "brokers/b1/broker.cbor").read_bytes())
    with pytest.raises(InputError, match=r"broker\.cbor is of another realm than home, the one of this home"):
        startable.check_broker(home, "b1")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("\n \n", ""),
        ("it begins\nTraceback (most recent call last):\n  File x, line 1\nKeyError: 'a'\n", "KeyError: 'a'"),
        ("KeyError: 'a'\nTraceback (most recent call last):\n", "KeyError: 'a'"),
        ("KeyError: 'a'\nTraceback (most recent call last):\n  File x, line 1\n    ^^^^\n", "KeyError: 'a'"),
        ("Traceback (most recent call last):\n", "Traceback (most recent call last):"),
        ('{"event": "cannot go on", "reason": "the store cannot be used"}\n', "the store cannot be used"),
    ],
)
def test_last_words_are_those_of_a_life_that_has_ended(log: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "broker.log").write_text(log)
    assert last_words(tmp_path / "broker.log") == words
    assert last_words(tmp_path / "none.log") == ""


def test_where_the_realm_was_made_a_missing_key_is_no_damage_and_what_is_damaged_keeps_no_broker(home: Home) -> None:
    init(home, name="test")
    identity = ensure_node(home, "n1") / "identity"
    identity.unlink()
    assert startable.damaged(home) == {}, "it is made anew"
    members = [*home.parts("nodes").values(), *home.parts("controllers").values()]
    for one in members:
        (one / "identity").write_bytes(b"x")
    assert len(startable.damaged(home)) == len(members)
    startable.check_whole(home)


def test_of_a_machine_that_has_joined_what_is_damaged_keeps_nothing_else_that_is_there_from_starting(home: Home) -> None:
    init(home, name="test")
    for node in ("n1", "n2"):
        ensure_node(home, node)
    for made in (home.root_key_file, home.operator_file, home.root / "brokers/b1/birth"):
        made.unlink()
    shutil.rmtree(home.root / "brokers")
    (home.part("nodes", "n1") / "identity").write_bytes(b"x")
    assert (home.is_joined, list(startable.damaged(home))) == (True, ["node n1"])
    startable.check_whole(home)


@pytest.mark.parametrize("content", [None, b"x"], ids=["missing", "damaged"])
def test_a_machine_that_has_joined_and_lost_its_only_key_begins_nothing(home: Home, content: bytes | None) -> None:
    init(home, name="test")
    identity = ensure_node(home, "n1") / "identity"
    for made in (home.root_key_file, home.operator_file, home.root / "brokers/b1/birth"):
        made.unlink()
    shutil.rmtree(home.root / "brokers")
    assert (home.is_joined, startable.damaged(home)) == (True, {})
    identity.unlink()
    if content is not None:
        identity.write_bytes(content)
    with pytest.raises(InputError, match="node n1 lacks it; nothing else is here to start") as failed:
        asyncio.run(up(home, Wanted()))
    assert failed.value.next.startswith("restore it from a backup")
    assert not keeper_directory(home).exists()


@pytest.mark.parametrize(
    ("number", "helps"), [(errno.EMFILE, "ulimit -n"), (errno.EACCES, "owner and mode"), (errno.EISDIR, "try again")]
)
def test_what_keeps_a_keeper_from_starting_is_told_with_what_helps(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int, helps: str
) -> None:
    def take_lock(_: str) -> None:
        raise OSError(number, os.strerror(number), "spawner.lock")

    init(home, name="test")
    monkeypatch.setattr(processes, "take_lock", take_lock)
    with pytest.raises(FailedError, match=f"cannot start the spawner of {keeper_directory(home)}: ") as failed:
        asyncio.run(keeping.start_keeper(home))
    assert helps in failed.value.next


def test_a_keeper_that_ends_as_it_begins_is_told_with_its_last_words(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was begun fifty times a second for half a minute, and then did not answer."""
    init(home, name="test")
    end = "print('no broker.py here', flush=True)"
    monkeypatch.setattr(keeping, "command_of", lambda _: [sys.executable, "-c", end])
    began = time.monotonic()
    with pytest.raises(FailedError, match=r"the keeper ends as it begins, again and again: no broker\.py here") as failed:
        asyncio.run(keeping.start_keeper(home))
    assert str(keeper_directory(home) / "spawner.log") in failed.value.next
    assert not is_up(home), "it is not said to go on"
    assert time.monotonic() - began < keeping.START_S / 2


def test_what_names_a_run_and_is_damaged_names_none(home: Home) -> None:
    init(home, name="test")
    run = keeping.begin(home)
    (keeper_directory(home) / keeping.RUN).write_bytes(b"\xcd\xff")
    assert keeping.begin(home) != run
