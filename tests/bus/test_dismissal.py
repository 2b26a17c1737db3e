"""Whose sessions end, and who is told why: one that is still told of what was revoked before hears of what is since."""

from __future__ import annotations

import os
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

from dsmt.bus.broker.dismissal import Dismissal
from dsmt.bus.wire import frames as f
from dsmt.event.codec import decode_part
from dsmt.trust.identity import delegate
from tests.bus.realm import TestRealm, scenario
from tests.bus.test_revocations import word


def test_who_has_yet_to_be_told_what_was_revoked_before_is_told_what_is_revoked_meanwhile_too() -> None:
    full, sent = True, list[tuple[bytes, ...]]()
    late: Any = SimpleNamespace(
        name="node/n1", attached=True, is_broker=False, untold=deque(), gone=False, refused=False, peer=b""
    )
    before = [SimpleNamespace(row=row, raw=b"%d" % row) for row in (1, 2)]
    admission: Any = SimpleNamespace(
        is_revoked=lambda _: False, keyring=SimpleNamespace(revoked=lambda rows: rows, revocations=before)
    )
    outgoing: Any = SimpleNamespace(is_full=lambda _: full, send=lambda _peer, _frame, parts: sent.append(parts))
    sessions: Any = SimpleNamespace(all=lambda: [late])
    fan_out: Any = SimpleNamespace(introductions=SimpleNamespace(introduce=lambda *_: True))
    dismissal = Dismissal(admission, sessions, fan_out, outgoing, refuse=lambda *_: None)
    dismissal.greet(late)
    assert dismissal.revoke([SimpleNamespace(row=3, raw=b"3")])  # type: ignore[list-item]
    assert not sent
    full = False
    dismissal.go_on()
    assert sent == [(b"1", b"2", b"3"), ()]


@scenario
async def test_a_revocation_that_its_source_says_again_with_another_key_is_told_again(r: TestRealm) -> None:
    """Both keys had certified the one that ends: by the first word alone it stands, by the other's certificate."""
    broker = await r.broker()
    before, after = r.identity("operator/alice"), r.identity("operator/alice")
    program = r.identity("operator/alice.x7", parent=before)
    named = delegate(program.name, after, key=program.key, now_s=int(time.time()), serial=os.urandom(16))
    broker._trust.add_all([one.raw for one in (*program.chain, *named.chain)])
    look = await r.raw("operator/look")
    await look.next(f.Revocations)
    for identity in (before, after):
        client = await r.client(identity.name, identity=identity)
        await client.publish(word(program, identity.name))
        _, parts = await look.next(f.Revocations)
        assert [one.key_id for raw in parts for one in decode_part(raw).events] == [identity.key.key_id]
        await r.stop(client)
    assert broker._trust.is_revoked(program.key.key_id)
