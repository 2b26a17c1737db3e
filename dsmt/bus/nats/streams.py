"""The streams of a realm on JetStream: made once, read by sequence, by subject and as one page.

Rule 1: stream H is the one into which everything is published, so it has one order and one acknowledgement. Stream F is
    sourced from it and holds the last of each retained subject, for as long as there is nobody to remove it
    (`wire.subjects`).
Rule 2: streams are made when a realm is born. Those that are made at another time, for the disk is lost, say so of
    themselves, and since when anybody is let in to bring what he holds: nobody takes such a realm for an empty one (rule
    A4). Where H or F alone is lost none is made: the rest would pass for all. The depot, which holds no fact, is made
    anew alone.
Rule 3: a store is named by the moment at which its stream was made: a stream that is made anew is another store (rule
    D3). One that is found to be an older copy is named by that moment (`older`).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from nats.aio.msg import Msg

from dsmt.bus.nats.headers import DESCRIPTION, NO_RESPONDERS, STATUS, Headers, headers_of, row_in_source, size_of
from dsmt.bus.nats.link import ANSWER_S, ApiError, NatsLink
from dsmt.bus.rules.nats_config import PAYLOAD_BYTES, broker_of
from dsmt.bus.wire.subjects import FACTS, Subjects
from dsmt.errors import RefusedError, TransportError

NO_STREAM: Final = 10059
NO_MESSAGE: Final = 10037
NOT_LAST_CODES: Final = frozenset({10071, 10164})
"""The last row on the topic is another one than was expected; or will be, for a publish of somebody else is on its way."""
EXPECTED_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
MSG_ID: Final = "Nats-Msg-Id"
DUPLICATES_S: Final = 120
"""How long a server knows the ids of what was published; what is said again later, readers drop by its chain."""
_ID_CHARS: Final = 32
HISTORY_S: Final = 7 * 24 * 3600
MARK_S: Final = 60
BLOBS: Final = {"discard": "new", "discard_new_per_subject": True}
"""What stands in the depot nothing takes the place of."""
LOW_MS: Final = 5 * 60 * 1000
"""How long a server's word that little is left of its disk is good for."""
ANEW: Final = "anew"
"""Under this the metadata of a stream H that was made anew has the time in ms since when who holds anything is let in."""
STORE: Final = "store"
"""Under this the metadata of one that is an older copy has the time in ms when that was found: so its store is named."""
_SHUT: Final = "0"
_LOW: Final = "low-"
_LOST: Final = "it was lost with a disk, or a part of one, perhaps: docs/nats.md says what to do then (A lost disk)"
_MAY_BE_LOST: Final = f"try again: its servers may be choosing a leader; if that stays so, {_LOST}"
_LOOK_AGAIN_S: Final = 0.02
_NS: Final = 1_000_000_000
_SUBJECT: Final = "Nats-Subject"
_SEQUENCE: Final = "Nats-Sequence"
"""Which a server gives to what is stored alone; what says that nobody answers names the subject of the question."""


class Head(NamedTuple):
    """What a stream says of itself: the store's name, its rows, the server's time; then how many they are and since when."""

    store: str
    first: int
    last: int
    replicas: int
    now_ms: int
    messages: int
    size: int
    first_ms: int
    anew_ms: int | None = None
    """Of one that took the place of a lost one: since when anybody is let in, 0 before; None of one that was born."""


class StreamMessage(NamedTuple):
    """A message of a stream; `row` is its sequence in stream H, wherever it was read, or 0 (`headers`, rule 2)."""

    subject: str
    row: int
    stored_ms: int
    raw: bytes
    left: int = 0
    """How many more its consumer has for us."""
    sequence: int = 0
    """Its sequence in the stream where it was read."""
    number: int = 0
    """How many its consumer has delivered with it."""
    size: int = 0
    """Bytes that a consumer's message takes: its subject, its headers and what it says."""


def id_of(raw: bytes, addressee: str = "") -> str:
    """By what a server is to know an event again, or a copy of it: nobody else can tell before it was published.

    For whoever publishes something under an id first has it taken for what bears that id later.
    """
    return sha256(raw).hexdigest()[:_ID_CHARS] + (f" {addressee}" if addressee else "")


def time_ms(rfc3339: str) -> int:
    """A time as the server writes it, in ms."""
    return int(datetime.fromisoformat(rfc3339).timestamp() * 1000)


async def make_streams(link: NatsLink, subjects: Subjects, *, replicas: int, anew: bool = False) -> None:
    """Make the streams of a realm that is born; those that are there already stay as they are.

    `anew`: they take the place of those that were lost (rule 2). Raises `ApiError`, `TransportError`.
    """
    wanted = await _lost(link, subjects) if anew else _all(subjects)
    common = {"storage": "file", "num_replicas": replicas, "allow_direct": True, "allow_msg_ttl": True, "discard": "old"}
    history = {
        "name": subjects.history,
        "subjects": [subjects.everything],
        "retention": "limits",
        "max_age": HISTORY_S * _NS,
        "duplicate_window": DUPLICATES_S * _NS,
        "allow_atomic": True,
        "deny_delete": False,
        **common,
    }
    if anew:
        history["metadata"] = {ANEW: _SHUT}
    source = {"name": subjects.history, "subject_transforms": [{"src": one, "dest": one} for one in subjects.retained()]}
    facts = {"name": subjects.facts, "sources": [source], "max_msgs_per_subject": 1, **common}
    blobs = {"name": subjects.blobs, "subjects": [subjects.pieces], "max_msgs_per_subject": 1, **common, **BLOBS}
    made: tuple[dict[str, Any], ...] = (history, facts, blobs)
    for stream in made:
        if stream["name"] in wanted and await _config(link, stream["name"]) is None:
            await link.api(f"STREAM.CREATE.{stream['name']}", stream)


async def purge(link: NatsLink, stream: str, which: dict[str, Any]) -> None:
    """Remove messages of a stream: those that `which` names. Raises `ApiError`, `TransportError`."""
    await link.api(f"STREAM.PURGE.{stream}", which)


async def _info(link: NatsLink, stream: str) -> dict[str, Any]:
    """What the leader of a stream says of it. Raises `ApiError`, `TransportError`."""
    return await link.api(f"STREAM.INFO.{stream}")


async def _config(link: NatsLink, stream: str) -> dict[str, Any] | None:
    """The configuration of a stream; None where there is none. Raises `ApiError`, `TransportError`."""
    try:
        found: dict[str, Any] = (await _info(link, stream))["config"]
    except ApiError as error:
        if error.code != NO_STREAM:
            raise
        return None
    return found


def _all(subjects: Subjects) -> frozenset[str]:
    return frozenset((subjects.history, subjects.facts, subjects.blobs))


async def _lost(link: NatsLink, subjects: Subjects) -> frozenset[str]:
    """Which of a realm's streams may be made anew: all where none is there, or where that was interrupted; or the depot."""
    history, facts, blobs = [await _config(link, one) for one in (subjects.history, subjects.facts, subjects.blobs)]
    if history is None:
        return _all(subjects) if facts is None and blobs is None else frozenset()
    if (history.get("metadata") or {}).get(ANEW) == _SHUT:
        return _all(subjects)
    return frozenset() if facts is None else frozenset((subjects.blobs,))


async def opened(link: NatsLink, subjects: Subjects) -> None:
    """Who holds anything is let in from now on: in streams that were made anew that is noted, once.

    Raises `ApiError`, `TransportError`.
    """
    told = await _info(link, subjects.history)
    config = told["config"]
    before = config.get("metadata") or {}
    if before.get(ANEW) == _SHUT:
        metadata = {**before, ANEW: str(time_ms(told["ts"]))}
        await link.api(f"STREAM.UPDATE.{subjects.history}", {**config, "metadata": metadata})


async def set_apart(link: NatsLink, subjects: Subjects) -> None:
    """The store of an older copy takes another name, and counts as made anew. Raises `ApiError`, `TransportError`."""
    told = await _info(link, subjects.history)
    config = told["config"]
    metadata = {**(config.get("metadata") or {}), STORE: str(time_ms(told["ts"])), ANEW: _SHUT}
    await link.api(f"STREAM.UPDATE.{subjects.history}", {**config, "metadata": metadata})


async def close_blobs(link: NatsLink, subjects: Subjects, broker: str, *, low: bool, now_ms: int) -> None:
    """Say whether little is left of a server's disk: while it is so of any, the stream of blobs takes no more.

    Raises `ApiError`, `TransportError`, `RefusedError`.
    """
    config = (await _info(link, subjects.blobs))["config"]
    before = config.get("metadata") or {}
    metadata = {
        key: value
        for key, value in before.items()
        if not key.startswith(_LOW) or (key != f"{_LOW}{broker}" and now_ms - int(value) < LOW_MS)
    }
    metadata |= {f"{_LOW}{broker}": str(now_ms)} if low else {}
    full = any(key.startswith(_LOW) for key in metadata)
    wanted = {**config, **BLOBS, "metadata": metadata, "max_bytes": 1 if full else -1}
    if wanted != config:
        await link.api(f"STREAM.UPDATE.{subjects.blobs}", wanted)


async def head(link: NatsLink, stream: str) -> Head:
    """Where a stream stands, by its leader. Raises `RefusedError` when there is none, `TransportError`."""
    try:
        told = await _info(link, stream)
    except ApiError as error:
        if error.code != NO_STREAM:
            raise TransportError("nats.stream", f"stream {stream}: {error}") from error
        raise RefusedError("nats.stream", f"NATS has no stream {stream}", next=_LOST) from error
    state, metadata = told["state"], told["config"].get("metadata") or {}
    made, anew = metadata.get(STORE) or time_ms(told["created"]), metadata.get(ANEW)
    return Head(
        f"{stream}.{made}",
        state["first_seq"],
        state["last_seq"],
        told["config"]["num_replicas"],
        time_ms(told["ts"]),
        state["messages"],
        state["bytes"],
        max(0, time_ms(state["first_ts"])),
        None if anew is None else int(anew),
    )


async def kept_by(link: NatsLink, subjects: Subjects, broker: str) -> str | None:
    """What keeps a broker's server; None where others lead each stream, and all who are to hold it have all of it.

    Raises `RefusedError` when there is none, `TransportError`.
    """
    for stream in (subjects.history, subjects.facts, subjects.blobs):
        try:
            told = await _info(link, stream)
        except ApiError as error:
            raise TransportError("nats.stream", f"stream {stream}: {error}") from error
        if kept := _kept_by(told, broker):
            return f"stream {stream} {kept}"
    return None


def _kept_by(told: Mapping[str, Any], broker: str) -> str | None:
    """The same of one stream, by what its leader says."""
    held, wanted = told.get("cluster", {}), told["config"]["num_replicas"]
    leader, others = broker_of(held.get("leader", "")), held.get("replicas", [])
    names = [broker_of(one["name"]) for one in others]
    lacking = [name for name, one in zip(names, others, strict=True) if not one["current"] or one.get("offline")]
    if not leader:
        return "has no leader"
    if broker in (leader, *names):
        return f"is {'led by' if broker == leader else 'on'} {broker}"
    if lacking:
        return f"is not whole yet on {', '.join(lacking)}"
    if len(others) + 1 < wanted:
        return f"is on {', '.join((leader, *names))} alone: {wanted} servers are to hold it"
    return None


async def last_on(link: NatsLink, stream: str, subject: str) -> StreamMessage | None:
    """The last message on a subject or a pattern of them, by the stream's leader. Raises `TransportError`."""
    return await _get(link, stream, {"last_by_subj": subject})


async def next_on(link: NatsLink, stream: str, subject: str, row: int) -> StreamMessage | None:
    """The first message from a row on, by the stream's leader. Raises `TransportError`."""
    return await _get(link, stream, {"seq": row, "next_by_subj": subject})


async def _get(link: NatsLink, stream: str, asked: dict[str, Any]) -> StreamMessage | None:
    try:
        told = (await link.api(f"STREAM.MSG.GET.{stream}", asked))["message"]
    except ApiError as error:
        if error.code == NO_MESSAGE:
            return None
        raise TransportError("nats.stream", f"stream {stream}: {error}") from error
    row = _row(stream, headers_of(base64.b64decode(told.get("hdrs", ""))), told["seq"])
    return StreamMessage(told["subject"], row, time_ms(told["time"]), base64.b64decode(told.get("data", "")), 0, told["seq"])


async def last_of_each(link: NatsLink, stream: str, subjects: Sequence[str]) -> list[StreamMessage]:
    """The last message of each subject that a pattern takes, by any server that has the stream. Raises `TransportError`."""
    inbox, queue = await link.listen()
    asked = link.question(f"DIRECT.GET.{stream}", {"multi_last": list(subjects), "batch": 1024})
    found: list[StreamMessage] = []
    try:
        await link.send(asked, inbox)
        while True:
            message = await link.next_of(queue)
            headers = message.headers or {}
            if _SEQUENCE in headers:  # what looks like a status there who published it has written
                found.append(_direct(stream, headers, message.data))
                continue
            status = headers.get(STATUS)
            if status in ("204", "404"):
                return found
            if status == "413":  # they are more than a thousand
                return await _one_by_one(link, stream, subjects)
            if status == NO_RESPONDERS:
                raise TransportError("nats.stream", f"no server has stream {stream} now", next=_MAY_BE_LOST)
            raise TransportError("nats.stream", f"stream {stream} answers {status} {headers.get(DESCRIPTION, '')}")
    finally:
        await link.deaf(inbox)


async def _one_by_one(link: NatsLink, stream: str, subjects: Sequence[str]) -> list[StreamMessage]:
    """The same, however many they are, by the stream's leader. Raises `TransportError`."""
    last: dict[str, StreamMessage] = {}
    for subject in subjects:
        after = 0
        while (found := await next_on(link, stream, subject, after + 1)) is not None:
            last[found.subject], after = found, found.sequence
    return list(last.values())


async def held_on(link: NatsLink, stream: str, subjects: Sequence[str]) -> list[StreamMessage]:
    """The same; that there is nothing is believed of the leader only: any other server may lack what has just been stored.

    Raises `TransportError`.
    """
    deadline = asyncio.get_running_loop().time() + ANSWER_S
    while not (found := await last_of_each(link, stream, subjects)):
        if not any([await last_on(link, stream, one) for one in subjects]):
            return []
        if asyncio.get_running_loop().time() > deadline:
            raise TransportError("nats.behind", f"what stream {stream} has on {subjects[0]} does not come")
        await asyncio.sleep(_LOOK_AGAIN_S)
    return found


def _row(stream: str, headers: Mapping[str, str], sequence: int) -> int:
    """Where a message stands in stream H."""
    return row_in_source(headers) if stream.startswith(FACTS) else sequence


def _direct(stream: str, headers: Mapping[str, str], raw: bytes) -> StreamMessage:
    sequence = int(headers[_SEQUENCE])
    row = _row(stream, headers, sequence)
    return StreamMessage(headers[_SUBJECT], row, time_ms(headers["Nats-Time-Stamp"]), raw, 0, sequence)


def delivered(message: Msg, *, sizes: bool = False) -> StreamMessage:
    """A message as a consumer delivers it: where it stands is written in the subject for its acknowledgement.

    With `sizes` its headers alone, which tell how much it says.
    """
    tokens = message.reply.split(".")
    stream, at = (tokens[2], tokens[5:9]) if len(tokens) == 9 else (tokens[4], tokens[7:11])
    sequence, number, nanoseconds, left = map(int, at)
    headers = message.headers or Headers()
    row, said = _row(stream, headers, sequence), size_of(headers, PAYLOAD_BYTES) if sizes else len(message.data)
    size = len(message.subject) + getattr(headers, "size", 0) + said
    return StreamMessage(message.subject, row, nanoseconds // 1_000_000, message.data, left, sequence, number, size)
