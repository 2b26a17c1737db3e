"""Slot keys: told from the names and topics that have them, and from no others."""

import pytest
from msgspec.structs import replace

from dsmt.event.kinds.slot import Slot
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer

KEY = SlotKey("web", "app", 3)


def test_a_slot_is_told_from_its_name() -> None:
    assert SlotKey.named(str(KEY)) == KEY


def test_an_agent_is_of_one_slot() -> None:
    assert KEY.agent("n1") == "agent/n1/web/app/3"


def test_by_which_words_a_fact_was_decided_is_no_part_of_what_it_says() -> None:
    slot = Slot(node="n1", spec="operator/alice#1-1", revision=1, desired="running")
    for word in ("spec_version", "control_version", "control_ms", "node_words_ms"):
        assert replace(slot, **{word: 7}).says(slot)
    assert not replace(slot, node="n2").says(slot)


def test_what_is_said_of_a_slot_has_a_topic_for_each_kind() -> None:
    assert (KEY.topic, KEY.control_topic) == ("service/web/slot/app/3", "service/web/control/app/3")
    assert (KEY.command_topic, KEY.tombstone_topic) == ("service/web/command/app/3", "tombstone/service/web")
    assert KEY.status_topic("n1", Layer.AGENT) == "service/web/status/app/3/n1/agent"
    assert KEY.heartbeat_topic("n1") == "node/n1/agent/web/app/3/heartbeat"
    assert (KEY.on("health", "n1"), KEY.directory) == ("service/web/health/app/3/n1", "containers/web/app/3")


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        ("service/web/slot/app/3", KEY),
        ("service/web/slot/app/x", None),
        ("service/web/slot/app", None),
        ("service/web/control/app/3", None),
        ("services/web/slot/app/3", None),
        ("service/web/slot/app/3/n1", None),
    ],
)
def test_a_slot_fact_s_topic_is_of_one_slot(topic: str, key: SlotKey | None) -> None:
    assert SlotKey.of_topic(topic) == key


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        ("service/web/status/app/3/n1/agent", KEY),
        ("service/web/status/app/03/n1/agent", None),
        ("service/web/status/app/3/n1", None),
        ("service/web/slot/app/3/n1/agent", None),
    ],
)
def test_a_status_s_topic_is_of_one_slot(topic: str, key: SlotKey | None) -> None:
    assert SlotKey.of_status(topic) == key
