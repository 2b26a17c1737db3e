"""The depot's broker side: blobs by their sha256, in chunks, kept in the broker's store.

Rule 1: a complete blob is never written again, whoever asks; only operators put.
"""

from __future__ import annotations

from dsmt.bus import frames as f
from dsmt.errors import FailedError, InputError
from dsmt.ports.store import Store

MAX_CHUNKS = 2**20


def serve(store: Store, frame: f.Frame, parts: tuple[bytes, ...]) -> tuple[f.Frame, tuple[bytes, ...]]:
    """Answer a frame about a blob. Raises `InputError` for a frame that is about something else."""
    match frame:
        case f.BlobAsked(id=number, digest=digest):
            return f.BlobIs(id=number, size=store.blob_size(digest)), ()
        case f.ChunkAsked(id=number, digest=digest, number=chunk_number):
            chunk = store.get_chunk(digest, chunk_number)
            return f.Chunk(id=number), () if chunk is None else (chunk,)
        case f.ChunkPut() | f.BlobFinished():
            try:
                return _put(store, frame, parts), ()
            except FailedError as error:
                return f.BlobIs(id=frame.id, size=None, ok=False, message=str(error)), ()
        case _:
            raise InputError("bus.frame", f"a client does not send {type(frame).__name__.lower()}")


def _put(store: Store, frame: f.ChunkPut | f.BlobFinished, parts: tuple[bytes, ...]) -> f.BlobIs:
    complete = store.blob_size(frame.digest)
    if complete is not None:
        return f.BlobIs(id=frame.id, size=complete)
    if isinstance(frame, f.ChunkPut):
        if len(parts) != 1 or frame.number >= MAX_CHUNKS:
            raise InputError("bus.frame", "a chunk is one part of a blob that has at most 2^20 of them")
        store.put_chunk(frame.digest, frame.number, parts[0])
        return f.BlobIs(id=frame.id, size=None)
    ok = frame.chunks <= MAX_CHUNKS and store.finish_blob(frame.digest, frame.chunks)
    said = "" if ok else "what arrived has another sha256"
    return f.BlobIs(id=frame.id, size=store.blob_size(frame.digest), ok=ok, message=said)
