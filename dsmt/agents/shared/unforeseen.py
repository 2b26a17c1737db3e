"""Unforeseen: what nobody foresaw, met in a step of one instance, is that step's failure (C13); who does the step goes on.

An agent that crashed at it would be started again, and meet it again, for ever: nothing would be parked, refused or moved.
"""

from __future__ import annotations

import traceback

from dsmt.errors import DsmtError, FailedError


def as_failed(error: Exception) -> FailedError:
    """An error as the failure of a step; one that is a defect of ours (`dsmt.bug`) is written to the log as well."""
    if isinstance(error, FailedError):
        return error
    traceback.print_exception(error)
    code, said = (error.code, error.message) if isinstance(error, DsmtError) else (type(error).__name__, str(error))
    return FailedError(code, said)
