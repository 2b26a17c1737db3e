"""What programs of a node have in common: with which brokers an agent begins."""

from pathlib import Path

from dsmt.bus.rules.brokers import BROKERS_FILE
from dsmt.programs.bus import hand_on_brokers
from dsmt.system.files import DiskFiles


def test_an_agent_begins_with_the_brokers_that_its_manager_knows(tmp_path: Path) -> None:
    """Those with which the node was made may all have been removed, and nobody would tell the agent of others (R8)."""
    own, managers = DiskFiles(str(tmp_path / "agent")), DiskFiles(str(tmp_path / "node"))
    own.write(BROKERS_FILE, b"of its last life")
    hand_on_brokers(managers, own)
    assert own.read(BROKERS_FILE) == b"of its last life"
    managers.write(BROKERS_FILE, b"what the manager knows")
    hand_on_brokers(managers, own)
    assert own.read(BROKERS_FILE) == b"what the manager knows"
