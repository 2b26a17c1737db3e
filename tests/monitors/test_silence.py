"""Whom a monitor is named to probe, and from when on."""

from typing import Any

import pytest

from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import SessionFact
from dsmt.monitors.rules.silence import ProbeTarget, Silence
from dsmt.view.liveness import OBSERVERS, REATTACH_GRACE_MS

ME = "monitor/n1"
OTHERS = tuple(f"monitor/o{number}" for number in range(OBSERVERS))


def session(state: Any, *, how: Any = None, since_ms: int = 0) -> SessionFact:
    return SessionFact(attachment=1, state=state, how=how, since_ms=since_ms, incarnation=1, pid=1, version="1", address="")


def cause(number: int) -> EventId:
    return EventId("broker/b1", 1, number)


def test_who_is_named_first_probes_until_the_node_is_heard() -> None:
    machine = Silence(ME)
    assert machine.targets() == []
    machine.session("monitor/n2", session("silent"), (ME,), cause(3))
    assert machine.targets() == [ProbeTarget("n2", cause(3), 0)]
    machine.session("node/n2", session("open"), (ME,), cause(4))
    assert machine.targets() == []


def test_who_is_named_behind_the_first_was_named_before_and_probes_no_more() -> None:
    machine = Silence(ME)
    machine.session("monitor/n2", session("silent"), (*OTHERS[1:], ME), cause(3))
    assert len(machine.targets()) == 1
    machine.session("monitor/n2", session("silent"), (*OTHERS, ME), cause(4))
    assert machine.targets() == []


def test_a_node_that_closed_its_sessions_itself_is_probed_only_after_the_grace() -> None:
    machine = Silence(ME)
    machine.session("node/n2", session("closed", how="peer", since_ms=500), (ME,), cause(2))
    machine.session("monitor/n2", session("closed", how="peer", since_ms=600), (ME,), cause(3))
    assert machine.targets() == [ProbeTarget("n2", cause(2), 600 + REATTACH_GRACE_MS)]
    machine.session("monitor/n2", session("silent"), (ME,), cause(4))
    assert machine.targets() == [ProbeTarget("n2", cause(2), 0)]


@pytest.mark.parametrize("ended", [session("silent"), session("closed", how="timeout"), session("closed", how="local")])
def test_one_that_did_not_close_itself_is_probed_at_once(ended: SessionFact) -> None:
    machine = Silence(ME)
    machine.session("node/n2", session("closed", how="peer", since_ms=500), (ME,), cause(2))
    machine.session("monitor/n2", ended, (ME,), cause(3))
    assert [target.since_ms for target in machine.targets()] == [0]


def test_a_node_is_probed_at_once_as_long_as_one_of_its_words_says_that_it_is_silent() -> None:
    machine = Silence(ME)
    machine.session("node/n2", session("silent"), (ME,), cause(2))
    machine.session("monitor/n2", session("closed", how="peer", since_ms=500), (ME,), cause(3))
    assert machine.targets() == [ProbeTarget("n2", cause(2), 0)]


def test_a_target_stays_the_same_while_it_is_said_again_and_a_new_silence_is_another() -> None:
    machine = Silence(ME)
    machine.session("monitor/n2", session("silent"), (ME,), cause(2))
    before = machine.targets()
    machine.session("monitor/n2", session("closed", how="timeout"), (ME, *OTHERS), cause(3))
    assert machine.targets() == before
    machine.session("monitor/n2", session("open"), (ME,), cause(4))
    machine.session("monitor/n2", session("silent"), (ME,), cause(5))
    assert machine.targets() == [ProbeTarget("n2", cause(5), 0)]


def test_targets_are_in_order_of_their_names_and_are_forgotten_when_all_is_told_anew() -> None:
    machine = Silence(ME)
    for node in ("n4", "n2", "n3"):
        machine.session(f"monitor/{node}", session("silent"), (ME,), cause(2))
    assert [target.node for target in machine.targets()] == ["n2", "n3", "n4"]
    machine.forget()
    assert machine.targets() == []


@pytest.mark.parametrize("source", ["agent/n2/web/app/0", "controller/c1", "node", "broker/b2"])
def test_other_sources_say_nothing_of_a_node(source: str) -> None:
    machine = Silence(ME)
    machine.session(source, session("silent"), (ME,), cause(2))
    assert machine.targets() == []
