"""Sizes: how much each figure does; with `--tiny` so little that it tells only that it runs, and without any peer.

With `--long` the figures that have them take sizes that need many minutes, and many GB.
"""

from __future__ import annotations

import os
from typing import TypeVar

is_tiny = bool(os.environ.get("BENCHMARKS_TINY"))
is_long = bool(os.environ.get("BENCHMARKS_LONG"))

Size = TypeVar("Size")


def sized(full: Size, tiny: Size, long: Size | None = None) -> Size:
    """What a figure does, what of it only shows that it runs, and what it does where there is time and memory."""
    if is_tiny:
        return tiny
    return full if long is None or not is_long else long
