"""Types of the fields of records: the bounds that `from_plain` enforces on what comes in an event."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from dsmt.spec.shapes import KEY_PATTERNS, LONGEST_DURATION_S, MOST_WORDS, NAME_PATTERN, PATH_PATTERN, PORT_NAME_PATTERN

Name = Annotated[str, Meta(pattern=rf"\A(?:{NAME_PATTERN})\Z")]
PortName = Annotated[str, Meta(pattern=rf"\A(?:{PORT_NAME_PATTERN})\Z")]
Label = Annotated[str, Meta(pattern=rf"\A(?:{KEY_PATTERNS['label']})\Z")]
Variable = Annotated[str, Meta(pattern=rf"\A(?:{KEY_PATTERNS['variable']})\Z")]
Header = Annotated[str, Meta(pattern=rf"\A(?:{KEY_PATTERNS['header']})\Z")]
Text = Annotated[str, Meta(max_length=65536, pattern=r"\A[^\x00]*\Z")]
Path = Annotated[str, Meta(min_length=1, max_length=4096, pattern=PATH_PATTERN)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_DURATION_S)]
Bytes = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number = Annotated[float, Meta(ge=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Positive = Annotated[int, Meta(ge=1, le=1_000_000)]
ExitCode = Annotated[int, Meta(ge=0, le=255)]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Octal = Annotated[str, Meta(pattern=r"\A0?[0-7]{3,4}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Signal = Annotated[str, Meta(pattern=r"\ASIG[A-Z0-9]{2,8}\Z")]
Argv = Annotated[tuple[Text, ...], Meta(min_length=1, max_length=MOST_WORDS)]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records."""
