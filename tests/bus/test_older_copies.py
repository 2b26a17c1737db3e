"""An older copy of a broker's store is put back while the realm goes on: what it had said since comes back by the others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dsmt.bus.broker.broker import Broker
from dsmt.ports.bus import Draft
from tests.bus.meshes import at, held, mesh
from tests.bus.realm import TestRealm, scenario
from tests.operations.histories import exported, judged
from tests.waiting import until

OLDER = "an older copy was put back"


def files(r: TestRealm) -> list[Path]:
    """What b2 has on its disk."""
    return [one for one in r.directory.glob("b2.db*") if one.is_file()]


def copied(r: TestRealm, broker: Broker, to: Path) -> None:
    """Copy its store as it stands on the disk, while it runs."""
    broker._commit()
    to.mkdir()
    for one in files(r):
        shutil.copy(one, to)


def replaced(r: TestRealm, older: Path) -> None:
    """Have the disk hold the copy, and nothing else."""
    for one in files(r):
        one.unlink()
    for one in older.iterdir():
        shutil.copy(one, r.directory)


async def put_back(r: TestRealm, broker: Broker, older: Path) -> Broker:
    """End it, and start it with the copy."""
    identity, address = r.identities[broker], broker.address
    others = list(broker._config.brokers)
    await r.stop(broker)
    broker._store.close()
    replaced(r, older)
    return await r.renewed(await r.broker("b2", identity=identity, address=address, others=others))


async def signs(r: TestRealm, broker: Broker, name: str) -> list[str]:
    """Have it sign a head, by an export, which verifies; what that cannot prove."""
    reader = await r.client(f"operator/{name}", brokers=at(broker))
    run = await exported(r, reader)
    await r.stop(reader)
    found = judged(run, run.items)
    assert found.ok, found.faults
    return found.cannot_prove


def said(holds: Broker) -> set[Any]:
    """The ids of what b2 has said of itself, by what another one holds."""
    return {row.read().id for row in holds._store.rows(0, 10**6) if row.topic == "broker/b2/stats"}


async def same(*brokers: Broker) -> None:
    """Wait until they hold the same, and what b2 has said of itself."""
    await until(lambda: all(held(one) == held(brokers[0]) for one in brokers))
    before = said(brokers[0])
    await until(lambda: all(before <= said(one) for one in brokers))


@scenario
async def test_its_history_verifies_and_says_up_to_when_it_stood_over_other_rows(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    speaker = await r.client("operator/speaks", brokers=at(b1))
    for life in ("one", "two"):
        await speaker.publish(Draft("user/speaks", {"before": life}))
        copied(r, b2, r.directory / life)
        for number in range(20):
            await speaker.publish(Draft("user/speaks", {"number": number}))
        await same(b1, b2)
        assert any(OLDER in one for one in await signs(r, b2, f"first-{life}")) == (life == "two")
        await same(b1, b2)  # what it has just signed is at the other one, too
        b2 = await put_back(r, b2, r.directory / life)
        await same(b1, b2)
        (told,) = [one for one in await signs(r, b2, f"again-{life}") if OLDER in one]
        assert told.startswith("what broker/b2 had stored up to ")
        assert not any(OLDER in one for one in await signs(r, b1, f"other-{life}"))
