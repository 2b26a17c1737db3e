"""Tail: what is shown of a stream, what is left out, and what is said of a lost connection."""

import asyncio
from typing import Any, cast

import pytest

from dsmt.errors import InputError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.instance import Command, Endpoint, LogLines
from dsmt.event.records import to_data
from dsmt.operations.read.realm import tailing
from dsmt.operations.read.realm.tailing import Item, TailQuery, tail
from dsmt.operations.words.patterns import some_topic
from dsmt.ports.bus import Arrived, Bookmark, Bus, Cursor, Notice, Reattached
from tests.operations.recorded import START_MS, Recording
from tests.operations.scripted import ScriptedBus, came, complete


def shown(bus: ScriptedBus, wanted: TailQuery, count: int | None = None) -> list[Item]:
    """The first `count` items, or all to the end."""

    async def main() -> list[Item]:
        found: list[Item] = []
        async with asyncio.timeout(20):
            async for batch in tail(cast("Bus", bus), wanted):
                found += batch
                if count is not None and len(found) >= count:
                    break
        return found

    return asyncio.run(main())


def topics(items: list[Item]) -> list[str]:
    return [one.signed.event.topic for one in items if isinstance(one, Arrived)]


def session(recording: Recording, source: str) -> SignedEvent:
    said = SessionFact(
        attachment=1, state="open", how=None, since_ms=START_MS, incarnation=1, pid=1, version="0.1", address=""
    )
    return recording.say("broker/b1", f"broker/b1/session/{source}", to_data(said))


def noisy() -> Recording:
    recording = Recording()
    for name in ("node/n1", "broker/b1", "operator/alice.0abc", "agent/n1/web/app/0"):
        recording.source(name)
    recording.say("node/n1", "node/n1/heartbeat")
    session(recording, "operator/alice.0abc")
    session(recording, "node/n1")
    recording.say("operator/alice.0abc", "user/x", {"n": 1})
    asked = Command(id="c", verb="LOGS", generation=1, asker="operator/alice", arguments={})
    recording.say("operator/alice.0abc", "service/web/command/app/0", to_data(asked))
    wrote = LogLines(command="c", lines=("x",), last=True)
    recording.say("agent/n1/web/app/0", "service/web/log/app/0/n1/stdout", to_data(wrote))
    return recording


QUIET = ["source/node/n1", "source/broker/b1", "source/agent/n1/web/app/0", "broker/b1/session/node/n1", "user/x"]
ALL = [
    "source/node/n1", "source/broker/b1", "source/operator/alice.0abc", "source/agent/n1/web/app/0", "node/n1/heartbeat",
    "broker/b1/session/operator/alice.0abc", "broker/b1/session/node/n1", "user/x",
    "service/web/command/app/0", "service/web/log/app/0/n1/stdout",
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (TailQuery(), QUIET),
        (TailQuery(routine=True), ALL),
        (TailQuery(("/", "node/+/heartbeat")), [*QUIET[:3], "node/n1/heartbeat", *QUIET[3:]]),
        (TailQuery(("/", "source/operator/")), [one for one in ALL if one in QUIET or "operator" in one]),
        (TailQuery(("/", "service/+/log/")), [*QUIET, "service/web/command/app/0", "service/web/log/app/0/n1/stdout"]),
        (TailQuery(types=("dsmt.heart*",)), ["node/n1/heartbeat"]),
        (TailQuery(sources=("node/*",)), ["source/node/n1", "node/n1/heartbeat"]),
        (TailQuery(where=lambda event: event.topic.endswith("heartbeat")), ["node/n1/heartbeat"]),
    ],
)
def test_what_passes_all_the_time_is_left_out_unless_it_is_asked_for(wanted: TailQuery, expected: list[str]) -> None:
    recording = noisy()
    bus = ScriptedBus([[*came(*recording.events), complete()]], now_ms=recording.now_ms)
    assert topics(shown(bus, TailQuery(**{**_fields(wanted), "follow": False}))) == expected


def test_a_topic_of_an_operator_s_own_is_no_measurement_whatever_it_is_called() -> None:
    recording = Recording()
    recording.source("operator/alice.0abc")
    recording.say("operator/alice.0abc", "user/shop/stats", {"n": 1})
    bus = ScriptedBus([[*came(*recording.events), complete()]], now_ms=recording.now_ms)
    assert topics(shown(bus, TailQuery(follow=False))) == ["user/shop/stats"]


def _fields(wanted: TailQuery) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in TailQuery.__struct_fields__}


def test_the_last_three_are_three_though_more_come_with_the_end() -> None:
    recording = Recording()
    for number in range(6):
        recording.say("operator/alice", f"user/{number}", {"n": number})
    said = recording.events[1:]
    bus = ScriptedBus([[*came(*said[:5]), complete(), *came(said[5], live=True)]], now_ms=recording.now_ms)
    assert topics(shown(bus, TailQuery(last=3, follow=False))) == ["user/2", "user/3", "user/4"]


def test_a_notice_among_the_last_takes_no_events_place_and_one_before_them_goes() -> None:
    recording = Recording()
    for number in range(4):
        recording.say("operator/alice", f"user/{number}", {"n": number})
    said = recording.events[1:]
    early, late = Notice("dsmt.notice.gap", "early"), Notice("dsmt.notice.gap", "late")
    batch = [*came(*said[:2]), early, *came(said[2]), late, *came(said[3]), complete()]
    found = shown(ScriptedBus([batch], now_ms=recording.now_ms), TailQuery(last=2, follow=False))
    assert [one.message if isinstance(one, Notice) else one.signed.event.topic for one in found] == [
        "user/2", "late", "user/3",
    ]  # fmt: skip


@pytest.mark.parametrize("follow", [True, False])
def test_what_was_said_up_to_a_time_that_has_passed_is_shown_to_its_end(follow: bool) -> None:
    recording = noisy()
    now_ms = START_MS + 3_600_000
    bus = ScriptedBus([[*came(*recording.events), complete(now_ms)]], now_ms=now_ms)
    last = recording.events[-1].event.time_ms
    assert topics(shown(bus, TailQuery(last=None, since=START_MS, until_ms=last, follow=follow))) == QUIET
    assert not bus.asked[-1].follow, "nothing more is to come"


def test_who_begins_at_an_event_is_shown_it_though_it_arrived_by_a_slower_clock_than_it_was_signed_by() -> None:
    recording = noisy()
    sixth = recording.events[6]
    bus = ScriptedBus([[*came(*recording.events), complete(START_MS)]], now_ms=START_MS, events=recording.events)
    assert topics(shown(bus, TailQuery(last=None, since=sixth.id, follow=False))) == QUIET[3:]
    assert bus.asked[-1].since == sixth.event.time_ms - 60_000, "a minute is more than two clocks may differ by"


def test_who_begins_at_an_event_on_another_topic_is_shown_what_came_since_its_time() -> None:
    """That event itself never comes: all that came after it was waited for it, and not shown."""
    recording = noisy()
    first, said = recording.events[0], recording.events[7]
    bus = ScriptedBus([[*came(said), complete(START_MS)]], now_ms=START_MS, events=recording.events)
    wanted = TailQuery(patterns=("user/",), last=None, since=first.id, follow=False)
    assert topics(shown(bus, wanted)) == ["user/x"]
    assert bus.asked[-1].since == first.event.time_ms


def test_a_fact_that_says_the_same_again_is_shown_once() -> None:
    recording = Recording()
    topic = "service/web/endpoint/app/0/n1"
    for ready in (True, True, False, True):
        said = Endpoint(address="192.0.2.1", ports={"http": 1}, generation=1, ready=ready)
        recording.say("agent/n1/web/app/0", topic, to_data(said))
    batch = [*came(*recording.events), complete()]
    bus = ScriptedBus([batch], now_ms=recording.now_ms)
    assert topics(shown(bus, TailQuery((f"{topic}",), follow=False))).count(topic) == 3
    bus = ScriptedBus([batch], now_ms=recording.now_ms)
    assert topics(shown(bus, TailQuery((f"{topic}",), follow=False, repeats=True))).count(topic) == 4


def test_a_lost_connection_is_told_while_it_lasts_and_then_what_was_missed() -> None:
    recording = Recording()
    for number in range(4):
        recording.say("operator/alice", f"user/{number}", {"n": number})
    recording.say("node/n1", "node/n1/heartbeat")
    before, *missed, beat = [one for one in recording.events if one.event.topic.split("/")[0] != "source"]
    bus: ScriptedBus

    def lose() -> None:
        bus.attached = False

    def come_back() -> None:
        bus.attached = True
        bus.later(13)

    back = Reattached("broker/b2", "s")
    hole = Notice("dsmt.notice.gap", "user/9 #1..#3", {"from": 1, "to": 3})
    filled = Notice("dsmt.notice.filled", "user/9 #2", {"number": 2})
    bus = ScriptedBus(
        [
            [*came(before), complete()],
            lose,
            come_back,
            [back],
            [*came(*missed), *came(beat), hole, filled, Bookmark(Cursor("s", 9, 0), whole=True)],
        ],
        now_ms=recording.now_ms,
    )
    notices = [one for one in shown(bus, TailQuery(), count=10) if isinstance(one, Notice)]
    assert [(one.type.removeprefix("dsmt.notice."), one.message) for one in notices] == [
        ("caughtup", "everything before is shown; what follows is live"),
        ("disconnected", "from b1: nothing arrives until a broker is back; trying again"),
        ("reconnected", "to b2 after 13 s; what was said meanwhile follows"),
        ("gap", "user/9 #1..#3"),
        ("filled", "user/9 #2"),
        ("caughtup", "4 events came meanwhile: 3 shown above, 2 missing"),
    ]
    assert notices[2].fields["away_s"] == 13.0
    assert dict(notices[-1].fields) == {"came": 4, "shown": 3, "missing": 2}


def test_each_loss_of_the_connection_is_told() -> None:
    recording = Recording()
    bus: ScriptedBus

    def lose() -> None:
        bus.attached = False

    def come_back() -> None:
        bus.attached = True
        bus.later(7)

    back = [Reattached("broker/b1", "s"), Bookmark(Cursor("s", 9, 0), whole=True)]
    bus = ScriptedBus([[complete()], lose, come_back, back, lose, come_back, back], now_ms=recording.now_ms)
    notices = [one for one in shown(bus, TailQuery(), count=7) if isinstance(one, Notice)]
    told = [(one.type.removeprefix("dsmt.notice."), one.fields.get("away_s")) for one in notices[1:]]
    assert told == [("disconnected", None), ("reconnected", 7.0), ("caughtup", None)] * 2


def test_of_more_topics_than_are_remembered_those_that_speak_still_say_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tailing, "_SAID", 2)
    recording = Recording()
    for name in ("a", "b", "a", "c", "a", "b"):
        session(recording, f"node/{name}")
    bus = ScriptedBus([[*came(*recording.events), complete()]], now_ms=recording.now_ms)
    told = topics(shown(bus, TailQuery(("broker/+/session/",), follow=False)))
    assert [one.rsplit("/", 1)[1] for one in told[1:]] == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("web", "no topic can match web. Next: did you mean service/web/?"),
        ("web/app/", "no topic can match web/app/. Next: did you mean service/web/?"),
        ("service/web", "no topic can match service/web. Next: did you mean service/web/?"),
        ("service/web/frob/+", "no topic can match service/web/frob/+. Next: did you mean service/web/?"),
        ("service/web/app/", "no topic can match service/web/app/. Next: did you mean service/web/?"),
        ("service/web/spec/", "no topic can match service/web/spec/. Next: did you mean service/web/spec?"),
        ("service/w/slot/a/0/", "no topic can match service/w/slot/a/0/. Next: did you mean service/w/slot/a/0?"),
        ("servce/web/", "no topic can match servce/web/. Next: did you mean service/web/?"),
        ("nodes/n1", "no topic can match nodes/n1. Next: did you mean node/n1/?"),
        ("bad topic", "is not a topic pattern"),
    ],
)
def test_a_pattern_that_nothing_can_match_is_refused_with_what_was_meant(pattern: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        some_topic(pattern)
    told = f"{caught.value.message}. Next: {caught.value.next}"
    if says.startswith("no topic can match"):
        assert (caught.value.code, told) == ("topic.none", says)
    else:
        assert caught.value.code != "topic.none"
        assert says in told


@pytest.mark.parametrize("pattern", ["/", "node/", "+/web/", "service/web/spec", "user/x", "broker/+/session/operator/"])
def test_a_pattern_that_something_can_match_is_taken(pattern: str) -> None:
    assert some_topic(pattern) == pattern
