"""Fields: the types of what stands in frames, with their bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from dsmt.event.hlc import LAST_MS
from dsmt.event.kinds.numbers import Count
from dsmt.event.topic import PATTERNS_MOST

Name = Annotated[str, Meta(max_length=512)]
Said = Annotated[str, Meta(max_length=4096)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Token = Annotated[bytes, Meta(max_length=16)]
Patterns = Annotated[tuple[Name, ...], Meta(max_length=PATTERNS_MOST)]
RealmMs = Annotated[float, Meta(ge=0, le=LAST_MS)]
Sent = Annotated[float, Meta(ge=0, le=LAST_MS)]
Level = Literal["stored", "safe"]
Closing = Literal["lost", "trimmed", "more"]
"""What becomes of what a repair did not bring; `more`: ask again from the last one it brought."""

Ranges = Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=64)]
Signers = Annotated[tuple[tuple[bytes, str], ...], Meta(max_length=256)]
