"""Output: where what each run wrote stands in the log files, and a run's last words."""

from __future__ import annotations

from typing import Final

from dsmt.agents.instance.memory import Memory
from dsmt.ports.logs import STREAMS, Logs
from dsmt.spec.records import Logs as Bounds

LAST_BYTES: Final = 4096


class Output:
    """The output of one instance's runs: the present one's and the one's before."""

    def __init__(self, logs: Logs, memory: Memory) -> None:
        self._logs = logs
        self._memory = memory

    def turn(self, bounds: Bounds) -> None:
        """A new run is about to begin, and nobody writes: note where it begins, and where the last one was."""
        record = self._memory.record
        output, before = {}, {}
        for stream in STREAMS:
            end = self._logs.end(stream)
            begun = self._logs.begin(stream, size_bytes=bounds.size_bytes, keep=bounds.keep)
            before[stream] = (begun.rotated, record.output.get(stream, 0), end)
            output[stream] = begun.offset
        self._memory.note(output=output, before=before)

    def trim(self, bounds: Bounds) -> None:
        """Free what is over the bounds, also while the program writes."""
        for stream in STREAMS:
            self._logs.trim(stream, size_bytes=bounds.size_bytes, keep=bounds.keep)

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
