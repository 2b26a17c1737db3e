"""Logs that somebody asks for."""

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.agents.instance import log_answers
from dsmt.agents.instance.log_answers import FOLLOW_S, _batches
from dsmt.agents.instance.output import LONG_BYTES, Output
from dsmt.agents.instance.present import Present
from dsmt.agents.rules.record import InstanceRecord, Written
from dsmt.errors import TransportError
from dsmt.event.kinds.instance import Command
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.ports.driver import Launch
from dsmt.ports.logs import Begun
from dsmt.ports.processes import Exit
from dsmt.spec.records import LogRotation
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import command
from .world import WEB, Site


@in_virtual_time
async def test_retry_tries_at_once_what_is_parked() -> None:
    site = Site(Realm())
    site.machine.steps["sleep"] = Exit(1, None)
    site.place(WEB + "    restart: {escalate: [{restart: 2}]}\n")
    agent = site.start()
    await site.realm.until(lambda: site.statuses() and site.statuses()[-1]["parked"])
    site.machine.steps.clear()
    began = asyncio.get_running_loop().time()
    command(site, "RETRY")
    await site.until("running")
    assert asyncio.get_running_loop().time() - began < 1
    assert not site.statuses()[-1]["parked"]
    agent.kill()


@in_virtual_time
async def test_logs_are_answered_to_the_asker_also_of_the_run_before() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    site.logs.write("stdout", "one\ntwo\n")
    site.machine.alive[0].end(Exit(1, None))
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    site.logs.write("stdout", "three\nfour\n")
    command(site, "LOGS", "l1", lines=1, stream="stdout")
    command(site, "LOGS", "l2", lines=5, stream="stdout", previous=True)
    topic = "service/web/log/app/0/n1/stdout"
    await site.realm.until(lambda: len(site.realm.told(topic)) == 2)
    now, before = site.realm.told(topic)
    assert (now["lines"], now["last"]) == (["four"], True)
    assert before["lines"] == ["one", "two"]
    assert next(s.event.to for s in site.realm.log if s.event.topic == topic) == ("operator/op",)
    agent.kill()


@pytest.mark.parametrize("about", [{"asker": "nobody's name!"}, {"id": "x" * 64_250}], ids=["no asker", "no id"])
@pytest.mark.parametrize("verb", ["LOGS", "RETRY"])
@in_virtual_time
async def test_a_command_that_nobody_could_be_answered_ends_no_agent(verb: Any, about: dict[str, str]) -> None:
    """A thief of a controller's key names no source as who asks, or calls the command by what fits into no status."""
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    site.logs.write("stderr", "a line\n" * 100)
    told = Command(**{"id": "c0", "verb": verb, "generation": 1, "asker": "operator/op", **about})
    site.spec_bus.emit(Draft(site.slot.command_topic, to_data(told), to=("node/n1",)))
    await asyncio.sleep(1)  # in virtual time: whatever it does is done
    command(site, "LOGS")
    topic = "service/web/log/app/0/n1/stderr"
    await site.realm.until(lambda: any(one["command"] == "c1" for one in site.realm.told(topic)))
    agent.kill()


@in_virtual_time
async def test_the_log_of_a_step_is_answered_under_its_name() -> None:
    site = Site(Realm())
    site.machine.steps["prepare"] = Exit(4, None)
    site.place(WEB + "    install: prepare it\n")
    site.logs.write("install", "no such thing\n")
    agent = site.start()
    await site.until("failed")
    command(site, "LOGS", "l1", step="install")
    topic = "service/web/log/app/0/n1/install"
    await site.realm.until(lambda: site.realm.told(topic))
    (told,) = site.realm.told(topic)
    assert (told["command"], told["lines"], told["last"]) == ("l1", ["no such thing"], True)
    agent.kill()


@in_virtual_time
async def test_a_depot_that_cannot_be_reached_is_a_reason_and_no_crash() -> None:
    site = Site(Realm())
    site.artifacts.wrong = TransportError("link.lost", "the broker was lost before it answered")
    site.place(WEB.replace("    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    run:"))
    agent = site.start()
    await site.until("failed")
    assert site.statuses()[-1]["reason"]["code"] == "fetch.unreachable"
    assert "the broker was lost" in site.statuses()[-1]["reason"]["message"]
    agent.kill()


@in_virtual_time
async def test_followed_logs_bring_what_is_written_later() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    command(site, "LOGS", "l1", stream="stdout", follow_s=10)
    await asyncio.sleep(2)
    site.logs.write("stdout", "new\nhalf")
    await asyncio.sleep(2)
    site.logs.write("stdout", " a line\n")
    topic = "service/web/log/app/0/n1/stdout"
    await site.realm.until(lambda: site.realm.told(topic) and site.realm.told(topic)[-1]["last"])
    lines = [line for told in site.realm.told(topic) for line in told["lines"]]
    assert lines == ["new", "half a line"]
    agent.kill()


@in_virtual_time
async def test_a_followed_line_has_its_time_and_one_that_was_there_before_has_none() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    site.logs.write("stdout", "old\n")
    command(site, "LOGS", "l1", stream="stdout", follow_s=5)
    await asyncio.sleep(2)
    site.logs.write("stdout", "new\n")
    wrote_ms = site.bus.now_ms()
    topic = "service/web/log/app/0/n1/stdout"
    await site.realm.until(lambda: site.realm.told(topic) and site.realm.told(topic)[-1]["last"])
    by_line = {line: told["written_ms"] for told in site.realm.told(topic) for line in told["lines"]}
    assert by_line["old"] is None
    assert 0 <= by_line["new"] - wrote_ms <= 1000
    agent.kill()


@in_virtual_time
async def test_who_follows_goes_on_where_the_answer_before_ended_over_a_restart_of_the_program() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    site.logs.write("stdout", "one\n")
    command(site, "LOGS", "l1", stream="stdout", follow_s=2)
    topic = "service/web/log/app/0/n1/stdout"
    await site.realm.until(lambda: site.realm.told(topic) and site.realm.told(topic)[-1]["last"])
    place = site.realm.told(topic)[-1]["upto"]
    site.logs.write("stdout", "two\nhal")
    site.machine.alive[0].end(Exit(1, None))
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    site.logs.write("stdout", "f\nthree\n")
    command(site, "LOGS", "l2", stream="stdout", after={"stdout": place}, follow_s=2)
    await site.realm.until(lambda: site.realm.told(topic)[-1]["command"] == "l2" and site.realm.told(topic)[-1]["last"])
    lines = [line for told in site.realm.told(topic) if told["command"] == "l2" for line in told["lines"]]
    assert lines == ["two", "half", "three"]
    agent.kill()


@in_virtual_time
async def test_logs_since_a_time_leave_out_what_was_written_half_a_minute_before_it() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    site.logs.write("stdout", "early\n")
    await asyncio.sleep(90)
    since_ms = site.bus.now_ms()
    site.logs.write("stdout", "late\n")
    command(site, "LOGS", "l1", stream="stdout", lines=10, since_ms=since_ms)
    command(site, "LOGS", "l2", stream="stdout", lines=10, since_ms=since_ms - 3_600_000)
    topic = "service/web/log/app/0/n1/stdout"
    await site.realm.until(lambda: len(site.realm.told(topic)) == 2)
    assert [told["lines"] for told in site.realm.told(topic)] == [["late"], ["early", "late"]]
    agent.kill()


@in_virtual_time
async def test_who_asks_for_logs_changes_nothing_that_is_said_of_the_instance() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(site.good)
    said = len(site.statuses())
    command(site, "LOGS", "l1", lines=1)
    await site.realm.until(lambda: site.realm.told("service/web/log/app/0/n1/stderr"))
    assert len(site.statuses()) == said
    agent.kill()


class PutAside:
    """Logs of which each is put aside when a run begins."""

    def __init__(self, **ends: int) -> None:
        self.ends = ends

    def end(self, stream: str) -> int:
        return self.ends.get(stream, 0)

    def path(self, stream: str) -> str:
        return f"/{stream}.log"

    def begin(self, stream: str, **_: Any) -> Begun:
        self.ends[stream] = 0
        return Begun(0, rotated=True)


def test_where_a_run_begins_in_a_new_file_what_stood_in_the_one_before_is_no_place_in_it() -> None:
    record = InstanceRecord(boot="b1")
    logs: Any = PutAside(stdout=5000, stderr=0)
    memory: Any = SimpleNamespace(record=record)
    memory.note = lambda **about: setattr(memory, "record", msgspec.structs.replace(memory.record, **about))
    bounds: Any = SimpleNamespace(size_bytes=1000, keep=1)
    output = Output(logs, memory, Present())
    output.mark(1_000)
    launch = output.turn(bounds, 1, Launch(argv=(), directory="/", env={}, stdout="", stderr=""))
    assert (launch.stdout, launch.stderr) == ("/stdout.log", "/stderr.log")
    logs.ends["stdout"] = 70
    output.mark(3_000)
    assert output.place("stdout", since_ms=2_000) == 0
    assert output.place("stdout", since_ms=3_500) == 70
    assert memory.record.writes == Written(revision=1, places={"stdout": (1, 0, None), "stderr": (0, 0, None)})


@pytest.mark.parametrize(("since_ms", "place"), [(500, 300), (1_500, 300), (9_000, 400), (11_500, 900)])
def test_of_what_is_shown_since_a_time_nothing_is_of_the_run_before_nor_of_a_time_in_which_nothing_was_written(
    since_ms: int, place: int
) -> None:
    ends = {"stdout": 100}
    logs: Any = SimpleNamespace(end=lambda log: ends.get(log, 0))
    record = InstanceRecord(boot="b1", writes=Written(revision=2, places={"stdout": (0, 300, None)}))
    memory: Any = SimpleNamespace(record=record)
    output = Output(logs, memory, Present())
    for now_ms, end in ((1_000, 100), (2_000, 400), (3_000, 400), (10_000, 400), (11_000, 900)):
        ends["stdout"] = end
        output.mark(now_ms)
    assert output.place("stdout", since_ms=since_ms) == place


@pytest.mark.parametrize(("wanted", "lines"), [(0, []), (1, ["c"]), (3, ["a", "b", "c"]), (-1, ["a", "b", "c"])])
def test_an_answer_has_as_many_of_the_last_lines_as_are_asked_for_also_none(wanted: int, lines: list[str]) -> None:
    assert log_answers._last("a\nb\nc\n", {"lines": wanted}) == lines


def test_what_is_written_to_a_file_that_was_begun_anew_counts_from_its_beginning() -> None:
    ends = {"stdout": 5000, "stderr": 0}
    logs: Any = SimpleNamespace(end=lambda log: ends.get(log, 0), trim=lambda *_, **__: None)
    nothing: Any = None
    output, bounds = Output(logs, nothing, Present()), LogRotation(size_bytes=1000, keep=1, rate_bytes=1)
    output.trim(bounds, 10.0)
    ends["stdout"] = 4000
    assert output.trim(bounds, 11.0) == 0.25
    ends["stdout"] = 4500
    assert output.trim(bounds, 12.0) == 2.0


class Rotated:
    """A stream that was put aside after so many bytes, and the one that stands in its place."""

    def __init__(self, before: bytes, now: bytes) -> None:
        self.before, self.now = before, now

    def end(self, _stream: str) -> int:
        return len(self.now)

    def read(self, _stream: str, start: int, end: int | None, *, back: int = 0, most: int) -> bytes:
        return (self.before if back else self.now)[start:end][-most:]


def test_who_follows_gets_the_end_of_the_file_that_was_put_aside_and_all_of_the_new_one() -> None:
    before = b"one\ntwo\nthree\n"
    memory: Any = SimpleNamespace(record=InstanceRecord(boot="b1"))
    logs: Any = Rotated(before, b"four\nfi")
    assert Output(logs, memory, Present()).since("stdout", 8, most=1000) == ("three\nfour\n", 5)
    none_is_kept: Any = Rotated(b"", b"four\nfi")
    assert Output(none_is_kept, memory, Present()).since("stdout", 8, most=1000) == ("four\n", 5)


def test_who_follows_gets_what_there_is_of_a_long_line_that_does_not_end() -> None:
    memory: Any = SimpleNamespace(record=InstanceRecord(boot="b1"))
    short: Any = Rotated(b"", b"x" * (LONG_BYTES - 1))
    assert Output(short, memory, Present()).since("stdout", 0, most=2 * LONG_BYTES) == ("", 0)
    long: Any = Rotated(b"", b"one\n" + b"x" * LONG_BYTES)
    output = Output(long, memory, Present())
    assert output.since("stdout", 0, most=2 * LONG_BYTES) == ("one\n", 4)
    assert output.since("stdout", 4, most=2 * LONG_BYTES) == ("x" * LONG_BYTES, LONG_BYTES + 4)


def test_lines_of_any_script_fit_into_the_events_that_bring_them() -> None:
    lines = ["\N{PILE OF POO}" * 5_000] * 10 + ["a" * 8_000] * 10
    batches = list(_batches(lines))
    assert [line for batch in batches for line in batch] == lines
    assert max(sum(len(line.encode()) for line in batch) for batch in batches) < 60 * 1024
    assert len(batches) < 16, "lines in plain letters are not sent one by one"


@in_virtual_time
async def test_logs_are_followed_for_a_minute_however_long_they_were_asked_for() -> None:
    """Its asker asks again; one that has gone is sent nothing more."""
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    began, topic = asyncio.get_running_loop().time(), "service/web/log/app/0/n1/stdout"
    command(site, "LOGS", "l1", stream="stdout", follow_s=300)
    await site.realm.until(lambda: site.realm.told(topic) and site.realm.told(topic)[-1]["last"], 600)
    assert FOLLOW_S <= asyncio.get_running_loop().time() - began < FOLLOW_S + 2
    agent.kill()
