"""Failures: foreign errors told in the sentences of the reason list (docs/reference/reasons.md)."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

from dsmt.errors import FailedError
from dsmt.event.phrases import size_in_words
from dsmt.event.reason import reason

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The errno values that mean `fetch.no_space`."""


def failed(code: str, **fields: Any) -> FailedError:
    """The error of a reason code, its sentence filled with `fields`, which the error carries as well."""
    told = reason(code, **fields)
    return FailedError(code, told.message, next=told.next, **fields)


def no_space(path: str, need: int) -> FailedError:
    """`fetch.no_space`: `need` bytes did not fit where `path` is.

    Its fields are `need` and `free` (words) and `path`; the node's name is the caller's to add.
    """
    place = path
    while not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    free = size_in_words(shutil.disk_usage(place or ".").free)
    return FailedError(
        "fetch.no_space",
        f"{size_in_words(need)} needed, {free} free at {path}",
        next="free space there",
        need=size_in_words(need),
        free=free,
        path=path,
    )
