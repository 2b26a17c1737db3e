"""Log answers: a LOGS command is answered to its asker, on the log topics, the last line marked; no more is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dsmt.agents.instance.output import LOGS, Output
from dsmt.agents.rules.record import BESIDE
from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import STEPS, Command, LogLines
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Bus, Draft
from dsmt.ports.clock import Clock
from dsmt.ports.logs import MOST_ANSWERED, STREAMS

LINES: Final = 100
"""Lines of an answer when none were asked for."""
_EVENT_BYTES: Final = 32 * 1024
_LINE_BYTES: Final = 8 * 1024
FOLLOW_S: Final = 60.0
"""The longest that a LOGS command follows; its asker asks again."""
_LOOK_EACH_S: Final = 0.5


class LogAnswers:
    """Answers LOGS commands.

    Arguments: `lines`, `stream` (`stdout`, `stderr`; both when it is not given), `previous`, `revision`, `follow_s`,
    `since_ms`, and `after` (by log the place from which on everything is sent); or `step`, one of `STEPS`, whose log is then
    sent under its own name in the stream's place.
    """

    def __init__(self, bus: Bus, clock: Clock, slot: SlotKey, node: str, output: Output) -> None:
        self._bus = bus
        self._clock = clock
        self._slot = slot
        self._node = node
        self._output = output

    async def answer(self, command: Command, cause: EventId) -> None:
        """Send what was asked for, then what comes while it is followed."""
        wanted = command.arguments
        if wanted.get("step") in STEPS:
            text = self._output.read_step(wanted["step"], most=MOST_ANSWERED)
            self._say(command, cause, wanted["step"], _last(text, wanted), last=True)
            return
        streams = [s for s in STREAMS if wanted.get("stream") in (None, s)]
        follow = min(FOLLOW_S, float(_whole(wanted.get("follow_s"), 0)))
        if follow and streams:
            await self._follow(command, cause, [log for log in LOGS if log.removesuffix(BESIDE) in streams], follow)
            return
        for stream in streams:
            self._say(command, cause, stream, self._lines(wanted, stream), last=stream == streams[-1])

    async def _follow(self, command: Command, cause: EventId, logs: list[str], follow_s: float) -> None:
        """Send what there is and what comes, of each log by its own name: two programs may write, each to its own."""
        places = {}
        for log in logs:
            lines, places[log] = self._begin(command.arguments, log)
            self._say(command, cause, log, lines, last=False, upto=places[log])
        ends = self._clock.boottime() + follow_s
        while self._clock.boottime() < ends:
            await asyncio.sleep(_LOOK_EACH_S)
            for log in logs:
                new, places[log] = self._output.since(log, places[log], most=MOST_ANSWERED)
                if new:
                    about = {"written_ms": self._bus.now_ms(), "upto": places[log]}
                    self._say(command, cause, log, new.splitlines(), last=False, **about)
        self._say(command, cause, logs[0], [], last=True, upto=places[logs[0]])

    def _begin(self, wanted: Mapping[str, Any], log: str) -> tuple[list[str], int]:
        """What there is already in a log of what is shown, and the place behind it."""
        after = wanted.get("after")
        if isinstance(after, dict) and isinstance(after.get(log), int):
            text, place = self._output.since(log, after[log], most=MOST_ANSWERED)
            return text.splitlines(), place
        stream = log.removesuffix(BESIDE)
        text, place = self._output.since(log, self._output.place(log, since_ms=_since(wanted)), most=MOST_ANSWERED)
        if wanted.get("previous") is True:
            return (self._lines(wanted, stream) if log == stream else []), place
        return _last(text, wanted), place

    def _lines(self, wanted: Mapping[str, Any], stream: str) -> list[str]:
        """What there is of the run that is asked for."""
        revision, since_ms = wanted.get("revision"), _since(wanted)
        if isinstance(revision, int):
            run = self._output.of(revision)
        else:
            run = self._output.previous() if wanted.get("previous") is True else self._output.shown()
        if run is None or since_ms is None:
            return _last(self._output.read(run, stream, most=MOST_ANSWERED), wanted)
        log = run.log(stream)
        begin = self._output.place(log, since_ms=since_ms)
        return _last(self._output.since(log, begin, most=MOST_ANSWERED, whole=False)[0], wanted)

    def _say(
        self,
        command: Command,
        cause: EventId,
        stream: str,
        lines: list[str],
        *,
        last: bool,
        written_ms: int | None = None,
        upto: int | None = None,
    ) -> None:
        batches = list(_batches(lines)) or ([()] if last or upto is not None else [])
        for number, batch in enumerate(batches, 1):
            end = number == len(batches)
            about = {"written_ms": written_ms, "upto": upto if end else None}
            told = LogLines(command=command.id, lines=batch, last=last and end, **about)
            topic = f"{self._slot.on('log', self._node)}/{stream}"
            self._bus.emit(Draft(topic, to_data(told), subject=str(self._slot), cause=(cause,), to=(command.asker,)))


def _batches(lines: list[str]) -> Iterator[tuple[str, ...]]:
    """The lines in groups that fit into one event each."""
    batch: list[str] = []
    size = 0
    for line in lines:
        text = line[:_LINE_BYTES]
        if batch and size + len(text) > _EVENT_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(text)
        size += 4 * len(text) + 8 if not text.isascii() else len(text) + 8
    if batch:
        yield tuple(batch)


def _last(text: str, wanted: Mapping[str, Any]) -> list[str]:
    """As many of the last lines as are wanted."""
    count = _whole(wanted.get("lines"), LINES)
    return text.splitlines()[-count:] if count else []


def _since(wanted: Mapping[str, Any]) -> int | None:
    since = wanted.get("since_ms")
    return since if isinstance(since, int) else None


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= 10_000 else default
