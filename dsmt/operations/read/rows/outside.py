"""Outside: nodes that are let in no more, or are there twice, by their certificate: since when, why, and what may run there.

Rule 1: who is out goes on running what it ran, and nobody hears of it: what was known last is told as what may still run.
Rule 2: nobody believes what a revoked key has said, and what a node says dies with time: where nothing is said of an
    instance any more, its slot tells, if it was placed there before the node was out, or has been replaced since.
Rule 3: of two processes that both have the key of a node no reader can tell which is the true one: a new key does.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.slot import Slot
from dsmt.event.phrases import another_certificate, another_key, some, whose
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.certificates import unbelieved
from dsmt.trust.certificate import Certificate
from dsmt.view import NodeEntry, SlotEntry
from dsmt.view.sessions import word

Why = Literal["revoked", "expired", "kept out", "twice"]
Used = Mapping[str, Certificate]
"""The certificates in use, by name, as far as a reader knows any."""
NO_CERTIFICATES: Final[Used] = MappingProxyType({})
COPIED: Final[frozenset[Why]] = frozenset({"kept out", "twice"})
"""Two processes have its key: another one, and the end of the former, tells the true one (rule 3)."""
CLOSING_MS: Final = 10_000
"""How long after a revocation the last session that it ends may have been closed."""
_ENDED: Final = frozenset({State.STOPPED, State.GONE})


class MayRun(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that was last known to run on a node that is out; `elsewhere`: the node on which it is placed now."""

    instance: str
    elsewhere: str | None

    def __str__(self) -> str:
        return self.instance if self.elsewhere is None else f"{self.instance} (on {self.elsewhere} now)"


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node is let in no more, since when, what brings it back, and what may still run there.

    `twice` is in, and so is its copy, at another broker: both do what the realm wants of the node.
    """

    why: Why
    key: str | None
    since: str | None
    message: str
    next: str
    may_run: list[MayRun]


def outside(sight: Sight, entry: NodeEntry, used: Used) -> Outside | None:
    """How a node is out; None for one that is not."""
    found = _why(sight, entry, used)
    if found is None:
        return None
    why, key, since_ms, said = found
    name = f"node/{entry.name}"
    runs = [] if why == "twice" else _may_run(sight, entry.name, since_ms)
    left = f"; may still run there: {some([str(one) for one in runs])}" if runs else ""
    mend = f"end the copy, then {another_key(name, key or name)}" if why in COPIED else another_certificate(name)
    return Outside(why=why, key=key, since=rfc3339(since_ms), message=f"{said}{left}", next=mend, may_run=runs)


def _why(sight: Sight, entry: NodeEntry, used: Used) -> tuple[Why, str | None, int, str] | None:
    """Why a node is out, with which key, since when (realm ms), and in words."""
    ended = revoked(sight, entry)
    if ended is not None:
        event = ended.event
        by = whose(str(event.data.get("by", "")), event.source, event.data.get("reason"))
        since_ms = ended.event.time_ms
        said = f"its key was revoked by {by}, and it is out since {rfc3339(since_ms)}"
        return "revoked", ended.event.topic.split("/")[2], since_ms, said
    key = kept_out(sight, entry)
    if key is not None:
        since_ms = sight.fleet.words(entry.name)[0].since_ms
        said = (
            f"two processes have attached in turn with its key, as if it was copied: both are out since {rfc3339(since_ms)}"
        )
        return "kept out", key, since_ms, said
    own = used.get(f"node/{entry.name}")
    both = twice(sight, f"node/{entry.name}", used)
    if both is not None:
        since_ms, said = both
        key = None if own is None else own.key_id.hex()
        return "twice", key, since_ms, f"{said}: what is placed there may run on both"
    if own is not None and own.not_after * 1000 < sight.now_ms and sight.fleet.state(entry.name) in ("dead", "suspect"):
        since_ms = own.not_after * 1000
        said = f"its certificate ended at {rfc3339(since_ms)}, and it cannot attach with it"
        return "expired", own.key_id.hex(), since_ms, said
    return None


def twice(sight: Sight, source: str, used: Used) -> tuple[int, str] | None:
    """Since when (realm ms) two processes are attached under one name, each to a broker of its own, and in words.

    By no word of a broker whose certificate has ended: it cannot say that who was attached there has gone elsewhere.
    """
    told, sessions = sight.passing, sight.view.sessions
    words = sessions.of[source].words if source in sessions.of else {}
    mute = {one for one in words if told.stats and not told.hears(one, sight.now_ms)}  # its disk is full, perhaps
    mute |= unbelieved(used, sight.now_ms)
    found = sessions.twice(source, mute.union(sight.fleet.lost_brokers), sight.now_ms)
    if found is None:
        return None
    brokers = " and ".join(found.brokers)
    said = f"two processes are attached under its name, as if it was copied, or the name given again, at {brokers}"
    return found.since_ms, f"{said}, since {rfc3339(found.since_ms)}"


def kept_out(sight: Sight, entry: NodeEntry) -> str | None:
    """The id of the key with which a node is kept out, for two processes have it (A11)."""
    attachments = entry.sources.get(f"node/{entry.name}")
    said = None if attachments is None else word(attachments, sight.fleet.lost_brokers)
    return None if said is None or said.state != "closed" else said.held.record.kept_out or None


def revoked(sight: Sight, entry: NodeEntry) -> SignedEvent | None:
    """The revocation of a node's key that ended its sessions: it is not alive, and has not attached since, or was not heard.

    On the other side of a cut it is heard until that is over.
    """
    if sight.fleet.state(entry.name) == "alive":
        return None
    name, seen = f"node/{entry.name}", last_seen_ms(sight, entry) or 0
    attached = max((one.attachment for one in entry.sources.values()), default=seen)  # numbered by realm time (A11)
    ends = (one for one in sight.revocations.get(name, ()) if min(seen - CLOSING_MS, attached) <= one.event.time_ms)
    return next(ends, None)


def last_seen_ms(sight: Sight, entry: NodeEntry) -> int | None:
    """When any of a node's sources was heard last (realm ms), as far as facts and heartbeats tell."""
    times = [sight.passing.heard[source][0] for source in entry.sources if source in sight.passing.heard]
    if entry.attributes is not None:
        times.append(entry.attributes.time_ms)
    for source in entry.sources.values():
        said = word(source, sight.fleet.lost_brokers)
        if said is not None:
            times.append(said.since_ms)
    return max(times, default=None)


def _may_run(sight: Sight, node: str, since_ms: int) -> list[MayRun]:
    """What was last known to run on a node (rules 1 and 2), by instance."""
    found = []
    for key, entry in sight.view.slots:
        if not _was_there(entry, node, since_ms):
            continue
        fact = entry.record
        elsewhere = None if fact is None or fact.node == node or fact.desired != "running" else fact.node
        found.append(MayRun(instance=str(key), elsewhere=elsewhere))
    return found


def _was_there(entry: SlotEntry, node: str, since_ms: int) -> bool:
    instance = entry.instances.get(node)
    if instance is not None and instance.statuses:
        said = None if instance.application is None else instance.application.record
        is_over = said is not None and (said.state in _ENDED or said.is_left_alone)
        return instance.left and not is_over
    fact = entry.fact
    if fact is None:
        return False
    placed = fact.record.node == node and fact.record.desired == "running" and fact.time_ms <= since_ms
    return placed or _left_behind(fact.record, node)


def _left_behind(slot: Slot, node: str) -> bool:
    """Whether a slot is where it is because that node was lost: its reason names it (`node.lost`)."""
    why = slot.reason
    return slot.node != node and why is not None and why.code == "node.lost" and why.message.startswith(f"{node} is dead")
