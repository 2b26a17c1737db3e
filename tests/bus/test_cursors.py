"""Where a reader goes on (rule D3)."""

from __future__ import annotations

from dsmt.ports.bus import Cursor, Draft, Start
from tests.bus.realm import TestRealm, reading, scenario


@scenario
async def test_a_cursor_of_a_row_that_is_not_here_yet_is_one_of_a_copy_that_went_further_and_goes_on_by_time(r: TestRealm):
    await r.broker(older="it has another id already")
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    ack = await alice.publish(Draft("user/t", {"n": 1}))
    ahead = Cursor(ack.cursor.store, ack.cursor.row + 1000, ack.cursor.time_ms)
    async with reading(bob, "user/", start=Start.HISTORY, since=ahead) as got:
        assert got.of("user/t") == [{"n": 1}]
