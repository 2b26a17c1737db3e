"""Lines of the event stream as people read them: fitted to the terminal's width, coloured by how bad they are.

Rule 1: a line that is too long is cut in what is said, never in who says it; into a pipe nothing is cut.
Rule 2: what is not believed is told with its first event; those that are not for the same reason are counted, and told
    each `AGAIN_MS` and at the end.
Rule 3: colour only repeats the mark: `!` a person may have to act, `X` not verified, `+` all else.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from dsmt.cli.printing import columns_of, fitted, one_line, painted
from dsmt.event.envelope import Event
from dsmt.event.phrases import counted, speaker
from dsmt.operations.words.sentences import needs_a_person, predicate, severity, subject
from dsmt.operations.words.times import local
from dsmt.ports.bus import Notice

_SUBJECT: Final = 14
_SAID: Final = 44
_LEAST: Final = 16
"""What is left of a sentence however long its subject is."""
AGAIN_MS: Final = 10_000
_MOST: Final = 1000
"""Of how many reasons it is remembered that they were told."""
_BAD: Final = "dsmt.notice.badsignature"
_ALARMS: Final = frozenset({"gap", "lost", "equivocation", "dropped", "quarantined", "disconnected"})


def event_line(event: Event, width: int | None) -> str:
    """One event on one line, of at most `width` columns."""
    mark = "!" if needs_a_person(event) else "+"
    head = f"{local(event.time_ms, milli=True)} {mark} {one_line(subject(event)):<{_SUBJECT}} "
    said, who = one_line(predicate(event)), speaker(event.source)
    text = f"{head}{said:<{_SAID}} {who}"
    if width is not None and columns_of(text) > width:
        room = max(_LEAST, width - len(head) - len(who) - 1)
        text = fitted(f"{head}{fitted(said, room):<{room}} {who}", width)
    return painted(text, severity(event))


def detail_lines(event: Event) -> list[str]:
    """What `--wide` adds: id, topic, clock, type, causes."""
    lines = [f"    {event.id}  {event.topic}  hlc {event.time}  {event.type}"]
    return [*lines, f"    because {' '.join(map(str, event.cause))}"] if event.cause else lines


def notice_line(notice: Notice, now_ms: int, width: int | None) -> str:
    """One notice on one line."""
    word = notice.type.rsplit(".", 1)[1]
    said = one_line(notice.message)
    if notice.type == _BAD:
        return _bad_line(f"{said}; not shown", now_ms, width)
    return painted(fitted(f"-- {local(now_ms)} {word.upper()} {said}", width), "warning" if word in _ALARMS else "")


def _bad_line(said: str, now_ms: int, width: int | None) -> str:
    return painted(fitted(f"{local(now_ms, milli=True)} X {said}", width), "bad")


class Repeated:
    """Which notices of what is not believed are told by themselves, and of which only how many there were (rule 2)."""

    def __init__(self) -> None:
        self._told_ms: dict[str, int] = {}
        self._more: Counter[str] = Counter()

    def takes(self, notice: Notice, now_ms: int) -> bool:
        """Whether a notice is counted; it is to be told by itself otherwise."""
        if notice.type != _BAD:
            return False
        if notice.message in self._told_ms:
            self._more[notice.message] += 1
            return True
        if len(self._told_ms) < _MOST:
            self._told_ms[notice.message] = now_ms
        return False

    def lines(self, now_ms: int, width: int | None, *, rest: bool = False) -> list[str]:
        """A line for each reason that is due, or of which anything is left to tell; they are told by that."""
        due = [said for said in self._more if rest or now_ms - self._told_ms[said] >= AGAIN_MS]
        self._told_ms.update(dict.fromkeys(due, now_ms))
        counts = [(one_line(said), counted(self._more.pop(said), "more event")) for said in due]
        return [_bad_line(f"{said}; {more} not shown", now_ms, width) for said, more in counts]
