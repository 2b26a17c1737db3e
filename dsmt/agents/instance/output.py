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
from dsmt.agents.rules.trimming import look_again_s
from dsmt.ports.logs import STREAMS, Logs
from dsmt.spec.records import Logs as Bounds

LAST_BYTES: Final = 4096
MARKS: Final = 3000
"""How often it is remembered how far a stream had come: a day, at two a minute."""


class Output:
    """The output of one instance's runs: the present one's and the one's before."""

    def __init__(self, logs: Logs, memory: Memory) -> None:
        self._logs = logs
        self._memory = memory
        self._marks: dict[str, deque[tuple[int, int]]] = {stream: deque(maxlen=MARKS) for stream in STREAMS}
        """How far each stream had come, and when (realm ms), the newest last."""
        self._looked: tuple[float, dict[str, int]] | None = None
        """When was trimmed last (boot-time s), and how far each stream had come then."""

    def turn(self, bounds: Bounds) -> None:
        """A new run is about to begin, and nobody writes: note where it begins, and where the last one was."""
        record = self._memory.record
        output, before = {}, {}
        for stream in STREAMS:
            end = self._logs.end(stream)
            begun = self._logs.begin(stream, size_bytes=bounds.size_bytes, keep=bounds.keep)
            before[stream] = (begun.rotated, record.output.get(stream, 0), end)
            output[stream] = begun.offset
            if begun.offset < end:
                self._marks[stream].clear()
        self._memory.note(output=output, before=before)

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
        begin = self._memory.record.output.get(stream, 0)
        known = [place for at_ms, place in self._marks[stream] if since_ms is not None and at_ms <= since_ms]
        return max(begin, known[-1]) if known else begin

    def since(self, stream: str, place: int, *, most: int, whole: bool = True) -> tuple[str, int]:
        """What was written behind a place, at most the last of it, and the place behind that; `whole` lines only."""
        end, raw = self._logs.end(stream), b""
        if end < place:  # the file was put aside meanwhile, with what was not read of it
            rotated, _, last = self._memory.record.before.get(stream, (False, 0, 0))
            raw = self._logs.read(stream, place, last, rotated=True, most=most) if rotated else b""
            place = 0
        raw += self._logs.read(stream, place, end, most=most)
        lines = raw[: raw.rfind(b"\n") + 1] if whole else raw
        return lines.decode(errors="replace"), end - (len(raw) - len(lines))

    def read(self, stream: str, *, previous: bool, most: int) -> str:
        """The end of what the present run has written, or the one before."""
        record = self._memory.record
        if previous:
            rotated, start, end = record.before.get(stream, (False, 0, 0))
            raw = self._logs.read(stream, start, end, rotated=rotated, most=most)
        else:
            raw = self._logs.read(stream, record.output.get(stream, 0), None, most=most)
        return raw.decode(errors="replace")

    def read_step(self, step: str, *, most: int) -> str:
        """The end of what a step (`install`, `configure` ...) has written."""
        return self._logs.read(step, 0, None, most=most).decode(errors="replace")

    def last_words(self, *, turned: bool) -> str | None:
        """The end of a dead run's standard error; `turned` says that the next run has begun already."""
        return self.read("stderr", previous=turned, most=LAST_BYTES) or None

    def all_last_words(self, *, turned: bool) -> str:
        """The end of both of its streams: many programs write to standard output why they end."""
        return "\n".join(self.read(stream, previous=turned, most=LAST_BYTES) for stream in ("stdout", "stderr"))
