"""What is fuzzed: for each parser of what others send or a disk gives back, what must hold of any bytes whatever.

It raises nothing but the error that it documents, and what it takes is written again as the bytes that it was.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final

from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.wire.framing import pack, unpack
from dsmt.errors import FailedError, UnusableEventError
from dsmt.event.burst import Member, parts_of, raw_of, raws_of
from dsmt.event.chain import SourceChain
from dsmt.event.codec import decode, decode_part, events_in, prepare, protected_header, sign_burst
from dsmt.event.envelope import Event
from dsmt.event.hlc import hlc
from dsmt.event.rowset import RowSet
from dsmt.ports.store import Append
from dsmt.trust.certificate import issue, read
from dsmt.trust.keys import SecretKey

CORPUS: Final = Path(__file__).parent / "corpus"
VECTORS: Final = Path(__file__).parents[1] / "vectors"
KEY: Final = SecretKey(bytes(range(32)))


def codec(data: bytes) -> None:
    """An event alone or a run; and the rows of a trim record."""
    events_in(data)
    try:
        rows = RowSet.read(data)
    except UnusableEventError:
        pass
    else:
        assert RowSet.read(rows.dump()).runs == rows.runs
    try:
        part = decode_part(data)
    except UnusableEventError:
        return
    assert part.events
    sealed = [one.sealed for one in part.events]
    if not any(isinstance(one, Member) for one in sealed):
        assert raws_of(sealed) == [data]
    for one, again in zip(part.events, raws_of(sealed), strict=True):
        alone = decode(again)
        assert (alone.event, alone.leaf, alone.key_id, raw_of(alone.sealed)) == (one.event, one.leaf, one.key_id, again)
    assert [one.id for piece in parts_of(sealed) for one in decode_part(piece).events] == [one.id for one in part.events]


def frames(data: bytes) -> None:
    """A message: its first part is the map; what follows the first byte that is 0xff is its second."""
    head, *rest = data.split(b"\xff\xfe", 2)
    try:
        frame, parts = unpack((head, *rest))
    except UnusableEventError:
        return
    assert parts == tuple(rest)
    assert unpack(pack(frame, *parts)) == (frame, parts)


def certificates(data: bytes) -> None:
    """A certificate."""
    try:
        signed = read(data)[0]
    except UnusableEventError:
        return
    assert signed.raw == data
    again = read(issue(signed.certificate, KEY).raw)[0]
    assert again.certificate == signed.certificate
    assert hash(again.certificate.key_id) is not None


def store(data: bytes) -> None:
    """A store's file of which bytes are others: each five bytes of the data are a place, in four, and what stands there."""
    content = bytearray(_store_file())
    for at in range(0, len(data) - 4, 5):
        content[int.from_bytes(data[at : at + 4]) % len(content)] ^= data[at + 4]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s.db"
        path.write_bytes(content)
        found = _rows_of(str(path))
    assert found in (_store_rows(), "store.damaged", "store.version")


def _rows_of(path: str) -> list[tuple[int, int, str, bytes]] | str:
    """What a store gives back, or the code of its error."""
    try:
        with closing(SqliteStore(path, identity="b" * 16)) as opened:
            return [(row.row, row.arrived_ms, row.topic, row.raw) for row in opened.rows(0, 100)]
    except FailedError as error:
        return error.code


@cache
def _store_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        made = SqliteStore(f"{directory}/s.db", identity="a" * 16)
        made.append([Append(one, 1000, "evidence", True, True, None) for one in _events()])
        made.close()
        return Path(f"{directory}/s.db").read_bytes()


@cache
def _store_rows() -> list[tuple[int, int, str, bytes]]:
    return [(row, 1000, one.event.topic, one.raw) for row, one in enumerate(_events(), 1)]


@cache
def _events() -> list[Any]:
    chain, protected, prepared = SourceChain(1), protected_header(KEY.algorithm, KEY.key_id), []
    for n in range(4):
        sequence, link = chain.next(f"user/t{n}")
        about = {"topic": f"user/t{n}", "subject": "s", "time": hlc(1000 + n), "data": {"n": n, "pad": "x" * 50}}
        event = Event(source="operator/a", incarnation=1, sequence=sequence, chain=link, type="dsmt.user", **about)
        one = prepare(event, protected)
        chain.signed(event, one.leaf)
        prepared.append(one)
    return [*sign_burst(prepared[:1], KEY), *sign_burst(prepared[1:], KEY)]


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "codec": codec,
    "frames": frames,
    "certificates": certificates,
    "store": store,
}


def seeds(target: str) -> list[bytes]:
    """What fuzzing of a target begins with: the test vectors, and what was found before."""
    kept = [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]
    files = {"codec": ("events", "bursts"), "frames": ("frames",), "certificates": ("certificates",), "store": ()}[target]
    told = [one for name in files for one in _hexes(json.loads((VECTORS / f"{name}.json").read_text()))]
    return [*kept, *dict.fromkeys(one for one in told if len(one) > 8)]


def _hexes(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        if set(value) == {"hex"}:
            yield bytes.fromhex(value["hex"])
        for one in value.values():
            yield from _hexes(one)
    elif isinstance(value, list):
        for one in value:
            yield from _hexes(one)


WAYS: Final = ("flip", "set", "cut", "copy")


def edited(data: bytes, changes: Iterable[tuple[str, int, int]]) -> bytes:
    """Bytes with a few small changes."""
    content = bytearray(data)
    for how, place, value in changes:
        at = place % (len(content) or 1)
        if how == "flip" and content:
            content[at] ^= 1 << value % 8
        elif how == "set" and content:
            content[at] = value
        elif how == "cut":
            del content[at : at + value % 8 + 1]
        elif how == "copy":
            content[at:at] = content[at : at + value]
    return bytes(content)
