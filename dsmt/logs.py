"""Logs of dsmt's own processes: a JSON object for each line.

What is logged is for people who look after dsmt itself; what happens to services are events, not log lines.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any


class Logger:
    """A logger with what is always said bound to it. Nothing is written before `to_stderr` was called."""

    __slots__ = ("_bound",)

    enabled = False

    def __init__(self, **bound: Any) -> None:
        self._bound = bound

    def info(self, event: str, **fields: Any) -> None:
        """Something happened that somebody may look for."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something is not as it should be; it was dealt with."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something did not work."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if Logger.enabled:
            now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            line = {**self._bound, **fields, "event": event, "level": level, "timestamp": now}
            with suppress(OSError):  # a full disk takes no lines; that must end nothing
                sys.stderr.write(json.dumps(line, default=repr) + "\n")
                sys.stderr.flush()


def to_stderr() -> None:
    """Write log lines as JSON objects to stderr, from now on, in this process."""
    Logger.enabled = True
