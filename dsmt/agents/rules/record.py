"""The record of an instance: what its agent writes down, so that the next one knows it after a kill.

It stands in `instance.json` in the container (`dsmt.agents.rules.container`). A record that is damaged is none.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.agents.rules.acts import Goal
from dsmt.agents.rules.supervision import RestartHistory
from dsmt.errors import UNDECODABLE
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Good
from dsmt.event.reason import Reason
from dsmt.event.status import State
from dsmt.ports.driver import Handle

BESIDE: Final = "-2"
"""What the name of a second log ends with."""
WROTE_MOST: Final = 4
"""Of the last runs of so many revisions it is known where their output stands."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Where the output of one run stands: in the second log of each stream, where another one wrote beside it to the first.

    `places` has for each of its logs how often the file had been put aside before, the run's begin in it, and its end (None:
    that of the file, for no other run was begun behind it).
    """

    revision: int
    beside: bool = False
    places: dict[str, tuple[int, int, int | None]] = {}

    def log(self, stream: str) -> str:
        """The name of its log of a stream."""
        return f"{stream}{BESIDE}" if self.beside else stream


class OutgoingCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The copy that is still served while its successor starts, and its ports: all that takes it over or back."""

    process: Handle
    ports: dict[str, int]
    driver: str = ""
    run_key: str = ""
    install_key: str = ""
    run_generation: int = 0
    run_restart: int = 0
    began_s: float = 0.0
    restarts: int = 0
    writes: Written | None = None
    history: RestartHistory = RestartHistory()
    """How often it had been restarted when it was let go: what its successor fails is not its own."""

    @property
    def goal(self) -> Goal:
        """What it was started for."""
        return Goal(self.install_key, self.run_key, self.run_generation, self.run_restart)


class FinishedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended well: its key, the slot's restart number under which it was started, and how it ended."""

    run_key: str
    restart: int
    at_ms: int
    ran_s: float


class InstanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent must know of its instance after it was killed. Times `_s` are boot-time seconds of `boot`.

    `epoch` and `generation` are those of the slot fact that was obeyed. `process` is what runs, in words of its `driver`,
    with `run_key`, `install_key`, `run_generation` and `run_restart` it was started under; `ready` and `started` are its
    health; `check` is by which checks it was ready last (`launching.check_key`), empty while it was by none.
    `installed` are the keys of complete installations. `held` is the generation in which a STOP command came, 0 for none.
    """

    boot: str
    epoch: int = 0
    generation: int = 0
    revision: int = 0
    state: State | None = None
    attempt: int = 0
    since_ms: int = 0
    taken_ms: int | None = None
    process: Handle | None = None
    outgoing: OutgoingCopy | None = None
    driver: str = ""
    run_key: str = ""
    install_key: str = ""
    run_generation: int = 0
    run_restart: int = 0
    started: bool = False
    ready: bool = False
    asked: bool = False
    """It was asked to end: that is no failure, and no end by itself (C12)."""
    check: str = ""
    began_s: float = 0.0
    writes: Written | None = None
    """The output of the run that was begun last, also where it has ended; None where it is another part of the record."""
    wrote: tuple[Written, ...] = ()
    """The output of runs that have ended before: of each revision the last one, the newest last."""
    turned: dict[str, int] = {}
    """How often the file of each log was put aside."""
    installed: tuple[str, ...] = ()
    configured: str = ""
    filled: str = ""
    """With what else than its run key says it was configured (`launching.configured_key`); empty where that is not known."""
    ports: dict[str, int] = {}
    restarts: int = 0
    finished: bool = False
    not_before_s: float = 0.0
    step: str = ""
    doing: str = ""
    """The step of the spec that is under way, with its key."""
    cut: int = 0
    """How many agents in a row have ended in it."""
    history: RestartHistory = RestartHistory()
    last_exit: LastExit | None = None
    good: Good | None = None
    good_key: str = ""
    """The run key that was good last: what asks for nothing else is good, too."""
    done: FinishedRun | None = None
    """What had ended well before anything else was wanted: who goes back to it does not run it again."""
    begun: dict[str, int] = {}
    """When the last few programs were begun here, by their run keys (realm ms)."""
    commands: tuple[str, ...] = ()
    last_command: str | None = None
    held: int = 0
    trigger: tuple[str, ...] = ()
    reason: Reason | None = None
    next_try_ms: int | None = None
    parked: bool = False
    """Why it failed, as that was told, and what comes next."""

    @property
    def goal(self) -> Goal:
        """What its program was started for last."""
        return Goal(self.install_key, self.run_key, self.run_generation, self.run_restart)

    @property
    def ended_well(self) -> bool:
        """Whether its program has ended with 0, and is not run again, with what was good (A20)."""
        ended = self.finished and self.last_exit is not None and self.last_exit.code == 0
        return ended and self.good_key == self.run_key


def carried(record: InstanceRecord) -> InstanceRecord:
    """What of a record a new container inherits: counters, ports, words and where its output stands, no process."""
    return InstanceRecord(
        boot=record.boot,
        epoch=record.epoch,
        generation=record.generation,
        revision=record.revision,
        state=record.state,
        attempt=record.attempt,
        since_ms=record.since_ms,
        taken_ms=record.taken_ms,
        ports=record.ports,
        writes=record.writes,
        wrote=record.wrote,
        turned=record.turned,
        restarts=record.restarts,
        not_before_s=record.not_before_s,
        history=record.history,
        last_exit=record.last_exit,
        good=record.good,
        good_key=record.good_key,
        done=record.done,
        begun=record.begun,
        doing=record.doing,
        cut=record.cut,
        commands=record.commands,
        last_command=record.last_command,
        held=record.held,
        trigger=record.trigger,
        reason=record.reason,
        next_try_ms=record.next_try_ms,
        parked=record.parked,
    )


def remembered(record: InstanceRecord | None) -> InstanceRecord | None:
    """What of a record outlives a cleared container: what was good (A18), has ended well (A20), and is installed (E6)."""
    if record is None or (record.good is None and not record.installed):
        return None
    kept = InstanceRecord(boot=record.boot, installed=record.installed)
    if record.good is None:
        return kept
    kept = msgspec.structs.replace(kept, good=record.good, good_key=record.good_key, done=record.done, begun=record.begun)
    if not record.ended_well:
        return kept
    return msgspec.structs.replace(
        kept,
        finished=True,
        last_exit=record.last_exit,
        run_key=record.run_key,
        install_key=record.install_key,
        run_restart=record.run_restart,
    )


def dump_record(record: InstanceRecord) -> bytes:
    """A record as JSON, which a person can read."""
    return msgspec.json.encode(record)


def load_record(raw: bytes | None) -> InstanceRecord | None:
    """Read a record; None when there is none or it is damaged: then nothing is known."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=InstanceRecord)
    except UNDECODABLE:
        return None
