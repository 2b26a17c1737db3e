"""Opening: what a broker refuses of an event by itself, a reader of a file refuses by the same word."""

from __future__ import annotations

import os
import time

import pytest

from dsmt.errors import UnusableEventError
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.opening import opened
from dsmt.trust.store import Realm, TrustStore
from tests.bus.realm import Pen
from tests.bus.test_bad_events import BAD_EVENTS

BY_WHAT_IS_HELD = ("event.version", "clock_ahead")
"""What a broker refuses by its store or its time, which a file has not."""


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_what_a_broker_refuses_of_an_event_by_itself_is_refused_by_the_same_word_in_a_file(name: str) -> None:
    root, now_s = SecretKey(os.urandom(32)), int(time.time())
    trust = TrustStore(Realm(name="test", roots=(root.public,)))
    eve, other = (
        root_issued(source, root, key=SecretKey(os.urandom(32)), now_s=now_s, serial=os.urandom(16))
        for source in ("operator/eve", "operator/other")
    )
    trust.add_all([one.raw for one in (*eve.chain, *other.chain)])
    code, make = BAD_EVENTS[name]
    raw = make(Pen(eve), other)
    if code in BY_WHAT_IS_HELD:
        signed, match = opened(trust, raw)
        assert match.row.event_type == signed.event.type
        return
    with pytest.raises(UnusableEventError) as caught:
        opened(trust, raw)
    assert caught.value.code == code
