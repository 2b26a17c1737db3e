"""Served: which copy of an instance readers are sent to, and what is said of that.

Rule 1: every transition is in TRANSITIONS, with what is said of the endpoint; an input that the table does not list for a
    state changes nothing.
Rule 2: what is served while its successor starts is the copy before, whatever becomes of the present one.
Rule 3: that what was healthy is not is said once, after it is served no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class State(Enum):
    """Which copy is served."""

    NOBODY = "nobody"
    PRESENT = "present"
    BEFORE = "before"
    """The one that hands over to the present one."""


class Input(Enum):
    """What can happen."""

    READY = "ready"
    """The present one has passed its checks."""
    GO_ON = "go on"
    """It was ready by other checks than it has now, and is not ready by these yet."""
    UNREADY = "unready"
    WITHDRAW = "withdraw"
    """It is about to be stopped, or has failed."""
    HAND_OVER = "hand over"
    """The present one is the copy before from now on."""
    TAKE_BACK = "take back"
    """The copy before is the present one again."""
    GO_BACK = "go back"
    """The present one, which is withdrawn, may have been served meanwhile: the copy before is again."""
    LET_GO = "let go"
    """The copy before ends."""
    ABSENT = "absent"
    """Whatever an earlier agent has said, nothing is to be served."""


class Said(Enum):
    """What is said."""

    HERE = "the endpoint is the present one's"
    BEFORE = "the endpoint is that of the copy before"
    NOWHERE = "the endpoint is not ready"
    HEALTH = "its health"


TRANSITIONS: Final[Mapping[tuple[State, Input], tuple[State, Said | None]]] = {
    (State.NOBODY, Input.READY): (State.PRESENT, Said.HERE),
    (State.PRESENT, Input.READY): (State.PRESENT, Said.HERE),
    (State.BEFORE, Input.READY): (State.PRESENT, Said.HERE),
    (State.NOBODY, Input.GO_ON): (State.PRESENT, Said.HERE),
    (State.PRESENT, Input.UNREADY): (State.NOBODY, Said.NOWHERE),
    (State.PRESENT, Input.WITHDRAW): (State.NOBODY, Said.NOWHERE),
    (State.PRESENT, Input.HAND_OVER): (State.BEFORE, None),
    (State.BEFORE, Input.TAKE_BACK): (State.PRESENT, None),
    (State.NOBODY, Input.GO_BACK): (State.BEFORE, Said.BEFORE),
    (State.PRESENT, Input.GO_BACK): (State.BEFORE, Said.BEFORE),
    (State.BEFORE, Input.LET_GO): (State.NOBODY, Said.NOWHERE),
    (State.NOBODY, Input.ABSENT): (State.NOBODY, Said.NOWHERE),
    (State.PRESENT, Input.ABSENT): (State.NOBODY, Said.NOWHERE),
}


class Served:
    """Which copy is served, and whether the present one is healthy."""

    def __init__(self, state: State = State.NOBODY) -> None:
        self.state = state
        self.healthy = False

    def __repr__(self) -> str:
        return f"<Served {self.state.value} healthy={self.healthy}>"

    def happens(self, what: Input) -> list[Said]:
        """Take in what happens; what is to be said, in this order."""
        before, was_healthy = self.state, self.healthy
        self.state, said = TRANSITIONS.get((before, what), (before, None))
        endpoint = [] if said is None else [said]
        match what:
            case Input.READY:
                self.healthy = True
                return [Said.HEALTH, *endpoint]
            case Input.GO_ON | Input.UNREADY:
                self.healthy = False
                return [*endpoint, Said.HEALTH]
            case Input.TAKE_BACK:
                self.healthy = True
            case Input.HAND_OVER:
                self.healthy = False
            case Input.LET_GO if said is None:
                pass  # it was not what is served
            case Input.WITHDRAW | Input.LET_GO | Input.ABSENT:
                self.healthy = False
                return [*endpoint, Said.HEALTH] if was_healthy or what is Input.ABSENT else endpoint
            case Input.GO_BACK:
                pass
        return endpoint
