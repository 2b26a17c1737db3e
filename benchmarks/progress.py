"""How far a long benchmark has come, for a person at a terminal; a log gets nothing of it."""

from __future__ import annotations

import sys


def progress(figure: str, done: int, of: int) -> None:
    """One line that is written over by the next."""
    if sys.stderr.isatty():
        print(f"\r{figure}: {done}/{of}", end="\n" if done == of else "", file=sys.stderr, flush=True)
