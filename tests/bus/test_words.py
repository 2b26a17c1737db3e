"""A broker's own words."""

from __future__ import annotations

from typing import Any

from dsmt.bus.broker.reporter import FRESH_S, BrokerReporter, Self
from dsmt.bus.broker.words import NOTICES_WAITING, Words
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey

NOW_S = 1_800_000_000
BROKER = root_issued("broker/b1", SecretKey(bytes(32)), key=SecretKey(b"1" * 32), now_s=NOW_S, serial=bytes(16))


def words(now_s: int) -> Words:
    return Words(BROKER, 1, lambda: now_s * 1000)


def notice(number: int) -> BrokerNotice:
    return BrokerNotice(kind="gap", source="node/n1", topic=None, first=number, last=number, message="")


def test_who_exports_again_at_once_gets_the_head_that_was_signed_for_the_one_before() -> None:
    store: Any = None
    reporter = BrokerReporter(Self("broker/b1", 1, "v"), store, words(NOW_S), 100.0, whole=lambda: True)
    assert [reporter.is_stale(now) for now in (100.0, 100.5, 100.0 + FRESH_S, 100.5 + FRESH_S)] == [True, False, True, False]


def test_each_notice_is_said_and_of_all_else_the_newest() -> None:
    told = words(NOW_S + 1)
    for number in (1, 2):
        told.notice(notice(number))
        told.say("broker/b1/stats", notice(number))
    said = [(one.signed.event.topic, one.signed.event.data["first"]) for one in told.sign()]
    assert said == [("broker/b1/notice", 1), ("broker/b1/notice", 2), ("broker/b1/stats", 2)]
    assert told.sign() == []


def test_notices_that_find_no_room_are_counted() -> None:
    told = words(NOW_S + 1)
    for number in range(NOTICES_WAITING + 3):
        told.notice(notice(number))
    assert (len(told.sign()), told.dropped) == (NOTICES_WAITING, 3)
    told.notice(notice(1))
    assert (len(told.sign()), told.dropped) == (1, 3), "there is room again"


def test_a_notice_finds_room_however_many_sessions_are_told_with_it() -> None:
    """As where a thousand sources fall silent at once, some of whom had left holes."""
    told = words(NOW_S + 1)
    for number in range(NOTICES_WAITING + 1):
        told.say(f"broker/b1/session/node/n{number}", notice(number))
    told.notice(notice(1))
    assert [one.signed.event.topic for one in told.sign()][-1] == "broker/b1/notice"
    assert told.dropped == 0


def test_whose_certificate_has_ended_says_nothing_and_numbers_nothing() -> None:
    """Nobody would believe it, and no history that holds it would verify (J3)."""
    told = words(BROKER.certificate.not_after + 1)
    told.notice(notice(1))
    assert told.sign() == []
    assert told.chain.sequence == 0
