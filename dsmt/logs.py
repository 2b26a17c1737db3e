"""Logs of dsmt's own processes: structlog, imported with the first line that is written.

What is logged is for people who look after dsmt itself; what happens to services are events, not log lines. A process may
run for years, and say each second that a broker does not answer: whoever has a log of its own is asked now and then to keep
it small.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any, Final

LINES: Final = 256
"""After so many lines the log is looked at."""


class Logger:
    """A logger with what is always said bound to it. Nothing is written before `to_stderr` was called."""

    __slots__ = ("_bound",)

    enabled = False
    _lines = 0
    keep_small: Callable[[], object] = staticmethod(lambda: None)
    """Is called after each `LINES` lines."""

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
            with suppress(OSError):  # a full disk takes no lines; that must end nothing
                _configured().get_logger().bind(**self._bound).log(_LEVELS[level], event, **fields)
                Logger._lines += 1
                if Logger._lines % LINES == 0:
                    Logger.keep_small()


_LEVELS: Final = {"info": 20, "warning": 30, "error": 40}
_FOR_TERMINALS: Final = ("rich", "better_exceptions", "colorama")
"""What structlog imports where it is installed, to write in colours: 6 MB in each process that never does."""


def to_stderr() -> None:
    """Write log lines as JSON objects to stderr, from now on, in this process."""
    Logger.enabled = True


@cache
def _configured() -> ModuleType:
    """Structlog, imported with the first line: most agents never write one, and it takes 60 ms and 3 MB."""
    import sys  # noqa: PLC0415 - beside structlog, only where logs are written

    here = [name for name in _FOR_TERMINALS if name not in sys.modules]
    for name in here:
        sys.modules[name] = None  # type: ignore[assignment]  # so importing it fails
    try:
        import structlog  # noqa: PLC0415 - lazily, for the start of the command line
    finally:
        for name in here:
            del sys.modules[name]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    return structlog
