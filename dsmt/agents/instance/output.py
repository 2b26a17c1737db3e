"""Output: where what each run wrote stands in the log files, since when, and a run's last words.

Rule 1: a program writes its files itself, so nobody knows the time of a line; but how far they had come is noted now and
    then, and what stands behind that was written later.
Rule 2: what is over the bounds is freed as often as the rate of writing asks for (`rules.trimming`); of what is not
    written to nothing is looked at but with a heartbeat.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.present import Present
from dsmt.agents.rules import after
from dsmt.agents.rules.record import InstanceRecord, Written
from dsmt.agents.rules.trimming import look_again_s
from dsmt.ports.logs import STREAMS, Logs
from dsmt.spec.records import Logs as Bounds

LAST_BYTES: Final = 4096
MARKS: Final = 3000
"""How often it is remembered how far a stream had come: a day, at two a minute."""


class Output:
    """The output of one instance's runs: of what runs, and of those that have ended."""

    def __init__(self, logs: Logs, memory: Memory, present: Present) -> None:
        self._logs = logs
        self._memory = memory
        self._present = present
        self._marks: dict[str, deque[tuple[int, int]]] = {stream: deque(maxlen=MARKS) for stream in STREAMS}
        """How far each stream had come, and when (realm ms), the newest last."""
        self._looked: tuple[float, dict[str, int]] | None = None
        """When was trimmed last (boot-time s), and how far each stream had come then."""

    def turn(self, bounds: Bounds, revision: int) -> None:
        """A new run is about to begin, and nobody writes: note where it begins, and where the last one was."""
        record = self._memory.record
        ends, turned = {}, dict(record.turned)
        places: dict[str, tuple[int, int, int | None]] = {}
        for stream in STREAMS:
            ends[stream] = end = self._logs.end(stream)
            begun = self._logs.begin(stream, size_bytes=bounds.size_bytes, keep=bounds.keep)
            if begun.offset < end:
                self._marks[stream].clear()
                turned[stream] = turned.get(stream, 0) + 1
            places[stream] = (turned.get(stream, 0), begun.offset, None)
        self._memory.note(**after.begins_to_write(record, Written(revision=revision, places=places), ends, turned))

    def not_begun(self) -> None:
        """It could not be begun."""
        self._memory.note(writes=None)

    def mark(self, now_ms: int) -> None:
        """Note how far each stream has come; of a time in which nothing was written, its begin and its end."""
        for stream, marks in self._marks.items():
            place = self._logs.end(stream)
            if len(marks) > 1 and marks[-1][1] == marks[-2][1] == place:
                marks.pop()
            marks.append((now_ms, place))

    def trim(self, bounds: Bounds, now: float) -> float | None:
        """Free what is over the bounds, also while the program writes; in how many seconds to look again, if soon."""
        for stream in STREAMS:
            self._logs.trim(stream, size_bytes=bounds.size_bytes, keep=bounds.keep)
        ends = {stream: self._logs.end(stream) for stream in STREAMS}
        before, self._looked = self._looked, (now, ends)
        if before is None:
            return look_again_s(0.0, max(ends.values()), bounds.size_bytes)
        looked, known = before
        written = max(end - known[stream] if end >= known[stream] else end for stream, end in ends.items())
        return look_again_s(now - looked, written, bounds.size_bytes)

    def place(self, stream: str, *, since_ms: int | None = None) -> int:
        """Where the present run's output begins, or what it wrote since a time, and not much more (rule 1)."""
        begin = self._begin(self._shown(), stream)
        known = [place for at_ms, place in self._marks[stream] if since_ms is not None and at_ms <= since_ms]
        return max(begin, known[-1]) if known else begin

    def since(self, stream: str, place: int, *, most: int, whole: bool = True) -> tuple[str, int]:
        """What was written behind a place, at most the last of it, and the place behind that; `whole` lines only."""
        end, raw = self._logs.end(stream), b""
        if end < place:  # the file was put aside meanwhile, with what was not read of it
            raw = self._logs.read(stream, place, None, back=1, most=most)
            place = 0
        raw += self._logs.read(stream, place, end, most=most)
        lines = raw[: raw.rfind(b"\n") + 1] if whole else raw
        return lines.decode(errors="replace"), end - (len(raw) - len(lines))

    def previous(self, stream: str, *, most: int) -> str:
        """The end of what the last run has written that has ended: where nothing runs, that is the one begun last."""
        record = self._memory.record
        ended = record.writes is not None and not self._runs()
        return self._read(record.writes if ended else _last(record), stream, most=most)

    def _shown(self) -> Written | None:
        """What runs, the newer of two, or the last that has ended."""
        record = self._memory.record
        if record.outgoing is not None and not self._runs():
            return record.outgoing.writes
        return _last(record) if record.writes is None else record.writes

    def _runs(self) -> bool:
        """Whether what was begun last runs, and is not being ended as failed."""
        run = self._present.run
        return self._memory.record.process is not None if run is None else run.condemned is None

    def _begin(self, one: Written | None, stream: str) -> int:
        """Where a run's output begins, if its file is still the one that is written to; else its end."""
        if one is None:
            return 0
        turn, begin, _ = one.places.get(stream, (0, 0, None))
        return begin if turn == self._memory.record.turned.get(stream, 0) else self._logs.end(stream)

    def _read(self, one: Written | None, stream: str, *, most: int) -> str:
        """The end of what a run has written, as far as that is kept."""
        if one is None or stream not in one.places:
            return ""
        turn, begin, end = one.places[stream]
        back = self._memory.record.turned.get(stream, 0) - turn
        return self._logs.read(stream, begin, end, back=back, most=most).decode(errors="replace")

    def read_step(self, step: str, *, most: int) -> str:
        """The end of what a step (`install`, `configure` ...) has written."""
        return self._logs.read(step, 0, None, most=most).decode(errors="replace")

    def last_words(self, *, turned: bool) -> str | None:
        """The end of a dead run's standard error; `turned` says that the next run has begun already."""
        return self._last_words("stderr", turned=turned) or None

    def all_last_words(self, *, turned: bool) -> str:
        """The end of both of its streams: many programs write to standard output why they end."""
        return "\n".join(self._last_words(stream, turned=turned) for stream in STREAMS)

    def _last_words(self, stream: str, *, turned: bool) -> str:
        record = self._memory.record
        return self._read(_last(record) if turned else record.writes, stream, most=LAST_BYTES)


def _last(record: InstanceRecord) -> Written | None:
    """The run that had ended last before what was begun last."""
    return record.wrote[-1] if record.wrote else None
