"""Node control: drain, exclude, include, remove: an operator's will for a node, as a fact."""

from __future__ import annotations

from typing import Literal

import msgspec

from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.event.kinds.node import NodeControl, NodeVerdict
from dsmt.event.phrases import person, quoted, some
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.holding import Undrained, data_on, left_on
from dsmt.operations.read.rows.node_rows import check_not_removed, find_node, is_only_named
from dsmt.operations.read.waits.waiting import until
from dsmt.operations.words.telling import Tell, silent
from dsmt.operations.write.tokens import given
from dsmt.operations.write.writing import decided_again, follow, say, say_word
from dsmt.ports.bus import Bus, BusReader, Draft
from dsmt.view.entries import NodeEntry
from dsmt.view.liveness import judged

Mode = Literal["active", "draining", "excluded"]


class Controlled(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is to be used for now, by which version of an operator's word (0: by none).

    `pinned` are the instances that stay there with their data, `left` all that is there.
    """

    node: str
    mode: str
    changed: bool
    version: int
    instances: int
    pinned: list[str] = []
    left: list[Undrained] = []
    data: list[str] = []
    """Those of which nothing runs there, and whose data is there."""
    warnings: list[str] = []


class LastNode(msgspec.Struct, frozen=True, kw_only=True):
    """That no other node takes instances: if this one is drained, `ends` end, `stays` are those that have no other place."""

    ends: list[str]
    stays: list[str]


async def last_node(bus: BusReader, name: str) -> LastNode | None:
    """What a drain of a node would mean that alone takes instances; None of any other. Raises `NotFoundError`."""
    sight = await look(bus)
    others = [one for one in sight.view.nodes.values() if one.name != name and not sight.fleet.is_lost(one.name)]
    if find_node(sight, name).mode != "active" or any(one.mode == "active" for one in others):
        return None
    ends, stays = list[str](), list[str]()
    for key in sorted(sight.view.allocations.node(name).slots):
        slot, spec = sight.view.slot(key), sight.spec_of(key)
        if slot.fact is not None and slot.fact.record.desired == "running":
            (ends if spec is not None and spec.each_node else stays).append(str(key))
    return LastNode(ends=ends, stays=stays)


async def set_mode(bus: Bus, name: str, mode: Mode, *, by: str, reason: str) -> Controlled:
    """Say how a node is to be used; one that was removed is only given back. Raises `NotFoundError`, `RefusedError`."""
    sight = await look(bus)
    entry = find_node(sight, name)
    given_back = mode == "active" and entry.mode != "active"
    if not given_back:
        check_not_removed(sight, name)
    if entry.mode == mode:
        return msgspec.structs.replace(_controlled(sight, name, mode, changed=False), warnings=sight.unheard)
    record, version = NodeControl(mode=mode, by=by, reason=reason), _version(entry) + 1
    await say_word(bus, sight, [follow(sight.view, f"node/{name}/control", record, subject=f"node/{name}")])
    return msgspec.structs.replace(_controlled(sight, name, mode, changed=True), version=version)


async def drained(bus: Bus, name: str, *, since: int, limit_s: float | None, tell: Tell = silent) -> Controlled:
    """Wait until nothing is left on a node that is drained by a version of its word but what stays with its data.

    Raises `TimedOutError` that shows what holds it up, and `FailedError` when the word that stands says otherwise.
    """

    def seen(sight: Sight) -> Controlled | None:
        entry = find_node(sight, name)
        if _version(entry) < since:
            return None
        if entry.mode != "draining":
            said = f"{name} is {entry.mode} again, by another word, before it was drained"
            raise FailedError("wait.opposed", said, next=f"dsmt node drain {name}, if it is to be")
        left = left_on(sight, name)
        if not all(one.stays for one in left):
            return None
        return _controlled(sight, name, "draining" if left else "drained", changed=True)

    def far(sight: Sight) -> str:
        moving = [one for one in left_on(sight, name) if not one.stays]
        first = f"; {moving[0].instance}: {moving[0].because}" if moving else ""
        return f"{len(moving)} to go{first}"

    unmet = f"{name} is not drained"
    return await until(bus, seen, limit_s=limit_s, unmet=unmet, look="dsmt nodes", far=far, tell=tell)


async def remove(bus: Bus, name: str, *, by: str, reason: str, sure: bool, ends: str = "") -> Controlled:
    """Say that a node that is no more has left for good; it comes back, and is used, when it attaches again (rule F4).

    Controllers judge a node when it ends, often at this very moment: then it is decided anew by what they say. Raises
    `NotFoundError`, `InputError` for one that is alive (`ends` is how it is ended where it runs), or that data waits for
    unless who asks is `sure`.
    """
    return await decided_again(lambda: _remove(bus, name, by=by, reason=reason, sure=sure, ends=ends))


async def _remove(bus: Bus, name: str, *, by: str, reason: str, sure: bool, ends: str) -> Controlled:
    sight = await look(bus)
    entry = _known(sight, name)
    state = sight.fleet.state(name)
    if state == "left":
        await _drained_no_more(bus, sight, entry, by)
        return _controlled(sight, name, "removed", changed=False)
    if state == "alive":
        drained_ = entry.mode == "draining" and all(one.stays for one in left_on(sight, name))
        first = "" if drained_ else f"dsmt node drain {name}; then "
        end = ends or f"end its processes: dsmt node show {name}"
        raise RefusedError("node.alive", f"{name} is alive; nothing was done", next=f"{first}{end}")
    if state == "suspect" and not sure:
        said = f"{name} is suspect: it may be alive, and only silent; nothing was done"
        raise InputError("node.suspect", said, next=f"dsmt node remove {name} --yes, if it will not come back")
    data, waiting = data_on(sight, name), [one.instance for one in left_on(sight, name) if one.stays]
    if data and not sure:
        said = f"the data of {some(data)} is on {name}{', and waits for it' if waiting else ''}; nothing was done"
        lost = f"dsmt move {waiting[0]} --accept-data-loss, or --yes" if waiting else "--yes, if that is of no use any more"
        raise InputError("node.data", said, next=lost)
    await say(bus, [_left(sight, name, by, reason)])
    await _drained_no_more(bus, sight, entry, by)
    return _controlled(sight, name, "removed", changed=True)


async def _drained_no_more(bus: Bus, sight: Sight, entry: NodeEntry, by: str) -> None:
    """End the drain of a node that has left for good: the next machine of that name is another one, and is used."""
    if entry.mode == "draining":
        record = NodeControl(mode="active", by=by, reason="its drain ended when it was removed")
        await say_word(bus, sight, [follow(sight.view, f"node/{entry.name}/control", record, subject=f"node/{entry.name}")])


async def free(bus: Bus, name: str, *, by: str, reason: str) -> bool:
    """Say that a node has left whose name a token gave to a key since, with which nobody has come: it is free again (J2).

    Whether that was to be said; of one that has not left nothing is.
    """
    sight = await look(bus)
    entry = sight.view.nodes.get(name)
    if entry is not None and entry.sources and sight.fleet.state(name) != "left":
        return False
    verdict = None if entry is None else entry.verdict
    last = await given(bus, name)
    if not last or (verdict is not None and verdict.signed.event.time > last):
        return False
    await say(bus, [_left(sight, name, by, reason)])
    return True


def _left(sight: Sight, name: str, by: str, reason: str) -> Draft:
    """The verdict that a node has left."""
    entry = sight.view.nodes.get(name)
    attachments, others = ({}, 0) if entry is None else judged(entry)
    record = NodeVerdict(
        state="left",
        road="operator",
        attachments=attachments,
        others=others,
        evidence=(),
        message=f"removed by {person(by)}{quoted(reason)}",
        since_ms=sight.now_ms,
    )
    return follow(sight.view, f"node/{name}/verdict", record, subject=f"node/{name}")


def _known(sight: Sight, name: str) -> NodeEntry:
    """A node's entry; an empty one where nothing is known of it but what is to run there. Raises `NotFoundError`."""
    return NodeEntry(name) if is_only_named(sight, name) else find_node(sight, name)


def _version(entry: NodeEntry) -> int:
    return 0 if entry.control is None else entry.control.version


def _controlled(sight: Sight, name: str, mode: str, *, changed: bool) -> Controlled:
    left = left_on(sight, name)
    stays = [one.instance for one in left if one.stays]
    return Controlled(
        node=name,
        mode=mode,
        changed=changed,
        version=_version(_known(sight, name)),
        instances=len(sight.view.allocations.node(name).slots),
        pinned=stays,
        left=left,
        data=[one for one in data_on(sight, name) if one not in stays],
    )
