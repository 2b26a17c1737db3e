"""Output: where what each run wrote stands in the log files, since when, and a run's last words.

Rule 1: a program writes its files itself, so nobody knows the time of a line; but how far they had come is noted now and
    then, and what stands behind that was written later.
Rule 2: what is over the bounds is freed as often as the rate of writing asks for (`rules.output_trimming`); of what is not
    written to nothing is looked at but with a heartbeat.
Rule 3: no two programs write to one file: each stream has two logs, and where the copy before runs beside a new one
    (`update.order: start_first`), the new one writes to those that the other does not.
Rule 4: who follows is given whole lines; of one that does not end, what there is of it, as soon as that is `LONG_BYTES`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec.structs import replace

from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.present import Present
from dsmt.agents.rules import after
from dsmt.agents.rules.output_trimming import look_again_s
from dsmt.agents.rules.record import BESIDE, InstanceRecord, Written
from dsmt.ports.driver import Launch
from dsmt.ports.logs import STREAMS, Logs
from dsmt.spec.records import LogRotation

LAST_BYTES: Final = 4096
LONG_BYTES: Final = 8192
LOGS: Final = tuple(f"{stream}{which}" for which in ("", BESIDE) for stream in STREAMS)
"""All logs of runs."""
MARKS: Final = 3000
"""How often it is remembered how far a stream had come: a day, at two a minute."""


class Output:
    """The output of one instance's runs: of what runs, and of those that have ended."""

    def __init__(self, logs: Logs, memory: Memory, present: Present) -> None:
        self._logs = logs
        self._memory = memory
        self._present = present
        self._marks: dict[str, deque[tuple[int, int]]] = {stream: deque(maxlen=MARKS) for stream in LOGS}
        """How far each log had come, and when (realm ms), the newest last."""
        self._looked: tuple[float, dict[str, int]] | None = None
        """When was trimmed last (boot-time s), and how far each stream had come then."""

    def turn(self, bounds: LogRotation, revision: int, launch: Launch) -> Launch:
        """A new run is about to begin: what it is to be started with. Note where it begins, and where the last one was.

        It writes to logs to which nobody writes: where the copy before runs beside it, to others than that (rule 3).
        """
        record = self._memory.record
        run = Written(revision=revision, beside=_is_beside(record))
        ends, turned = {}, dict(record.turned)
        for name in map(run.log, STREAMS):
            ends[name] = end = self._logs.end(name)
            begun = self._logs.begin(name, size_bytes=bounds.size_bytes, keep=bounds.keep)
            if begun.offset < end:
                self._marks[name].clear()
                turned[name] = turned.get(name, 0) + 1
            run.places[name] = (turned.get(name, 0), begun.offset, None)
        self._memory.note(**after.begins_to_write(record, run, ends, turned))
        out, err = (self._logs.path(run.log(stream)) for stream in STREAMS)
        return replace(launch, stdout=out, stderr=err)

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

    def trim(self, bounds: LogRotation, now: float) -> float | None:
        """Free what is over the bounds, also while the program writes; in how many seconds to look again, if soon."""
        for stream in LOGS:
            self._logs.trim(stream, size_bytes=bounds.size_bytes, keep=bounds.keep)
        ends = {stream: self._logs.end(stream) for stream in LOGS}
        before, self._looked = self._looked, (now, ends)
        if before is None:
            return look_again_s(0.0, max(ends.values()), bounds.size_bytes)
        looked, known = before
        written = max(end - known[stream] if end >= known[stream] else end for stream, end in ends.items())
        return look_again_s(now - looked, written, bounds.size_bytes)

    def place(self, log: str, *, since_ms: int | None = None) -> int:
        """Where what is shown begins in a log, or what it wrote there since a time, and not much more (rule 1)."""
        turn, begin, _ = self.shown().places.get(log, (-1, 0, None))
        if turn != self._memory.record.turned.get(log, 0):
            return self._logs.end(log)
        known = [place for at_ms, place in self._marks[log] if since_ms is not None and at_ms <= since_ms]
        return max(begin, known[-1]) if known else begin

    def since(self, stream: str, place: int, *, most: int, whole: bool = True) -> tuple[str, int]:
        """What was written behind a place, at most the last of it, and the place behind that; `whole` lines (rule 4)."""
        end, raw = self._logs.end(stream), b""
        if end < place:  # the file was put aside meanwhile, with what was not read of it
            raw = self._logs.read(stream, place, None, back=1, most=most)
            place = 0
        raw += self._logs.read(stream, place, end, most=most)
        ends = raw.rfind(b"\n") + 1
        lines = raw[:ends] if whole and (ends or len(raw) < LONG_BYTES) else raw
        return lines.decode(errors="replace"), end - (len(raw) - len(lines))

    def previous(self) -> Written | None:
        """The last run that has ended: where nothing runs, that is the one begun last."""
        record = self._memory.record
        return _last(record) if record.writes is None or self._runs() else record.writes

    def of(self, revision: int) -> Written | None:
        """The last run of a revision, as far as that is known."""
        record = self._memory.record
        beside = None if record.outgoing is None else record.outgoing.writes
        return next((one for one in (record.writes, beside, *record.wrote[::-1]) if one and one.revision == revision), None)

    def shown(self) -> Written:
        """What runs, the newer of two, or the last that has ended; where neither is known, whoever wrote."""
        record = self._memory.record
        if record.outgoing is not None and not self._runs():
            return record.outgoing.writes or _UNKNOWN
        return record.writes or _last(record) or _UNKNOWN

    def _runs(self) -> bool:
        """Whether what was begun last runs, and is not being ended as failed."""
        run = self._present.run
        return self._memory.record.process is not None if run is None else run.condemned is None

    def read(self, one: Written | None, stream: str, *, most: int) -> str:
        """The end of what a run has written, as far as that is kept."""
        if one is None or one.log(stream) not in one.places:
            return ""
        log = one.log(stream)
        turn, begin, end = one.places[log]
        back = self._memory.record.turned.get(log, 0) - turn
        return self._logs.read(log, begin, end, back=back, most=most).decode(errors="replace")

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
        return self.read(_last(record) if turned else record.writes, stream, most=LAST_BYTES)


_UNKNOWN: Final = Written(revision=0, places=dict.fromkeys(STREAMS, (0, 0, None)))
"""What an agent of an earlier version has begun."""


def _is_beside(record: InstanceRecord) -> bool:
    """Whether what begins writes to the second logs."""
    old = record.outgoing
    return old is not None and not (old.writes is not None and old.writes.beside)


def _last(record: InstanceRecord) -> Written | None:
    """The run that had ended last before what was begun last."""
    return record.wrote[-1] if record.wrote else None
