"""Nodes that are attached, and the verdicts on them."""

from dsmt.event.kinds.node import NodeVerdict

from .build import Realm


def verdicts(realm: Realm, *, may_accuse: bool = True) -> dict[str, NodeVerdict]:
    return {i.subject: i.record for i in realm.decide(may_accuse=may_accuse).intents if i.topic.endswith("/verdict")}


def fleet(count: int) -> Realm:
    return Realm(*(f"n{i}" for i in range(1, count + 1)))
