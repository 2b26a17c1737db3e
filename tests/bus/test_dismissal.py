"""Whose sessions end, and who is told why: one that is still told of what was revoked before hears of what is since."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from dsmt.bus.broker.dismissal import Dismissal


def test_who_has_yet_to_be_told_what_was_revoked_before_is_told_what_is_revoked_meanwhile_too() -> None:
    full, sent = True, list[tuple[bytes, ...]]()
    late: Any = SimpleNamespace(
        name="node/n1", attached=True, is_broker=False, untold=deque(), gone=False, refused=False, peer=b""
    )
    before = [SimpleNamespace(row=row, raw=b"%d" % row) for row in (1, 2)]
    admission: Any = SimpleNamespace(
        revoked=lambda rows: rows, is_revoked=lambda _: False, keyring=SimpleNamespace(revocations=before)
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
