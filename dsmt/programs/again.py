"""Again: how a spawner's loop outlives that there is no descriptor, or no memory, for a moment.

Rule 1: what cannot be done is told, once, and costs a pause: the same is due in the loop's next turn. What is done in one
    turn is done however the others end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

PAUSE_S: Final = 0.1
SCARCE: Final = (OSError, MemoryError)
"""What is raised where the machine has not what is needed; the second says nothing."""


def why(error: BaseException) -> str:
    """What to say of it."""
    return str(error) or "no memory is left"


class Again:
    """Does what is due; `say` tells a sentence."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._said = say, ""

    def all(self, calls: Iterable[Callable[[], object]]) -> None:
        """Do all of this, and pause if any of it could not be done."""
        failed = ""
        for call in calls:
            try:
                call()
            except SCARCE as error:
                failed = f"what is due cannot be done, and is tried again: {why(error)}"
        if failed:
            if failed != self._said:
                self._say(failed)
            self._said = failed
            time.sleep(PAUSE_S)
