"""Slots: what operators want of one, and what controllers decided for it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.numbers import Count, Ms, Seconds
from dsmt.event.kinds.row import KindRow, fact
from dsmt.event.phrases import quoted, whose, why
from dsmt.event.reason import Reason


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A stop by hand: it survives apply and failover until it is lifted."""

    by: str
    at_ms: Ms
    reason: str


class SlotControl(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's lasting will for one slot: held or not, when it was asked to restart, and where to move.

    Restarts and moves are numbered; a slot's fact names the last that was done of each. A number is the time when it was
    asked for (realm ms), or one more than the last: what two operators ask for in a partition has two numbers.
    """

    hold: Hold | None = None
    restart: Count = 0
    restart_of: str = ""
    """The command that asked for that restart: what it asks of several slots goes on together, or no further (A21)."""
    move: str | None = None
    """To this node; to any other one if it is empty."""
    leave: str = ""
    """The node that a move to any other one is to leave: where the slot was when that was said."""
    move_number: Count = 0
    lifts: str = ""
    """The id of the stop on its node (`HeldHere`) that ends by this word."""
    accept_data_loss: bool = False
    """It is moved though its data stays behind: in the move of this number, and in no other."""
    by: str = ""
    reason: str = ""

    @property
    def moves_last(self) -> bool:
        """Whether a move was asked for after the last restart."""
        return self.move is not None and self.move_number > self.restart


class DataHome(msgspec.Struct, frozen=True, kw_only=True):
    """The node whose disk holds a pinned slot's data, with the `key` of its attributes, by which that machine is told."""

    node: str
    key: str


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """The node that keeps its copy until the new one is ready or the deadline passes (A8)."""

    node: str
    generation: Count
    deadline_ms: Ms


class Good(msgspec.Struct, frozen=True, kw_only=True):
    """A revision with which an instance was ready for `update.healthy_after`; `spec` is the id of its spec event."""

    spec: str
    revision: Count


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """That a program has ended with 0, and is not run again (A20): when, how long it had run, and on which machine.

    `key` is that of the machine's attributes, as a `DataHome` has it; empty where any machine may take that over.
    """

    at_ms: Ms
    ran_s: Seconds
    key: str = ""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One slot's decision; the fact's version is the generation (R3). `spec` is the id of the spec event (A12).

    `good` is the last revision that was good in this slot: the only one to go back to. `former` is the one that it had
    before this one, whether it was good then or not. `home` is where its data is.
    `refuses` is a later revision that was rolled back to this one. `move_number` is that of the last move by an operator
    that is done.
    `moved_for` is the verdict on its node for which it was moved then.
    `parked`: its instance was parked, and is stopped here only to start on another node. `ended`: what it implements has
    ended well, on a node that it has left or before something else was tried, and is not run again on the one where it is
    now; `good_ended`: so had what was good last, while something else is tried. `tried`: what it implements has failed in
    it, or was stopped by a hold, before it was good there. `spec_version` and `control_version` are those of the operators'
    words by which it was decided: of the spec that stood, and of the control of this slot, which was said at `control_ms`;
    0 where there was none. `node_words_ms` is when the last of their words on nodes and node sets that was known then was
    said.
    """

    node: str | None
    spec: str
    revision: Count
    desired: Literal["running", "stopped", "gone"]
    previous: Previous | None = None
    moves: Count = 0
    moved_at_ms: Ms | None = None
    moved_for: str = ""
    restart: Count = 0
    move_number: Count = 0
    reason: Reason | None = None
    refuses: Good | None = None
    good: Good | None = None
    former: Good | None = None
    home: DataHome | None = None
    parked: bool = False
    ended: Ended | None = None
    good_ended: Ended | None = None
    tried: bool = False
    spec_version: Count = 0
    control_version: Count = 0
    control_ms: Ms = 0
    node_words_ms: Ms = 0

    def says(self, other: Slot) -> bool:
        """Whether it says the same as another; the words by which it was decided do not count (A4)."""
        return self == msgspec.structs.replace(
            other,
            spec_version=self.spec_version,
            control_version=self.control_version,
            control_ms=self.control_ms,
            node_words_ms=self.node_words_ms,
        )

    @property
    def wanted_on(self) -> str | None:
        """The node on which it is wanted; None where it has none, or is to be gone."""
        return None if self.desired == "gone" else self.node

    @property
    def implements(self) -> Good:
        """The revision that it implements, as it is named once it was good."""
        return Good(spec=self.spec, revision=self.revision)

    @property
    def revisions(self) -> tuple[Good, ...]:
        """What it implements, what it had before that, and what was good last: one of these it may go back to."""
        return tuple(one for one in (self.implements, self.former, self.good) if one is not None)

    @property
    def last_revision(self) -> int:
        """The last revision that was asked of it, whether it was refused or not."""
        return self.revision if self.refuses is None else max(self.revision, self.refuses.revision)

    @property
    def held(self) -> bool:
        """Whether an operator's hold stopped it."""
        return self.desired == "stopped" and self.reason is not None and self.reason.code == "hold.operator"

    @property
    def waited(self) -> bool:
        """Whether it was stopped because a node had another copy of it."""
        return self.desired == "stopped" and self.reason is not None and self.reason.code == "wait.copy"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that may run it: the one that it is on, and the one that keeps its copy meanwhile."""
        both = (self.node, None if self.previous is None else self.previous.node)
        return tuple(node for node in both if node is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of the spec events that its nodes may ask for: of what it implements, and of what it would go back to.

        One that is gone comes back with what was good, and implements what it did where a later revision was refused.
        """
        back = [one.spec for one in (self.good, None if self.desired == "gone" else self.former) if one is not None]
        return tuple(back) if self.desired == "gone" and self.refuses is None else (self.spec, *back)


def _slot(event: Event, slot: Slot) -> str:
    generation = f"generation {event.version}"
    if slot.desired == "gone":
        return f"is to end, {generation}"
    if slot.node is None:
        return f"has no node{why(slot.reason)}"
    if slot.desired == "stopped":
        return f"is to stop on {slot.node}, {generation}{why(slot.reason)}"
    before = f"; {slot.previous.node} keeps its copy until then" if slot.previous is not None else ""
    if slot.ended is not None:
        return f"has ended well, and is on {slot.node} from now on, {generation}, r{slot.revision}{why(slot.reason)}"
    return f"is to run on {slot.node}, {generation}, r{slot.revision}{before}{why(slot.reason)}"


def _control(event: Event, will: SlotControl) -> str:
    moves = "" if will.move is None else f"is to move{f' to {will.move}' if will.move else ''}, "
    if will.hold is not None:
        return f"{moves}is held stopped by {whose(will.hold.by, event.source, will.hold.reason)}"
    restart = f"restart of {rfc3339(will.restart)}, " if will.restart and not will.moves_last else ""
    return (
        f"{moves or 'is to run, '}{restart}says {whose(will.by, event.source) if will.by else 'nobody'}{quoted(will.reason)}"
    )


ROWS: Final[tuple[KindRow, ...]] = (
    fact(
        "service/<service>/control/<component>/<index>", "dsmt.slot.control", ("operator",), SlotControl, _control,
        folded=True,
    ),
    fact("service/<service>/slot/<component>/<index>", "dsmt.slot", ("controller",), Slot, _slot, folded=True),
)  # fmt: skip
