"""Controlling: start, stop, restart, move, retry: an operator's lasting will for slots as facts, and commands (A7).

Rule 1: `stop` is a hold on each slot, with who, when and why; it survives apply and failover, and only `start` lifts it.
    It ends a stop on the node itself, too (A24).
Rule 2: `restart` raises each slot's restart number, to when it was asked for; controllers pace it.
Rule 3: a command goes to the agent of the present generation, and is executed once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from dsmt.controllers.pinning import is_there
from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.event.kinds.instance import Command
from dsmt.event.kinds.slot import Hold, SlotControl
from dsmt.event.phrases import quoted, some
from dsmt.event.records import to_data
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight, look, look_at
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import check_not_removed, find_node
from dsmt.operations.read.waits.heeding import Asked, asked_of, move_waits
from dsmt.operations.words.targets import Target, no_service, slots_of
from dsmt.operations.write.writing import follow, say, say_word
from dsmt.ports.bus import Bus, Draft
from dsmt.ports.entropy import Entropy
from dsmt.system.entropy import SystemEntropy
from dsmt.view import SlotEntry, SlotKey
from dsmt.view.shown import FAILED

Will = Callable[[SlotControl, SlotKey], SlotControl]
"""An operator's will for a slot that follows the one before."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of which instances; `unchanged` are those that were so already, `because` says of each why."""

    action: str
    target: str
    instances: list[str]
    unchanged: list[str]
    because: dict[str, str] = {}
    warnings: list[str] = []
    data: dict[str, str] = {}
    """Of a removal, or a move: by instance, the node on which its data stays; of a purge, on which it is deleted."""
    asked: dict[str, Asked] = {}
    """By instance, what stands of it by this command, with which a wait for it compares."""


async def stop(bus: Bus, target: Target, *, by: str, reason: str) -> Done:
    """Hold every slot of a target. Raises `NotFoundError`."""
    sight = await look_at(bus, target.service)
    hold = Hold(by=by, at_ms=sight.now_ms, reason=reason)

    def will(before: SlotControl, _key: SlotKey) -> SlotControl:
        return before if before.hold is not None else _will(before, by, reason, hold=hold)

    return await _control(bus, sight, target, "stop", will, _held_already)


async def start(bus: Bus, target: Target, *, by: str, reason: str) -> Done:
    """Lift the hold of every slot of a target, and its stop on its node (A24). Raises `NotFoundError`.

    What had ended by itself is run again (A20), also where its agent was away and saw no stop: the restart number says so.
    """
    sight = await look_at(bus, target.service)

    def will(before: SlotControl, key: SlotKey) -> SlotControl:
        here = sight.view.slot(key).held_here
        lifts = before.lifts if here is None else here.id
        if before.hold is None:
            return before if lifts == before.lifts else _will(before, by, reason, lifts=lifts)
        return _will(before, by, reason, hold=None, lifts=lifts, restart=_next(before.restart, bus))

    def not_held(row: InstanceRow) -> str:
        return "it was not held" if row.held is None else f"it starts when its agent on {row.node} hears that it is let go"

    return await _control(bus, sight, target, "start", will, not_held)


async def restart(bus: Bus, target: Target, *, by: str, reason: str) -> Done:
    """Raise the restart number of every slot of a target that is not held. Raises `NotFoundError`, `RefusedError`."""
    sight = await look_at(bus, target.service)
    rows = instances(sight, target)
    if rows and all(row.held is not None for row in rows):
        raise RefusedError("restart.held", f"{target} is stopped: {_held_already(rows[0])}", next=f"dsmt start {target}")

    command = f"{by} {sight.now_ms}"

    def will(before: SlotControl, _key: SlotKey) -> SlotControl:
        if before.hold is not None:
            return before
        return _will(before, by, reason, restart=_next(before.restart, bus), restart_of=command)

    done = await _control(bus, sight, target, "restart", will, _held_until_started)
    return msgspec.structs.replace(done, warnings=[*done.warnings, *_nowhere(sight, done)])


async def move(bus: Bus, target: Target, to: str | None, *, accept_data_loss: bool, by: str, reason: str) -> Done:
    """Have every slot of a target elsewhere: on one node, or on any other.

    What keeps data leaves it behind, and is moved only when that is accepted. A move to where it is ends one that waits, and
    is nothing to do where none does.
    One of each node stays: it may only begin anew on what is another machine now, under the name of its node.
    Raises `InputError`, `RefusedError`, `NotFoundError`.
    """
    sight = await look(bus)
    if to is not None:
        find_node(sight, to)
        check_not_removed(sight, to)
    keys = _slots(sight, target)
    goes = {key: _goes(sight, target, key, to, accept_data_loss=accept_data_loss) for key in keys}

    def will(before: SlotControl, key: SlotKey) -> SlotControl:
        slot = sight.view.slot(key)
        node = _where(slot)
        home = sight.home_of(key)
        stays = slot.move_asked is None and (home is None or is_there(sight.fleet, home))
        if stays and node and node == goes[key]:
            return before
        number, leave = _next(before.move_number, bus), "" if goes[key] else node or before.leave
        return _will(before, by, reason, move=goes[key], leave=leave, move_number=number, accept_data_loss=accept_data_loss)

    done = await _control(bus, sight, target, "move", will, lambda row: f"it is on {row.node} already")
    homes = {str(key): home.node for key in keys if (home := sight.home_of(key)) is not None and goes[key] != home.node}
    data = {one: node for one, node in homes.items() if one in done.instances}
    waits = [f"{key} {why}" for key in keys if str(key) in done.instances and (why := move_waits(sight, key, goes[key]))]
    warnings = [*done.warnings, *waits, *_nowhere(sight, done)]
    return msgspec.structs.replace(done, data=data, warnings=warnings)


def _nowhere(sight: Sight, done: Done) -> list[str]:
    """What is asked of instances that have no node waits until they have one."""
    those = [one for one in done.instances if not _where(sight.view.slot(SlotKey.named(one)))]
    they = f"{some(those)} {'has' if len(those) == 1 else 'have'}"
    return [f"{they} no node yet: that comes first; dsmt why-not {those[0]}"] if those else []


def _where(slot: SlotEntry) -> str:
    """The node where a slot is: by its fact; or, where its service was made anew and none is said yet, where it runs."""
    return (slot.record.node or "") if slot.record is not None else next(iter(slot.holders), "")


def _held_until_started(row: InstanceRow) -> str:
    """Who holds an instance, and how that ends."""
    return f"{_held_already(row)}; dsmt start {row.instance}"


def _held_already(row: InstanceRow) -> str:
    """Who holds an instance, and why."""
    if row.held is None:
        return "it is not held"
    return f"held by {row.held.by}{quoted(row.held.reason)}"


def _goes(sight: Sight, target: Target, key: SlotKey, to: str | None, *, accept_data_loss: bool) -> str:
    """Where a slot is to go, empty for any other node. Raises `InputError`, `RefusedError` when it may not be moved."""
    spec, home = sight.spec_of(key), sight.home_of(key)
    lost = home is not None and not is_there(sight.fleet, home)
    if spec is not None and spec.each_node:
        if home is None or not lost or to not in (None, home.node):
            raise RefusedError(
                "move.each_node", f"{key} runs on every node, so it cannot be moved", next="dsmt node drain NODE"
            )
        to = home.node
    if home is not None and (lost or to != home.node) and not accept_data_loss:
        where = "on another machine of that name" if to == home.node else "elsewhere"
        raise InputError(
            "move.data",
            f"{key} has its data on {home.node}, and would begin {where} without it; nothing was done",
            next=f"dsmt move {target}{'' if to is None else f' --to {to}'} --accept-data-loss, if the data may be lost",
        )
    return to or ""


def _next(number: int, bus: Bus) -> int:
    """The number of a restart or move that is asked for now: of two that two sides of a partition ask for no two are one."""
    return max(number + 1, bus.now_ms())


def _will(before: SlotControl, by: str, reason: str, **about: Any) -> SlotControl:
    """The will that follows."""
    return msgspec.structs.replace(before, **about, by=by, reason=reason)


async def _control(  # noqa: PLR0917 - what each verb says of itself
    bus: Bus, sight: Sight, target: Target, action: str, will: Will, same_because: Callable[[InstanceRow], str]
) -> Done:
    keys = _slots(sight, target)
    drafts, touched, same, asked = [], [], [], {}
    for key in keys:
        entry = sight.view.slot(key)
        before = following(entry)
        after = will(before, key)
        above = version = entry.followed_control[0]
        if after == before:
            same.append(str(key))
        else:
            draft = follow(sight.view, key.control_topic, after, subject=str(key), above=above)
            drafts.append(draft)
            touched.append(str(key))
            version = draft.version or 0
        asked[str(key)] = asked_of(sight, key, after, version)
    if drafts:
        await say_word(bus, sight, drafts)
    because = {row.instance: same_because(row) for row in instances(sight, target) if row.instance in same}
    warnings = sight.unheard if same else []
    return Done(
        action=action,
        target=str(target),
        instances=touched,
        unchanged=same,
        because=because,
        warnings=warnings,
        asked=asked,
    )


def following(entry: SlotEntry) -> SlotControl:
    """The will that a new one follows: without a move that is done, and with no number below one that is.

    Of a hold whose control was lost the slot fact still knows.
    """
    will = SlotControl() if entry.control is None else entry.control.record
    if will.hold != entry.hold:
        will = msgspec.structs.replace(will, hold=entry.hold)
    if entry.move_asked is None:
        will = msgspec.structs.replace(will, move=None, leave="", accept_data_loss=False)
    done = None if entry.fact is None else entry.fact.record
    if done is None:
        return will
    restart, number = max(will.restart, done.restart), max(will.move_number, done.move_number)
    return msgspec.structs.replace(will, restart=restart, move_number=number)


def _slots(sight: Sight, target: Target) -> list[SlotKey]:
    keys = slots_of(sight.view, target)
    spec = sight.view.services[target.service].spec
    if spec is None or (spec.record.removed and not keys):
        left = f"dsmt ps {target.service} shows what is left of it, which is to end" if keys else ""
        raise no_service(sight.view, target.service, left)
    if not keys:
        raise NotFoundError("target.empty", f"{target} has no instance", next=f"dsmt scale {target} N")
    return keys


async def retry(bus: Bus, target: Target, *, by: str, reason: str, entropy: Entropy | None = None) -> Done:
    """Have the agents of what waits for its next try make it at once. Raises `NotFoundError`."""
    sight = await look_at(bus, target.service)
    drafts, touched, because, asked = [], [], {}, {}
    rows = {row.key: row for row in instances(sight, target)}
    for key in _slots(sight, target):
        entry = sight.view.slot(key)
        asked[str(key)] = asked_of(sight, key, following(entry), entry.followed_control[0])
        why = nothing_waits(rows.get(key))
        draft = None if why else command(bus, sight, key, "RETRY", entropy=entropy, by=by, reason=reason)
        if draft is None:
            because[str(key)] = why or "it has no node"
        else:
            drafts.append(draft)
            touched.append(str(key))
    if drafts:
        await say(bus, drafts)
    same = list(because)
    return Done(action="retry", target=str(target), instances=touched, unchanged=same, because=because, asked=asked)


def nothing_waits(row: InstanceRow | None) -> str:
    """Why there is nothing to try again in an instance; empty where there is."""
    if row is None or row.node is None:
        return f"it has no node; dsmt why-not {row.instance}" if row is not None else "it has no instance"
    if row.held is not None:
        return _held_until_started(row)
    if row.state is Shown.DONE:
        return f"it has ended well; dsmt restart {row.instance} runs it again"
    if row.agentless:
        return f"no agent is there to try it; {row.node} tries by itself to begin one; dsmt why {row.instance}"
    if row.state in FAILED or (row.failures and row.state is not Shown.RUNNING):
        return ""
    health = f", {row.health}" if row.health != "none" else ""
    return f"it does not wait for another try: it is {row.state.value}{health}"


def command(
    bus: Bus, sight: Sight, key: SlotKey, verb: Any, *, entropy: Entropy | None = None, **arguments: Any
) -> Draft | None:
    """A command to the agent of a slot's present generation; None when it has no node."""
    entry = sight.view.slot(key)
    if entry.fact is None or entry.fact.record.node is None:
        return None
    node = entry.fact.record.node
    record = Command(
        id=(entropy or SystemEntropy()).bytes(8).hex(),
        verb=verb,
        generation=entry.fact.version,
        asker=bus.source,
        arguments=arguments,
    )
    return Draft(key.command_topic, to_data(record), subject=str(key), to=(key.agent(node),), ttl_ms=60_000)
