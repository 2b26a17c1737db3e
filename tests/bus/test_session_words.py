"""What a broker says of sessions: to whom, for how long, and in the place of one that is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.bus.rules.session_words import PASSED_TTL_MS, SessionWords
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import to_data
from dsmt.view.liveness import REATTACH_GRACE_MS
from tests.bus.attached import attached
from tests.controllers.signing import signed

NOW_MS = 1_800_000_000_000
N2 = "monitor/n2"


class Broker:
    """`b1`, and what it says: (source, state, to)."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.said: list[tuple[str, str, tuple[str, ...]]] = []
        self.records: list[SessionFact] = []
        self.ttls: list[int | None] = []
        self.leaves: dict[str, bool] = {}
        self.words = SessionWords("broker/b1", self, self.now, lambda: self.leaves)

    @property
    def now(self) -> float:
        return self.now_ms / 1000

    def say(self, topic: str, record: Any, *, ttl_ms: int | None = None, to: tuple[str, ...] = (), **_about: Any) -> None:
        self.said.append((topic.removeprefix("broker/b1/session/"), record.state, to))
        self.records.append(record)
        self.ttls.append(ttl_ms)

    def open(self, *sources: str, attachment: int = 1) -> None:
        for source in sources:
            self.words.opened(
                attached(source, attachment=attachment, claimed=attachment, payer=source), self.now, self.now_ms
            )

    def close(self, *sources: str, attachment: int = 1) -> None:
        for source in sources:
            self.words.closed(
                attached(source, attachment=attachment, claimed=attachment, payer=source), "peer", self.now, self.now_ms
            )

    def tick(self, after_ms: int = 0) -> list[tuple[str, str, tuple[str, ...]]]:
        """Time passes; what is said then. Sessions that are open are heard meanwhile."""
        self.now_ms += after_ms
        for source in ("broker/b0", "broker/b2", N2, "monitor/n3"):
            self.words.presence.heard(source, self.now, self.now_ms)
        before = len(self.said)
        self.words.tick(self.now, self.now_ms, after_ms / 1000)
        return self.said[before:]


def one(source: str, attachment: int) -> Any:
    return attached(source, attachment=attachment, claimed=attachment, payer=source)


def row(broker: str, source: str, state: str, *, to: tuple[str, ...] = (), attachment: int = 1, **about: Any) -> Any:
    """A session fact, as another broker or an earlier life of this one has said it."""
    known = {"incarnation": 1, "pid": 1, "version": "", "address": "", "since_ms": NOW_MS, "how": None}
    record = SessionFact(**(known | {"state": state, "attachment": attachment} | about))  # type: ignore[arg-type]
    topic = f"broker/{broker}/session/{source}"
    event = signed(f"broker/{broker}", topic, to_data(record), time_ms=NOW_MS)
    return SimpleNamespace(topic=topic, to=to, brought=f"broker/{broker}", read=lambda: event)


@pytest.mark.parametrize(("source", "ttl_ms"), [("operator/alice", PASSED_TTL_MS), ("controller/c1", None)])
def test_the_session_of_a_command_line_is_forgotten_soon_after_its_end(source: str, ttl_ms: int | None) -> None:
    broker = Broker()
    broker.open(source)
    broker.close(source)
    assert broker.ttls == [None, ttl_ms]


def test_who_is_to_probe_a_node_is_told_so_when_it_comes_after_the_node_fell_silent() -> None:
    broker = Broker()
    broker.open("node/n1")
    broker.close("node/n1")
    assert broker.said[-1] == ("node/n1", "closed", ())
    broker.open(N2)
    assert broker.tick() == [("node/n1", "closed", (N2,))]
    assert broker.tick() == []
    broker.open("node/n1", attachment=2)
    assert broker.said[-1] == ("node/n1", "open", (N2,)), "it need not probe any more"


def test_what_becomes_of_a_node_that_is_probed_is_said_to_who_probes_it_at_once() -> None:
    broker = Broker()
    broker.open("node/n1", N2)
    assert broker.tick(60_000)[-1] == ("node/n1", "silent", (N2,))
    broker.close("node/n1")
    assert broker.said[-1] == ("node/n1", "closed", (N2,))


def test_what_is_still_closed_of_a_node_that_is_heard_again_is_said_to_all() -> None:
    broker = Broker()
    broker.open("node/n1", "monitor/n1", N2)
    broker.close("node/n1", "monitor/n1")
    assert broker.tick() == [("node/n1", "closed", (N2,)), ("monitor/n1", "closed", (N2,))]
    broker.open("node/n1", attachment=2)
    assert broker.said[-2:] == [("node/n1", "open", (N2,)), ("monitor/n1", "closed", ())]


def test_of_what_a_lost_broker_held_it_is_said_that_it_is_silent_when_it_could_have_attached_elsewhere() -> None:
    broker = Broker()
    broker.open("broker/b2", N2)
    broker.words.stored([row("b2", "node/n1", "open"), row("b2", "monitor/n1", "open")])
    broker.tick(5000)
    lost_ms = broker.now_ms
    broker.close("broker/b2")
    assert broker.tick(REATTACH_GRACE_MS - 1) == []
    assert broker.tick(1) == [("node/n1", "silent", (N2,)), ("monitor/n1", "silent", (N2,))]
    assert {(one.instead_of, one.since_ms) for one in broker.records[-2:]} == {("broker/b2", lost_ms)}
    broker.open("broker/b2", attachment=2)
    assert broker.tick() == [("node/n1", "open", (N2,)), ("monitor/n1", "open", (N2,))], "it is back with what it holds"


def test_in_the_place_of_a_lost_broker_the_first_speaks_of_those_that_are_left() -> None:
    broker = Broker()
    broker.open("broker/b0", "broker/b2", N2)
    broker.words.stored([row("b2", "node/n1", "open"), row("b2", "monitor/n1", "open")])
    broker.close("broker/b2")
    assert broker.tick(REATTACH_GRACE_MS) == [], "b0 says it"
    broker.close("broker/b0")
    assert broker.tick(REATTACH_GRACE_MS) == [("node/n1", "silent", (N2,)), ("monitor/n1", "silent", (N2,))]


def test_of_what_was_said_under_its_name_elsewhere_a_greater_attachment_counts_that_was_not_closed() -> None:
    broker = Broker()
    broker.open("node/n1")
    for state, attachment in (("closed", 1), ("open", 2)):
        broker.words.taken_over(row("b1", "node/n1", state, attachment=2), broker.now, broker.now_ms)
        assert (broker.records[-1].state, broker.records[-1].attachment) == ("open", attachment)


@pytest.mark.parametrize("meanwhile", [True, False])
def test_those_who_were_named_in_an_earlier_life_are_told_that_a_node_is_heard_elsewhere(meanwhile: bool) -> None:
    broker = Broker()
    elsewhere = row("b2", "node/n1", "open", attachment=2)
    broker.words.restore(row("b1", "node/n1", "silent", to=(N2,)), broker.now, broker.now_ms)
    if meanwhile:
        broker.words.restore(elsewhere, broker.now, broker.now_ms)
    broker.words.started()
    if not meanwhile:
        broker.words.stored([elsewhere])
    assert broker.said[-1] == ("node/n1", "open", (N2,))
    assert broker.records[-1].instead_of == "broker/b2"


def test_what_was_said_in_the_place_of_another_or_cannot_be_read_is_no_session_of_this_one() -> None:
    broker = Broker()
    unreadable = row("b1", "node/n2", "open")
    unreadable.read = lambda: signed("broker/b1", unreadable.topic, {"state": 7})
    for one in (unreadable, row("b1", "node/n1", "silent", instead_of="broker/b2")):
        broker.words.restore(one, broker.now, broker.now_ms)
    broker.words.started()
    assert [broker.words.presence.record_of(f"node/{node}") for node in ("n1", "n2")] == [None, None]
    assert broker.said == []


@pytest.mark.parametrize("ends", ["closed", "silent"])
@pytest.mark.parametrize(("read", "said"), [(True, "read"), (False, "behind")])
def test_of_a_leaf_that_has_gone_it_is_said_whether_it_was_read_to_its_end_before(read: bool, said: str, ends: str) -> None:
    broker, leaf = Broker(), "broker/b3"
    broker.leaves = {leaf: read}
    broker.open(leaf)
    broker.leaves = {leaf: False}  # which nobody reads any more
    if ends == "closed":
        broker.close(leaf)
    else:
        broker.tick(60_000)
    assert [(one.state, one.leaf) for one in broker.records] == [("open", said), (ends, said)]


def test_of_a_leaf_that_is_there_it_is_said_when_it_is_read_to_its_end_and_when_it_is_not_any_more() -> None:
    broker, leaf = Broker(), "broker/b3"
    broker.open(leaf, "broker/b2")
    for read in (False, True, True, False):
        broker.leaves = {leaf: read}
        broker.words.presence.heard(leaf, broker.now, broker.now_ms)
        broker.tick()
    said = [one.leaf for (source, *_), one in zip(broker.said, broker.records, strict=True) if source == leaf]
    assert said == [msgspec.UNSET, "behind", "read", "behind"]
