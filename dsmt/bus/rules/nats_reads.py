"""What a source that may not read everything may ask of JetStream: its gate asks in its place, and holds its grant.

Rule 1: a NATS server bounds by subjects, and a question names in its body what it is after. So such a source asks JetStream
    itself for nothing but the next messages of a consumer, whose name is a secret of who had it made. All else it asks on
    a subject that says who it is and what its certificate lets it read, on which the server lets nobody else publish: a gate
    believes that, and remembers nobody.
Rule 2: a gate passes on what stays within the grant, as it was understood, and the server answers who asked.
Rule 3: beside its grant everybody reads what it needs to judge the rest: which brokers there are, what was removed, what
    was revoked, the certificates of a key that it names, its own words and marks, copies for it, a blob of a known digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from dsmt.bus.wire.subjects import Question, Subjects, token
from dsmt.errors import InputError, RefusedError, UnusableEventError
from dsmt.event.envelope import TOMBSTONE
from dsmt.event.kinds.realm import BROKERS
from dsmt.event.topic import check_pattern
from dsmt.trust.grants import subset
from dsmt.trust.revocations import REVOKED

KEPT_S: Final = 60.0
"""How long a server keeps a consumer that asks for nothing."""
EVERYBODY: Final = (BROKERS, TOMBSTONE, REVOKED)
"""What everybody may read (rule 3)."""
CONSUMER: Final = {"ack_policy": "none", "mem_storage": True, "num_replicas": 1}
"""What every consumer of ours is."""
_STARTS: Final = frozenset({"deliver_policy", "opt_start_seq"})
_NAME: Final = re.compile(r"[0-9a-f]{18,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NS: Final = 1_000_000_000


def passed_on(subjects: Subjects, question: Question, payload: bytes) -> bytes:
    """What is asked in the place of who asks, on `$JS.API.<asked>`. Raises `RefusedError`."""
    try:
        asked: Any = json.loads(payload) if payload else {}
    except (ValueError, RecursionError):
        asked = None
    stream, filters = _asked(question.asked, asked) if isinstance(asked, dict) else ("", None)
    known = stream in (subjects.history, subjects.facts, subjects.blobs) and filters is not None
    if not known or not all(isinstance(one, str) and _may_read(subjects, question, one) for one in filters or ()):
        raise RefusedError("trust.denied", f"{question.name} may not ask {question.asked[:200]} that")
    return json.dumps(asked).encode() if asked else b""


def _asked(subject: str, asked: Mapping[str, Any]) -> tuple[str, Sequence[object] | None]:
    """The stream that a question is about, and its filters; None in their place where it is not a question of ours.

    A server knows the keys in any case of letters: so all of them must be known here.
    """
    kind, _, stream = subject.rpartition(".")
    if kind.startswith("CONSUMER.CREATE."):
        return kind.rpartition(".")[2], _consumer(asked, kind.rpartition(".")[2], name=stream)
    return stream, _looked_up(kind, asked)


def _looked_up(kind: str, asked: Mapping[str, Any]) -> Sequence[object] | None:
    """The filters of a question that is answered at once; None for any other."""
    match kind, sorted(asked):
        case "STREAM.INFO", []:
            return ()
        case "STREAM.MSG.GET", ["last_by_subj"]:
            return (asked["last_by_subj"],)
        case "STREAM.MSG.GET", ["next_by_subj", "seq"]:
            return (asked["next_by_subj"],)
        case "DIRECT.GET", ["batch", "multi_last"]:
            return _some(asked["multi_last"])
    return None


def _consumer(asked: Mapping[str, Any], stream: str, *, name: str) -> Sequence[object] | None:
    """The filters of a consumer that is to be made; None for any other."""
    config = asked.get("config")
    if sorted(asked) != ["action", "config", "stream_name"] or not isinstance(config, dict):
        return None
    if (asked["action"], asked["stream_name"]) != ("create", stream) or _NAME.fullmatch(name) is None:
        return None
    fixed = {**CONSUMER, "name": name, "inactive_threshold": int(KEPT_S * _NS)}
    if set(config) != {*fixed, *_STARTS, "filter_subjects"} or any(config[key] != value for key, value in fixed.items()):
        return None
    return _some(config["filter_subjects"])


def _some(filters: object) -> Sequence[object] | None:
    return filters if isinstance(filters, list) and filters else None


def _may_read(subjects: Subjects, question: Question, subject: str) -> bool:
    """Whether all that a filter takes may be read (rule 3)."""
    try:
        kind, tokens = subjects.filtered(subject)
    except UnusableEventError:
        return False
    own = token(question.name)
    match kind, tokens:
        case "b", [_, digest, _]:
            return _DIGEST.fullmatch(digest) is not None
        case "c", [_, source, key]:
            return not {source, key} & {"*", ">"}
        case (("m" | "t"), [publisher, _]):
            return publisher == own
        case (("i" | "n"), [_, addressee, _, *_]):
            return addressee == own
        case (("f" | "s"), [author, *topic]):
            return author == own or _may_read_topic(question, topic)
        case "o", [_, author, *topic]:
            return author == own or _may_read_topic(question, topic)
    return False


def _may_read_topic(question: Question, tokens: Sequence[str]) -> bool:
    levels = ["+" if one == "*" else "" if one == ">" else unquote(one) for one in tokens]
    try:
        pattern = check_pattern("/".join(levels) or "/")
    except InputError:
        return False
    return subset([pattern], (*question.read, *EVERYBODY))
