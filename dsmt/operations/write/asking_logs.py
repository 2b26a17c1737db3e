"""Logs: what instances have written, asked of their agents (LOGS, rule A7), who answer to the asker's inbox.

Rule 1: the answer's end is marked by the agent; who does not answer within `ANSWER_S` is told as such.
Rule 2: who follows asks again when an answer ends, from the place behind it, so that no line is lost or comes twice.
Rule 3: who follows goes with an instance to another node and to another agent, and is told of it; an agent that does not
    answer is asked again until it does.
Rule 4: the time of a line is what its agent knows of it, else null; the time of the answer is another one.
    Whose lines come from another program than those before is told: two may run side by side.
    Nobody but the agent that was asked answers, and a line of it is one line, whatever it holds.
Rule 5: of whom nothing was written that was asked for, that is told; of one that has ended on a node that it has left, and
    has not run where it is now, what became of what it wrote.
Rule 6: who does not follow takes of each log as many lines as it asked for, and no more text than an agent answers with,
    within `LONGEST_S`: an agent whose key was stolen says more, or goes on without end. That is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

import msgspec

from dsmt.agents.rules.record import BESIDE
from dsmt.errors import NotFoundError, TimedOutError
from dsmt.event.envelope import Event
from dsmt.event.kinds.instance import STEPS, LogLines
from dsmt.event.records import readable
from dsmt.event.slots import SlotKey, index_of
from dsmt.operations.read.realm.patience import told_if_slow
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.words.targets import Target, slots_of, still_there
from dsmt.operations.words.times import local
from dsmt.operations.write.controlling import command
from dsmt.ports.bus import Arrived, Bus, Delivery, Interest, Start
from dsmt.ports.logs import MOST_ANSWERED, STREAMS

ANSWER_S: Final = 10.0
LONGEST_S: Final = 120.0
"""The longest that an answer may take which nobody follows."""
FOLLOW_S: Final = 50
MOST: Final = 10_000
"""The most lines that an agent sends of what there is already."""


class LogQuery(msgspec.Struct, frozen=True):
    """What is asked: the last `lines` of each stream, from `since_ms` on if it is given, or the log of one `step`.

    Of the run that is there, of the last that has ended (`previous`), or of the last one of a `revision`.
    """

    lines: int
    since_ms: int | None = None
    follow: bool = False
    previous: bool = False
    revision: int | None = None
    step: str | None = None


class LogLine(msgspec.Struct, frozen=True):
    """One line of one instance. `time_ms` is when it was written, if its agent knows."""

    instance: str
    node: str
    stream: str
    line: str
    time_ms: int | None
    answered_ms: int


class LogNotice(msgspec.Struct, frozen=True):
    """Something that who follows must know: where an instance is now, or that its agent is silent."""

    instance: str
    message: str


Item = LogLine | LogNotice


@dataclass(slots=True)
class _Asked:
    """What was asked of one instance's agent. `places` is how far each stream was read; `spoken`: a line has come.

    `ran_elsewhere` says that it has not run on its node, and where its lines are; it is empty where it may have.
    """

    node: str
    command: str
    arguments: dict[str, Any]
    until: float
    ran_elsewhere: str
    places: dict[str, int] = field(default_factory=dict)
    silent: bool = False
    spoken: bool = False
    beside: bool | None = None
    """Whether its last line was in a second log: of two programs that run side by side each has its own."""
    ends: float = inf
    """When its answer must have ended, if nobody follows it."""
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By stream, how many lines and characters have come of its answer."""

    def within(self, stream: str, lines: tuple[str, ...], most: int) -> tuple[str, ...]:
        """Those of the lines that may still be part of an answer of `most` lines (rule 6)."""
        count, size = self.taken.get(stream, (0, 0))
        found = []
        for one in lines:
            count, size = count + 1, size + len(one)
            if count > most or size > MOST_ANSWERED:
                break
            found.append(one)
        self.taken[stream] = count, size
        return tuple(found)


async def logs(bus: Bus, target: Target, wanted: LogQuery) -> AsyncIterator[list[Item]]:
    """The last lines of each instance of a target, or of the log of one step; then, when followed, what comes.

    Raises `NotFoundError` when nothing of the target is on a node, `TimedOutError` when an agent does not answer.
    """
    reader = _Reader(bus, target, wanted)
    async with bus.subscribe(Interest(reader.patterns(), start=Start.LIVE, inbox=True)) as batches:
        await reader.begin()
        reading = aiter(batches)
        if wanted.follow and (ended := reader.ended_elsewhere()):
            yield ended
        with nullcontext() if wanted.follow else told_if_slow(f"an answer of the agents of {target}"):
            while reader.open:
                found: list[Item] = []
                try:
                    async with asyncio.timeout_at(reader.due()):
                        found = reader.take(await anext(reading))
                except TimeoutError:
                    found = reader.silence()
                if wanted.follow:
                    found += await reader.ask_again()
                if found:
                    yield found
    if not wanted.follow and wanted.lines:
        yield reader.wordless()


class _Reader:
    """Who asks, reads the answers, and asks again."""

    def __init__(self, bus: Bus, target: Target, wanted: LogQuery) -> None:
        self._bus, self._target, self._wanted = bus, target, wanted
        self._asked: dict[SlotKey, _Asked] = {}
        self._names: dict[str, SlotKey] = {}
        self.open: set[SlotKey] = set()
        self._again: set[SlotKey] = set()
        """Whose answer has ended, or is not to be expected any more."""
        self._moved = False

    def patterns(self) -> tuple[str, ...]:
        """The log topics of the target; for who follows also what says that an instance, or its agent, is another one."""
        target = self._target
        below = f"{target.component or '+'}/{'+' if target.index is None else target.index}"
        answers = f"service/{target.service}/log/{below}/"
        if not self._wanted.follow:
            return (answers,)
        return (answers, f"service/{target.service}/slot/{below}", f"source/agent/+/{target.service}/{below}")

    async def begin(self) -> None:
        """Ask all. Raises `NotFoundError`."""
        sight = await look(self._bus)
        first: dict[str, Any] = {"lines": self._wanted.lines, "previous": self._wanted.previous}
        if self._wanted.since_ms is not None:
            first["since_ms"] = self._wanted.since_ms
        if self._wanted.revision is not None:
            first["revision"] = self._wanted.revision
        if self._wanted.step is not None:
            first = {"lines": self._wanted.lines, "step": self._wanted.step}
        for key in slots_of(sight.view, self._target):
            self._ask(sight, key, first)
        if not self._asked:
            target = self._target
            still_there(sight.view, target)
            said = f"no controller has placed {target} on a node"
            raise NotFoundError("logs.nowhere", said, next=f"dsmt ps {target.service}")

    def _ask(self, sight: Sight, key: SlotKey, arguments: dict[str, Any]) -> bool:
        follow_s = FOLLOW_S if self._wanted.follow else 0
        draft = command(self._bus, sight, key, "LOGS", **arguments, follow_s=follow_s)
        if draft is None:
            return False
        before = self._asked.get(key)
        if before is not None:
            self._names.pop(before.command, None)
        node, number = _node(sight, key), draft.data["id"]
        now = asyncio.get_running_loop().time()
        asked = _Asked(node, number, arguments, now + ANSWER_S, _ran_elsewhere(sight, key))
        asked.ends = inf if follow_s else now + LONGEST_S
        if before is not None and before.node == node:
            asked.places, asked.silent = before.places, before.silent
        self._asked[key], self._names[number] = asked, key
        self.open.add(key)
        self._bus.emit(draft)
        return True

    def due(self) -> float:
        """When the first answer is overdue."""
        return min(self._asked[key].until for key in self.open)

    def take(self, batch: Sequence[Delivery]) -> list[Item]:
        """The lines of a batch; what else it says decides whom to ask again."""
        found: list[Item] = []
        for delivery in batch:
            if not isinstance(delivery, Arrived):
                continue
            event = delivery.signed.event
            if event.type == "dsmt.log":
                found += self._lines(event)
            elif event.type in ("dsmt.slot", "dsmt.source.started"):
                self._moved = True
                if event.type == "dsmt.source.started":
                    _, service, component, level = event.topic.rsplit("/", 3)
                    if (index := index_of(level)) is not None:  # a node may name an agent as it likes
                        self._again.add(SlotKey(service, component, index))
        return found

    def _lines(self, event: Event) -> list[Item]:
        told = readable(LogLines, event.data)
        key = None if told is None else self._names.get(told.command)
        if told is None or key is None or not event.topic.startswith(f"{key.on('log', self._asked[key].node)}/"):
            return []  # whoever reads the service knows the command, and may say anything on its own topic
        asked, stream = self._asked[key], event.topic.split("/")[6]
        node = asked.node
        if not self._wanted.follow:
            return self._answered(key, asked, stream, told, event.time_ms)
        asked.silent, asked.spoken = False, asked.spoken or bool(told.lines)
        asked.until = asyncio.get_running_loop().time() + ANSWER_S + FOLLOW_S
        if told.upto is not None:
            asked.places[stream] = told.upto
        if told.last:
            self._again.add(key)
        name = stream.removesuffix(BESIDE)
        found: list[Item] = [LogLine(str(key), node, name, one, told.written_ms, event.time_ms) for one in told.lines]
        beside = stream != name
        if found and asked.beside is not beside:
            if asked.beside is not None:
                found.insert(0, LogNotice(str(key), f"{key} on {node}: another of its programs writes, to {stream}.log"))
            asked.beside = beside
        return found

    def _answered(self, key: SlotKey, asked: _Asked, stream: str, told: LogLines, time_ms: int) -> list[Item]:
        """What an answer that nobody follows says (rule 6)."""
        if key not in self.open or stream not in (*STREAMS, *STEPS):
            return []
        lines = asked.within(stream, told.lines, self._wanted.lines)
        if lines:
            asked.spoken, asked.until = True, min(asked.ends, asyncio.get_running_loop().time() + ANSWER_S)
        found: list[Item] = [LogLine(str(key), asked.node, stream, one, told.written_ms, time_ms) for one in lines]
        if len(lines) < len(told.lines):
            asked.spoken = True
            said = f"{key} on {asked.node} answers with more than was asked for: no more is shown"
            found.append(LogNotice(str(key), said))
        if told.last or len(lines) < len(told.lines):
            self.open.discard(key)
        return found

    def silence(self) -> list[Item]:
        """Somebody is overdue: who follows asks again. Raises `TimedOutError`."""
        now = asyncio.get_running_loop().time()
        late = sorted(key for key in self.open if self._asked[key].until <= now)
        if not self._wanted.follow:
            names = ", ".join(map(str, late))
            advice = "dsmt ps shows whether it runs, dsmt nodes whether its node is alive"
            ended = " to the end" if any(self._asked[key].spoken for key in late) else ""
            raise TimedOutError("logs.silent", f"the agent of {names} did not answer{ended}", next=advice)
        self._again.update(late)
        found: list[Item] = []
        for key in late:
            asked = self._asked[key]
            if not asked.silent:
                found.append(LogNotice(str(key), f"the agent of {key} on {asked.node} does not answer; trying again"))
            asked.silent, asked.until = True, now + ANSWER_S
        return found

    def wordless(self) -> list[Item]:
        """Of whom no line has come (rule 5)."""
        quiet = [(key, asked) for key, asked in sorted(self._asked.items()) if not asked.spoken]
        return [LogNotice(str(key), f"{key} on {asked.node}: {_nothing(self._wanted, key, asked)}") for key, asked in quiet]

    def ended_elsewhere(self) -> list[Item]:
        """Whose lines are not where it is now (rule 5): who follows would wait for them."""
        ended = [(key, asked) for key, asked in sorted(self._asked.items()) if asked.ran_elsewhere]
        return [LogNotice(str(key), f"{key} on {asked.node}: {asked.ran_elsewhere}") for key, asked in ended]

    async def ask_again(self) -> list[Item]:
        """Ask those whose answer has ended, and those who are elsewhere now (rules 2 and 3)."""
        if not self._again and not self._moved:
            return []
        sight = await look(self._bus)
        found: list[Item] = []
        for key in slots_of(sight.view, self._target):
            node, before = _node(sight, key), self._asked.get(key)
            if not node:
                continue
            if before is None or before.node != node:
                if self._ask(sight, key, {"lines": MOST, "previous": False}):
                    found.append(LogNotice(str(key), f"{key} is on {node} now"))
            elif key in self._again:
                self._ask(sight, key, {"after": dict(before.places)} if before.places else before.arguments)
        self._again, self._moved = set(), False
        return found


def _nothing(wanted: LogQuery, key: SlotKey, asked: _Asked) -> str:
    """The sentence for a log that is empty: what has written nothing."""
    if wanted.step is not None:
        return f"its `{wanted.step}` command has written nothing, or has not run"
    if asked.ran_elsewhere:
        return asked.ran_elsewhere
    if wanted.revision is not None:
        went_on = f"if it changed nothing that runs, what ran before went on: dsmt logs {key}"
        return f"no run of r{wanted.revision} is known here of which anything is kept; {went_on}"
    if wanted.previous:
        return "the last run that has ended has written nothing that is kept, or none has ended here"
    since = "" if wanted.since_ms is None else " since then"
    return f"this run has written nothing{since}"


def _ran_elsewhere(sight: Sight, key: SlotKey) -> str:
    """That it has ended on a node that it has left, and what became of what it wrote there; empty where it has not."""
    entry = sight.view.slot(key)
    fact = entry.record
    if fact is None or fact.ended is None:
        return ""
    there = ", ".join(node for node in entry.holders if node != fact.node)
    left = f"what it wrote is on {there} until that ends what is left there" if there else "what it wrote was deleted there"
    return f"it ended at {local(fact.ended.at_ms)} on a node that it has left, and has not run here; {left}"


def _node(sight: Sight, key: SlotKey) -> str:
    fact = sight.view.slot(key).record
    return "" if fact is None else fact.node or ""
