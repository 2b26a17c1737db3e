"""A host that was added before takes the labels that are typed now, and the address that its machine has now."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmt.errors import RefusedError
from dsmt.operations.local import settling
from dsmt.operations.local.home import Home
from dsmt.operations.local.settling import Settling, settle
from dsmt.programs.configuration import BrokerFile, NodeFile, RealmConfig
from dsmt.trust.identity import dump
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


@pytest.mark.parametrize(("way", "now"), [("10.9.9.20", "10.9.9.20"), ("127.0.0.1", "192.0.2.6")])
def test_a_node_serves_at_the_address_that_its_machine_has_now_if_any_leads_to_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, now: str
) -> None:
    """All that it runs is looked for, and checked, at the former one: nothing there is ready again."""
    monkeypatch.setattr(settling, "own_address", lambda _broker: way)
    home = added(tmp_path, "192.0.2.6")
    assert settle(home, Settling()) == (now != "192.0.2.6")
    assert told(home)[0] == now


def test_a_broker_whose_address_has_gone_is_not_moved_in_silence(tmp_path: Path) -> None:
    home = added(tmp_path, "127.0.0.1")
    directory = home.part("brokers", "m5")
    BrokerFile(realm=REALM, address="192.0.2.6:4000").write(directory)
    (directory / "identity").write_bytes(dump(TestRealm(memory_network(), tmp_path).identity("broker/m5")))
    with pytest.raises(RefusedError, match=r"broker m5 listens at 192\.0\.2\.6:4000, and 192\.0\.2\.6 is no address of"):
        settle(home, Settling(labels={"zone": "c"}))
    assert told(home)[1] == {}, "nothing was done"


def test_of_several_nodes_each_takes_what_is_typed(tmp_path: Path) -> None:
    home = added(tmp_path, "127.0.0.1")
    NodeFile(node="m6", realm=REALM, address="127.0.0.1", labels={}).write(home.part("nodes", "m6"))
    (home.part("nodes", "m6") / "identity").touch()
    assert settle(home, Settling(labels={"zone": "c"}))
    assert [NodeFile.read(home.part("nodes", node)).labels for node in ("m5", "m6")] == [{"zone": "c"}] * 2
