"""Log answers: a LOGS command is answered to its asker, on the log topics, the last line marked; no more is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dsmt.agents.instance.output import Output
from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import STEPS, Command, LogLines
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Bus, Draft
from dsmt.ports.clock import Clock
from dsmt.ports.logs import STREAMS

LINES: Final = 100
"""Lines of an answer when none were asked for."""
MOST_BYTES: Final = 1024 * 1024
_EVENT_BYTES: Final = 32 * 1024
_LINE_BYTES: Final = 8 * 1024
FOLLOW_S: Final = 60.0
"""The longest that a LOGS command follows; its asker asks again."""
_LOOK_EACH_S: Final = 0.5


class LogAnswers:
    """Answers LOGS commands.

    Arguments: `lines`, `stream` (`stdout`, `stderr`; both when it is not given), `previous`, `follow_s`, `since_ms`, and
    `after` (by stream the place from which on everything is sent); or `step`, one of `STEPS`, whose log is then sent under
    its own name in the stream's place.
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
            self._answer_step(command, cause, wanted["step"])
            return
        streams = [s for s in STREAMS if wanted.get("stream") in (None, s)]
        follow = min(FOLLOW_S, float(_whole(wanted.get("follow_s"), 0)))
        places = {}
        for stream in streams:
            lines, places[stream] = self._begin(wanted, stream, whole=follow > 0)
            upto = places[stream] if follow else None
            self._say(command, cause, stream, lines, last=follow == 0 and stream == streams[-1], upto=upto)
        ends = self._clock.boottime() + follow
        while streams and self._clock.boottime() < ends:
            await asyncio.sleep(_LOOK_EACH_S)
            for stream in streams:
                new, place = self._output.since(stream, places[stream], most=MOST_BYTES)
                places[stream] = place
                if new:
                    now_ms = self._bus.now_ms()
                    self._say(command, cause, stream, new.splitlines(), last=False, written_ms=now_ms, upto=place)
        if follow and streams:
            self._say(command, cause, streams[-1], [], last=True, upto=places[streams[-1]])

    def _begin(self, wanted: Mapping[str, Any], stream: str, *, whole: bool) -> tuple[list[str], int]:
        """What there is already, and the place behind it."""
        after, since = wanted.get("after"), wanted.get("since_ms")
        if isinstance(after, dict) and isinstance(after.get(stream), int):
            text, place = self._output.since(stream, after[stream], most=MOST_BYTES)
            return text.splitlines(), place
        count, previous = _whole(wanted.get("lines"), LINES), wanted.get("previous") is True
        begin = self._output.place(stream, since_ms=since if isinstance(since, int) else None)
        text, place = self._output.since(stream, begin, most=MOST_BYTES, whole=whole)
        if previous:
            text = self._output.previous(stream, most=MOST_BYTES)
        return (text.splitlines()[-count:] if count else []), place

    def _answer_step(self, command: Command, cause: EventId, step: str) -> None:
        lines = self._output.read_step(step, most=MOST_BYTES).splitlines()
        count = _whole(command.arguments.get("lines"), LINES)
        self._say(command, cause, step, lines[-count:] if count else [], last=True)

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


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= 10_000 else default
