"""The C library: calls for which Python has no function."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any


def call(name: str, *arguments: Any) -> None:
    """Call a function that gives 0 when it has done what it is for. Raises OSError with its `errno`."""
    if getattr(_library(), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
