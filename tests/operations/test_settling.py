"""A host that was added before takes the labels that are typed now, and the address that its machine has now."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import time
from pathlib import Path

import pytest

from dsmt.errors import FailedError, RefusedError
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.members import joining, settling
from dsmt.operations.local.members.joining import KEY_FILE
from dsmt.operations.local.members.settling import Settling, settle, settle_nodes
from dsmt.operations.local.up import upgrading
from dsmt.programs.configuration import BrokerFile, NodeFile, RealmConfig
from dsmt.system.procfs import identity_of
from dsmt.system.records import record_path, write_record
from dsmt.trust.identity import dump, root_issued
from dsmt.trust.keys import SecretKey
from tests.bus.realm import TestRealm, memory_network

REALM = RealmConfig(name="r", roots=(bytes(32),), brokers=(("10.9.9.1:4000", bytes(32)),))


def added(directory: Path, address: str, **labels: str) -> Home:
    """The home of a host that was added at an address."""
    home = Home(directory)
    REALM.write(home.root)
    NodeFile(node="m5", realm=REALM, address=address, labels=labels).write(home.part("nodes", "m5"))
    (home.part("nodes", "m5") / "identity").touch()
    return home


def told(home: Home) -> tuple[str, dict[str, str]]:
    held = NodeFile.read(home.part("nodes", "m5"))
    return held.address, held.labels


def test_what_is_typed_again_changes_nothing_and_begins_nothing_anew(tmp_path: Path) -> None:
    home = added(tmp_path, "127.0.0.1", zone="b")
    assert not settle(home, Settling(labels={"zone": "b"}))
    assert not settle(home, Settling())
    assert told(home) == ("127.0.0.1", {"zone": "b"})


def test_another_label_is_taken_and_one_that_is_not_typed_stays(tmp_path: Path) -> None:
    home = added(tmp_path, "127.0.0.1", zone="b", disk="ssd")
    assert settle(home, Settling(labels={"zone": "c"}))
    assert told(home) == ("127.0.0.1", {"zone": "c", "disk": "ssd"})
    assert not (home.part("nodes", "m5") / settling.SETTLED).exists(), "it does not run, and begins with that"


@pytest.mark.parametrize(("way", "now"), [("10.9.9.20", "10.9.9.20"), ("127.0.0.1", "192.0.2.6")])
def test_a_node_serves_at_the_address_that_its_machine_has_now_if_any_leads_to_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, now: str
) -> None:
    """All that it runs is looked for, and checked, at the former one: nothing there is ready again."""
    monkeypatch.setattr(settling, "own_address", lambda _broker: way)
    home = added(tmp_path, "192.0.2.6")
    assert settle(home, Settling()) == (now != "192.0.2.6")
    assert told(home)[0] == now


def given_a_broker(home: Home, tmp_path: Path) -> None:
    """It listens at an address that its machine has no more."""
    directory = home.part("brokers", "m5")
    BrokerFile(realm=REALM, address="192.0.2.6:4000").write(directory)
    (directory / "identity").write_bytes(dump(TestRealm(memory_network(), tmp_path).identity("broker/m5")))


def test_a_broker_whose_address_has_gone_is_not_moved_in_silence(tmp_path: Path) -> None:
    home = added(tmp_path, "127.0.0.1")
    given_a_broker(home, tmp_path)
    with pytest.raises(RefusedError, match=r"broker m5 listens at 192\.0\.2\.6:4000, and 192\.0\.2\.6 is no address of"):
        settle(home, Settling(labels={"zone": "c"}))
    assert told(home)[1] == {}, "nothing was done"


def test_who_has_reached_the_machine_is_answered_in_json_as_the_command_line_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = added(tmp_path, "127.0.0.1")
    for typed, changed in (("c", True), ("c", False)):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"labels": {"zone": typed}})))
        assert settling.main([str(home.root)]) == 0
        assert json.loads(capsys.readouterr().out) == {"changed": changed, "ends_s": None}, "its identity is damaged"
    identity = TestRealm(memory_network(), tmp_path).identity("node/m5")
    (home.part("nodes", "m5") / "identity").write_bytes(dump(identity))
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    assert settling.main([str(home.root)]) == 0
    assert json.loads(capsys.readouterr().out)["ends_s"] == identity.certificate.not_after
    given_a_broker(home, tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    assert settling.main([str(home.root)]) == RefusedError.exit
    shown = capsys.readouterr()
    error = json.loads(shown.err)["error"]
    assert (shown.out, error["code"], error["exit"]) == ("", "broker.moved", RefusedError.exit)
    assert error["next"].startswith("give the machine that address"), error["message"]


@pytest.mark.parametrize(("kept", "stays"), [(bytes(32), False), (bytes(31) + b"k", True)], ids=["its own", "another one's"])
def test_a_key_that_a_killed_join_has_left_goes_when_it_is_typed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bytes, stays: bool
) -> None:
    """It lay beside the node for ever. That of a node that is yet to join is needed."""
    home = added(tmp_path, "127.0.0.1")
    now_s = int(time.time())
    own = root_issued("node/m5", SecretKey(b"r" * 32), key=SecretKey(bytes(32)), now_s=now_s, serial=bytes(16))
    write_secret(home.part("nodes", "m5") / "identity", dump(own))
    write_secret(home.root / KEY_FILE, kept)

    async def lets_in(*_: object) -> str:
        return ""

    monkeypatch.setattr(joining, "_how_it_ended", lets_in)
    assert not asyncio.run(joining.join(home, None)).made
    assert (home.root / KEY_FILE).exists() == stays


def test_who_joins_anew_takes_another_key_than_the_one_that_it_had_though_that_lies_there(tmp_path: Path) -> None:
    """It was revoked, perhaps; a join that was killed has left it, or the key of the node that is to be."""
    home = added(tmp_path, "127.0.0.1")
    own = root_issued("node/m5", SecretKey(b"r" * 32), key=SecretKey(bytes(32)), now_s=int(time.time()), serial=bytes(16))
    write_secret(home.root / KEY_FILE, bytes(32))
    key = joining._key(home, own)
    assert key.key_id != own.key.key_id
    assert joining._key(home, own).key_id == joining._key(home, None).key_id == key.key_id, "it goes on with the same one"


def test_of_several_nodes_each_takes_what_is_typed(tmp_path: Path) -> None:
    home = added(tmp_path, "127.0.0.1")
    NodeFile(node="m6", realm=REALM, address="127.0.0.1", labels={}).write(home.part("nodes", "m6"))
    (home.part("nodes", "m6") / "identity").touch()
    assert settle(home, Settling(labels={"zone": "c"}))
    assert [NodeFile.read(home.part("nodes", node)).labels for node in ("m5", "m6")] == [{"zone": "c"}] * 2


def test_an_address_that_was_typed_and_is_reached_from_elsewhere_stays_and_one_of_this_machine_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "own_address", lambda _broker: "10.9.9.20")
    home = added(tmp_path, "127.0.0.1")
    for typed, elsewhere in (("192.0.2.6", True), ("127.0.0.2", False), ("192.0.2.7", True)):
        assert settle(home, Settling(address=typed))
        held = NodeFile.read(home.part("nodes", "m5"))
        assert (held.address, held.elsewhere) == (typed, elsewhere)
        assert settle_nodes(home) == []
        assert settle(home, Settling(labels={"at": typed}))
        assert settle_nodes(home) == [], "nor does it move with the next label"
        assert told(home)[0] == typed


def test_who_comes_up_is_told_which_node_serves_at_another_address_and_what_runs_is_to_be_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "own_address", lambda _broker: "10.9.9.20")
    home = added(tmp_path, "192.0.2.6")
    node = home.part("nodes", "m5")
    own = identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(node), "spawner"), own)
    (said,) = settle_nodes(home)
    assert said.startswith("node m5 serves at 10.9.9.20 now: 192.0.2.6 is no address of this machine")
    assert (node / settling.SETTLED).exists()
    (node / settling.SETTLED).unlink()
    assert settle_nodes(home) == []
    assert not (node / settling.SETTLED).exists()


def test_a_node_whose_file_is_damaged_keeps_no_other_one_from_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "own_address", lambda _broker: "10.9.9.20")
    home = added(tmp_path, "192.0.2.6")
    other = home.part("nodes", "a1")
    other.mkdir()
    (other / NodeFile.FILE).write_bytes(b"nonsense")
    assert len(settle_nodes(home)) == 1


def test_what_was_settled_while_it_ran_is_begun_anew_by_whoever_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, begun = added(tmp_path, "127.0.0.1"), list[str]()
    node = home.part("nodes", "m5")

    async def replace(_home: Home, name: str) -> None:
        begun.append(name)
        if len(begun) == 1:
            raise FailedError("upgrade.broken", "it was cut off")

    monkeypatch.setattr(upgrading, "_replace_node", replace)
    asyncio.run(upgrading.begin_settled(home))
    own = identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(node), "spawner"), own)
    assert settle(home, Settling(labels={"zone": "b"}))
    with pytest.raises(FailedError):
        asyncio.run(upgrading.begin_settled(home))
    asyncio.run(upgrading.begin_settled(home))
    asyncio.run(upgrading.begin_settled(home))
    assert begun == ["m5", "m5"]


def test_that_a_file_is_another_one_is_written_down_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was cut off between the two left a node that ran with the former labels for good: nothing was to be done."""
    home = added(tmp_path, "127.0.0.1")
    node, own = home.part("nodes", "m5"), identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(node), "spawner"), own)

    def cut_off(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(NodeFile, "write", cut_off)
    with pytest.raises(OSError, match="No space"):
        settle(home, Settling(labels={"zone": "b"}))
    assert (node / settling.SETTLED).exists()
