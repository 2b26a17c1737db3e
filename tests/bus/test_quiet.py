"""Quiet links: who is asked, who is silent, and when a client gives its broker up (rule F3)."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import MagicMock

import pytest

from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.broker.upkeep import EXPIRE_S, TICK_S, Upkeep
from dsmt.bus.rules.presence import Presence
from dsmt.bus.rules.quiet import DELEGATE_QUIET_S, DOUBT_S, QUIET_S, LinkWatch
from dsmt.bus.wire import frames as f
from dsmt.logs import Logger
from dsmt.ports.network import Peer
from tests.bus.attached import attached

TICK = TICK_S
NODE, AGENT = "node/n1", "agent/n1/web/app/0"


class Broker:
    """The sessions of a broker and what it says of them, four times a second; `speaks`: who answers and who talks anyway."""

    def __init__(self) -> None:
        self.now, self.asked, self.said = 100.0, [], []
        self.sessions = Sessions(Logger(), self._send, lambda *_: None)
        self.presence = Presence(self.now)
        recorder = MagicMock()
        recorder.sessions.presence, recorder.sessions.tick = self.presence, self._tick
        self.upkeep = Upkeep(recorder, self.sessions, MagicMock(), MagicMock(), MagicMock())
        self.upkeep.begin(self.now)
        self.answering: set[str] = set()
        self.talking: set[str] = set()

    def attach(self, name: str, payer: str, *, answers: bool = True, talks: bool = False, reads: bool = False) -> Session:
        session = self.sessions.connected(Peer(f"{name}{reads}".encode()), b"k" * 32, self.now)
        session.name, session.payer, session.attached, session.reads = name, payer, True, reads
        session.heard = self.now
        if not reads:
            self.sessions.attached(session)
            self.presence.opened(attached(name, claimed=1, payer=payer), self.now, int(self.now * 1000))
        self.answering |= {name} if answers else set()
        self.talking |= {name} if talks else set()
        return session

    def _send(self, session: Session, frame: f.Frame) -> bool:
        assert frame == f.Keepalive(asks=True)
        self.asked.append((self.now, session.name))
        self.questions.append(session)
        return True

    def _tick(self, now: float, *_: object, **__: object) -> None:
        told = self.presence.tick(now, int(now * 1000), TICK)
        self.said += [(now, name, record.state) for name, record in told]

    def _hear(self, session: Session) -> None:
        session.heard = self.now
        if not session.reads:
            self.presence.heard(session.name, self.now, int(self.now * 1000))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            for session in self.sessions.all():
                if session.name in self.talking:
                    self._hear(session)
            self.questions: list[Session] = []
            self.upkeep.tick(self.now, "")
            for session in self.questions:
                if session.name in self.answering:
                    self._hear(session)

    def times(self, name: str) -> list[float]:
        return [at for at, one in self.asked if one == name]


def test_over_a_link_on_which_something_comes_nobody_is_asked():
    broker = Broker()
    broker.attach(NODE, NODE, talks=True)
    broker.run(60.0)
    assert broker.asked == broker.said == []


def test_who_is_quiet_is_asked_each_second_and_stays_open_as_long_as_it_answers():
    broker = Broker()
    broker.attach(NODE, NODE)
    broker.run(60.0)
    assert {late - early for early, late in pairwise(broker.times(NODE))} == {QUIET_S}
    assert broker.said == []


def test_a_delegate_is_asked_more_seldom_while_its_ancestor_speaks():
    broker = Broker()
    broker.attach(NODE, NODE, talks=True)
    broker.attach(AGENT, NODE)
    broker.run(60.0)
    assert {late - early for early, late in pairwise(broker.times(AGENT))} == {DELEGATE_QUIET_S}
    assert broker.said == []


@pytest.mark.parametrize("there", [False, True])
def test_a_delegate_whose_ancestor_is_not_there_or_does_not_speak_is_asked_each_second(there):
    broker = Broker()
    if there:
        broker.attach(NODE, NODE, answers=False)
    broker.attach(AGENT, NODE)
    broker.run(20.0)
    assert len(broker.times(AGENT)) >= 15
    assert [name for _, name, _ in broker.said] == [NODE] * there


def test_who_does_not_answer_is_asked_again_each_second_and_not_more_often():
    broker = Broker()
    broker.attach(NODE, NODE, answers=False)
    broker.run(20.0)
    assert {late - early for early, late in pairwise(broker.times(NODE))} == {QUIET_S}


def test_what_all_are_told_is_told_to_who_is_attached_and_was_not_sent_away():
    told: list[tuple[str, f.Frame]] = []
    sessions = Sessions(Logger(), lambda session, frame: not told.append((session.name, frame)), lambda *_: None)
    for name, attached_, refused in (("node/n1", True, False), ("node/n2", False, False), ("node/n3", True, True)):
        session = sessions.connected(Peer(name.encode()), b"k" * 32, 1.0)
        session.name, session.attached, session.refused = name, attached_, refused
    sessions.tell(f.Measure())
    assert told == [("node/n1", f.Measure())]


def test_a_name_leaves_with_the_session_that_has_it_and_not_with_the_one_before():
    broker = Broker()
    before, now = (broker.sessions.connected(Peer(one), b"k" * 32, 1.0) for one in (b"1", b"2"))
    for session in (before, now):
        session.name = NODE
        broker.sessions.attached(session)
    assert [broker.sessions.closed(session) for session in (before, now)] == [False, True]


def test_who_is_not_attached_or_was_sent_away_is_not_asked():
    broker = Broker()
    broker.attach(NODE, NODE).attached = False
    broker.attach(AGENT, NODE).refused = True
    broker.run(10.0)
    assert broker.asked == []


@pytest.mark.parametrize("before", [29.3, 30.3, 31.3, 32.3])
def test_a_node_that_stands_still_falls_silent_as_a_whole(before):
    broker = Broker()
    names = [NODE, *(f"agent/n1/web/app/{n}" for n in range(50))]
    for name in names:
        broker.attach(name, NODE)
    broker.run(before)
    broker.answering.clear()
    stood = broker.now
    broker.run(10.0)
    assert {name for _, name, _ in broker.said} == {*names}
    times = {name: at - stood for at, name, _ in broker.said}
    assert 2.0 <= times[NODE] <= 3.5
    assert max(times.values()) <= times[NODE] + DOUBT_S, "its agents right after it"


def test_an_agent_that_alone_does_not_answer_is_silent_once_it_was_asked():
    broker = Broker()
    broker.attach(NODE, NODE, talks=True)
    broker.attach(AGENT, NODE, answers=False)
    broker.run(DELEGATE_QUIET_S + 1.0)
    assert broker.said == []
    broker.run(5.0)
    assert [name for _, name, _ in broker.said] == [AGENT]


def test_a_reader_that_does_not_answer_says_nothing_of_who_has_its_name():
    broker = Broker()
    broker.attach(NODE, NODE, talks=True)
    broker.attach(AGENT, NODE)
    broker.attach(AGENT, NODE, reads=True).payer = "operator/o"
    broker.run(1.0)
    broker.answering.clear()
    broker.run(2.5)
    assert broker.said == [], "nobody asked the agent itself yet"


@pytest.mark.parametrize(("delegate", "asks", "lost"), [(False, 2.0, 5.0), (True, 6.0, 9.0)])
def test_a_client_asks_over_a_quiet_link_and_gives_up_one_that_stays_quiet(delegate, asks, lost):
    watch, now, asked = LinkWatch(100.0, delegate=delegate), 100.0, []
    while not watch.lost:
        now += watch.pause_s(busy=False)
        watch.look(now)
        asked += [now - 100.0] if watch.asks else []
    assert asked[0] == asks
    assert lost < now - 100.0 <= lost + 1.0
    assert len(asked) >= 3


def test_a_client_looks_no_more_often_than_it_must_and_each_second_while_there_is_something_to_do():
    watch, now, looks = LinkWatch(0.0, delegate=True), 0.0, 0
    while now < 60.0:
        now += watch.pause_s(busy=False)
        watch.came(now - 0.5)
        watch.look(now)
        looks += 1
    assert looks <= 15
    assert watch.pause_s(busy=True) == 1.0


def test_a_client_that_was_itself_stopped_does_not_hold_that_against_its_broker():
    watch = LinkWatch(0.0, delegate=False)
    assert watch.lag == 0.0, "nobody is late before the first look"
    watch.look(watch.pause_s(busy=False) + 30.0)
    assert watch.lag == pytest.approx(30.0)
    assert not watch.lost


@pytest.mark.parametrize("stopped", [4.0, 30.0, 8 * 3600.0])
def test_a_client_that_heard_its_broker_right_after_a_stop_notices_soon_when_that_falls_quiet(stopped):
    watch = LinkWatch(0.0, delegate=False)
    now = watch.pause_s(busy=False) + stopped
    watch.came(now)  # what had waited in the socket is looked at before the link is
    watch.look(now)
    woke = now
    while not watch.lost:
        now += watch.pause_s(busy=False)
        assert now <= woke + 10.0, "it looks again and gives up as soon as ever"
        watch.look(now)


def test_each_minute_what_is_over_is_forgotten_and_again_at_once_while_there_is_more_to_trim():
    recorder, sessions, rates, depot = (MagicMock() for _ in range(4))
    recorder.trim.side_effect = [True, True, False, False]
    sessions.ask.return_value = []
    upkeep = Upkeep(recorder, sessions, [rates], depot, MagicMock())
    upkeep.begin(0.0)
    done = []
    for tick in range(int(2.5 * EXPIRE_S / TICK)):
        upkeep.tick(tick * TICK, "")
        if recorder.trim.call_count > len(done):
            done.append(tick * TICK)
    assert done == [EXPIRE_S, EXPIRE_S + TICK, EXPIRE_S + 2 * TICK, 2 * EXPIRE_S + 2 * TICK]
    for one in (recorder.ingest.expire, rates.forget, sessions.forgive, depot.expire):
        assert one.call_count == len(done)
