"""Alerts of brokers: those that are not believed, alive, or as they should be."""

from __future__ import annotations

from dsmt.event.hlc import FAR_MS
from dsmt.event.phrases import another_certificate, some
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.broker_rows import BrokerRow, apart, withholding
from dsmt.operations.read.rows.certificates import NO_BROKER, WAY_BACK, ended_brokers, unbelieved
from dsmt.operations.read.screens.alert import Alert, Found, yours
from dsmt.operations.words.times import off_by


def of_brokers(sight: Sight, found: Found) -> list[Alert]:
    """Brokers that are not believed, alive, or as they should be; of one whose certificate has ended no more than that."""
    ended = unbelieved(found.used, sight.now_ms)
    ended -= {name.removeprefix("broker/") for name in found.revoked}
    away = [one for one in found.brokers if not one.alive and (one.broker not in ended or one.fault is not None)]
    return [
        *_ended(sight, found),
        *(_silent(sight, one, found) for one in away),
        *_apart(sight, ended),
        *_clocks(sight),
        *_withholding(sight),
        *_damaged(sight),
        *_behind(sight),
    ]


def _ended(sight: Sight, found: Found) -> list[Alert]:
    """Brokers whose certificate in use has ended, and what that does to the realm; not those that have left it."""
    now_s, left = sight.now_ms // 1000, {*found.left}
    said = "its certificate has ended: nobody believes what it says, so"
    stand = [one for name, one in found.used.items() if name not in found.revoked and name not in left]
    others = any(one.role == "broker" and one.not_after >= now_s for one in stand)
    meaning = "who was attached to it goes to another one" if others else "no dead node is replaced and no export verifies"
    return [
        yours(name, "broker.expired", f"{said} {meaning}", another_certificate(name))
        for name in sorted(ended_brokers(found.used, now_s).keys() - left)
    ]


def _silent(sight: Sight, one: BrokerRow, found: Found) -> Alert:
    """A broker that is not alive, as far as this reader is told."""
    others = "who was attached to it has gone to another one, if there is one"
    is_revoked = f"broker/{one.broker}" in found.revoked
    if is_revoked and all(f"broker/{other.broker}" in found.revoked for other in found.brokers):
        said = f"its key is revoked, and there is no other one: {NO_BROKER}"
        return yours(f"broker/{one.broker}", "broker.silent", said, WAY_BACK)
    if there := sight.fleet.apart_at(one.broker or ""):
        others = f"at no other one, and told of nothing that is said here: {some(there)}"
    if is_revoked:
        said = f"its key is revoked; {others}"
    elif one.fault is not None:
        said = one.fault
    elif one.leaf and not one.upstream:
        said = "it is a leaf, and linked to no other broker: its site is cut off and goes on by itself there, or it is dead"
        return yours(f"broker/{one.broker}", "broker.silent", said, "see to the uplink of its site, and to its machine")
    elif one.broker == sight.broker:
        said = "it answers, but says nothing of itself: it may store nothing; on NATS its gate hangs"
    else:
        said = f"it is not alive; {others}"
    asks = "dsmt brokers asks it what is wrong" if one.fault is None else "then it begins anew by itself"
    return yours(
        f"broker/{one.broker or one.address}",
        "broker.silent",
        said,
        f"dsmt broker remove {one.broker}" if is_revoked else asks,
    )


def _apart(sight: Sight, ended: set[str]) -> list[Alert]:
    """Brokers that live and are believed, and do not reach others that do."""
    return [
        yours(
            f"broker/{name}",
            "broker.apart",
            f"it does not reach {some(others)}; what they say comes to each other by another broker",
            "look after the network between their machines; dsmt brokers tells their addresses",
        )
        for name, others in apart(sight, ended).items()
    ]


def _clocks(sight: Sight) -> list[Alert]:
    """Brokers whose clock is not followed."""
    said = sorted(sight.passing.stats.items())
    right = [name for name, (_, told) in said if abs(told.clock_ahead_s) * 1000 <= FAR_MS]
    return [
        yours(
            f"broker/{name}",
            "broker.clock",
            f"the clock of its machine is {off_by(told.clock_ahead_s)}, so it is not followed",
            f"set it as those of {some(right)} are" if right else f"set it, or dsmt clock accept {name}",
        )
        for name, (_, told) in said
        if name not in right
    ]


def _withholding(sight: Sight) -> list[Alert]:
    """Brokers that do not give what they have said to hold."""
    return [
        yours(
            f"broker/{name}",
            "broker.withholds",
            f"it does not give {', '.join(sorted(by))} what it has said to hold",
            f"dsmt tail broker/+/withheld/{name} -n 5 --no-follow; then dsmt broker remove {name}, or who says so",
        )
        for name, by in withholding(sight).items()
    ]


def _damaged(sight: Sight) -> list[Alert]:
    """Brokers that had a damaged store."""
    return [
        yours(
            f"broker/{name}",
            "broker.damaged",
            f"its store was damaged and is set aside as {told.damaged}; what was sound in it was taken over",
            "look after its disk, and remove that file; where no other broker has what is lost, say it again",
        )
        for name, (_, told) in sorted(sight.passing.stats.items())
        if told.damaged
    ]


def _behind(sight: Sight) -> list[Alert]:
    """Brokers whose clock is too far behind for what was decided before."""
    return [
        yours(
            f"broker/{name}",
            "broker.behind",
            f"its store is new: what was decided before is {told.early_s:.0f} s ahead of its time and refused",
            f"set the clock of its machine right, then dsmt clock accept {name}",
        )
        for name, (_, told) in sorted(sight.passing.stats.items())
        if told.early_s > 0
    ]
