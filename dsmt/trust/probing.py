"""Probing: a question to a node's monitor, and its signed answer, which proves to anybody that the node lives (rule F4).

Rule 1: the answer names the nonce that was asked, the node, its attachment and its realm time, under the monitor's own key:
    nobody else can make one, and an old one shows its age.
Rule 2: an answer whose numbers no record could hold is none: who asked is to tell of it (A14).
Rule 3: a request is as long as its answer, so that nobody can be flooded through who answers.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import cbor2

from dsmt.errors import UnusableEventError
from dsmt.event.codec import Signing, open_envelope, sign_alone
from dsmt.event.hlc import LAST_MS
from dsmt.event.kinds.numbers import GREATEST_COUNT
from dsmt.event.payload import canonical
from dsmt.trust.keys import key_id_of
from dsmt.trust.proven import Verify

NONCE_BYTES: Final = 16
REQUEST_BYTES: Final = 320


class Answered(NamedTuple):
    """What a node's monitor says in its answer: its attachment, and when it answered (realm ms)."""

    attachment: int
    time_ms: int


def request(nonce: bytes) -> bytes:
    """A request, padded to the length of its answer."""
    bare = canonical({"nonce": nonce, "pad": b""})
    return canonical({"nonce": nonce, "pad": bytes(max(0, REQUEST_BYTES - len(bare) - 2))})


def answer(content: bytes, key: Signing, public: bytes, node: str, said: Answered) -> bytes | None:
    """The signed answer to a request (COSE_Sign1); None when it is none."""
    if not REQUEST_BYTES - 8 <= len(content) <= REQUEST_BYTES + 8:
        return None
    nonce = _map(content).get("nonce")
    if type(nonce) is not bytes or len(nonce) != NONCE_BYTES:
        return None
    told = {"nonce": nonce, "node": node, "attachment": said.attachment, "time_ms": said.time_ms, "key": public}
    return sign_alone(canonical(told), key)


def answered(content: bytes, nonce: bytes, node: str, key_id: bytes, check: Verify) -> Answered | None:
    """What an answer to a nonce says, if it is the node's, by this key; else None."""
    try:
        envelope = open_envelope(content)
    except UnusableEventError:
        return None
    told = _map(envelope.payload)
    public, attachment, time_ms = told.get("key"), told.get("attachment"), told.get("time_ms")
    if envelope.key_id != key_id or type(public) is not bytes or key_id_of(public) != key_id:
        return None
    if told.get("nonce") != nonce or told.get("node") != node or type(attachment) is not int or type(time_ms) is not int:
        return None
    if not check(envelope.algorithm, public, envelope.to_be_signed(), envelope.signature):
        return None
    return Answered(attachment, time_ms) if 0 <= attachment <= GREATEST_COUNT and 0 <= time_ms <= LAST_MS else None


def _map(content: bytes) -> dict[str, Any]:
    try:
        told = cbor2.loads(content)
    except (cbor2.CBORDecodeError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
