"""Why: whatever causes an event names, so many are asked for at most."""

import asyncio
from typing import cast

from msgspec.structs import replace

from dsmt.event.envelope import EventId, SignedEvent
from dsmt.operations.read.why.explaining import MAX_EVENTS, why
from dsmt.ports.bus import Bus
from tests.operations.scripted import complete
from tests.operations.test_explaining import TRUST, Recorded, killed


def test_whoever_names_causes_without_end_is_asked_for_so_many_and_the_others_are_cut() -> None:
    """An agent says that its instance failed for a hundred things that it said, each of which names a thousand others."""
    realm, source = killed(), "agent/n1/web/app/0"
    like = replace(realm.rows[-1][1].event, source=source, incarnation=2)
    lies = [
        SignedEvent(replace(like, sequence=n, cause=tuple(EventId(source, n + 2, m) for m in range(1, 1001))), b"", b"", b"")
        for n in range(2, 102)
    ]
    top = SignedEvent(replace(like, sequence=1, cause=tuple(one.id for one in lies)), b"", b"", b"")
    bus = Recorded([[complete(realm.now_ms)]], now_ms=realm.now_ms, events=[top, *lies])
    told = asyncio.run(why(cast("Bus", bus), TRUST, str(top.id))).explained
    assert (told.complete, len(told.chain)) == (False, 101)
    assert len(told.missing) == MAX_EVENTS - 101
    assert len(told.cut) == 100 * 1000 - len(told.missing)
