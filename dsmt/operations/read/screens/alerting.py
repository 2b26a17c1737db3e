"""Alerts: everything in a realm that is not as it should be, with who acts, what to do, and whom to call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from dsmt.event.hlc import FAR_MS, rfc3339
from dsmt.event.kinds.source import KeeperReplaced, keeper_died
from dsmt.event.phrases import another_certificate, some
from dsmt.event.reason import Reason
from dsmt.operations.read.realm.passing import KEEPER_MS
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.broker_rows import Broker, apart, withholding
from dsmt.operations.read.rows.certificates import ended_brokers, unbelieved
from dsmt.operations.read.rows.controller_rows import Controller, is_undecided, nobody_decides
from dsmt.operations.read.rows.holding import is_to_leave
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import Node, clock, clock_offset_s, half_away
from dsmt.operations.read.rows.outside import NO_CERTIFICATES, Outside, Used, twice
from dsmt.operations.read.rows.revisions import Refused
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import off_by, span
from dsmt.trust.certificate import Certificate

START_AGAIN: Final = "dsmt up on its machine (dsmt node add, of an added host)"
"""How a node is had back. On a host that was added `dsmt up` would make another realm, in another home."""
_OUT: Final[Mapping[str, str]] = {
    "revoked": "node.revoked",
    "expired": "node.expired",
    "kept out": "node.kept_out",
    "twice": "node.twice",
}


class OfService(Protocol):
    """What alerts need to know of a service."""

    @property
    def service(self) -> str:
        """Its name."""

    @property
    def owner(self) -> str:
        """Whom to call."""

    @property
    def refused(self) -> Refused | None:
        """The revision that was rolled back."""


class Found(NamedTuple):
    """What one look at a realm found, of which alerts tell.

    `used` are the certificates in use, by name; `revoked` the names of those whose key is revoked, `left` of who has left.
    """

    nodes: Sequence[Node] = ()
    brokers: Sequence[Broker] = ()
    controllers: Sequence[Controller] = ()
    services: Sequence[OfService] = ()
    used: Used = NO_CERTIFICATES
    revoked: Collection[str] = ()
    left: Collection[str] = ()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may have to act on; `owner` is whom to call of a service, if its file says so.

    `who` acts: `you`, `dsmt`, `world` (what it waits for), or `nobody` any more: it is told for who wonders what that was.
    """

    target: str
    code: str
    message: str
    next: str
    who: str
    owner: str | None = None


def _yours(target: str, code: str, message: str, next_: str) -> Alert:
    """What needs a person."""
    return Alert(target=target, code=code, message=message, next=next_, who="you")


def _reasoned(target: str, why: Reason, message: str = "", *, owner: str = "") -> Alert:
    """What has a reason, told in other words than its own where there are any."""
    return Alert(
        target=target, code=why.code, message=message or why.message, next=why.next, who=why.who, owner=owner or None
    )


def alerts(sight: Sight, found: Found) -> list[Alert]:
    """Everything that is not as it should be, what needs a person first."""
    told = [
        *_of_brokers(sight, found),
        *_of_nodes(sight, found.nodes),
        *_of_controllers(sight, found),
        *_of_keepers(sight),
        *(alert for one in found.services for alert in _of_service(sight, one)),
        *_of_unsaid(sight),
        *_of_orphans(sight, {one.service for one in found.services}),
        *_of_facts(sight),
    ]
    return sorted(told, key=lambda alert: alert.who != "you")


def _of_facts(sight: Sight) -> list[Alert]:
    """Facts that nobody can read, and nodesets that take a node's name from it."""
    return [
        _yours(topic, "fact.unreadable", said, f"dsmt tail {topic} -n 1 --no-follow")
        for topic, said in sorted(sight.view.quarantined.items())
    ] + [
        _yours(
            f"nodeset/{name}",
            "nodeset.hides",
            f"it hides the node {name}: its name now means this set",
            f"dsmt nodeset remove {name}",
        )
        for name in sorted(sight.view.nodesets)
        if name in sight.fleet.members
    ]


def _of_unsaid(sight: Sight) -> list[Alert]:
    """Services that run though nobody who is believed has said what they are: who did was revoked, or it was lost."""
    return [
        _yours(
            name,
            "service.unsaid",
            f"it runs, and nobody who is believed has applied it: {some(list(map(str, keys)))}",
            f"dsmt remove {name}; or dsmt apply its file, if it is to stay",
        )
        for name, keys in sight.unsaid.items()
        if sight.whole
    ]


def _of_keepers(sight: Sight) -> list[Alert]:
    """The last death of each keeper, while its source and its node are those of then, and it is not long ago."""
    return [
        _of_keeper(sight, source, one.at_ms, one.said)
        for source, one in sorted(sight.passing.keepers.items())
        if one.incarnation >= sight.began_ms(source)
        and one.at_ms >= sight.now_ms - KEEPER_MS
        and not (source.startswith("node/") and sight.fleet.state(source.removeprefix("node/")) == "left")
    ]


def _of_keeper(sight: Sight, source: str, at_ms: int, said: KeeperReplaced) -> Alert:
    """The last death of a keeper that its source remembers; another one has kept the programs since."""
    told = f"{keeper_died(source, said)} {span(sight.now_ms - at_ms)} ago"
    return Alert(target=source, code="keeper.died", message=told, next=f"dsmt tail {source}/keeper", who="nobody")


def _of_nodes(sight: Sight, of_nodes: Sequence[Node]) -> list[Alert]:
    """Nodes that are out, not alive, or lack a program of dsmt's own, and those whose clock is off."""
    return (
        [_out(node.node, node.out) for node in of_nodes if node.out is not None]
        + [one for node in of_nodes if (one := away(sight, node) or _half(sight, node)) is not None]
        + _of_clocks([node for node in of_nodes if node.liveness in ("alive", "suspect")])
    )


def _of_clocks(living: Sequence[Node]) -> list[Alert]:
    """Nodes whose clock is off; where those of most machines agree on another time than the realm's, that this is off."""
    whys = {node.node: why for node in living if (why := clock(node)) is not None}
    off = [node for node in living if node.node in whys]
    median_s = sorted(map(clock_offset_s, off))[len(off) // 2] if off else 0.0
    agree = [node for node in off if abs(clock_offset_s(node) - median_s) * 1000 <= FAR_MS]
    machines, told = len(_machines(agree)), list[Alert]()
    if machines >= 2 and 2 * machines > len(_machines(living)):
        told = [_of_realm_time([node.node for node in agree], median_s)]
        for node in agree:
            del whys[node.node]
    return told + [_reasoned(f"node/{name}", why) for name, why in whys.items()]


def _machines(nodes: Iterable[Node]) -> set[str]:
    """What machines these run on, each in one boot."""
    return {node.attributes["boot_id"] for node in nodes if node.attributes is not None}


def _of_realm_time(agree: Sequence[str], off_s: float) -> Alert:
    return _yours(
        "realm",
        "realm.clock",
        f"the clocks of {some(agree)} agree, and are {off_by(off_s)}: it is realm time that is off",
        "set the clock where it comes from: that of the machines of dsmt brokers, on NATS that of its servers",
    )


def _out(node: str, out: Outside) -> Alert:
    """A node that is let in no more."""
    return _yours(f"node/{node}", _OUT[out.why], out.message, out.next)


def away(sight: Sight, node: Node) -> Alert | None:
    """The alert for a node that is not alive, with what helps; None for one that is alive, has left, or is kept out."""
    if node.out is not None or node.liveness not in ("dead", "suspect"):
        return None
    found = _away(sight, node)
    return _undecided(found) if found.who != "you" and is_undecided(sight) else found


def _away(sight: Sight, node: Node) -> Alert:
    about, evidence = f"node/{node.node}", node.evidence or f"{node.node} is {node.liveness}"
    why = sight.brake.reason
    if why is not None and node.instances and not sight.brake.allows(node.node):
        said = f"{evidence}; {why.message}"
        return _reasoned(about, why, said)
    if node.liveness == "dead" and not is_to_leave(sight, node.node):
        back = f"{START_AGAIN}; or dsmt node remove {node.node} --forget; look: dsmt why {about}"
        return _yours(about, "node.lost", evidence, back)
    said = evidence if node.liveness == "dead" else f"{evidence}; whether it is dead is not decided yet"
    back = f"dsmt why {about}; to have it back: {START_AGAIN}"
    return Alert(target=about, code="node.lost", message=said, next=back, who="dsmt")


def _half(sight: Sight, node: Node) -> Alert | None:
    found = half_away(sight, node)
    next_ = f"{START_AGAIN} names a file that is damaged; else its log there says why it ends"
    return None if found is None else _yours(f"node/{node.node}", f"node.{found[0]}", found[1], next_)


def _undecided(alert: Alert) -> Alert:
    """An alert of what a controller would act on, where none is alive."""
    said = f"{alert.message}; no controller is alive to act on it"
    return msgspec.structs.replace(alert, message=said, next="dsmt controllers", who="you")


def _of_orphans(sight: Sight, services: Collection[str]) -> list[Alert]:
    """What nodes run of services that are no more, and what of it waits for the brake."""
    keys = {key for found in sight.view.orphans.values() for key in found if key.service not in services}
    found = []
    for name in sorted({key.service for key in keys}):
        rows = [row for row in instances(sight, Target(name), problems=True) if row.reason is not None and row.key in keys]
        if rows and (why := rows[0].reason) is not None:
            more = f" and {len(rows) - 1} more: dsmt ps {name}" if len(rows) > 1 else ""
            found.append(_reasoned(rows[0].instance, why, f"{why.message}{more}"))
    return found


def _of_controllers(sight: Sight, found: Found) -> list[Alert]:
    """Controllers that cannot attach; and where there are services, that none is alive, or who is not.

    But for those whose dead node is told, and those of whom that is not known yet.
    """
    away = sorted(f"controller/{one.controller}" for one in found.controllers if not one.alive)
    now_s = sight.now_ms // 1000
    expired = [_expired(found.used[one]) for one in away if one in found.used and found.used[one].not_after < now_s]
    if not found.services:
        return expired
    if nobody_decides(found.controllers):
        said = "no controller is alive: what runs goes on, but nothing is repaired elsewhere"
        none = _yours("controllers", "controllers.none", said, "dsmt controllers")
        return [*expired, none]
    names = [f"controller/{one.controller}" for one in found.controllers]
    copied = [_copied(name, both[1]) for name in names if (both := twice(sight, name, found.used)) is not None]
    return expired + copied + _silent(sight, found.controllers, {one.target for one in expired})


def _silent(sight: Sight, of_controllers: Iterable[Controller], expired: Collection[str]) -> list[Alert]:
    return [
        _yours(
            f"controller/{one.controller}",
            "controller.silent",
            "it is not alive; the others decide",
            f"one that hangs is begun anew; dsmt up starts it where it was; or dsmt controller remove {one.controller}",
        )
        for one in of_controllers
        if not one.alive and not one.in_doubt and sight.fleet.state(one.controller) != "dead"
        if f"controller/{one.controller}" not in expired
    ]


def _copied(name: str, said: str) -> Alert:
    """A controller of which two processes are attached."""
    return _yours(name, "controller.twice", said, f"end the copy, then {another_certificate(name)}")


def _apart(sight: Sight, ended: set[str]) -> list[Alert]:
    """Brokers that live and are believed, and do not reach others that do."""
    return [
        _yours(
            f"broker/{name}",
            "broker.apart",
            f"it does not reach {some(others)}; what they say comes to each other by another broker",
            "look after the network between their machines; dsmt brokers tells their addresses",
        )
        for name, others in apart(sight, ended).items()
    ]


def _of_brokers(sight: Sight, found: Found) -> list[Alert]:
    """Brokers that are not believed, alive, or as they should be; of one whose certificate has ended no more than that."""
    ended = unbelieved(found.used, sight.now_ms)
    ended -= {name.removeprefix("broker/") for name in found.revoked}
    away = [one for one in found.brokers if not one.alive and (one.broker not in ended or one.fault is not None)]
    silent = [_of_silent_broker(sight, one, found.revoked) for one in away]
    return _of_ended_brokers(sight, found) + silent + _apart(sight, ended) + _of_stats(sight)


def _of_stats(sight: Sight) -> list[Alert]:
    """Brokers whose clock is not followed, or too far behind, who withhold, or had a damaged store."""
    said = sorted(sight.passing.stats.items())
    right = [name for name, (_, told) in said if abs(told.clock_ahead_s) * 1000 <= FAR_MS]
    off = [
        _yours(
            f"broker/{name}",
            "broker.clock",
            f"the clock of its machine is {off_by(told.clock_ahead_s)}, so it is not followed",
            f"set it as those of {some(right)} are" if right else f"set it, or dsmt clock accept {name}",
        )
        for name, (_, told) in said
        if name not in right
    ]
    off += [
        _yours(
            f"broker/{name}",
            "broker.withholds",
            f"it does not give {', '.join(sorted(by))} what it has said to hold",
            f"dsmt tail broker/+/withheld/{name} -n 5 --no-follow; then dsmt broker remove {name}, or who says so",
        )
        for name, by in withholding(sight).items()
    ]
    off += [
        _yours(
            f"broker/{name}",
            "broker.damaged",
            f"its store was damaged and is set aside as {told.damaged}; what was sound in it was taken over",
            "look after its disk, and remove that file; where no other broker has what is lost, say it again",
        )
        for name, (_, told) in said
        if told.damaged
    ]
    return off + [
        _yours(
            f"broker/{name}",
            "broker.behind",
            f"its store is new: what was decided before is {told.early_s:.0f} s ahead of its time and refused",
            f"set the clock of its machine right, then dsmt clock accept {name}",
        )
        for name, (_, told) in said
        if told.early_s > 0
    ]


def _of_silent_broker(sight: Sight, one: Broker, revoked: Collection[str]) -> Alert:
    """A broker that is not alive, as far as this reader is told."""
    others, is_revoked = "who was attached to it has gone to another one, if there is one", f"broker/{one.broker}" in revoked
    if there := sight.fleet.apart_at(one.broker or ""):
        others = f"at no other one, and told of nothing that is said here: {some(there)}"
    if is_revoked:
        said = f"its key is revoked; {others}"
    elif one.fault is not None:
        said = one.fault
    elif one.broker == sight.broker:
        said = "it answers, but says nothing of itself: it may store nothing"
    else:
        said = f"it is not alive; {others}"
    asks = "dsmt brokers asks it what is wrong" if one.fault is None else "then it begins anew by itself"
    return _yours(
        f"broker/{one.broker or one.address}",
        "broker.silent",
        said,
        f"dsmt broker remove {one.broker}" if is_revoked else asks,
    )


def _of_ended_brokers(sight: Sight, found: Found) -> list[Alert]:
    """Brokers whose certificate in use has ended, and what that does to the realm; not those that have left it."""
    now_s, left = sight.now_ms // 1000, {*found.left}
    said = "its certificate has ended: nobody believes what it says, so"
    stand = [one for name, one in found.used.items() if name not in found.revoked and name not in left]
    others = any(one.role == "broker" and one.not_after >= now_s for one in stand)
    meaning = "who was attached to it goes to another one" if others else "no dead node is replaced and no export verifies"
    return [
        _yours(name, "broker.expired", f"{said} {meaning}", another_certificate(name))
        for name in sorted(ended_brokers(found.used, now_s).keys() - left)
    ]


def _expired(used: Certificate) -> Alert:
    """A controller that is not alive, and whose certificate has ended."""
    said = f"its certificate ended at {rfc3339(used.not_after * 1000)}, and it cannot attach with it"
    next_ = another_certificate(used.subject)
    return _yours(used.subject, "controller.expired", said, next_)


def _of_service(sight: Sight, one: OfService) -> list[Alert]:
    """What is wrong with a service's instances, and that a revision of it was refused."""
    rows = [row for row in instances(sight, Target(one.service), problems=True) if row.held is None]
    found = [(row.instance, row.reason) for row in rows if row.reason is not None]
    if one.refused is not None and one.refused.reason is not None:
        found.append((one.service, one.refused.reason))
    return [_reasoned(about, why, owner=one.owner) for about, why in found]
