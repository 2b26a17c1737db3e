"""Rows, bursts and services, appended to a store; what trimming leaves of them; and copies of its files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dsmt.event.burst import Burst, Member
from dsmt.event.envelope import ChainLink, Event, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.ports.store import Append
from tests.controllers.signing import signed


def append(
    n: int,
    *,
    topic="user/t",
    source="operator/a",
    budget="signal",
    winner=False,
    version=None,
    epoch=1,
    arrived=1000,
    size=100,
):
    event = Event(
        source=source,
        incarnation=1,
        sequence=n,
        chain=ChainLink(n, bytes(32)),
        type="dsmt.user",
        topic=topic,
        subject=topic,
        time=hlc(n),
        data={},
        epoch=None if version is None else epoch,
        version=version,
    )
    signed = SignedEvent(event, os.urandom(size), os.urandom(32), b"k" * 16)
    return Append(signed, arrived, budget, fact=winner, winner=winner, expires_ms=None)


def burst(first, count=3, **changes):
    """Events that were signed together."""
    ones = [append(first + n, **changes).signed for n in range(count)]
    together = Burst(b"protected", os.urandom(64), b"".join(one.leaf for one in ones))
    members = [SignedEvent(one.event, Member(together, at, one.raw), one.leaf, one.key_id) for at, one in enumerate(ones)]
    return [Append(one, 1000, changes.get("budget", "signal"), fact=False, winner=False, expires_ms=None) for one in members]


def copy_store(store: Path, to: Path) -> None:
    """Copy the files of a store as they are on the disk now."""
    for path in store.parent.glob(f"{store.name}*"):
        shutil.copy(path, to.parent / path.name.replace(store.name, to.name))


def trimmed(store, now_ms, limit=5000):
    """Trim all there is to trim; the second pass begins an hour later."""
    for at in (now_ms, now_ms + 3_700_000, now_ms + 3_700_001):
        while store.trim(at, limit):
            pass
    return [row.row for row in store.rows(0, 100_000)]


def service(store, *revisions, digest="", slots=()):
    """Store revisions of `web`, the last of which is its spec, and facts of its slots; the ids of the revisions."""
    specs = [
        signed(
            "operator/a",
            "service/web/spec",
            SpecFact(spec={"n": one, "digest": digest}, by="a", reason=""),
            version=one,
            sequence=one,
        )
        for one in revisions
    ]
    facts = [
        signed("controller/c", f"service/web/slot/app/{index}", slot, version=version, sequence=10 * version + index)
        for index, (version, slot) in enumerate(slots)
    ]
    for one in (*specs, *facts):
        store.append([Append(one, 1000, "evidence", fact=True, winner=True, expires_ms=None)])
    return [str(one.id) for one in specs]


def slot(spec, *, good=None, former=None, refuses=None, desired="running"):
    last = None if good is None else Good(spec=good, revision=1)
    before = None if former is None else Good(spec=former, revision=1)
    return Slot(node="n1", spec=spec, revision=1, desired=desired, refuses=refuses, good=last, former=before)
