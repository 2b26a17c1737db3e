"""Events and notices as JSON: what programs read of them."""

from __future__ import annotations

import pytest

from dsmt.event.envelope import EventId
from dsmt.event.hlc import rfc3339
from dsmt.operations.words.event_objects import event_object, notice_object
from dsmt.ports.bus import Notice
from tests.operations.recorded import Recording

ALICE = "operator/alice.0abc"


@pytest.mark.parametrize("known", [True, False])
def test_an_event_is_told_whole_and_who_signed_it_where_that_is_known(known: bool) -> None:
    recording = Recording()
    recording.source(ALICE, known=known)
    first = recording.say(ALICE, "user/x", {"n": 1})
    said = recording.say(ALICE, "user/x", {"raw": b"ab", "deep": [b"c"]}, cause=(first.id,), to=("node/n1", "node/n2"))
    event = said.event
    assert event_object(said, recording.trust) == {
        "specversion": "1.0",
        "id": f"{event.incarnation}-{event.sequence}",
        "source": ALICE,
        "type": event.type,
        "subject": event.subject,
        "time": rfc3339(event.time_ms),
        "datacontenttype": "application/json",
        "data": {"raw": "YWI=", "deep": ["Yw=="]},
        "topic": "user/x",
        "hlc": str(event.time),
        "cause": str(first.id),
        "signer": ALICE if known else None,
        "verified": known,
        "verifyerror": None if known else "signed with a key that is unknown here",
        "version": None,
        "replaces": None,
        "to": "node/n1 node/n2",
        "ttl": event.ttl,
        "chain": 2,
    }


def test_of_a_shared_fact_it_is_told_which_version_it_is_and_which_one_it_replaces() -> None:
    recording = Recording()
    first, second = (
        recording.say(ALICE, "nodeset/x", {"expression": "n1", "by": "alice"}, version=version, replaces=replaces)
        for version, replaces in ((1, None), (2, EventId(ALICE, 1, 1)))
    )
    told = [event_object(one, recording.trust) for one in (first, second)]
    assert [(one["version"], one["replaces"]) for one in told] == [(1, None), (2, f"{ALICE}#1-1")]


@pytest.mark.parametrize(
    ("word", "fields", "error"),
    [("gap", {"source": ALICE, "topic": "user/x", "from": 3}, None), ("badsignature", {"row": b"\x07"}, "it was spoiled")],
)
def test_a_notice_is_told_as_an_event_that_nobody_signed(word: str, fields: dict[str, object], error: str | None) -> None:
    told = notice_object(Notice(f"dsmt.notice.{word}", "it was spoiled", fields), reader="operator/bob", number=4, now_ms=0)
    plain = fields if error is None else {"row": "Bw=="}
    assert told == {
        "specversion": "1.0",
        "id": "notice-4",
        "source": "operator/bob",
        "type": f"dsmt.notice.{word}",
        "subject": fields.get("source"),
        "time": "1970-01-01T00:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {"message": "it was spoiled", **plain},
        "topic": fields.get("topic"),
        "hlc": None,
        "cause": None,
        "signer": None,
        "verified": None if error is None else False,
        "verifyerror": error,
    }
