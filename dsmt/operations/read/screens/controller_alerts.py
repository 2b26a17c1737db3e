"""Alerts of controllers: that none is alive, those that are not, cannot attach, only watch, or are there twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dsmt.event.hlc import rfc3339
from dsmt.event.phrases import another_certificate, some
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.controller_rows import Controller, nobody_decides
from dsmt.operations.read.rows.outside import twice
from dsmt.operations.read.screens.alert import Alert, Found, yours
from dsmt.trust.certificate import Certificate


def of_controllers(sight: Sight, found: Found) -> list[Alert]:
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
        none = yours("controllers", "controllers.none", said, "dsmt controllers")
        return [*expired, none]
    names = [f"controller/{one.controller}" for one in found.controllers]
    copied = [_copied(name, both[1]) for name in names if (both := twice(sight, name, found.used)) is not None]
    return (
        expired + copied + _watching(found.controllers) + _silent(sight, found.controllers, {one.target for one in expired})
    )


def _expired(used: Certificate) -> Alert:
    """A controller that is not alive, and whose certificate has ended."""
    said = f"its certificate ended at {rfc3339(used.not_after * 1000)}, and it cannot attach with it"
    next_ = another_certificate(used.subject)
    return yours(used.subject, "controller.expired", said, next_)


def _silent(sight: Sight, of_controllers: Iterable[Controller], expired: Collection[str]) -> list[Alert]:
    return [
        yours(
            f"controller/{one.controller}",
            "controller.silent",
            "it is not alive; the others decide",
            f"one that hangs is begun anew; dsmt up starts it where it was; or dsmt controller remove {one.controller}",
        )
        for one in of_controllers
        if not one.alive and not one.in_doubt and sight.fleet.state(one.controller) != "dead"
        if f"controller/{one.controller}" not in expired
    ]


def _watching(of_controllers: Iterable[Controller]) -> list[Alert]:
    """That some only watch: while versions differ, or for who says so of itself and decides nothing (A10)."""
    watching = {one.controller: one.watches for one in of_controllers if one.watches is not None}
    if not watching:
        return []
    watched = next(iter(watching.values()))
    said = f"{some(list(watching))} only {'watches' if len(watching) == 1 else 'watch'}: {watched}"
    leads = f"controller/{watched.controller}"
    next_ = f"dsmt upgrade where they run; if nobody has made {leads}: dsmt cert revoke {leads}"
    return [yours(leads, "controllers.watch", said, next_)]


def _copied(name: str, said: str) -> Alert:
    """A controller of which two processes are attached."""
    return yours(name, "controller.twice", said, f"end the copy, then {another_certificate(name)}")
