"""Acts: the one thing that an agent does next, from what is there and what is wanted (rules A5, A8, A12, A13, A15).

Rule 1: the first row of ACTS of which all holds names the act; the agent does it, says what came of it, and asks again.
Rule 2: contents are compared, not ids: what already is so needs no action (A13).
Rule 3: an update installs beside what runs, and stops it only when the new is installed; where two copies may be, only
    when the new is ready. A copy that was let go for another revision, beside which the one now wanted may not run, ends
    when that is installed. Until then no step of the new one's escalation touches the old one: there is no new container,
    and no installation anew of what the old one lives in.
Rule 4: what failed is not done again before its time; meanwhile the agent rests until something changes or is due.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from dsmt.agents.rules.reconcile import Duty
from dsmt.event.kinds.slot import Ended

FOREVER: Final = float("inf")


class Goal(msgspec.Struct, frozen=True):
    """What is to run: the keys of its spec, its generation, and the slot's restart number."""

    install_key: str
    run_key: str
    generation: int
    restart: int

    def is_same(self, other: Goal | None) -> bool:
        """Whether another asks for nothing new of what runs."""
        return other is not None and (self.run_key, self.restart) == (other.run_key, other.restart)


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All that an agent's next act depends on. Times are boot-time seconds.

    `wanted` None: the spec is not here yet. `running` None: no process. `installed`, `configured`: the keys that are.
    """

    duty: Duty
    wanted: Goal | None
    running: Goal | None
    installed: tuple[str, ...]
    configured: str
    prepared: str = ""
    """The run key that its driver has made all ready for, as far as this agent knows."""
    closing: bool = False
    """The agent was told to end."""
    unheeded: bool = False
    """The fact to be obeyed is another than the one that was."""
    condemned: bool = False
    """What runs is to be ended as failed: not live, or not ready in time."""
    restart_asked: bool = False
    outgoing: Goal | None = None
    """The copy before, which is served until what runs is ready."""
    ready: bool = False
    """What runs is ready."""
    followed: bool = False
    """Readers have had the time to follow to what runs."""
    overlaps: bool = False
    """What is wanted may be started beside what runs."""
    held: bool = False
    """A STOP command of this generation."""
    held_here: bool = False
    """It was stopped by hand on this node."""
    ended: Goal | None = None
    """What has ended by itself, where its policy wants no further try."""
    came_ended: Ended | None = None
    """How the wanted program already ended with 0, on another node or here before a refused update.

    None once the record says so.
    """
    ended_good: bool = False
    """What has ended was good."""
    reinstall: bool = False
    recreate: bool = False
    not_before: float = 0.0
    left_s: float = FOREVER
    """Until the duty ends by itself."""
    now: float


class Do(StrEnum):
    """An agent's acts. Each may be cut off at any await, and is then done again from its beginning."""

    END = "end"
    """Stop all, and end: the slot is still this node's."""
    OBEY = "obey"
    """Take note of a new generation: its fact is the trigger, and earlier failures are forgotten."""
    REST = "rest"
    """Wait until something changes, or is due (`rest_s`)."""
    AWAIT_SPEC = "await_spec"
    INSTALL = "install"
    CONFIGURE = "configure"
    PREPARE = "prepare"
    """Have the driver make ready what the start needs."""
    START = "start"
    STOP = "stop"
    """Stop, and stay stopped."""
    RESTART = "restart"
    """Stop, in order to start again."""
    FAIL = "fail"
    """End what is condemned; supervision says what then."""
    HAND_OVER = "hand_over"
    """Let what runs go on beside its successor."""
    FOLLOW = "follow"
    """Wait until readers have followed to the successor."""
    RETIRE = "retire"
    """Stop the copy before, and remove what only it needed."""
    TAKE_BACK = "take_back"
    """The copy before is wanted again: end its successor."""
    TAKE_OVER = "take_over"
    """The new generation asks for nothing new of what runs."""
    STAY = "stay"
    """The new generation asks for nothing new of what has ended by itself."""
    COME_ENDED = "come_ended"
    """It has ended well on the node that it was on: it is not run again."""
    RECREATE = "recreate"
    """End, so that the node makes a new container."""
    LEAVE = "leave"
    """Stop, uninstall, remove, be gone."""


Condition = Callable[[Situation], bool]


def closes(at: Situation) -> bool:
    """The agent was told to end."""
    return at.closing


def unheeded(at: Situation) -> bool:
    """The fact to be obeyed is new."""
    return at.unheeded


def leaves(at: Situation) -> bool:
    """It is to be gone from here."""
    return at.duty is Duty.LEAVE


def to_stop(at: Situation) -> bool:
    """It is to be stopped."""
    return at.duty is Duty.STOP


def to_run(at: Situation) -> bool:
    """It is to run here."""
    return at.duty is Duty.RUN


def kept(at: Situation) -> bool:
    """What is there goes on."""
    return at.duty is Duty.KEEP


def held(at: Situation) -> bool:
    """A STOP command holds it."""
    return at.held


def held_here(at: Situation) -> bool:
    """It was stopped on its node (`dsmt stop --local`)."""
    return at.held_here


def known(at: Situation) -> bool:
    """Its spec is here."""
    return at.wanted is not None


def runs(at: Situation) -> bool:
    """It runs."""
    return at.running is not None


def ready(at: Situation) -> bool:
    """What runs is ready."""
    return at.ready


def followed(at: Situation) -> bool:
    """Readers have followed."""
    return at.followed


def two(at: Situation) -> bool:
    """The copy before runs."""
    return at.outgoing is not None


def before_wanted(at: Situation) -> bool:
    """The copy before is what is wanted."""
    return at.outgoing is not None and at.wanted is not None and at.outgoing.run_key == at.wanted.run_key


def before_in_it(at: Situation) -> bool:
    """The copy before lives in the installation that is wanted."""
    return at.outgoing is not None and at.wanted is not None and at.outgoing.install_key == at.wanted.install_key


def condemned(at: Situation) -> bool:
    """What runs is condemned."""
    return at.condemned


def restart_asked(at: Situation) -> bool:
    """A restart was asked for."""
    return at.restart_asked


def as_wanted(at: Situation) -> bool:
    """What runs is what is wanted."""
    return at.wanted == at.running


def nothing_new(at: Situation) -> bool:
    """Nothing new is wanted of what runs."""
    return at.running is not None and at.running.is_same(at.wanted)


def installed(at: Situation) -> bool:
    """What is wanted is installed."""
    return at.wanted is not None and at.wanted.install_key in at.installed


def overlaps(at: Situation) -> bool:
    """It may be started beside what runs."""
    return at.overlaps


def same_revision(at: Situation) -> bool:
    """What is wanted is the revision that runs: no more than a restart is asked for."""
    return at.wanted is not None and at.running is not None and at.wanted.run_key == at.running.run_key


def finished(at: Situation) -> bool:
    """It has ended by itself, its policy wants no further try, and nothing else is known to be wanted."""
    return at.ended is not None and (at.wanted is None or at.ended.is_same(at.wanted))


def rests(at: Situation) -> bool:
    """So it is, and no copy of it runs."""
    return finished(at) and at.running is None and at.outgoing is None


def came_ended(at: Situation) -> bool:
    """It has ended well elsewhere, or before."""
    return at.came_ended is not None


def ended_good(at: Situation) -> bool:
    """What has ended was good."""
    return at.ended_good


def ended_as_wanted(at: Situation) -> bool:
    """What has ended is of the generation that is wanted."""
    return at.wanted == at.ended


def too_early(at: Situation) -> bool:
    """Its next try is not due."""
    return at.now < at.not_before


def to_recreate(at: Situation) -> bool:
    """Escalation asks for a new container."""
    return at.recreate


def to_reinstall(at: Situation) -> bool:
    """Escalation asks for an installation anew."""
    return at.reinstall or at.recreate


def configured(at: Situation) -> bool:
    """What is wanted is configured."""
    return at.wanted is not None and at.configured == at.wanted.run_key


def prepared(at: Situation) -> bool:
    """Its driver has all ready."""
    return at.wanted is not None and at.prepared == at.wanted.run_key


class Act(NamedTuple):
    """A row: what is done when all of `when` and none of `unless` holds."""

    do: Do
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()

    def holds(self, at: Situation) -> bool:
        """Whether it is this row's turn, if it is no earlier one's."""
        for one in self.when:  # not `all`: it is asked on the way from a death to the next start
            if not one(at):
                return False
        for one in self.unless:  # noqa: SIM110 - for the same reason
            if one(at):
                return False
        return True


ACTS: Final = (
    Act(Do.END, (closes,)),
    Act(Do.OBEY, (unheeded,), (kept,)),
    Act(Do.LEAVE, (leaves,)),
    Act(Do.STOP, (to_stop,)),
    Act(Do.STOP, (to_run, held)),
    Act(Do.STOP, (held_here,), (rests,)),
    Act(Do.FOLLOW, (two, runs, ready), (followed,)),
    Act(Do.RETIRE, (two, runs, ready)),
    Act(Do.TAKE_BACK, (two, before_wanted, to_run)),
    Act(Do.FAIL, (runs, condemned)),
    Act(Do.RESTART, (runs, restart_asked)),
    Act(Do.REST, (runs,), (known,)),
    Act(Do.REST, (runs, kept)),
    Act(Do.REST, (runs, as_wanted)),
    Act(Do.TAKE_OVER, (runs, nothing_new)),
    Act(Do.REST, (runs, too_early), (installed,)),
    Act(Do.INSTALL, (runs,), (installed,)),
    Act(Do.HAND_OVER, (runs, ready, overlaps), (same_revision,)),
    Act(Do.RESTART, (runs,)),
    Act(Do.RETIRE, (two, finished, ended_good)),
    Act(Do.STAY, (finished, known), (kept, ended_as_wanted)),
    Act(Do.REST, (finished,)),
    Act(Do.COME_ENDED, (came_ended, known)),
    Act(Do.REST, (kept,), (known,)),
    Act(Do.AWAIT_SPEC, (), (known,)),
    Act(Do.REST, (too_early,)),
    Act(Do.RECREATE, (to_recreate,), (two,)),
    Act(Do.INSTALL, (), (installed,)),
    Act(Do.INSTALL, (to_reinstall,), (before_in_it,)),
    Act(Do.RETIRE, (two,), (overlaps,)),
    Act(Do.CONFIGURE, (), (configured,)),
    Act(Do.PREPARE, (), (prepared,)),
    Act(Do.START, ()),
)


def next_act(at: Situation) -> Do:
    """The one thing an agent does now (rule 1)."""
    return next(act.do for act in ACTS if act.holds(at))


def rest_s(at: Situation) -> float:
    """For how long an agent rests, if nothing changes: until something is due by itself."""
    return min(at.left_s, at.not_before - at.now if at.not_before > at.now else FOREVER)
