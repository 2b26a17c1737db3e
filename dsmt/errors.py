"""The error tree: one root, and one branch for each question a caller can answer.

| branch | the question it answers | what a caller does | exit |
|---|---|---|---|
| `InputError` | is what we were given wrong by itself, or does it lack a yes? | show it; correct the input | 2 |
| `UnusableEventError` | is a peer's event unusable? | drop it, count it, never act on it | 1 |
| `TransportError` | did the way to the peer fail? | back off and retry | 7 |
| `RefusedError` | did the other side say no, or does what there is now stand against it? | becomes a fact, or is shown | 4 |
| `NotFoundError` | is there no such thing? | show it | 5 |
| `TimedOutError` | did a wait end before what it waited for? | show it; the work goes on | 3 |
| `FailedError` | did it not work, for a reason in the world? | becomes a fact, or is shown | 1 |

Anything else that is raised is a bug: the process crashes and is restarted. In a step of one instance it is that step's
failure (`dsmt.agents.shared.unforeseen`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, TypeVar

import msgspec

One = TypeVar("One", bound=BaseException)
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What JSON may fail with that is damaged, or somebody else's: also text that is no UTF-8, and lists in endless lists."""


def unreadable(what: object, error: OSError) -> str:
    """That something cannot be read, and why."""
    return f"{what} cannot be read: {(error.strerror or str(error)).lower()}"


class DsmtError(Exception):
    """The root. An error carries fields; only the command line and the console turn them into prose.

    `code` is a stable word for scripts (`clock_ahead`), `message` one sentence that says what and
    where, `next` what to do about it (empty when there is nothing to do), `fields` what else is known.
    """

    exit: ClassVar[int] = 1

    def __init__(self, code: str, message: str, *, next: str = "", **fields: Any) -> None:  # noqa: A002 - the field's name in the error object
        super().__init__(message)
        self.code = code
        self.message = message
        self.next = next
        self.fields = fields

    def told(self) -> dict[str, Any]:
        """What JSON shows of it."""
        return {"code": self.code, "message": self.message, "next": self.next, "exit": self.exit}

    def __str__(self) -> str:
        return f"{self.message}. {self.next}" if self.next else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r})"


class InputError(DsmtError):
    """What a person or a program gave us is wrong, whatever there is now; or it lacks an option or a yes."""

    exit = 2


class UnusableEventError(DsmtError):
    """An event of a peer that is malformed, unsigned, outside its grant or otherwise not to be used."""


class TransportError(DsmtError):
    """The network or a broker could not be reached, or was lost."""

    exit = 7


class RefusedError(DsmtError):
    """The other side understood and said no; or what was asked for is right, and what there is now stands against it."""

    exit = 4


class NotFoundError(DsmtError):
    """What was named does not exist."""

    exit = 5


class TimedOutError(DsmtError):
    """A wait ended; what was asked for goes on."""

    exit = 3


class FailedError(DsmtError):
    """It was tried and did not work: a command, a fetch, a start."""


def incomplete(error: ImportError | SyntaxError, python: str) -> FailedError:
    """What is installed for a Python lacks a module, or has one that is damaged: nothing was done."""
    said = f"what is installed of dsmt, or of what it needs, is not whole: {error}"
    return FailedError("dsmt.incomplete", said, next=f"install it again with the pip of {python}; what runs goes on")


def leaves(group: BaseExceptionGroup[One]) -> Iterator[One]:
    """The errors in a group, and in the groups in it, in their order."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
