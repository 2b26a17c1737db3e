"""Lines of the event stream as people read them: fitted to the terminal's width, coloured by how bad they are.

Rule 1: a line that is too long is cut in what is said, never in who says it; into a pipe nothing is cut.
Rule 2: colour only repeats the mark: `!` a person may have to act, `X` not verified, `+` all else.
"""

from __future__ import annotations

from typing import Final

from dsmt.cli.printing import fitted, one_line, painted
from dsmt.event.envelope import Event
from dsmt.event.phrases import speaker
from dsmt.operations.words.sentences import needs_a_person, predicate, severity, subject
from dsmt.operations.words.times import local
from dsmt.ports.bus import Notice

_SUBJECT: Final = 14
_SAID: Final = 44
_LEAST: Final = 16
"""What is left of a sentence however long its subject is."""
_ALARMS: Final = frozenset({"gap", "lost", "equivocation", "dropped", "quarantined", "disconnected"})


def event_line(event: Event, width: int | None) -> str:
    """One event on one line, of at most `width` columns."""
    mark = "!" if needs_a_person(event) else "+"
    head = f"{local(event.time_ms, milli=True)} {mark} {one_line(subject(event)):<{_SUBJECT}} "
    said, who = one_line(predicate(event)), speaker(event.source)
    text = f"{head}{said:<{_SAID}} {who}"
    if width is not None and len(text) > width:
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
    if word == "badsignature":
        return painted(fitted(f"{local(now_ms, milli=True)} X {said}; not shown", width), "bad")
    return painted(fitted(f"-- {local(now_ms)} {word.upper()} {said}", width), "warning" if word in _ALARMS else "")
