"""Commands: what a command asks of an agent (rule A7).

Rule 1: a command is executed once, if its generation is the current one and its id is not among the last 256.
Rule 2: a command that came while the agent was away is read from the history when it is back; one whose time to live has
    passed in realm time is not executed, and its status says that it expired.
Rule 3: a command and the slot fact of its generation come by two subscriptions, in any order: one that is ahead of the
    fact waits for it, as long as it is good.
Rule 4: a command is no lasting will: a hold by STOP ends with the generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from dsmt.agents.rules.record import InstanceRecord
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.instance import Command
from dsmt.event.records import readable
from dsmt.event.topic import is_topic

REMEMBERED: Final = 256
LONGEST_ID: Final = 512
"""Characters of a command's id: it stands in each answer, and in the status."""
LONGEST_TTL_MS: Final = 10 * 60_000
"""How far back an agent looks for commands, and how long one that names no time to live is good."""


class Ask(StrEnum):
    """What is asked."""

    REMEMBER = "remember"
    """Never to take it for a new one."""
    TELL_EXPIRED = "tell_expired"
    EXECUTE = "execute"
    """Remember it as the last that was executed: it is the trigger of what follows."""
    TELL = "tell"
    """Say that it is executed."""
    ANSWER = "answer"
    """Send the log lines that it asks for."""
    HOLD = "hold"
    """Stop, and stay stopped in this generation."""
    FORGET = "forget"
    """What has failed is tried now."""
    REINSTALL = "reinstall"
    UNINSTALL = "uninstall"
    """Nothing is installed any more."""
    RESTART = "restart"
    """End what runs, in order to start again."""


VERBS: Final[Mapping[str, tuple[Ask, ...]]] = {
    "LOGS": (Ask.REMEMBER, Ask.ANSWER),
    "STOP": (Ask.EXECUTE, Ask.HOLD, Ask.TELL),
    "START": (Ask.EXECUTE, Ask.FORGET, Ask.TELL),
    "RETRY": (Ask.EXECUTE, Ask.FORGET, Ask.TELL),
    "UPDATE": (Ask.EXECUTE, Ask.FORGET, Ask.TELL),
    "RESTART": (Ask.EXECUTE, Ask.FORGET, Ask.RESTART, Ask.TELL),
    "APPCONFIG": (Ask.EXECUTE, Ask.FORGET, Ask.REINSTALL, Ask.RESTART, Ask.TELL),
    "UNINSTALL": (Ask.EXECUTE, Ask.HOLD, Ask.UNINSTALL, Ask.TELL),
}


def asked(record: InstanceRecord, signed: SignedEvent, command: Command, *, generation: int, now_ms: int) -> tuple[Ask, ...]:
    """What a command asks, in this order; nothing when it is none of now, or was executed (rules 1, 2)."""
    if command.generation != generation or command.id in record.commands:
        return ()
    if is_late(signed, now_ms):
        return (Ask.REMEMBER, Ask.TELL_EXPIRED)
    return VERBS[command.verb]


def is_ahead(signed: SignedEvent, command: Command, *, generation: int, now_ms: int) -> bool:
    """Whether a command waits for the slot fact of its generation (rule 3)."""
    return command.generation > generation and not is_late(signed, now_ms)


def is_late(signed: SignedEvent, now_ms: int) -> bool:
    """Whether a command's time to live has passed (rule 2)."""
    until = signed.event.expires_ms
    return now_ms > (signed.event.time_ms + LONGEST_TTL_MS if until is None else until)


def changes(record: InstanceRecord, ask: Ask, command: Command) -> dict[str, Any]:
    """What of the record changes for what is asked, besides what supervision forgets."""
    match ask:
        case Ask.REMEMBER:
            return {"commands": (*record.commands, command.id)[-REMEMBERED:]}
        case Ask.EXECUTE:
            return {"commands": (*record.commands, command.id)[-REMEMBERED:], "last_command": command.id}
        case Ask.HOLD:
            return {"held": command.generation}
        case Ask.REINSTALL:
            return {"step": "reinstall"}
        case Ask.UNINSTALL:
            return {"installed": (), "configured": ""}
        case _:
            return {}


def read_command(signed: SignedEvent, to: tuple[str, ...]) -> Command | None:
    """The command in an event that is meant for one of these names; None when it is none, or nobody could be answered."""
    if signed.event.to and not any(name in to for name in signed.event.to):
        return None
    command = readable(Command, signed.event.data)
    return command if command is not None and len(command.id) <= LONGEST_ID and is_topic(command.asker) else None
