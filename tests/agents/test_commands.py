"""What a command asks of an agent, by its verb; and that nothing is executed twice, late or for another generation."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from msgspec.structs import replace

from dsmt.agents.rules.commands import (
    LONGEST_ID,
    LONGEST_TTL_MS,
    REMEMBERED,
    VERBS,
    Ask,
    asked,
    changes,
    is_ahead,
    read_command,
)
from dsmt.agents.rules.record import InstanceRecord
from dsmt.event.codec import seal
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.event.kinds.instance import Command
from dsmt.event.records import to_data
from dsmt.trust.keys import SecretKey

RECORD = InstanceRecord(boot="b", generation=3, installed=("i",), configured="r")
STOP = Command(id="c1", verb="STOP", generation=3, asker="operator/op")


def signed(command: Command, *, ttl_ms: int | None = None, **about: Any) -> SignedEvent:
    told: dict[str, Any] = {"data": to_data(command), **about}
    event = Event(
        source="operator/op",
        incarnation=1,
        sequence=1,
        chain=ChainLink(1, NO_LEAF),
        type="dsmt.command",
        topic="service/web/command/app/0",
        subject="web/app/0",
        time=1_700_000_000_000 << 16,
        ttl=ttl_ms,
        **told,
    )
    return seal([event], SecretKey(bytes(32)))[0]


def asks(
    command: Command, record: InstanceRecord = RECORD, *, after_ms: int = 0, ttl_ms: int | None = None
) -> tuple[Ask, ...]:
    said = signed(command, ttl_ms=ttl_ms)
    return asked(record, said, command, generation=3, now_ms=said.event.time_ms + after_ms)


@pytest.mark.parametrize("verb", get_args(get_type_hints(Command)["verb"]))
def test_each_verb_is_remembered_before_anything_else_is_done(verb: Any) -> None:
    first, *rest = asks(replace(STOP, verb=verb))
    assert first in (Ask.REMEMBER, Ask.EXECUTE)
    assert "c1" in changes(RECORD, first, STOP)["commands"]
    assert rest


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("LOGS", {"commands": ("c1",)}),
        ("STOP", {"commands": ("c1",), "last_command": "c1", "held": 3}),
        ("START", {"commands": ("c1",), "last_command": "c1"}),
        ("RETRY", {"commands": ("c1",), "last_command": "c1"}),
        ("UPDATE", {"commands": ("c1",), "last_command": "c1"}),
        ("RESTART", {"commands": ("c1",), "last_command": "c1"}),
        ("APPCONFIG", {"commands": ("c1",), "last_command": "c1", "step": "reinstall"}),
        ("UNINSTALL", {"commands": ("c1",), "last_command": "c1", "held": 3, "installed": (), "configured": ""}),
    ],
)
def test_what_a_command_changes_is_written(verb: Any, expected: dict[str, Any]) -> None:
    command = replace(STOP, verb=verb)
    told: dict[str, Any] = {}
    for ask in asks(command):
        told |= changes(RECORD, ask, command)
    assert told == expected


def test_what_was_executed_or_is_of_another_generation_asks_nothing() -> None:
    assert asks(STOP, replace(RECORD, commands=("c0", "c1"))) == ()
    assert asks(replace(STOP, generation=2)) == ()
    assert asks(replace(STOP, generation=4)) == ()


@pytest.mark.parametrize(("ttl_ms", "until_ms"), [(None, LONGEST_TTL_MS), (5000, 5000)])
def test_what_came_too_late_is_told_and_remembered_and_not_executed(ttl_ms: int | None, until_ms: int) -> None:
    assert asks(STOP, after_ms=until_ms, ttl_ms=ttl_ms) == VERBS["STOP"]
    assert asks(STOP, after_ms=until_ms + 1, ttl_ms=ttl_ms) == (Ask.REMEMBER, Ask.TELL_EXPIRED)


@pytest.mark.parametrize(("generation", "after_ms", "waits"), [(2, 0, False), (3, 0, False), (4, 0, True), (4, 5001, False)])
def test_a_command_of_a_generation_that_is_to_come_waits_for_it_as_long_as_it_is_good(
    generation: int, after_ms: int, waits: bool
) -> None:
    command = replace(STOP, generation=generation)
    said = signed(command, ttl_ms=5000)
    assert is_ahead(said, command, generation=3, now_ms=said.event.time_ms + after_ms) is waits


def test_a_command_is_read_by_whom_it_is_addressed_to_and_by_all_where_it_names_nobody() -> None:
    me = ("agent/n1/web/app/0", "node/n1")
    assert read_command(signed(STOP), me) == STOP
    assert read_command(signed(STOP, to=("node/n2", "node/n1")), me) == STOP
    assert read_command(signed(STOP, to=("node/n2",)), me) is None
    assert read_command(signed(STOP, data={"verb": "DANCE"}), me) is None


@pytest.mark.parametrize(("characters", "read"), [(LONGEST_ID, True), (LONGEST_ID + 1, False)])
def test_a_command_whose_id_is_too_long_to_stand_in_each_status_is_none(characters: int, read: bool) -> None:
    command = replace(STOP, id="c" * characters)
    assert read_command(signed(command), ()) == (command if read else None)


def test_only_so_many_commands_are_remembered() -> None:
    full = replace(RECORD, commands=tuple(f"c{n}" for n in range(100, 100 + REMEMBERED)))
    kept = changes(full, Ask.REMEMBER, STOP)["commands"]
    assert len(kept) == REMEMBERED
    assert (kept[0], kept[-1]) == ("c101", "c1")
    assert changes(full, Ask.EXECUTE, STOP)["commands"] == kept
