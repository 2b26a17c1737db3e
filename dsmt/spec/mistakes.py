"""What is wrong in a text an operator wrote: one `Mistake` per place, all of them in one `SpecErrors`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import msgspec

from dsmt.errors import InputError, UnusableEventError


class Mistake(msgspec.Struct, frozen=True, order=True):
    """One wrong place in a file; `line` and `column` count from 1, `suggestion` may be empty."""

    file: str
    line: int
    column: int
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        tail = f" ({self.suggestion})" if self.suggestion else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{tail}"


class SpecErrors(InputError):  # noqa: N818 - the plural says that it carries every mistake of the text at once
    """A service file is wrong; `mistakes` holds everything that is (at least one), sorted by line."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes: tuple[Mistake, ...] = tuple(sorted(set(mistakes)))
        first, count = self.mistakes[0], len(self.mistakes)
        super().__init__(
            "bad_spec",
            str(first) if count == 1 else f"{count} mistakes, the first is {first}",
            next="Correct the file and try again",
            mistakes=[msgspec.to_builtins(m) for m in self.mistakes],
        )


class WrongValueError(InputError):
    """A single value (a duration, a size, a command ...) cannot be used; `next` is the suggestion."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__("wrong_value", message, next=suggestion)


class BadSpecEventError(UnusableEventError):
    """The data of a spec event is not a service spec; drop the event and count it."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_spec_event", f"this is not a service spec: {message}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that `word` was probably meant to be, or an empty string."""
    words = sorted(known)
    begun = [one for one in words if len(word) > 2 and one.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.7)
    swapped = [one for one in words if len(one) > 2 and sorted(one) == sorted(word)]  # `rnu`: short words are never close
    return (found or swapped or [""])[0]
