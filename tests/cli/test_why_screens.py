"""Golden screens of `why`: the answer first, then the causes with their signers."""

import msgspec
import pytest

from dsmt.cli.why_screen import screen as why_screen
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import reason
from dsmt.event.records import to_data
from dsmt.operations.read.why.explaining import MAX_EVENTS, CauseLink, Explained
from dsmt.operations.words.event_objects import event_object
from dsmt.operations.words.sentences import sentence
from tests.cli.screens import check
from tests.operations.recorded import Recording

pytestmark = pytest.mark.usefixtures("utc")


def explained(events: list[SignedEvent], recording: Recording, says: str, cut: tuple[EventId, ...] = ()) -> Explained:
    """What `why` has found: these events, newest first."""
    newest = sorted(events, key=lambda one: (one.event.time, one.event.sequence), reverse=True)
    links = [
        CauseLink(
            event=event_object(one, recording.trust), says=sentence(one.event), because=[str(c) for c in one.event.cause]
        )
        for one in newest
    ]
    not_followed = [str(one) for one in cut]
    return Explained(target="web", says=says, complete=not cut, chain=links, missing=[], cut=not_followed)


def recorded(index: int, recording: Recording, spec: SignedEvent) -> list[SignedEvent]:
    """An instance that was placed, and is ready."""
    slot = Slot(node="n1", spec=str(spec.id), revision=1, desired="running")
    placed = recording.say("controller/c1", f"service/web/slot/app/{index}", to_data(slot), version=1, cause=(spec.id,))
    health = Health(health="ready", generation=1, check="http", evidence="200 OK", failures=0, since_ms=1)
    topic = f"service/web/health/app/{index}/n1"
    return [placed, recording.say(f"agent/n1/web/app/{index}", topic, to_data(health), cause=(placed.id,))]


def begun() -> tuple[Recording, SignedEvent]:
    recording = Recording()
    recording.now_ms = 1_700_000_000_000
    fact = SpecFact(spec={}, by="alice", reason="4.1.0, JIRA-790")
    return recording, recording.say("operator/alice", "service/web/spec", to_data(fact), version=1)


def test_why_answers_first_and_names_signers_and_causes_newest_first() -> None:
    recording, spec = begun()
    events = [spec, *recorded(0, recording, spec)]
    told = explained(events, recording, "web/app/0 runs on n1 since 22:13:20 (2 m) and is ready, because web is r1")
    check("why", "\n".join(why_screen(told, events=False)), folds=False)
    check("why_events", "\n".join(why_screen(told, events=True)), folds=False)


def test_why_says_of_a_cause_that_is_not_shown_whether_its_key_was_revoked() -> None:
    recording, spec = begun()
    lost, disowned = "operator/bob#1-2", "controller/c1#7-85"
    told = explained([spec], recording, "web is r1")
    told = msgspec.structs.replace(told, complete=False, missing=[disowned, lost], disowned=[disowned])
    assert [line.strip() for line in why_screen(told, events=False)][-4:] == [
        f"{disowned} is named as a cause, but a key of controller/c1 was revoked, and nobody believes what it signed.",
        f"{lost} is named as a cause, but is not in the history.",
        "",
        "1 event, 1 signer, all verified, not complete.",
    ]


def failing() -> tuple[Recording, list[SignedEvent]]:
    """Two instances, one of which fails again and again."""
    recording, spec = begun()
    events = [spec, *recorded(0, recording, spec), *recorded(1, recording, spec)]
    before = events[-2]
    about = {"layer": "application", "node": "n1", "generation": 1, "attempt": 1, "since_ms": 1, "emit_rate_s": 30.0}
    why = reason("run.exited", exit_code=1, time="0.4 s", target="web/app/1", last_output="no space left")
    topic = "service/web/status/app/1/n1/application"
    for number in range(4):
        for state, more in (("running", {"pid": 40 + number}), ("failed", {"reason": msgspec.to_builtins(why)})):
            before = recording.say("agent/n1/web/app/1", topic, {**about, "state": state, **more}, cause=(before.id,))
            events.append(before)
    return recording, [one for one in events if one.event.topic != "service/web/health/app/1/n1"]


def test_why_shows_siblings_side_by_side_and_what_repeats_once_in_eighty_columns() -> None:
    recording, events = failing()
    told = explained(events, recording, "web: 1 of 2 ready; web/app/1 failed on n1 since 22:13:20 (2 s): exited with code 1")
    lines = why_screen(told, events=False, width=80)
    check("why_tree", "\n".join(lines), folds=False)
    assert all(len(line) <= 80 for line in lines)
    everything = why_screen(told, events=True)
    assert sum("failed on n1" in line for line in everything) == 1 + 4
    assert sum("failed on n1" in line for line in lines) == 2 + 0


def test_why_lists_causes_that_have_none_themselves_one_below_the_other() -> None:
    recording = Recording()
    recording.now_ms = 1_700_000_000_000
    closed = []
    for source in ("node/n1", "monitor/n1"):
        about = {"attachment": 1, "incarnation": 1, "pid": 1, "version": "0.1", "address": "", "since_ms": 1}
        topic = f"broker/b1/session/{source}"
        closed.append(recording.say("broker/b1", topic, {**about, "state": "closed", "how": "peer"}))
    verdict = {"state": "dead", "road": "closed", "attachments": {}, "evidence": [], "since_ms": 1}
    message = {"message": "all 2 connections from n1 closed, the last at b1, none reopened"}
    causes = tuple(one.id for one in closed)
    dead = recording.say("controller/c1", "node/n1/verdict", {**verdict, **message}, version=1, cause=causes)
    told = explained([dead, *closed], recording, "node/n1 has been dead since 22:13:20 (2 s)")
    check("why_node", "\n".join(why_screen(told, events=False, width=80)), folds=False)


def test_why_says_where_depth_cut_it() -> None:
    recording, events = failing()
    told = explained(events[-3:], recording, "web/app/1 failed on n1", cut=events[-3].event.cause)
    check("why_cut", "\n".join(why_screen(told, events=False)), folds=False)


@pytest.mark.parametrize("apart", [False, True])
def test_whoever_names_causes_as_deep_as_can_be_is_shown_in_a_screen_that_ends(apart: bool) -> None:
    """Somebody names its own words: each the one before it and the first, or all that are before it."""
    recording, most = Recording(), MAX_EVENTS
    recording.now_ms = 1_700_000_000_000
    said: list[SignedEvent] = []
    for _ in range(most):
        named = [*said[-1:], *said[:1]] if apart else said
        recording.now_ms += 1000
        said.append(recording.say("operator/alice", f"user/{len(said)}", {}, cause=tuple(one.id for one in named)))
    for events in (False, True):
        lines = why_screen(explained(said, recording, "x"), events=events and apart, width=80)
        assert sum("verified" in line and "signed" in line for line in lines) == most
        assert len(lines) < 10 * most
        assert max(map(len, lines)) < 160
    assert ("more causes that stand above: --events names each" in "\n".join(lines)) is not apart


def test_events_that_name_themselves_or_each_other_are_shown() -> None:
    recording, spec = begun()
    own, former, latter = (EventId("operator/alice", spec.event.incarnation, number) for number in (3, 4, 5))
    said = [recording.say("operator/alice", f"user/{cause.sequence}", {}, cause=(cause,)) for cause in (own, latter, former)]
    assert [one.id for one in said] == [own, former, latter]
    for events in (said[:1], said[1:], said, [spec, *said]):
        lines = why_screen(explained(events, recording, "x"), events=False)
        assert sum("signed operator/alice" in line for line in lines) == len(events)
