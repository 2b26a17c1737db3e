"""The echo: a token that a reader sent comes back in the order of the stream (rule A4)."""

from __future__ import annotations

from dsmt.bus.wire import frames as f
from tests.bus.realm import TestRealm, scenario


@scenario
async def test_a_token_for_a_subscription_that_has_ended_harms_nobody(r: TestRealm):
    await r.broker()
    raw = await r.raw("operator/eve")
    raw.send(f.Mark(id=77, token=1))
    raw.send(f.Time(sent=1.0))
    told, _ = await raw.next(f.TimeIs)
    assert told.sent == 1.0
