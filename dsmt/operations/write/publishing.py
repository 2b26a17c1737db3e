"""Publish: an event of an operator's own, on `user/...`."""

from __future__ import annotations

from typing import Any

import msgspec

from dsmt.errors import InputError
from dsmt.event.payload import MAX_DEPTH, MAX_INT, is_plain
from dsmt.event.topic import is_topic
from dsmt.operations.read.realm.patience import patience
from dsmt.ports.bus import Bus, Draft


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What was said, and how it was acknowledged."""

    id: str
    topic: str
    level: str
    copies: int


async def publish(bus: Bus, topic: str, data: str, *, subject: str = "", ttl_ms: int | None = None) -> Published:
    """Publish JSON text on a topic and wait for its acknowledgement.

    Data that is no object stands under the key `value`. Raises `InputError`, `RefusedError`, `TransportError`.
    """
    if not is_topic(topic):
        raise InputError("event.topic", f"{topic!r} is not a topic", next="write a topic under user/, as in user/deploys")
    if not topic.startswith("user/"):
        said = f"{topic} is not a topic for operators: theirs begin with user/"
        raise InputError("event.topic", said, next=f"publish on user/{topic}")
    if ttl_ms == 0:
        said = "an event that is valid for no time is heard by nobody"
        raise InputError("event.ttl", said, next="write --ttl 10m, or leave it out")
    try:
        told: Any = msgspec.json.decode(data.encode())
    except UnicodeEncodeError as error:  # what a terminal gave is no text
        raise InputError("event.data", "the data is not UTF-8", next="write it in UTF-8, or with \\u escapes") from error
    except RecursionError as error:
        raise InputError(
            "event.data", "the data is nested too deep", next="write fewer lists and maps in each other"
        ) from error
    except msgspec.DecodeError as error:
        raise InputError("event.data", f"the data is not JSON: {error}", next="""write '{"key": "value"}'""") from error
    plain = told if isinstance(told, dict) else {"value": told}
    if not is_plain(plain):
        said = f"the data has a whole number beyond {MAX_INT}, or is nested deeper than {MAX_DEPTH}"
        raise InputError("event.data", said, next="write such a number as text, and fewer lists and maps in each other")
    emission = bus.emit(Draft(topic, plain, subject=subject, ttl_ms=ttl_ms))
    async with patience("the acknowledgement"):
        ack = await emission.acknowledged()
    return Published(id=str(emission.id), topic=topic, level=ack.level.value, copies=ack.copies)
