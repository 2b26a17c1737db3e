"""Sizes: how much each figure does; with `--tiny` so little that it tells only that it runs, and without any peer."""

from __future__ import annotations

import os
from typing import TypeVar

is_tiny = bool(os.environ.get("BENCHMARKS_TINY"))

Size = TypeVar("Size")


def sized(full: Size, tiny: Size) -> Size:
    """What a figure does, and what of it only shows that it runs."""
    return tiny if is_tiny else full
