"""What programs of a node have in common: with which brokers an agent begins."""

from pathlib import Path

from dsmt.bus.rules.brokers import FILE
from dsmt.programs.node_process import bus_of_manager, hand_on_brokers
from dsmt.system.files import DiskFiles


def test_an_agent_begins_with_the_brokers_that_its_manager_knows(tmp_path: Path) -> None:
    """Those with which the node was made may all have been removed, and nobody would tell the agent of others (R8)."""
    own = DiskFiles(str(tmp_path / "agent"))
    own.write(FILE, b"of its last life")
    hand_on_brokers(str(tmp_path / "node"), str(tmp_path / "agent"))
    assert own.read(FILE) == b"of its last life"
    DiskFiles(bus_of_manager(str(tmp_path / "node"))).write(FILE, b"what the manager knows")
    hand_on_brokers(str(tmp_path / "node"), str(tmp_path / "agent"))
    assert own.read(FILE) == b"what the manager knows"
