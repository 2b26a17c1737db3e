"""Which of a node's agents hang: who alone was silent, for as long as this manager itself has seen it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dsmt.agents.node.hearing import HEAR_EACH_S, HUNG_AFTER_MS, LATE_S, Hearing
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import to_data
from dsmt.ports.bus import Arrived, Complete, Cursor, Notice

NODE, AGENT, OTHER = "node/n1", "agent/n1/web/app/0", "agent/n1/web/app/1"
START_MS = 1_700_000_000_000
LOOKS = int(HUNG_AFTER_MS / 1000 / HEAR_EACH_S)


class Bus:
    """A bus whose realm time goes with the test's running time."""

    attached, broker, now = True, "broker/b1", 0.0

    def now_ms(self) -> int:
        return START_MS + int(self.now * 1000)


class Manager:
    """A hearing that is looked at each `HEAR_EACH_S`, and what a broker says meanwhile."""

    def __init__(self) -> None:
        self.bus, self.rows = Bus(), 0
        self.hearing = Hearing("n1", self.bus)  # type: ignore[arg-type]
        for source in (NODE, AGENT, OTHER):
            self.says(source, "open")
        self.hearing.take(Complete(Cursor("s", self.rows, 0), whole=True))

    def says(self, source: str, state: Any, *, broker: str = "broker/b1", node: str = "") -> None:
        self.rows += 1
        record = SessionFact(
            attachment=1, state=state, how=None, since_ms=self.bus.now_ms(), incarnation=1, pid=None, version="", address=""
        )
        event = Event(
            source=broker, incarnation=1, sequence=self.rows, chain=ChainLink(self.rows, NO_LEAF), type="dsmt.session",
            topic=f"{broker}/session/{source}", subject=source, time=hlc(self.bus.now_ms()), data=to_data(record),
        )  # fmt: skip
        self.hearing.take(Arrived(SignedEvent(event, b"", bytes(32), b"k"), self.rows, live=True))

    def look(self, times: int = 1, *, each_s: float = HEAR_EACH_S, mute: Iterable[str] = ()) -> frozenset[str]:
        """What hangs at the last of so many looks."""
        found: frozenset[str] = frozenset()
        for _ in range(times):
            self.bus.now += each_s
            found = self.hearing.hung(self.bus.now, mute)
        return found


def test_it_is_subscribed_to_what_brokers_say_of_this_node_and_its_agents() -> None:
    assert Manager().hearing.patterns == ("broker/+/session/node/n1", "broker/+/session/agent/n1/")


def test_an_agent_that_alone_is_silent_hangs_when_that_was_seen_for_long_enough() -> None:
    at = Manager()
    assert at.look(20) == frozenset()
    at.says(AGENT, "silent")
    assert at.look(LOOKS) == frozenset()
    assert at.look() == {AGENT}
    at.says(AGENT, "open")
    assert at.look() == frozenset()
    at.says(AGENT, "silent")
    assert at.look(LOOKS) == frozenset(), "it is counted anew"
    at.says(OTHER, "silent")
    assert at.look() == {AGENT}
    assert at.look(LOOKS) == {OTHER}, "who follows the one that was ended has as long"
    assert at.look() == {AGENT}


def test_one_that_has_not_begun_its_work_hangs_too_whether_this_manager_is_attached_or_not() -> None:
    at = Manager()
    assert at.look(LOOKS, mute=[AGENT]) == frozenset()
    assert at.look() == frozenset(), "it has begun"
    at.bus.attached = False
    assert at.look(LOOKS, mute=[AGENT]) == frozenset()
    assert at.look(mute=[AGENT]) == {AGENT}
    assert at.look(LOOKS, mute=[AGENT]) == frozenset(), "its successor has as long"
    assert at.look(mute=[AGENT]) == {AGENT}


def test_where_nothing_of_the_node_is_heard_the_network_is_the_cause() -> None:
    at = Manager()
    for source in (NODE, AGENT, OTHER):
        at.says(source, "silent")
    assert at.look(3 * LOOKS) == frozenset()
    at.says(NODE, "open")
    assert at.look(LOOKS) == frozenset()
    assert at.look() == {AGENT, OTHER}


def test_the_manager_alone_that_is_silent_hangs_nobody() -> None:
    at = Manager()
    at.says(NODE, "silent")
    assert at.look(3 * LOOKS) == frozenset()


def test_what_was_seen_before_a_late_look_or_while_it_was_cut_off_is_no_evidence() -> None:
    at = Manager()
    at.says(AGENT, "silent")
    at.look(LOOKS)
    assert at.look(each_s=HEAR_EACH_S + LATE_S) == {AGENT}, "not too late yet"
    assert at.look(each_s=HEAR_EACH_S + LATE_S + 0.1) == frozenset()
    assert at.look(LOOKS - 1) == frozenset()
    at.bus.attached = False
    assert at.look() == frozenset()
    at.bus.attached = True
    assert at.look(LOOKS) == frozenset()
    assert at.look() == {AGENT}
    late = Manager()
    late.says(AGENT, "silent")
    late.look(LOOKS)
    assert late.look(each_s=HEAR_EACH_S + LATE_S + 0.1) == frozenset(), "it has stood still itself"
    assert late.look(LOOKS - 1) == frozenset()
    assert late.look() | late.look() == {AGENT}


def test_a_step_of_realm_time_is_no_silence_and_a_silence_that_a_broker_just_told_is_none_yet() -> None:
    at = Manager()
    at.look(10)
    at.says(AGENT, "silent")
    at.bus.now_ms = lambda: START_MS + 10**9  # type: ignore[method-assign]
    assert at.look(LOOKS) == frozenset()
    assert at.look() == {AGENT}
    held_back = Manager()
    held_back.says(AGENT, "silent")
    held_back.bus.now_ms = lambda: START_MS + HUNG_AFTER_MS - 1  # type: ignore[method-assign]
    assert held_back.look(3 * LOOKS) == frozenset(), "by realm time it is not long enough"


def test_only_the_brokers_words_count_and_nothing_is_said_of_a_node_that_is_not_known() -> None:
    at = Manager()
    at.says(AGENT, "silent", broker="agent/n1/web/app/1")
    at.hearing.take(Notice("dsmt.notice.gap", "some", {}))
    assert at.look(3 * LOOKS) == frozenset()
    elsewhere = Hearing("n2", at.bus)  # type: ignore[arg-type]
    assert elsewhere.hung(5.0) == frozenset()
