"""What an upstream takes before it reads what a leaf has: how those stand that are attached to the leaf (rule E5)."""

from __future__ import annotations

from typing import Any

from dsmt.bus.broker.others.copying import TURN
from dsmt.ports.bus import Draft
from tests.bus.meshes import at
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.test_leaf import cut, site, split
from tests.waiting import until


@scenario
async def test_who_has_come_back_to_a_leaf_meanwhile_is_open_for_all_before_what_was_said_between_is_read(
    r: TestRealm,
) -> None:
    leaf, *made = await site(r, "b1", "b2")
    above, (other,) = split(leaf, made)
    node = await r.client("node/n1", brokers=at(leaf))
    topic, real = f"{leaf._identity.name}/session/node/n1", other._ingest.brought
    (of_leaf,) = [one for one in other._others.readings.others.values() if one.address.leaf]
    await until(lambda: other._store.winner(topic) is not None and of_leaf.task is None)  # at its start it tries all

    def brought(by: str, signed: Any) -> int:
        return 100_000 if by == leaf._identity.name and signed.event.source == "operator/inside" else real(by, signed)

    other._ingest.brought = brought  # type: ignore[method-assign]
    async with reading(await r.client("operator/watcher", brokers=at(other)), topic) as got:
        async with cut(r, leaf, made):
            await r.stop(above)
            await r.stop(node)
            operator = await r.client("operator/inside", brokers=at(leaf))
            between = [operator.emit(Draft(f"config/{n}", {"n": n}, version=1)) for n in range(2 * TURN)]
            await between[-1].acknowledged()
            await r.client("node/n1", brokers=at(leaf))
        await got.until(lambda found: [one["state"] for one in found.of(topic)] == ["open", "closed", "open"])
    assert other._store.winner("config/0") is None
