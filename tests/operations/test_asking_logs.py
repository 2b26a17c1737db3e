"""Logs: whom one asks, from where one goes on, and what is known of a line's time."""

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec
import pytest

from dsmt.errors import NotFoundError, TimedOutError
from dsmt.event.kinds.instance import LogLines
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Ended, Slot
from dsmt.event.slots import SlotKey
from dsmt.event.status import State
from dsmt.operations.words.targets import Target, slots_of
from dsmt.operations.words.times import local
from dsmt.operations.write import asking_logs
from dsmt.operations.write.asking_logs import Item, LogLine, LogNotice, LogQuery, logs
from dsmt.ports.bus import Bus, Delivery
from tests.controllers.build import Realm, agent, key, web
from tests.controllers.signing import START_MS, signed
from tests.loops import in_virtual_time
from tests.operations.scripted import ScriptedBus, Step, came, complete


def placed(node: str, version: int = 1, instances: int = 1) -> Realm:
    """A realm in which web/app/0 is on a node, and so are others."""
    realm = Realm("n1", "n2")
    spec = realm.apply(web(instances))
    slot = Slot(node=node, spec=str(spec.id), revision=1, desired="running")
    for index in range(instances):
        realm.say("controller/c1", f"service/web/slot/app/{index}", slot, version=version)
    return realm


def view(realm: Realm) -> list[Step]:
    return [[*came(*(event for _, event in realm.rows)), complete(realm.now_ms)]]


class Answers:
    """Agents' answers to the command that was sent last."""

    def __init__(self) -> None:
        self.bus: ScriptedBus
        self._sequence = 1

    def say(self, *lines: str, node: str = "n1", stream: str = "stdout", **about: object) -> Step:
        def made() -> Sequence[Delivery]:
            self._sequence += 1
            told = LogLines(command=self.bus.emitted[-1].data["id"], lines=lines, **{"last": False, **about})  # type: ignore[arg-type]
            topic = f"service/web/log/app/0/{node}/{stream}"
            return came(signed(agent(key(), node), topic, told, sequence=self._sequence, time_ms=START_MS + 5000), live=True)

        return made


def read(bus: ScriptedBus, wanted: LogQuery, count: int | None = None, target: str = "web/app/0") -> list[Item]:
    async def main() -> list[Item]:
        found: list[Item] = []
        async with asyncio.timeout(20):
            async for batch in logs(cast("Bus", bus), Target.parse(target), wanted):
                found += batch
                if count is not None and len(found) >= count:
                    break
        return found

    return asyncio.run(main())


def test_the_time_of_a_line_is_null_until_its_agent_knows_it() -> None:
    answers = Answers()
    script = [answers.say("old"), answers.say("new", written_ms=START_MS + 4000, last=True)]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    assert read(answers.bus, LogQuery(5, since_ms=7)) == [
        LogLine("web/app/0", "n1", "stdout", "old", None, START_MS + 5000),
        LogLine("web/app/0", "n1", "stdout", "new", START_MS + 4000, START_MS + 5000),
    ]
    (draft,) = answers.bus.emitted
    assert draft.data["arguments"] == {"lines": 5, "previous": False, "since_ms": 7, "follow_s": 0}
    assert draft.to == ("agent/n1/web/app/0",)


@pytest.mark.parametrize(("text", "asked", "shown"), [("x", 5, 5), ("x" * 50_000, 1000, 20)])
def test_an_answer_that_goes_on_beyond_what_was_asked_for_ends_there_and_that_is_told(
    text: str, asked: int, shown: int
) -> None:
    answers = Answers()
    sent = 0

    def endless() -> Step:
        nonlocal sent
        sent += 1
        assert sent < 1000, "it is read without end"
        return answers.say(text)()  # type: ignore[operator]

    answers.bus = ScriptedBus([endless] * 1000, view(placed("n1")), now_ms=START_MS)  # type: ignore[list-item]
    found = read(answers.bus, LogQuery(asked))
    assert [one.line for one in found if isinstance(one, LogLine)] == [text] * shown
    assert found[-1] == LogNotice("web/app/0", "web/app/0 on n1 answers with more than was asked for: no more is shown")


@pytest.mark.parametrize(("lines", "longest_s"), [((), 10.0), (("x",), asking_logs.LONGEST_S)])
@in_virtual_time
async def test_an_answer_that_does_not_end_is_waited_for_no_longer_than_an_answer_takes(
    lines: tuple[str, ...], longest_s: float
) -> None:
    answers = Answers()
    now = asyncio.get_running_loop().time
    began = now()
    slowly = [part for _ in range(500) for part in (lambda: None, answers.say(*lines))]
    answers.bus = ScriptedBus(slowly, view(placed("n1")), now_ms=START_MS)
    with pytest.raises(TimedOutError) as caught:
        async for _ in logs(cast("Bus", answers.bus), Target.parse("web/app/0"), LogQuery(1000)):
            pass
    assert caught.value.code == "logs.silent"
    assert now() - began <= longest_s + 1


def test_what_is_on_a_log_that_no_agent_keeps_is_no_answer() -> None:
    answers = Answers()
    script = [answers.say("no", stream="x"), answers.say("no", stream="y", last=True), answers.say("yes", last=True)]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    assert [one.line for one in read(answers.bus, LogQuery(5)) if isinstance(one, LogLine)] == ["yes"]


def test_a_follower_asks_again_from_the_place_behind_what_it_has_read() -> None:
    answers = Answers()
    script = [answers.say("one", upto=4), answers.say(last=True, upto=9), answers.say("two", upto=13)]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    found = read(answers.bus, LogQuery(5, follow=True), count=2)
    assert [one.line for one in found if isinstance(one, LogLine)] == ["one", "two"]
    assert [draft.data["arguments"].get("after") for draft in answers.bus.emitted] == [None, {"stdout": 9}]


def test_a_follower_knows_its_place_in_a_stream_of_which_an_answer_said_nothing() -> None:
    answers = Answers()
    script = [
        answers.say("out", upto=4), answers.say("err", stream="stderr", upto=7, last=True),
        answers.say("two", upto=9, last=True), answers.say("three"),
    ]  # fmt: skip
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    assert len(read(answers.bus, LogQuery(5, follow=True), count=4)) == 4
    assert [draft.data["arguments"].get("after") for draft in answers.bus.emitted] == [
        None, {"stdout": 4, "stderr": 7}, {"stdout": 9, "stderr": 7},
    ]  # fmt: skip


def test_a_follower_goes_to_another_node_with_the_instance_and_says_so() -> None:
    answers = Answers()
    after = placed("n2", version=2)
    moved = next(event for _, event in after.rows if event.event.type == "dsmt.slot")
    script: list[Step] = [answers.say("one", upto=4), came(moved, live=True), answers.say("two", node="n2")]
    answers.bus = ScriptedBus(script, view(placed("n1")), view(after), now_ms=START_MS)
    found = read(answers.bus, LogQuery(5, follow=True), count=3)
    assert found[1] == LogNotice("web/app/0", "web/app/0 is on n2 now")
    assert [(one.node, one.line) for one in found if isinstance(one, LogLine)] == [("n1", "one"), ("n2", "two")]
    assert [draft.to for draft in answers.bus.emitted] == [("agent/n1/web/app/0",), ("agent/n2/web/app/0",)]
    assert answers.bus.emitted[1].data["arguments"]["lines"] == asking_logs.MOST


def test_a_follower_asks_a_new_agent_of_the_same_node_from_where_it_was() -> None:
    answers = Answers()
    begun = signed(agent(key(), "n1"), f"source/{agent(key(), 'n1')}", {"x": 1}, incarnation=START_MS + 1)
    script: list[Step] = [answers.say("one", upto=4), came(begun, live=True), answers.say("two")]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    assert len(read(answers.bus, LogQuery(5, follow=True), count=2)) == 2
    assert answers.bus.emitted[1].data["arguments"]["after"] == {"stdout": 4}


def test_a_follower_is_told_whenever_another_one_of_two_programs_writes() -> None:
    answers = Answers()
    script: list[Step] = [answers.say("good", upto=4), answers.say("bad", stream="stdout-2"), answers.say("on", upto=7)]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    found = read(answers.bus, LogQuery(5, follow=True), count=5)
    assert [one.message if isinstance(one, LogNotice) else (one.stream, one.line) for one in found] == [
        ("stdout", "good"),
        "web/app/0 on n1: another of its programs writes, to stdout-2.log",
        ("stdout", "bad"),
        "web/app/0 on n1: another of its programs writes, to stdout.log",
        ("stdout", "on"),
    ]


def test_an_agent_whose_name_is_of_no_slot_ends_nothing() -> None:
    answers = Answers()
    name = "agent/n1/web/app/x"
    begun = signed(name, f"source/{name}", {"x": 1}, incarnation=START_MS + 1)
    script: list[Step] = [answers.say("one", upto=4), came(begun, live=True), answers.say("two")]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    found = read(answers.bus, LogQuery(5, follow=True), count=2, target="web")
    assert [one.line for one in found if isinstance(one, LogLine)] == ["one", "two"]
    assert len(answers.bus.emitted) == 1


def test_nobody_answers_in_the_name_of_another_instance_nor_of_its_agent_on_another_node() -> None:
    """Whoever reads the service knows the command: an agent of another slot, and one of this slot on a node that lies."""
    answers, forged = Answers(), LogLines(command="", lines=("forged",), last=True, upto=99)

    def lies(other: SlotKey, node: str) -> Step:
        def made() -> Sequence[Delivery]:
            told = msgspec.structs.replace(forged, command=answers.bus.emitted[-1].data["id"])
            return came(signed(agent(other, node), f"{other.on('log', node)}/stdout", told), live=True)

        return made

    script = [lies(key(1), "n1"), lies(key(0), "n2"), answers.say("own", last=True)]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    found = read(answers.bus, LogQuery(5), target="web")
    assert [(one.instance, one.node, one.line) for one in found if isinstance(one, LogLine)] == [("web/app/0", "n1", "own")]


def test_an_agent_that_does_not_answer_is_an_error_or_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_logs, "ANSWER_S", 0.05)
    with pytest.raises(TimedOutError, match="the agent of web/app/0 did not answer"):
        read(ScriptedBus([lambda: None], view(placed("n1")), now_ms=START_MS), LogQuery(5))
    answers = Answers()
    answers.bus = ScriptedBus([lambda: None, answers.say("one")], view(placed("n1")), now_ms=START_MS)
    found = read(answers.bus, LogQuery(5, follow=True), count=2)
    assert found[0] == LogNotice("web/app/0", "the agent of web/app/0 on n1 does not answer; trying again")
    assert isinstance(found[1], LogLine)
    assert len(answers.bus.emitted) >= 2


@in_virtual_time
async def test_who_does_not_answer_is_told_in_time_however_long_another_one_is_followed() -> None:
    began, bus = asyncio.get_running_loop().time(), ScriptedBus(view(placed("n1", instances=2)), now_ms=START_MS)
    reader = asking_logs._Reader(cast("Bus", bus), Target.parse("web"), LogQuery(5, follow=True))
    await reader.begin()
    reader._asked[key(1)].until += asking_logs.FOLLOW_S  # it has answered
    assert reader.due() == began + asking_logs.ANSWER_S


def test_each_time_that_an_agent_falls_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_logs, "ANSWER_S", 0.05)
    monkeypatch.setattr(asking_logs, "FOLLOW_S", 0)
    answers = Answers()
    script = [lambda: None, answers.say("one"), lambda: None, answers.say("two")]
    answers.bus = ScriptedBus(script, view(placed("n1")), now_ms=START_MS)
    found = read(answers.bus, LogQuery(5, follow=True), count=4)
    assert [type(one) for one in found] == [LogNotice, LogLine, LogNotice, LogLine]


def test_what_is_on_no_node_has_no_logs() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    with pytest.raises(NotFoundError) as caught:
        read(ScriptedBus([], view(realm), now_ms=START_MS), LogQuery(5))
    assert caught.value.code == "logs.nowhere"


WENT_ON = "if it changed nothing that runs, what ran before went on: dsmt logs web/app/0"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (LogQuery(5), "web/app/0 on n1: this run has written nothing"),
        (LogQuery(5, since_ms=7), "web/app/0 on n1: this run has written nothing since then"),
        (
            LogQuery(5, previous=True),
            "web/app/0 on n1: the last run that has ended has written nothing that is kept, or none has ended here",
        ),
        (
            LogQuery(5, revision=2),
            f"web/app/0 on n1: no run of r2 is known here of which anything is kept; {WENT_ON}",
        ),
        (LogQuery(5, step="install"), "web/app/0 on n1: its `install` command has written nothing, or has not run"),
        (LogQuery(0), None),
    ],
)
def test_who_gets_no_line_is_told_so_unless_none_was_asked_for(wanted: LogQuery, said: str | None) -> None:
    answers = Answers()
    answers.bus = ScriptedBus([answers.say(last=True)], view(placed("n1")), now_ms=START_MS)
    assert read(answers.bus, wanted) == ([] if said is None else [LogNotice("web/app/0", said)])


@pytest.mark.parametrize(
    ("left", "said"),
    [(State.GONE, "was deleted there"), (State.FAILED, "is on n2 until that ends what is left there")],
)
def test_of_what_has_ended_on_a_node_that_it_has_left_it_is_told_what_became_of_what_it_wrote(
    left: State, said: str
) -> None:
    realm = placed("n1", version=2)
    slot = msgspec.structs.replace(realm.slot(), ended=Ended(at_ms=START_MS, ran_s=1.0))
    realm.say("controller/c1", "service/web/slot/app/0", slot, version=3)
    realm.status(key(), "n2", left)
    told = f"it ended at {local(START_MS)} on a node that it has left, and has not run here; what it wrote {said}"
    for wanted in (LogQuery(5), LogQuery(5, previous=True)):
        answers = Answers()
        answers.bus = ScriptedBus([answers.say(last=True)], view(realm), now_ms=START_MS)
        assert read(answers.bus, wanted) == [LogNotice("web/app/0", f"web/app/0 on n1: {told}")]
    answers.bus = ScriptedBus([], view(realm), now_ms=START_MS)
    assert read(answers.bus, LogQuery(5, follow=True), count=1) == [LogNotice("web/app/0", f"web/app/0 on n1: {told}")]


def test_of_a_service_that_was_removed_no_part_is_looked_for() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    realm.apply(web(1), removed=True)
    realm.status(key(), "n1", State.GONE)
    realm.settle(seconds=1)
    realm.say("controller/c1", "tombstone/service/web", Tombstone(by="controller/c1", reason="removed"))
    with pytest.raises(NotFoundError) as caught:
        slots_of(realm.view, Target.parse("web/app/0"))
    assert (caught.value.code, caught.value.next) == ("service.unknown", "dsmt history web")
    with pytest.raises(NotFoundError, match="no service web any more: it was removed") as caught:
        read(ScriptedBus([], view(realm), now_ms=START_MS), LogQuery(5), target="web")
    assert caught.value.next == "dsmt history web"
