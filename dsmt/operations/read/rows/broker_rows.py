"""Broker rows: brokers as `brokers` shows them, and which of them withhold something or do not reach others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import filterfalse

import msgspec
from msgspec.structs import replace

from dsmt.event.hlc import FAR_MS, rfc3339
from dsmt.event.phrases import another_certificate
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.certificates import WAY_BACK
from dsmt.operations.words.names import natural
from dsmt.ports.realm import BrokerAddress
from dsmt.view.liveness import REATTACH_GRACE_MS


class BrokerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One broker, by its own word; `alive`: its word comes to this reader, and it is no other one's loss.

    The one that is asked is no exception: one that can store nothing answers, and says nothing.
    """

    broker: str | None
    address: str
    alive: bool
    pid: int | None
    version: str | None
    sessions: int | None
    peers: int | None
    lag_s: float | None
    facts: int | None
    history_from: str | None
    disk_bytes: int | None
    dropped: int | None
    clock_ahead_s: float | None
    """Its machine's clock minus realm time."""
    whole: bool | None
    """Whether it has everything that the realm holds."""
    leaf: bool | None
    """Whether it is the broker of a site (E5)."""
    upstream: str | None
    """Of a leaf, the broker to which it is linked; null for none."""
    fault: str | None = None
    """What is wrong with one that is not alive, by its own word or where it could be asked."""

    @property
    def clock_is_far(self) -> bool:
        """Whether that is too much to follow."""
        return self.clock_ahead_s is not None and abs(self.clock_ahead_s) * 1000 > FAR_MS


def withholding(sight: Sight) -> dict[str, list[str]]:
    """The brokers that do not give what they have said to hold, by name, and to which others (E4)."""
    gone = sight.passing.removed
    found = {name: sorted(set(by) - gone) for name, by in sorted(sight.passing.withheld.items()) if name not in gone}
    return {name: by for name, by in found.items() if by}


def apart(sight: Sight, unbelieved: Collection[str] = ()) -> dict[str, list[str]]:
    """The brokers that do not reach others which live, for longer than it takes to attach anew; by name (F1).

    Those that are `unbelieved` link with nobody, for their certificates have ended: they are told by that.
    """
    lost = sight.fleet.lost_brokers.keys() | sight.passing.removed | set(unbelieved)
    found = {
        name: [other for other, since_ms in others.items() if sight.now_ms >= since_ms + REATTACH_GRACE_MS]
        for name, others in sight.view.sessions.apart(lost).items()
    }
    return {name: others for name, others in found.items() if others}


def broker_rows(sight: Sight, known: list[BrokerAddress]) -> list[BrokerRow]:
    """The realm's brokers, by name; then those that have said nothing lately, which a home names or an operator announced.

    A home may name one that was removed from another home: that is none. It names no leaf, and none that was made elsewhere.
    """
    found = []
    lost = sight.fleet.lost_brokers
    for name, (_, told) in sorted(sight.passing.stats.items(), key=lambda one: natural(one[0])):
        if name in sight.passing.removed and name != sight.broker:
            continue
        heard, at = sight.passing.heard.get(f"broker/{name}"), sight.passing.announced.get(name)
        found.append(
            BrokerRow(
                broker=name,
                address=told.address if at is None else at.address,  # its own word may be of where it was before
                alive=sight.passing.hears(name, sight.now_ms)
                and not told.full
                and (name == sight.broker or name not in lost),
                pid=told.pid,
                version=told.version,
                sessions=_sessions(sight, name),
                peers=len(sight.view.sessions.brokers - {name}),
                lag_s=told.lag_s if heard is None else heard[1].lag_s,
                facts=told.facts,
                history_from=rfc3339(told.history_from_ms) if told.history_from_ms else None,
                disk_bytes=told.disk_bytes,
                dropped=told.dropped,
                clock_ahead_s=told.clock_ahead_s,
                whole=told.whole,
                leaf=name in sight.passing.leaves,
                upstream=sight.view.sessions.upstream(name, lost) or None,
                fault=f"the disk of {told.full} is full, and it stores nothing: free space there" if told.full else None,
            )
        )
    addresses = {broker.address for broker in found}
    names = {at.address: name for name, at in sight.passing.announced.items() if name not in sight.passing.removed}
    if len(known) == 1 and not sight.passing.announced and not found:  # the only one is the one that answers
        names = {known[0].address: sight.broker}
    for one in filterfalse(sight.passing.is_none, known):
        if one.address not in addresses and not (len(known) == 1 and found):
            found.append(_unheard(sight, names.get(one.address), one.address))
    listed = {broker.broker for broker in found}
    return [*found, *(_unheard(sight, name, at) for at, name in names.items() if name not in listed)]


def _unheard(sight: Sight, name: str | None, address: str) -> BrokerRow:
    """One of which no more is known than what an operator, or a home, says of it."""
    leaf = name in sight.passing.leaves or None
    upstream = sight.view.sessions.upstream(name, sight.fleet.lost_brokers) or None if leaf and name else None
    said = {"broker": name, "address": address, "alive": False, "leaf": leaf, "upstream": upstream}
    return BrokerRow(**(dict.fromkeys(BrokerRow.__struct_fields__) | said))  # type: ignore[arg-type]


def with_ended(found: Sequence[BrokerRow], ended: Collection[str], revoked: Collection[str] = ()) -> list[BrokerRow]:
    """The same; of those whose certificates have `ended`, or whose keys are `revoked`, which are sources, that is wrong."""
    said = {name.removeprefix("broker/"): f"its certificate has ended; next: {another_certificate(name)}" for name in ended}
    of_revoked = {name.removeprefix("broker/") for name in revoked}
    is_last = all(one.broker in of_revoked for one in found)
    ways = {name: WAY_BACK if is_last else f"dsmt broker remove {name}" for name in of_revoked}
    said |= {name: f"its key is revoked; next: {way}" for name, way in ways.items()}
    return [one if one.broker not in said else replace(one, fault=said[one.broker]) for one in found]


def _sessions(sight: Sight, broker: str) -> int:
    newest = (source.newest for source in sight.view.sessions.of.values())
    return sum(one is not None and one[0] == broker and one[1].record.state == "open" for one in newest)
