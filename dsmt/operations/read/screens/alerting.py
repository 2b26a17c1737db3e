"""Alerts: everything in a realm that is not as it should be, with who acts, what to do, and whom to call."""

from __future__ import annotations

from collections.abc import Collection

from dsmt.event.kinds.source import KeeperReplaced, keeper_died
from dsmt.event.phrases import some
from dsmt.operations.read.realm.passing import KEEPER_MS
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.holding import lingering
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.alert import Alert, Found, OfService, reasoned, yours
from dsmt.operations.read.screens.broker_alerts import of_brokers
from dsmt.operations.read.screens.controller_alerts import of_controllers
from dsmt.operations.read.screens.node_alerts import of_nodes
from dsmt.operations.words.targets import Target, slots_of
from dsmt.operations.words.times import span


def alerts(sight: Sight, found: Found) -> list[Alert]:
    """Everything that is not as it should be, what needs a person first."""
    told = [
        *of_brokers(sight, found),
        *of_nodes(sight, found.nodes),
        *of_controllers(sight, found),
        *_of_keepers(sight),
        *(alert for one in found.services for alert in _of_service(sight, one)),
        *_of_unsaid(sight),
        *_of_lingering(sight, {node.node for node in found.nodes if node.out is not None}),
        *_of_orphans(sight, {one.service for one in found.services}),
        *_of_facts(sight),
    ]
    return sorted(told, key=lambda alert: alert.who != "you")


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


def _of_service(sight: Sight, one: OfService) -> list[Alert]:
    """What is wrong with a service's instances, and that a revision of it was refused."""
    sick = instances(sight, Target(one.service), problems=True)
    rows = [row for row in sick if not row.is_quiet]
    found = [(row.instance, row.reason) for row in rows if row.reason is not None]
    if one.refused is not None and one.refused.reason is not None:
        found.append((one.service, one.refused.reason))
    return [reasoned(about, why, owner=one.owner) for about, why in found]


def _of_unsaid(sight: Sight) -> list[Alert]:
    """Services that run though nobody who is believed has said what they are: who did was revoked, or it was lost."""
    return [
        yours(
            name,
            "service.unsaid",
            f"it runs, and nobody who is believed has applied it: {some(list(map(str, keys)))}",
            f"dsmt remove {name}; or dsmt apply its file, if it is to stay",
        )
        for name, keys in sight.unsaid.items()
        if sight.whole
    ]


def _of_lingering(sight: Sight, out: Collection[str]) -> list[Alert]:
    """Nodes that say to have what is to end, and not that it is ending: who waits for that waits for them. Not those out."""
    return [
        yours(
            f"node/{node}",
            "node.lingers",
            f"{node} says to have {some(list(map(str, keys)))}, which {'are' if len(keys) > 1 else 'is'} to end there",
            f"dsmt node show {node}; if that machine is not yours any more: dsmt cert revoke node/{node}",
        )
        for node, keys in sorted(lingering(sight).items())
        if node not in out
    ]


def _of_orphans(sight: Sight, services: Collection[str]) -> list[Alert]:
    """What nodes run of services that are no more, and what of it waits for the brake; nothing of what is told to end."""
    keys = {key for found in sight.view.orphans.values() for key in found if key.service not in services}
    found = []
    for name in sorted({key.service for key in keys}):
        told = instances(sight, Target(name), problems=True) if slots_of(sight.view, Target(name)) else []
        rows = [row for row in told if row.reason is not None and row.key in keys]
        if rows and (why := rows[0].reason) is not None:
            more = f" and {len(rows) - 1} more: dsmt ps {name}" if len(rows) > 1 else ""
            found.append(reasoned(rows[0].instance, why, f"{why.message}{more}"))
    return found


def _of_facts(sight: Sight) -> list[Alert]:
    """Facts that nobody can read, and nodesets that take a node's name from it."""
    return [
        yours(topic, "fact.unreadable", said, f"dsmt tail {topic} -n 1 --no-follow")
        for topic, said in sorted(sight.view.quarantined.items())
    ] + [
        yours(
            f"nodeset/{name}",
            "nodeset.hides",
            f"it hides the node {name}: its name now means this set",
            f"dsmt nodeset remove {name}",
        )
        for name in sorted(sight.view.nodesets)
        if name in sight.fleet.members
    ]
