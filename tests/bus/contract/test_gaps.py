"""The contract of a bus, what is missing: told where it is missing, and closed by a word that says why."""

from __future__ import annotations

import pytest

from dsmt.ports.bus import Ability, Arrived, Notice, Start
from tests.bus.realm import Facts, reading
from tests.bus.saying import numbers, user

from .engines import Engine, contract


async def has_history(e: Engine) -> bool:
    return Ability.HISTORY in (await e.bus("operator/asks")).can.abilities


@contract
async def test_a_lost_row_is_noticed_where_it_stood_and_closed_as_lost(e: Engine):
    if not await has_history(e):
        pytest.skip("what is refused cannot be lost")
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    acks = [await alice.publish(user(n)) for n in range(6)]
    await e.lose([acks[2].cursor.row, acks[3].cursor.row])
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        await got.until(lambda g: len(g.arrived) == 4 and "lost" in g.types())
        assert numbers(got) == [0, 1, 4, 5]
        assert got.types() == ["gap", "lost"]
        assert [(n.fields["from"], n.fields["to"]) for n in got.notices] == [(3, 4), (3, 4)]
        at = [i for i, d in enumerate(d for d in got.all if isinstance(d, Arrived | Notice)) if d in got.notices]
        assert at[0] == 2, "the notice stands where the hole is"
        await alice.publish(user(6))
        await got.until(lambda g: numbers(g)[-1] == 6)
        assert got.types() == ["gap", "lost"]


@contract
async def test_history_that_was_trimmed_is_called_trimmed_and_retained_facts_stay(e: Engine):
    if not await has_history(e):
        pytest.skip("what is refused cannot be trimmed")
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    facts = Facts(alice)
    await facts.publish("user/keep", {"n": 0}, version=1)
    for n in range(5):
        await alice.publish(user(n))
    await e.trim()
    await alice.publish(user(5))
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        assert got.types() == ["trimmed"]
        assert numbers(got) == [5]
        assert numbers(got, "user/keep") == [0]
        await facts.publish("user/keep", {"n": 1})
        await got.until(lambda g: len(g.of("user/keep")) == 2)
        assert got.types() == ["trimmed"]


@contract
async def test_what_was_trimmed_under_a_reader_is_a_gap_that_was_trimmed(e: Engine):
    if not await has_history(e):
        pytest.skip("what is refused cannot be trimmed")
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        await alice.publish(user(0))
        await got.until(lambda g: g.arrived)
        cursor = (await alice.publish(user(1))).cursor
        await got.until(lambda g: len(g.arrived) == 2)
    for n in range(2, 5):
        await alice.publish(user(n))
    await e.trim()
    await alice.publish(user(5))
    async with reading(bob, "user/", start=Start.HISTORY, since=cursor) as got:
        assert numbers(got) == [5]
        assert got.types() == ["trimmed"]


@contract
async def test_a_restarted_source_is_a_baseline_not_a_gap(e: Engine):
    bob = await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        incarnations = []
        for n in range(3):
            alice = await e.bus("operator/alice")
            emission = alice.emit(user(n))
            await emission.acknowledged()
            incarnations.append(emission.id.incarnation)
            await e.leave(alice)
        await got.until(lambda g: len(g.arrived) == 3)
        assert numbers(got) == [0, 1, 2]
        assert got.types() == []
        assert incarnations == sorted(set(incarnations))
