"""Heeding: waiting until what was asked is done: instances have stopped, begun, restarted, moved, or were tried again.

Rule 1: a wait compares with the words of its own command (`Asked`): what somebody else has asked for since is not its end.
Rule 2: it waits for the instances that the command was about, and for no others; what was held before is left out, unless
    all was. A wait for nothing is never done.
Rule 3: it ends, and says so, where one of them will not be as it was asked: a later word holds it, lets it run or moves it
    again, or it is wanted no more. So it does where one was, and has failed: that it is parked is told when it has stayed so
    for `PARKED_MS`, as to who waits for a state (`waiting`, rule 3).
Rule 4: what a broker does not know yet, to which who waits went meanwhile, is waited for: it was not removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from dsmt.errors import FailedError
from dsmt.event.kinds.slot import Slot, SlotControl
from dsmt.event.phrases import person, quoted, some
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instance_row import InstanceRow, on_its_node
from dsmt.operations.read.rows.instances import application, instances, is_behind, is_ready, is_wanted
from dsmt.operations.read.waits.lasting import Lasting, has_failed, nothing_more
from dsmt.operations.read.waits.waiting import Waited, progress, unheard_of, until
from dsmt.operations.words.targets import Target
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader
from dsmt.view import SlotEntry, SlotKey
from dsmt.view.shown import FAILED


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What stands of one instance by a command: by its word or, where it had none to say of it, by the word before.

    `version` is that word's, 0 for none; `restart` and `move_number` are the numbers in it. `generation` and `attempt` are
    of the try that its program was at; `spec` is the epoch and the version of what stood of its service.
    """

    spec: tuple[int, int]
    version: int
    held: bool
    restart: int
    move_number: int
    generation: int
    attempt: int


def asked_of(sight: Sight, key: SlotKey, will: SlotControl, version: int) -> Asked:
    """What stands of a slot by an operator's will of that version."""
    entry = sight.view.slot(key)
    said, here = entry.status, entry.held_here
    return Asked(
        spec=_spec(sight, key.service),
        version=version,
        held=will.hold is not None or (here is not None and will.lifts != here.id),
        restart=will.restart,
        move_number=will.move_number,
        generation=0 if said is None else said.record.generation,
        attempt=0 if said is None else said.record.attempt,
    )


async def heeded(
    bus: BusReader,
    target: Target,
    action: str,
    asked: Mapping[str, Asked],
    *,
    limit_s: float | None,
    tell: Tell = silent,
) -> Waited:
    """Wait until what `stop`, `start`, `restart`, `move` or `retry` asked of some instances is done.

    What was restarted or moved, began or was tried again is ready then, or has ended well; what was held before is left out,
    unless nothing else was asked for. The instances of the answer are those that were waited for.
    Raises `TimedOutError`, and `FailedError` where one was tried again and failed, another operator has said the opposite
    since, or one is wanted no more.
    """
    waited = _HEEDING[action](target, asked)
    unmet, look = f"{target} is not {waited.goal}", f"dsmt status {target.service}"
    return await until(bus, waited.seen, limit_s=limit_s, unmet=unmet, look=look, far=waited.far, tell=tell)


class _Heeding:
    """The instances that a command was about, by what it said of them. What one command asks that others do not is below."""

    first = ""
    """What comes before an instance is ready, or stopped."""

    def __init__(self, target: Target, asked: Mapping[str, Asked]) -> None:
        free = {name: one for name, one in asked.items() if not one.held}
        self._target = target
        self._asked = {SlotKey.named(name): one for name, one in (free or asked).items()}
        self._left_out = {SlotKey.named(name): one for name, one in asked.items() if free and one.held}
        self._lasting = Lasting()
        self.goal: Final = f"{self.first}{'ready' if free else 'stopped'}"

    def seen(self, sight: Sight) -> Waited | None:
        """What is so once all is done; else None. Raises `FailedError` where it will not be."""
        if self._is_news(sight):
            return None
        rows = self._rows(sight)
        failed = self._lasting.first(sight, rows, lambda row: self._has_failed(sight, row))
        if failed is not None:
            raise nothing_more(failed, f"dsmt status {self._target.service}")
        done = {row.key for row in rows if self._is_done(sight, row)}
        if not done or done != self._asked.keys():
            return None
        return Waited(target=str(self._target), wanted=self.goal, reached=True, instances=rows)

    def far(self, sight: Sight) -> str:
        """How far it is."""
        if self._is_news(sight):
            return unheard_of(sight)
        so_far = progress(sight, self._rows(sight), lambda row: self._is_done(sight, row))
        waits = (f"{key} {why}" for key in self._asked if (why := move_waits(sight, key, sight.view.slot(key).move_asked)))
        return "; ".join([so_far, *islice(waits, 1), *islice(self._held_up(sight), 1)])

    def _held_up(self, _sight: Sight) -> Iterator[str]:
        """What keeps the others from their turn, though nobody waits for it."""
        yield from ()

    def _is_news(self, sight: Sight) -> bool:
        """Whether the broker has not heard yet of the service as it was when this was asked (rule 4)."""
        return any(_spec(sight, self._target.service) < one.spec for one in self._asked.values())

    def _rows(self, sight: Sight) -> list[InstanceRow]:
        self._check_wanted(sight)
        heard = {key: entry for key, one in self._asked.items() if _is_heard(entry := sight.view.slot(key), one)}
        self._check_held(heard)
        self._check_opposed(heard)
        return [row for row in instances(sight, self._target) if row.key in self._asked]

    def _is_done(self, sight: Sight, row: InstanceRow) -> bool:
        if not self._was_begun(sight, row):
            return False
        if row.held is not None:
            return self._asked[row.key].held and row.state is Shown.STOPPED
        return _is_let_run(sight.view.slot(row.key)) and _is_well(sight, row)

    def _has_failed(self, sight: Sight, row: InstanceRow) -> bool:
        """Whether it was begun as asked, and is parked, or has failed for good."""
        return row.held is None and self._was_begun(sight, row) and has_failed(row) and not is_behind(sight, row)

    def _was_begun(self, sight: Sight, row: InstanceRow) -> bool:
        """Whether a controller has decided what was asked of this instance."""
        asked, entry = self._asked[row.key], sight.view.slot(row.key)
        return _is_heard(entry, asked) and entry.record is not None and self._is_decided(entry.record, asked)

    def _is_decided(self, _told: Slot, _asked: Asked) -> bool:
        """Whether a slot's fact, which follows the word of this command or a later one, does what was asked."""
        return True

    def _check_opposed(self, _heard: Mapping[SlotKey, SlotEntry]) -> None:
        """Raise `FailedError` where a later word is the opposite of this command's own."""

    def _check_wanted(self, sight: Sight) -> None:
        """Raise `FailedError` where one is to end, or is gone."""
        gone = [key for key in self._asked if not is_wanted(sight, key) or _has_lost_its_node(sight, key)]
        if not gone:
            return
        service = self._target.service
        entry = sight.view.services.get(service)
        spec = None if entry is None else entry.spec
        if spec is None or spec.record.removed:
            said = f"{service} was removed meanwhile, before {self._before(gone, _named(gone))}"
        else:
            by = "" if is_wanted(sight, gone[0]) else f", by r{spec.version} of {service}"
            said = f"{_named(gone)} {'are' if len(gone) > 1 else 'is'} wanted no more{by}, before {self._before(gone)}"
        raise FailedError("wait.unwanted", said, next=f"dsmt history {service}")

    def _check_held(self, heard: Mapping[SlotKey, SlotEntry]) -> None:
        """Raise `FailedError` where a later word holds what is to run."""
        holds = {key: _held(entry) for key, entry in heard.items() if not self._asked[key].held}
        held = {key: hold for key, hold in holds.items() if hold}
        if held:
            keys, hold = list(held), next(iter(held.values()))
            why = f": held by {hold}"
            said = f"{_named(keys)} {_were(keys)} stopped meanwhile, before {self._before(keys, why=why)}"
            whole = len(keys) == len(self._asked) > 1
            raise FailedError("wait.opposed", said, next=f"dsmt start {self._target if whole else keys[0]}")

    def _before(self, keys: Sequence[SlotKey], name: str = "", why: str = "") -> str:
        """What some were not yet when it came to nothing, why it did, and that it did not for all."""
        others = "; what was asked of the others goes on" if len(keys) < len(self._asked) else ""
        return f"{name or ('they' if len(keys) > 1 else 'it')} {_were(keys)} {self.goal}{why}{others}"


class _Stop(_Heeding):
    """What is stopped may be started meanwhile."""

    def _check_opposed(self, heard: Mapping[SlotKey, SlotEntry]) -> None:
        begun = [key for key, entry in heard.items() if entry.hold is None]
        if begun:
            said = f"{_named(begun)} {_were(begun)} started meanwhile, before {self._before(begun)}"
            raise FailedError("wait.opposed", said, next=f"dsmt why {begun[0]}")


class _Start(_Heeding):
    """What had ended by itself is run again: by a number, as what is restarted."""

    def _is_decided(self, told: Slot, asked: Asked) -> bool:
        return told.restart >= asked.restart


class _Restart(_Start):
    """What is stopped on its node has its turn as any other, and keeps the next one waiting (A24)."""

    first = "restarted and "

    def _held_up(self, sight: Sight) -> Iterator[str]:
        for key, asked in self._left_out.items():
            entry = sight.view.slot(key)
            is_here = entry.hold is None and entry.held_here is not None
            if is_here and entry.record is not None and self._is_decided(entry.record, asked):
                yield f"it waits until {key} is started, which is held by {_held(entry)}"


class _Move(_Heeding):
    """What is moved may be told meanwhile to move elsewhere."""

    first = "moved and "

    def _is_decided(self, told: Slot, asked: Asked) -> bool:
        return told.move_number == asked.move_number

    def _check_opposed(self, heard: Mapping[SlotKey, SlotEntry]) -> None:
        for key, entry in heard.items():
            later, asked = entry.control, self._asked[key]
            if later is None or later.version <= asked.version or later.record.move_number == asked.move_number:
                continue
            to = "" if later.record.move is None else f" to {later.record.move or 'another node'}"
            said = f"{key} was told meanwhile to move{to}, before {self._before([key])}"
            raise FailedError("wait.opposed", said, next=f"dsmt why {key}")


class _Retry(_Heeding):
    """A try by hand tells of its own end."""

    def _is_done(self, sight: Sight, row: InstanceRow) -> bool:
        return self._was_begun(sight, row) and _was_tried(sight, row, self._asked[row.key])

    def _has_failed(self, _sight: Sight, _row: InstanceRow) -> bool:
        return False


_HEEDING: Final[Mapping[str, type[_Heeding]]] = {
    "stop": _Stop,
    "start": _Start,
    "restart": _Restart,
    "move": _Move,
    "retry": _Retry,
}


def _spec(sight: Sight, service: str) -> tuple[int, int]:
    """The epoch of a service, and the version of what stands of it: 0 where nothing does."""
    entry = sight.view.services.get(service)
    spec = None if entry is None else entry.spec
    return sight.view.epoch(f"service/{service}/spec"), 0 if spec is None else spec.version


def _named(keys: Sequence[SlotKey]) -> str:
    return some(list(map(str, keys)))


def _were(keys: Sequence[SlotKey]) -> str:
    return "were" if len(keys) > 1 else "was"


def _has_lost_its_node(sight: Sight, key: SlotKey) -> bool:
    """Whether it was to run on each node of a set, and its own is of that no more."""
    component, told = sight.spec_of(key), sight.view.slot(key).record
    return component is not None and component.each_node and told is not None and told.desired == "gone"


def _held(entry: SlotEntry) -> str:
    """Who holds a slot, or has stopped it on its node with no word that ends that; empty for nobody."""
    hold, here = entry.hold, on_its_node(entry)
    if hold is not None:
        return f"{person(hold.by)}{quoted(hold.reason)}"
    is_lifted = entry.held_here is not None and entry.effective_control.lifts == entry.held_here.id
    return "" if here is None or is_lifted else f"{here.by}{quoted(here.reason)}"


def _is_heard(entry: SlotEntry, asked: Asked) -> bool:
    """Whether the slot follows the word of this command, or a later one."""
    return entry.followed_control[0] >= asked.version


def _is_let_run(entry: SlotEntry) -> bool:
    """Whether it was decided to run, or to be gone, and not to stop."""
    return entry.record is not None and not entry.record.held


def _is_well(sight: Sight, row: InstanceRow) -> bool:
    """Whether it is as it is to be: ready, or it has run and ended with 0, and is not run again."""
    return (is_ready(sight, row) or row.state is Shown.DONE) and not is_behind(sight, row)


def _was_tried(sight: Sight, row: InstanceRow, asked: Asked) -> bool:
    """Whether it is ready or, tried once more, has ended well. Raises `FailedError` where it has failed."""
    said = application(sight, row)
    again = said is not None and (said.generation, said.attempt) > (asked.generation, asked.attempt)
    if again and row.state in FAILED:
        why, advice = ("", "") if row.reason is None else (f": {row.reason.message}", row.reason.next)
        failed = f"{row.instance} was tried again and failed{why}"
        raise FailedError("retry.failed", failed, next=advice or f"dsmt logs {row.instance} --previous")
    return is_ready(sight, row) or (again and row.state is Shown.DONE)


def move_waits(sight: Sight, key: SlotKey, to: str | None) -> str:
    """Why an operator's move of a slot to a node (empty for any other) is not made now; empty where it can be, or none is.

    A sentence without the slot, which is its subject.
    """
    known, entry = sight.governing.of(key), sight.view.slot(key)
    node = None if entry.record is None else entry.record.node
    if to is None or known is None or node is None or node == to:
        return ""
    if to:
        fault = known.chooser.misfit(to)
        return "" if fault is None else f"goes to {to} once it can: {fault.says}"
    if known.chooser.choose(key, (node,)) is not None:
        return ""
    return f"goes once there is another place: {known.chooser.reason(key, (node,)).message}"
