"""Expressions over events in CEL, the Common Expression Language (cel.dev): `type.endsWith("exited") && data.code != 0`.

An event is `id`, `source`, `type`, `subject`, `topic`, `time` (a timestamp), `data`, `cause` and `to` (lists of text), and
`version` (null for a signal). What asks for data that an event does not have, or compares what cannot be compared, does not
hold of it. The library comes with `pip install '.[cel]'` in dsmt's source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dsmt.errors import InputError
from dsmt.event.envelope import Event
from dsmt.event.hlc import instant
from dsmt.event.phrases import cut

NAMES: Final = ("id", "source", "type", "subject", "topic", "time", "data", "cause", "to", "version")
INSTALL: Final = "in dsmt's source, as README.md installs it: pip install '.[cel]'"
LONGEST: Final = 4096
"""Characters that an expression may have."""
SHOWN: Final = 100
"""How many of them a message shows."""


def compiled(text: str) -> Callable[[Event], bool]:
    """What tells whether an expression holds of an event.

    Raises `InputError` for one that cannot be read (`where.form`), and, from what is returned, for one that uses a name
    which no event has (`where.name`) or is neither true nor false (`where.answer`).
    """
    try:
        import cel  # noqa: PLC0415 - an optional part
    except ImportError:
        said = "an expression over events needs a library that is not installed here"
        raise InputError("where.missing", said, next=INSTALL) from None
    if len(text) > LONGEST:
        raise InputError(
            "where.form", f"the expression has {len(text)} characters, {LONGEST} are allowed", next="shorten it"
        )
    try:
        program = cel.compile(text)
    except ValueError as error:
        said = f"{cut(text, SHOWN)!r} cannot be read as an expression: {_cause(error)}"
        raise InputError("where.form", said, next='as in: type == "dsmt.status" && data.state == "failed"') from None

    def holds(event: Event) -> bool:
        try:
            answer = program.execute(_names(event))
        except RuntimeError as error:
            said = f"{cut(text, SHOWN)!r} cannot be evaluated on an event: {_cause(error)}"
            raise InputError("where.name", said, next=f"an event has {', '.join(NAMES)}") from None
        except (KeyError, TypeError, ValueError, LookupError, ArithmeticError):
            return False
        if not isinstance(answer, bool):
            said = f"{cut(text, SHOWN)!r} is neither true nor false but {cut(str(answer), SHOWN)!r}"
            raise InputError("where.answer", said, next="compare it with something: == != < > in")
        return answer

    return holds


def _names(event: Event) -> dict[str, Any]:
    return {
        "id": f"{event.incarnation}-{event.sequence}",
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "topic": event.topic,
        "time": instant(event.time_ms),
        "data": event.data,
        "cause": [str(one) for one in event.cause],
        "to": list(event.to),
        "version": event.version,
    }


def _cause(error: Exception) -> str:
    """The library's own words, in one line and no longer than a sentence."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = next((line.partition("ERROR: ")[2] for line in lines if "ERROR: " in line), lines[0] if lines else "")
    return cut(told.partition(". Check that")[0].partition(" expecting {")[0], SHOWN)
