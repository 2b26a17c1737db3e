"""Presence: open, silent, closed; a stalled broker does not accuse (rule F1, F2)."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dsmt.bus.rules import presence as module
from dsmt.bus.rules.presence import FORGET_AFTER, REATTACH_GRACE, RENEW_AFTER, Presence
from dsmt.event.kinds.broker import SILENT_S, SessionFact
from tests.bus.attached import attached

TICK = 0.25


def opened(presence, now, **about):
    return presence.opened(attached(**about), now, int(now * 1000))


def ticks(presence, start, end):
    """Tick each quarter second; what was said, by time."""
    said, now = [], start
    while now < end:
        now += TICK
        said += [(now, record.state) for _, record in presence.tick(now, int(now * 1000), TICK)]
    return said


def test_what_is_said_of_a_session_is_who_attached_and_since_when_it_is_so():
    presence = Presence(0.0)
    said = opened(presence, 5.0, attachment=7, incarnation=3)
    assert said == presence.record_of("node/n1")
    assert said == SessionFact(
        attachment=7, state="open", how=None, since_ms=5000, incarnation=3, pid=1, version="v", address="a"
    )
    ((_, silent),) = [told for now in (7.0, 8.5) for told in presence.tick(now, int(now * 1000), 7.0)]
    assert silent == replace(said, state="silent"), "since its last word"
    assert presence.record_of("node/n2") is None


def test_who_pays_for_itself_is_silent_as_soon_and_a_delegate_is_waited_for_longer():
    presence = Presence(0.0)
    for now in (0.0, 20.0):
        if not now:
            opened(presence, now, payer="node/n1")
            opened(presence, now, name="agent/n1/web/app/0", payer="node/n1")
        else:
            presence.heard("node/n1", now, 0)
            presence.heard("agent/n1/web/app/0", now, 0)
        for later, names in ((3.1, ["node/n1"]), (7.1, ["agent/n1/web/app/0"])):
            told = presence.tick(now + later, 0, 100.0)
            assert [name for name, _ in told] == names
    assert presence.payer_of("agent/n1/web/app/0") == presence.payer_of("node/n1") == "node/n1"
    assert presence.payer_of("node/n2") == ""


def test_who_says_nothing_is_silent_after_three_seconds_with_the_time_of_its_last_word():
    presence = Presence(0.0)
    assert opened(presence, 1.0).state == "open"
    presence.tick(1.0, 1000, 1.0)
    said = ticks(presence, 1.0, 10.0)
    assert [state for _, state in said] == ["silent"]
    assert SILENT_S < said[0][0] - 1.0 <= SILENT_S + 2 * TICK
    again = presence.heard("node/n1", 11.0, 11_000)
    assert again is not None
    assert (again.state, again.since_ms) == ("open", 11_000)
    assert presence.heard("node/n1", 11.1, 11_100) is None


def test_a_broker_that_was_stalled_itself_accuses_nobody():
    presence = Presence(0.0)
    opened(presence, 0.0)
    assert presence.tick(20.0, 20_000, TICK) == []
    said = ticks(presence, 20.0, 30.0)
    assert [state for _, state in said] == ["silent"]
    assert said[0][0] > 20.0 + SILENT_S - 1


def test_who_was_heard_right_after_a_stall_of_the_broker_is_silent_as_soon_as_ever_when_it_says_nothing_more():
    presence = Presence(0.0)
    opened(presence, 0.0)
    presence.heard("node/n1", 30.0, 30_000)  # what had waited in the socket is looked at before the clock is
    presence.tick(30.0, 30_000, TICK)
    said = ticks(presence, 30.0, 60.0)
    assert [state for _, state in said] == ["silent"]
    assert said[0][0] - 30.0 <= SILENT_S + 2 * TICK


def test_a_restored_session_has_time_to_come_back():
    before = Presence(0.0)
    record = opened(before, 0.0, attachment=7)
    presence = Presence(100.0)
    assert presence.restore("operator/a", record, 100.0, 100_000) is None
    said = ticks(presence, 100.0, 120.0)
    assert [state for _, state in said] == ["silent"]
    assert said[0][0] - 100.0 > REATTACH_GRACE
    assert presence.attachment_of("operator/a") == 7


@pytest.mark.parametrize("state", ["open", "silent", "closed"])
@pytest.mark.parametrize("name", ["operator/a", "node/n1", "monitor/n1"])
def test_what_was_so_before_the_broker_ended_is_so_but_that_a_closed_manager_is_silent_since_the_start(name, state):
    how = "peer" if state == "closed" else None
    record = SessionFact(attachment=7, state=state, how=how, since_ms=5, incarnation=3, pid=1, version="v", address="a")
    presence, now = Presence(2 * RENEW_AFTER), 2 * RENEW_AFTER
    said = presence.restore(name, record, now, 100_000)
    if name == "node/n1" and state == "closed":
        assert said == replace(record, state="silent", how=None, since_ms=100_000)
    else:
        assert said is None
    assert presence.record_of(name) == (said or record)
    assert presence.supersedes(name, 0), "whoever comes now"
    assert presence.incarnation_of(name) == 3
    assert presence.tick(now + 1, 101_000, 1.0) == [], "it was said, and need not be said again"


def test_a_restored_session_that_was_heard_again_has_no_more_time_than_any_other():
    record = opened(Presence(0.0), 0.0)
    presence = Presence(100.0)
    presence.restore("node/n1", record, 100.0, 100_000)
    assert presence.heard("node/n1", 101.0, 101_000) is None
    said = ticks(presence, 100.0, 120.0)
    assert [state for _, state in said] == ["silent"]
    assert said[0][0] - 101.0 <= SILENT_S + 2 * TICK


def test_who_stays_attached_is_said_again_twice_a_day_and_not_more_often():
    presence = Presence(0.0)
    opened(presence, 0.0)
    said = []
    for now in (RENEW_AFTER - 1, RENEW_AFTER + 1, RENEW_AFTER + 2, 2 * RENEW_AFTER + 2):
        presence.heard("node/n1", now, 0)
        said += [(now, record.state) for _, record in presence.tick(now, 0, now)]
    assert said == [(RENEW_AFTER + 1, "open"), (2 * RENEW_AFTER + 2, "open")]


def test_what_is_not_closed_is_said_again_at_once_when_realm_time_was_set_ahead():
    presence, now = Presence(0.0), 5.0
    opened(presence, now)
    opened(presence, now, name="node/n2")
    presence.closed("node/n2", 1, "peer", now, 0)
    assert presence.tick(now, 0, now) == []
    presence.renew()
    assert [name for name, _ in presence.tick(now, 0, 0.0)] == ["node/n1"]
    assert presence.tick(now, 0, 0.0) == []


def test_who_attaches_late_in_a_broker_s_life_is_not_said_twice():
    presence = Presence(0.0)
    opened(presence, 2 * RENEW_AFTER)
    assert presence.tick(2 * RENEW_AFTER + 1, 0, 2 * RENEW_AFTER) == []


def test_an_old_attachment_cannot_close_a_newer_one():
    presence = Presence(0.0)
    opened(presence, 0.0, attachment=1)
    opened(presence, 1.0, attachment=2)
    assert presence.closed("node/n1", 1, "peer", 2.0, 2000) is None
    closed = presence.closed("node/n1", 2, "peer", 2.0, 2000)
    assert closed is not None
    assert (closed.state, closed.how, closed.attachment) == ("closed", "peer", 2)
    assert presence.closed("node/n1", 2, "peer", 3.0, 3000) is None
    assert presence.heard("node/n1", 3.0, 3000) is None


def test_a_close_after_silence_is_no_evidence_of_a_close_by_the_peer():
    presence = Presence(0.0)
    opened(presence, 0.0)
    presence.tick(0.0, 0, TICK)
    ticks(presence, 0.0, 5.0)
    closed = presence.closed("node/n1", 1, "peer", 6.0, 6000)
    assert closed is not None
    assert closed.how == "timeout"
    assert closed.since_ms == 0, "since its last word, as it was when it fell silent"


@pytest.mark.parametrize(("how", "since_ms"), [("peer", 4000), ("local", 4000), ("timeout", 1500)])
def test_a_connection_that_the_network_gave_up_counts_from_the_last_word_on_and_any_other_from_its_end(how, since_ms):
    presence = Presence(0.0)
    opened(presence, 0.0)
    presence.heard("node/n1", 1.5, 1500)
    closed = presence.closed("node/n1", 1, how, 4.0, 4000)
    assert (closed.how, closed.since_ms) == (how, since_ms)


def test_whoever_was_sent_away_or_never_came_is_not_asked():
    presence = Presence(0.0)
    presence.asked("node/n1", 0.0)
    opened(presence, 0.0)
    presence.closed("node/n1", 1, "peer", 1.0, 1000)
    presence.asked("node/n1", 2.0)
    assert presence.tick(20.0, 0, 20.0) == []


def test_a_number_is_greater_than_all_that_were_granted_or_attached_with_and_than_realm_time():
    presence = Presence(0.0)
    presence.granted("node/n1", 9)
    presence.granted("node/n1", 4)
    assert presence.incarnation_of("node/n1") == 9
    opened(presence, 0.0, attachment=50, incarnation=12)
    assert presence.incarnation_of("node/n1") == 12
    assert [presence.grant("node/n1", 3, 40) for _ in range(2)] == [51, 52]
    assert presence.incarnation_of("node/n2") == 0
    assert presence.grant("node/n2", 1, 0) == 1


def test_what_is_closed_is_forgotten_after_a_day():
    presence = Presence(0.0)
    opened(presence, 0.0)
    presence.closed("node/n1", 1, "peer", 1.0, 1000)
    presence.tick(FORGET_AFTER, 1, FORGET_AFTER)
    assert presence.attachment_of("node/n1") == 1
    presence.tick(FORGET_AFTER + 2, 1, 2.0)
    assert presence.attachment_of("node/n1") == 0


def test_of_those_that_are_closed_or_never_attached_the_latest_are_known():
    presence = Presence(0.0)
    for number in range(40):
        name = f"agent/n1/web/app/{number}"
        presence.granted(name, 1)
        presence.grant(name, 1, 1)
        if number % 2:
            opened(presence, float(number), name=name)
            presence._contested[name] = module._Contest(1, "ab")
            if number > 3:
                presence.closed(name, 1, "peer", float(number), 1)
    with patch.object(module, "CLOSED_KNOWN", 8):
        presence.tick(40.0, 40_000, 40.0)
    assert sorted(int(name.rpartition("/")[2]) for name in presence._known) == [1, 3, *range(25, 40, 2)]
    assert sorted(int(name.rpartition("/")[2]) for name in presence._granted) == [1, 3, *range(24, 40)]
    assert presence._numbered.keys() == presence._granted.keys()
    assert presence._attached.keys() == presence._known.keys()
    assert not presence.contested("agent/n1/web/app/5", 1)
    assert presence.contested("agent/n1/web/app/39", 1)


def test_a_certificate_that_is_older_does_not_supersede():
    presence = Presence(0.0)
    opened(presence, 0.0, issued=10)
    assert not presence.supersedes("node/n1", 9)
    assert presence.supersedes("node/n1", 10)
    presence.closed("node/n1", 1, "peer", 1.0, 1000)
    assert presence.supersedes("node/n1", 9)


@given(st.lists(st.tuples(st.sampled_from(["open", "heard", "closed", "tick", "long"]), st.integers(0, 3)), max_size=60))
def test_a_source_is_said_to_be_what_it_was_last_heard_to_be(script):
    presence, now, attachment, said, heard = Presence(0.0), 0.0, 0, None, None
    for what, number in script:
        now += 0.2
        if what == "open":
            attachment += 1
            said, heard = opened(presence, now, attachment=attachment).state, now
        elif what == "heard":
            record = presence.heard("node/n1", now, 0)
            heard = now
            said = said if record is None else record.state
        elif what == "closed":
            record = presence.closed("node/n1", attachment - number, "peer", now, 0)
            assert record is None or number == 0
            said = said if record is None else record.state
        else:
            now += 5.0 if what == "long" else 0.0
            for _, record in presence.tick(now, int(now * 1000), 5.2 if what == "long" else 0.2):
                said = record.state
            if said == "open":
                assert now - heard <= SILENT_S + 0.5 * len(script)
        assert said in (None, "open", "silent", "closed")
        if what == "open" or (what == "heard" and said not in (None, "closed")):
            assert said == "open"


def test_who_was_kept_out_before_the_broker_ended_is_so_until_its_key_is_revoked_and_nothing_of_it_is_said_then():
    record = SessionFact(
        attachment=7, state="closed", how="local", since_ms=5, incarnation=3, pid=1, version="v", address="a"
    )
    kept_out = replace(record, kept_out="07aa", kept_out_issued=4, leaf=False, instead_of="broker/b2")
    presence = Presence(0.0)
    assert presence.restore("operator/a", kept_out, 0.0, 100_000) is None
    assert presence.record_of("operator/a") == replace(record, kept_out="07aa", kept_out_issued=4)
    assert [presence.contested("operator/a", issued) for issued in (4, 5)] == [True, False]
    asked = []
    assert presence.settle(lambda key, name: bool(asked.append((key, name)))) == []
    assert asked == [(b"\x07\xaa", "operator/a")]
    assert presence.settle(lambda _key, _name: True) == [("operator/a", record)]
    assert not presence.contested("operator/a", 0)
