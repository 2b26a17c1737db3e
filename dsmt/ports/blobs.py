"""Blobs: what a broker keeps of artifacts and files, as a port: by their sha256, in numbered chunks.

Contract: a blob is put chunk by chunk in any order, and is whole when who puts it says that its sha256 is right (`keep`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

import msgspec

from dsmt.errors import NotFoundError

KEPT_BYTES: Final = 256 * 1024**2
KEPT_SHARE: Final = 0.25
UNFINISHED_MS: Final = 10 * 60 * 1000
"""What is put and not gone on with, or named by nothing for so long, may go."""
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")


def kept_for_events(total: int) -> int:
    """What of a disk of so many bytes is kept for events: a broker whose disk is full stops everybody."""
    return int(min(KEPT_BYTES, total * KEPT_SHARE))


def digests_in(bodies: Iterable[bytes]) -> set[bytes]:
    """What is named in the bodies of events, as hexadecimal text."""
    return {bytes.fromhex(one.decode()) for body in bodies for one in _DIGEST.findall(body)}


def not_in_depot(digest: bytes) -> NotFoundError:
    """That no depot holds this blob."""
    return NotFoundError("depot.unknown", f"blob {digest.hex()} is not in the depot", next="apply again")


class Blob(msgspec.Struct, frozen=True):
    """What the depot holds of a blob. `at_ms`: when something was last put; `whole`: its sha256 was checked."""

    digest: bytes
    size: int
    at_ms: int
    payer: str
    whole: bool


class BlobTotals(NamedTuple):
    """How many blobs, and their bytes."""

    number: int
    bytes: int


class Blobs(Protocol):
    """The depot."""

    def put_chunk(self, digest: bytes, number: int, chunk: bytes, *, payer: str, now_ms: int) -> None:
        """Keep a chunk of a blob that is being put into the depot."""
        ...

    def so_far(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of a blob that is being put."""
        ...

    def keep(self, digest: bytes, chunks: int, *, now_ms: int) -> None:
        """A blob was put whole, and has its sha256."""
        ...

    def chunk(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of a whole blob; None beyond its end or when it is unknown."""
        ...

    def get(self, digest: bytes) -> Blob | None:
        """What is held of a blob."""
        ...

    def all(self) -> list[Blob]:
        """What is held of every blob."""
        ...

    def held(self, payer: str | None = None) -> BlobTotals:
        """How much is held of all blobs, or of those that somebody pays for; it is counted as they come and go."""
        ...

    def forget(self, digest: bytes) -> None:
        """A blob is not held any more; its chunks remain to be removed."""
        ...

    def remove_chunks(self, digest: bytes, limit: int) -> bool:
        """Remove so many chunks of a forgotten blob; whether there may be more."""
        ...

    def orphans(self) -> list[bytes]:
        """Digests of which chunks are left that belong to no blob."""
        ...

    def disk(self) -> tuple[int, int]:
        """Bytes of the disk, and of those that may still be filled: free ones, and free pages of the store."""
        ...

    def named(self) -> set[bytes]:
        """The digests that the live facts of services name, and the specs that slots name."""
        ...

    def services(self) -> Iterator[str]:
        """All services of which a fact lives."""
        ...

    def missing(self, service: str, *, past: bool) -> list[bytes]:
        """What a service's spec names, with `past` also what its slots go back to, and of which no whole blob is here."""
        ...
