"""Unforeseen: what nobody foresaw, met in a step of one instance, is that step's failure (C13); who does the step goes on.

An agent that crashed at it would be started again, and meet it again, for ever: nothing would be parked, refused or moved.
"""

from __future__ import annotations

import asyncio

from dsmt.errors import DsmtError, FailedError


def as_failed(error: Exception) -> FailedError:
    """An error as the failure of a step; of a defect of ours (`dsmt.bug`) the loop is told, which writes it to the log."""
    if isinstance(error, FailedError):
        return error
    asyncio.get_running_loop().call_exception_handler({"message": "a step failed, as nobody foresaw", "exception": error})
    code, said = (error.code, error.message) if isinstance(error, DsmtError) else (type(error).__name__, str(error))
    return FailedError(code, said)
