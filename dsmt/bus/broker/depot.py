"""The depot's broker side: blobs by their sha256, in chunks, kept in the broker's store.

Rule 1: a complete blob is never written again, whoever asks; only operators put.
Rule 2: it is bounded in bytes and in blobs, and so is each operator's part of it. For room the oldest blobs go that no live
    fact names, for room in an operator's part those of that operator; what was begun and not gone on with for
    `UNFINISHED_MS` goes first (D2). So it is with room on the disk, of which some is kept for events
    (`ports.blobs.kept_for_events`).
    What is fetched from another broker (`filling`) is nobody's part, and nobody else writes it meanwhile.
Rule 3: hashing and removing are done in steps of a few chunks, between which the loop does what else is due.
Rule 4: what is fetched from here is looked at, too, once in `AGAIN_MS`: a disk may have given other bytes than it was given.
    What has another sha256 now is held no more: another broker has it, or an operator puts it again (B11).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from dsmt.bus.broker.words import Words
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import CHUNK_BYTES
from dsmt.errors import FailedError, InputError
from dsmt.ports.blobs import UNFINISHED_MS, Blob, Blobs, BlobTotals, kept_for_events
from dsmt.ports.store import StoreFullError

MAX_CHUNKS: Final = 2**20
PAYER_SHARE: Final = 0.5
MOST_BLOBS: Final = 16384
GIVEN_AT_ONCE: Final = 256
"""So many more blobs than need be go where there are too many: all of them are looked at for that."""
REMOVED_AT_ONCE: Final = 4
AGAIN_MS: Final = 10 * 60 * 1000

Answer = Callable[[f.BlobIs], None]


def _busy(frame: f.ChunkPut | f.BlobFinished, why: str) -> f.BlobIs:
    return f.BlobIs(id=frame.id, size=None, ok=False, busy=True, message=why)


@dataclass(slots=True)
class _Sum:
    """What has been seen of a blob, chunk by chunk."""

    digest: bytes
    chunks: int = 0
    _whole: Any = field(default_factory=sha256)

    def takes(self, chunk: bytes | None) -> bool:
        """Take in the next chunk; whether there was one."""
        if chunk is not None:
            self._whole.update(chunk)
            self.chunks += 1
        return chunk is not None

    @property
    def right(self) -> bool:
        """Whether what was seen is the blob."""
        return bool(self._whole.digest() == self.digest)


@dataclass(slots=True)
class _Check:
    frame: f.BlobFinished
    answer: Answer
    seen: _Sum


class Depot:
    """Keeps blobs. `limit` is in bytes, `now_ms` realm time; `due` asks for steps (`step`)."""

    def __init__(
        self, blobs: Blobs, words: Words, *, limit: int, now_ms: Callable[[], int], due: Callable[[], None]
    ) -> None:
        self._blobs, self._words, self._limit, self._now_ms = blobs, words, limit, now_ms
        self._checks: deque[_Check] = deque()
        self._removing: deque[bytes] = deque(blobs.orphans())
        self._due = due
        if self._removing:
            due()
        self._fetched = b""
        """What is being fetched from another broker: nobody else writes it."""
        self._looks: deque[_Sum] = deque()
        self._looked: dict[bytes, int] = {}
        """When (realm ms) what was fetched from here was last looked at."""

    def asked(self, frame: f.BlobAsked | f.ChunkAsked) -> tuple[f.Frame, tuple[bytes, ...]]:
        """Answer a question about a blob."""
        if isinstance(frame, f.BlobAsked):
            blob = self._blobs.get(frame.digest)
            return f.BlobIs(id=frame.id, size=blob.size if blob is not None and blob.whole else None), ()
        chunk = self._blobs.chunk(frame.digest, frame.number)
        if chunk is not None and not frame.number:
            self._look_again(frame.digest)
        return f.Chunk(id=frame.id), () if chunk is None else (chunk,)

    def _look_again(self, digest: bytes) -> None:
        """Have what is being fetched looked at, unless it was lately (rule 4)."""
        now_ms = self._now_ms()
        if now_ms - self._looked.get(digest, -AGAIN_MS) >= AGAIN_MS:
            self._looked[digest] = now_ms
            self._looks.append(_Sum(digest))
            self._due()

    def put(self, frame: f.ChunkPut | f.BlobFinished, parts: tuple[bytes, ...], payer: str, answer: Answer) -> None:
        """Take in what an operator puts; `answer` is called, now or later. Raises `InputError` for no chunk."""
        held = self._blobs.get(frame.digest)
        if held is not None and held.whole:
            answer(f.BlobIs(id=frame.id, size=held.size))
        elif frame.digest == self._fetched:
            answer(_busy(frame, "this blob is just being fetched from another broker"))
        elif isinstance(frame, f.BlobFinished):
            self._checks.append(_Check(frame, answer, _Sum(frame.digest)))
            self._due()
        else:
            answer(self._chunk(frame, parts, payer))

    def _chunk(self, frame: f.ChunkPut, parts: tuple[bytes, ...], payer: str) -> f.BlobIs:
        if len(parts) != 1 or not 0 < len(parts[0]) <= CHUNK_BYTES or frame.number >= MAX_CHUNKS:
            raise InputError("bus.frame", "a chunk is one part of 1 to 256 KiB, of a blob that has at most 2^20 of them")
        if self._is_busy(frame.digest):
            return _busy(frame, "this blob is just being checked or removed")
        said = self._part(frame.digest, len(parts[0]), payer) or self._room(frame.digest, len(parts[0]))
        if not said:
            try:
                self._blobs.put_chunk(frame.digest, frame.number, parts[0], payer=payer, now_ms=self._now_ms())
            except FailedError as error:
                said = str(error)
        return f.BlobIs(id=frame.id, size=None, ok=not said, message=said)

    # --- what others have ----------------------------------------------------------------------------------------

    def has(self, digest: bytes) -> bool:
        """Whether a whole blob is here."""
        held = self._blobs.get(digest)
        return held is not None and held.whole

    def services(self) -> Iterable[str]:
        """All services."""
        return self._blobs.services()

    def missing(self, service: str, *, past: bool) -> list[bytes]:
        """What a service's spec names and is not here, with `past` what its slots go back to; not what is being put."""
        found = self._blobs.missing(service, past=past)
        return [digest for digest in found if not self.is_removing(digest) and not self._is_put(digest)]

    def _is_put(self, digest: bytes) -> bool:
        """Whether an operator is putting it."""
        blob = self._blobs.get(digest)
        return blob is not None and blob.payer[:7] != "broker/" and blob.at_ms >= self._now_ms() - UNFINISHED_MS

    def begin(self, digest: bytes) -> bool:
        """Begin to take what another broker has; whether that may be now."""
        if self._is_busy(digest) or self.has(digest) or self._is_put(digest):
            return False
        self._fetched = digest
        return True

    def take(self, digest: bytes, number: int, chunk: bytes, giver: str) -> None:
        """Keep a chunk of it. Raises `FailedError` where there is no room."""
        said = self._room(digest, len(chunk))
        if said:
            raise FailedError("depot.full", said, next="free space on the broker's disk")
        self._blobs.put_chunk(digest, number, chunk, payer=giver, now_ms=self._now_ms())

    def taken(self, digest: bytes, chunks: int) -> None:
        """All of it was taken, and has its sha256."""
        self._blobs.keep(digest, chunks, now_ms=self._now_ms())

    def ended(self, digest: bytes) -> None:
        """It is taken no further; what was begun goes, on a full disk later (rule 2)."""
        self._fetched = b""
        if self.has(digest) or self._blobs.get(digest) is None:
            return
        with suppress(StoreFullError):
            self._remove(digest)

    def _is_busy(self, digest: bytes) -> bool:
        return self.is_removing(digest) or any(check.frame.digest == digest for check in self._checks)

    def is_removing(self, digest: bytes) -> bool:
        """Whether chunks of it are still to be removed."""
        return digest in self._removing

    # --- room ----------------------------------------------------------------------------------------------------

    def _part(self, digest: bytes, size: int, payer: str) -> str:
        """Why somebody may not keep more; empty when they may."""
        most, own = int(self._limit * PAYER_SHARE), self._blobs.held(payer)
        over, many = own.bytes + size - most, self._many(digest, own, int(MOST_BLOBS * PAYER_SHARE))
        given = self._give(over, (one for one in self._spare(digest) if one.payer == payer), many)
        if over > given.bytes:
            return f"{payer} keeps as much in the depot as one operator may, {most} bytes, and live facts name all of it"
        if many > given.number:
            return f"{payer} keeps as many blobs in the depot as one operator may, {own.number}, and none of them may go yet"
        return ""

    def _room(self, digest: bytes, size: int) -> str:
        """Why there is no room for a chunk; empty when there is."""
        every, short = self._blobs.held(), self._short(size)
        over, many = every.bytes + size - self._limit, self._many(digest, every, MOST_BLOBS)
        given = self._give(max(over, short), self._spare(digest), many)
        if over > given.bytes:
            return f"the depot holds {self._limit} bytes, and live facts name all of it"
        if many > given.number:
            return f"the depot holds {every.number} blobs, and none of them may go yet"
        if short > given.bytes:
            return "what is left of the broker's disk is kept for events"
        return ""

    def _many(self, digest: bytes, held: BlobTotals, most: int) -> int:
        """How many blobs are too many with another one; none are where that is held already."""
        return 0 if self._blobs.get(digest) is not None else held.number + 1 - most

    def _short(self, size: int) -> int:
        """What the disk lacks of room for so many bytes more; nothing while there is being removed, which makes room."""
        if self._removing:
            return 0
        total, free = self._blobs.disk()
        return kept_for_events(total) + size - free

    def _give(self, wanted: int, spare: Iterator[Blob], many: int = 0) -> BlobTotals:
        """Give so many bytes, and blobs, of what may go; how many were given."""
        given = gone = 0
        most = many + GIVEN_AT_ONCE if many > 0 else 0
        while (given < wanted or gone < most) and (blob := next(spare, None)) is not None:
            self._remove(blob.digest)
            given, gone = given + blob.size, gone + 1
        return BlobTotals(gone, given)

    def _spare(self, digest: bytes = b"") -> Iterator[Blob]:
        """What may go but for one, in the order in which it goes (rule 2); looked for when the first is asked for."""
        named = self._blobs.named()
        late = self._now_ms() - UNFINISHED_MS
        others = (one for one in self._blobs.all() if one.digest != digest)
        spare = [one for one in others if (one.digest not in named if one.whole else one.at_ms < late)]
        yield from sorted(spare, key=lambda one: (one.whole, one.at_ms, one.digest))

    def expire(self) -> None:
        """Remove what was begun and not gone on with, for a disk's sake also what nothing names (rule 2).

        What a full disk has kept from being done is tried again.
        """
        if self._checks or self._looks or self._removing:
            self._due()
        now_ms = self._now_ms()
        self._looked = {digest: at for digest, at in self._looked.items() if at > now_ms - AGAIN_MS}
        for blob in self._blobs.all():
            if not blob.whole and blob.at_ms < now_ms - UNFINISHED_MS:
                self._remove(blob.digest)
        self._give(self._short(0), (one for one in self._spare() if one.at_ms < now_ms - UNFINISHED_MS))

    def _remove(self, digest: bytes) -> None:
        self._blobs.forget(digest)
        self._removing.append(digest)
        self._due()

    def step(self) -> bool:
        """Do a little of what takes long (rule 3); whether there is more to be done now: not while the disk is full."""
        try:
            if self._checks:
                self._check(self._checks[0])
            elif self._looks:
                self._look(self._looks[0])
            elif self._removing and not self._blobs.remove_chunks(self._removing[0], REMOVED_AT_ONCE):
                self._removing.popleft()
        except StoreFullError:
            return False
        return bool(self._checks or self._looks or self._removing)

    def _look(self, look: _Sum) -> None:
        if look.takes(self._blobs.chunk(look.digest, look.chunks)):
            return
        if self.has(look.digest) and not look.right:
            self._remove(look.digest)
            self._words.damaged(
                f"blob {look.digest.hex()} of the depot is not what was put, and is held no more: apply it again"
            )
        self._looks.popleft()

    def _check(self, check: _Check) -> None:
        frame, seen = check.frame, check.seen
        held = self._blobs.get(frame.digest)
        if held is not None and held.whole:  # who said so before has had it checked
            self._checks.popleft()
            check.answer(f.BlobIs(id=frame.id, size=held.size))
            return
        if seen.takes(None if seen.chunks >= frame.chunks else self._blobs.so_far(frame.digest, seen.chunks)):
            return
        ok = seen.chunks == frame.chunks and seen.right
        if ok:
            self._blobs.keep(frame.digest, frame.chunks, now_ms=self._now_ms())
        else:
            self._remove(frame.digest)
        self._checks.popleft()
        blob = self._blobs.get(frame.digest)
        said = "" if ok else "what arrived has another sha256"
        check.answer(f.BlobIs(id=frame.id, size=None if blob is None else blob.size, ok=ok, message=said))
