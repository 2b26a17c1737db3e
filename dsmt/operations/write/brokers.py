"""Brokers: an operator's words on which of them a realm has; everybody who is attached hears of them (rule R8)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from dsmt.errors import NotFoundError, RefusedError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BROKERS, BrokerWord
from dsmt.event.records import from_data, to_data
from dsmt.operations.read.realm.facts import retained
from dsmt.operations.words.names import bare, in_order
from dsmt.operations.write.writing import decided_again, say
from dsmt.ports.bus import Bus, BusReader, Draft
from dsmt.ports.realm import BrokerAddress, address_of, standing


async def announce(
    bus: Bus,
    brokers: Mapping[str, BrokerAddress],
    *,
    by: str,
    reason: str = "",
    again: str = "",
    made_ms: Mapping[str, int] = MappingProxyType({}),
) -> list[str]:
    """Say where these brokers are, as far as that is not said yet. What was a leaf stays one.

    One that was removed stays that, unless it has another key now or is to be one `again`: whose removal was killed may
    still be in a home. So does one that was made (`made_ms`, realm ms) before its name was given to another key, or taken
    from that: an operator on the other side of a partition has done that, and that word stands. Those are returned.

    Several are told at the same moment where a command adds several hosts: who was not first looks again at what is left to
    say. Raises what `say` does.
    """

    async def announced_now() -> list[str]:
        said = await _said(bus)
        gone = [
            name
            for name, at in brokers.items()
            if name != again and name in said and _is_gone(said[name], at, made_ms.get(name))
        ]
        known = {one: at for one, at in brokers.items() if one not in gone}
        drafts = _unsaid(said, known, by=by, reason=reason)
        if drafts:
            await say(bus, _with_restored(bus, said, drafts, by=by))
        return gone

    return await decided_again(announced_now)


def _is_gone(said: tuple[SignedEvent, BrokerWord], at: BrokerAddress, made_ms: int | None) -> bool:
    signed, word = said
    if word.public == at.public:
        return word.removed
    same_engine = bool(word.route) == bool(at.route)
    return same_engine and made_ms is not None and made_ms < signed.event.time_ms


def _unsaid(
    said: Mapping[str, tuple[SignedEvent, BrokerWord]], brokers: Mapping[str, BrokerAddress], *, by: str, reason: str
) -> list[Draft]:
    """What is to be said of brokers that was not said of them last."""
    drafts = []
    for name, at in brokers.items():
        held = said.get(name)
        told = None if held is None or held[1].removed else address_of(held[1])
        leaf = at.leaf or (told is not None and told.leaf and told.public == at.public)
        if told is None or told != replace(at, leaf=leaf):
            word = _word(replace(at, leaf=leaf), by=by, reason=reason)
            drafts.append(_draft(name, word, held))
    return drafts


async def announced(bus: BusReader, *, removed: bool = False) -> dict[str, BrokerAddress]:
    """The brokers that were announced, and not removed since; or those that were."""
    said = await _said(bus)
    return {name: address_of(word) for name, (_, word) in said.items() if word.removed == removed}


def unknown(name: str, present: Collection[str]) -> NotFoundError:
    """What is said where a broker is none of these."""
    said = f"there is no broker {name}; there is {', '.join(in_order(present)) or 'none'}"
    return NotFoundError("broker.unknown", said, next=bare("broker", name, present) or "dsmt brokers lists them")


async def remove(
    bus: Bus, name: str, known: Mapping[str, BrokerAddress], *, by: str, reason: str, least: int = 1
) -> BrokerAddress:
    """Say that a broker is one no more; where it was.

    Raises `NotFoundError`, and `RefusedError` for the last one, or where fewer than `least` would be left. A leaf is no last
    one: its brokers would not read it, and never hear that they were removed.
    """
    said = await _said(bus)
    present = {one for one, (_, word) in said.items() if not word.removed} | {one for one in known if one not in said}
    if name not in present:
        raise unknown(name, present)
    if present - {one for one, (_, word) in said.items() if word.leaf} == {name}:
        beside = " but leaves" if len(present) > 1 else ""
        said_so = f"{name} is the only broker{beside}: without one nobody hears anything"
        raise RefusedError("broker.last", said_so, next="dsmt broker add")
    if len(present) <= least:
        few = (
            f"{name} is one of {len(present)} NATS servers, and no fewer than {least} may be left: each stream is on so many"
        )
        raise RefusedError("broker.few", few, next="dsmt node add --roles broker,node HOST, or dsmt broker add, first")
    held = said.get(name)
    at = known[name] if held is None else address_of(held[1])
    word = _word(replace(at, leaf=False), by=by, reason=reason, removed=True)
    draft = _draft(name, word, held)
    await say(bus, _with_restored(bus, said, [draft], by=by))
    return at


def _word(at: BrokerAddress, *, by: str, reason: str, removed: bool = False) -> BrokerWord:
    leaf, route = at.leaf or msgspec.UNSET, at.route or msgspec.UNSET
    return BrokerWord(address=at.address, public=at.public, by=by, removed=removed, reason=reason, leaf=leaf, route=route)


def _draft(name: str, word: BrokerWord, held: tuple[SignedEvent, BrokerWord] | None) -> Draft:
    topic = f"{BROKERS}{name}"
    return Draft(topic, to_data(word), subject=f"broker/{name}", replaces=None if held is None else held[0])


def _with_restored(
    bus: BusReader, said: Mapping[str, tuple[SignedEvent, BrokerWord]], drafts: Sequence[Draft], *, by: str
) -> list[Draft]:
    """Words, and with them that those are brokers which count though they were removed, or they would no more.

    What is cut short leaves a realm that has one: first comes that the broker here is one, which hears what follows, then
    that the others are that were, and whom it is about at last.
    """
    besides, here = {draft.topic for draft in drafts}, f"{BROKERS}{bus.broker.removeprefix('broker/')}"
    void = {name: word for name, (signed, word) in said.items() if signed.event.data.get("removed") and not word.removed}
    why = "both sides of a partition had removed each other's brokers"
    drafted = (_draft(name, replace(word, by=by, reason=why), said[name]) for name, word in sorted(void.items()))
    every = [*(draft for draft in drafted if draft.topic not in besides), *drafts]
    return sorted(every, key=lambda one: (one.data.get("removed", False), one.topic in besides, one.topic != here))


async def _said(bus: BusReader) -> dict[str, tuple[SignedEvent, BrokerWord]]:
    """The last word on each broker; seen from a removed one, where all were removed none counts as removed (R8)."""
    found, words = {}, {}
    for signed in await retained(bus, BROKERS, "what was said of brokers"):
        with suppress(UnusableEventError):
            name = signed.event.topic.removeprefix(BROKERS)
            found[name], words[name] = signed, from_data(BrokerWord, signed.event.data)
    own = words.get(bus.broker.removeprefix("broker/"))
    counted = standing(words) if own is not None and own.removed else words
    return {name: (found[name], word) for name, word in counted.items()}
