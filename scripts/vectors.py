"""Writes the test vectors below tests/vectors, and clients/js/topics.json, for clients in other languages: `make vectors`.

Rule 1: they are made by the code that they describe, with fixed keys; a test finds drift.
Rule 2: in JSON, bytes are {"hex": ...}, and integers that a double cannot hold are {"int": ...}.
Rule 3: `refused` are inputs of which nothing may be used; `code` is what dsmt says of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cbor2
import msgspec

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack
from dsmt.bus.wire.handshake import statement
from dsmt.bus.zeromq.sockets import joined
from dsmt.errors import UnusableEventError
from dsmt.event.burst import assemble, parts_of, raws_of
from dsmt.event.codec import prepare, protected_header, seal, sig_structure
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.merkle import leaf_hash, root
from dsmt.event.payload import payload
from dsmt.event.registry import TOPICS
from dsmt.event.topic import covers, matches
from dsmt.trust.certificate import SignedCertificate, issue
from dsmt.trust.grants import may_write, publish_patterns
from dsmt.trust.identity import Identity, delegate, root_issued
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.revocations import REVOKED
from dsmt.trust.store import Realm, TrustStore

ROOT: Final = Path(__file__).parents[1]
NOW_S: Final = 1_700_000_000
ROOT_KEY, ALICE_KEY, PROGRAM_KEY, MALLORY_KEY = (SecretKey(bytes([n]) * 32) for n in (1, 2, 3, 4))
ALICE: Final = root_issued("operator/alice", ROOT_KEY, key=ALICE_KEY, now_s=NOW_S, serial=bytes(16))
PROGRAM: Final = delegate("operator/alice.p1", ALICE, key=PROGRAM_KEY, now_s=NOW_S, serial=bytes([1]) * 16)
_SAFE: Final = 2**53 - 1


def _json(value: Any) -> Any:
    """Rule 2."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if type(value) is int and abs(value) > _SAFE:
        return {"int": str(value)}
    if isinstance(value, Mapping):
        return {key: _json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value]
    return value


def _event(number: int, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "source": "operator/alice.p1",
        "incarnation": NOW_S * 1000,
        "sequence": number,
        "chain": ChainLink(number, NO_LEAF if number == 1 else bytes([number]) * 32),
        "type": "dsmt.user",
        "topic": "user/greeting",
        "subject": "user/greeting",
        "time": hlc(NOW_S * 1000, number),
        "data": {"said": f"hello {number}"},
    }
    return Event(**(fields | more))


FULL: Final = _event(
    7,
    data={
        "none": None, "yes": True, "less": -1000, "big": 2**60, "half": 0.5, "third": 1 / 3, "bytes": b"\x00\xff",
        "text": "größer", "list": [1, [2], {"deep": {}}],
    },
    cause=(EventId("operator/alice", 3, 4), EventId("agent/n1/web/app/0", 5, 6)),
    ttl=86_400_000,
    to=("node/n1", "node/n2"),
    epoch=8,
    version=9,
    replaces=EventId("controller/c2", 1_600_000_000_000, 1),
    declares=(5, 6),
)  # fmt: skip
"""Every field is set."""


def _trust() -> TrustStore:
    trust = TrustStore(Realm(name="vectors", roots=(ROOT_KEY.public,)))
    trust.add_all([signed.raw for signed in PROGRAM.chain])
    return trust


def _refusal(what: str, part: bytes) -> dict[str, Any]:
    """Rule 3: what the trust store says of it. Raises `AssertionError` when it believes any of it."""
    try:
        codes = {error.code if error else "" for _, error in _trust().open_part(part)}
    except UnusableEventError as error:
        codes = {error.code}
    if "" in codes or len(codes) != 1:
        raise AssertionError(what)
    return {"what": what, "code": codes.pop(), "part": part}


def _flipped(raw: bytes, at: int) -> bytes:
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)


def _told(signed: SignedEvent) -> dict[str, Any]:
    told: dict[str, Any] = cbor2.loads(payload(signed.event))
    return {"fields": told, "payload": payload(signed.event), "leaf": signed.leaf, "event": signed.raw}


def keys() -> Any:
    """Keys: the id, and the forms for links."""
    message = b"a message"
    return [
        {
            "seed": key.seed,
            "public": key.public,
            "key_id": key.key_id,
            "link_secret": key.link_secret(),
            "link_public": link_key(key.public),
            "message": message,
            "signature": key.sign(message),
        }
        for key in (ROOT_KEY, ALICE_KEY, PROGRAM_KEY, MALLORY_KEY)
    ]


def certificates() -> Any:
    """A realm, a chain of two below its root, and certificates that are not good there."""
    alice, program = ALICE.chain[0], PROGRAM.chain[0]

    def wider(signer: SecretKey = ALICE_KEY, **more: Any) -> SignedCertificate:
        return issue(msgspec.structs.replace(program.certificate, **more), signer)

    cases = {
        "its signature is another key's": _flipped(program.raw, -1),
        "its issuer is unknown": wider(MALLORY_KEY).raw,
        "it grants more than its issuer's": wider(publish=("/",)).raw,
        "it outlives its issuer's": wider(not_after=program.certificate.not_after + 1).raw,
        "it may delegate as deep as its issuer's": wider(depth=alice.certificate.depth).raw,
        "its issuer may not name it": wider(subject="operator/bob").raw,
        "it names an issuer that its key is not": wider(issuer="operator/bob").raw,
    }
    refused = []
    for what, raw in cases.items():
        try:
            _trust().add(raw)
        except UnusableEventError as error:
            refused.append({"what": what, "code": error.code, "certificate": raw})
        else:
            raise AssertionError(what)
    claims = [msgspec.structs.asdict(one.certificate) | {"key_id": one.certificate.key_id} for one in PROGRAM.chain]
    chain = [one.raw for one in PROGRAM.chain]
    return {"realm": "vectors", "root": ROOT_KEY.public, "chain": chain, "claims": claims, "refused": refused}


def events() -> Any:
    """Events that are signed alone."""
    good = [seal([event], PROGRAM_KEY)[0] for event in (_event(1), FULL)]
    raw = good[0].raw
    body = payload(_event(1))
    header = protected_header(PROGRAM_KEY.algorithm, PROGRAM_KEY.key_id)
    stray = b"\xd2" + cbor2.dumps([header, {1: -8}, body, PROGRAM_KEY.sign(sig_structure(header, body))])

    def of(key: SecretKey = PROGRAM_KEY, **more: Any) -> bytes:
        return seal([_event(1, **more)], key)[0].raw

    def signed_as(written: bytes) -> bytes:
        return assemble(header, written, PROGRAM_KEY.sign(sig_structure(header, written)))

    cases = {
        "a byte of its data is another": _flipped(raw, raw.index(b"hello") + 1),
        "a byte of its signature is another": _flipped(raw, -1),
        "an unprotected header that nobody knows": stray,
        "no tag": raw[1:],
        "more behind its payload": signed_as(body + b"\x00"),
        "a key twice in its payload": signed_as(bytes([body[0] + 1]) + body[1:] + _twice(body)),
        "its key has no certificate here": of(MALLORY_KEY),
        "it says to be of another source": of(source="operator/alice"),
        "its certificate does not grant the topic": of(topic="app/web/x", type="dsmt.app"),
        "its topic is another's": of(topic="source/operator/bob", type="dsmt.source.started"),
        "its certificate was not valid then": of(time=hlc(NOW_S * 1000 - 3_600_000)),
    }
    return {
        "good": [_told(one) | {"signed": sig_structure(header, payload(one.event))} for one in good],
        "refused": [_refusal(what, part) for what, part in cases.items()],
    }


def _twice(body: bytes) -> bytes:
    """The first key of a payload with its value once more; it is `id`, an array of two numbers."""
    first: list[int] = cbor2.loads(body)["id"]
    return b"\x62id" + cbor2.dumps(first)


def bursts() -> Any:
    """Events under one signature: alone with their paths, and as runs."""
    header = protected_header(PROGRAM_KEY.algorithm, PROGRAM_KEY.key_id)
    good = []
    for size in (2, 3, 7):
        signed = seal([_event(n) for n in range(1, size + 1)], PROGRAM_KEY)
        some = [one.sealed for n, one in enumerate(signed) if n != 1]
        top = root([prepare(one.event, header).leaf for one in signed])
        good.append({
            "root": top,
            "signed": sig_structure(header, top),
            "events": [_told(one) for one in signed],
            "alone": raws_of([one.sealed for one in signed]),
            "run": parts_of([one.sealed for one in signed]),
            "without_the_second": parts_of(some),
        })  # fmt: skip
    run, member = good[-1]["run"][0], good[-1]["alone"][2]
    protected, signature, members = cbor2.loads(run)
    cases = {
        "a byte of one member is another": _flipped(run, run.index(b"hello 3") + 6),
        "two members have changed places": cbor2.dumps([protected, signature, [members[1], members[0], *members[2:]]]),
        "a member is missing": cbor2.dumps([protected, signature, members[1:]]),
        "leaves of more than its one event is worth": cbor2.dumps([protected, signature, _leaves(header, members)]),
        "a run of one": cbor2.dumps([protected, signature, members[:1]]),
        "a sibling is missing from its path": _with_path(member, lambda i, n, s: [i, n, s[:-1]]),
        "a sibling more on its path": _with_path(member, lambda i, n, s: [i, n, [*s, s[0]]]),
        "its path says another size": _with_path(member, lambda i, n, s: [i, n + 1, s]),
        "its path says another place": _with_path(member, lambda i, n, s: [i + 1, n, s]),
    }
    return {"good": good, "refused": [_refusal(what, part) for what, part in cases.items()]}


def _leaves(header: bytes, members: Sequence[bytes]) -> list[bytes]:
    """The members of a run, of which only the first one travels."""
    return [members[0], *(leaf_hash(header, one) for one in members[1:])]


def _with_path(raw: bytes, change: Callable[[int, int, Sequence[bytes]], list[Any]]) -> bytes:
    protected, unprotected, body, signature = cbor2.loads(raw[1:])
    ((label, path),) = unprotected.items()
    return b"\xd2" + cbor2.dumps([protected, {label: change(*path)}, body, signature])


def revocations() -> Any:
    """Revocations of a key, and whether an event that it has signed is believed after them; empty: it is."""
    said = seal([_event(1)], PROGRAM_KEY)[0].raw
    bob = root_issued("operator/bob", ROOT_KEY, key=MALLORY_KEY, now_s=NOW_S, serial=bytes([2]) * 16)
    itself = root_issued("root", ROOT_KEY, key=ROOT_KEY, now_s=NOW_S, serial=bytes([3]) * 16)
    program, alice, root_id = PROGRAM_KEY.key_id, ALICE_KEY.key_id, ROOT_KEY.key_id
    cases = {
        "nobody has said anything": [],
        "the root has ended its key": [(itself, program)],
        "the root has ended the key above it": [(itself, alice)],
        "its issuer has ended its key": [(ALICE, program)],
        "it has ended its own key": [(PROGRAM, program)],
        "it has ended the key above it": [(PROGRAM, alice)],
        "somebody who is not above it has ended its key": [(bob, program)],
        "the root has ended its own key": [(itself, root_id)],
    }
    told = []
    for what, words in cases.items():
        trust = _trust()
        trust.add_all([bob.chain[0].raw, itself.chain[0].raw])
        parts = [_revocation(by, key_id) for by, key_id in words]
        for part in parts:
            trust.revoke(trust.open(part))
        ((_, error),) = trust.open_part(said)
        told.append({"what": what, "revocations": parts, "code": error.code if error else ""})
    return {"certificates": [bob.chain[0].raw, itself.chain[0].raw], "event": said, "cases": told}


def _revocation(by: Identity, key_id: bytes) -> bytes:
    topic = f"{REVOKED}{key_id.hex()}/{by.name}"
    data = {"by": by.name, "name": "", "reason": ""}
    return seal([_event(1, source=by.name, topic=topic, type="dsmt.trust.revoked", data=data)], by.key)[0].raw


def attach() -> Any:
    """The attach statement."""
    told = {"nonce": bytes(range(16)), "broker": "broker/b1", "name": PROGRAM.name, "incarnation": 5, "attachment": 6}
    signed = statement(PROGRAM_KEY, **told)  # type: ignore[arg-type]
    return told | {"statement": signed}


def frames() -> Any:
    """Messages: the frame as a map, and all of it as it is on the wire."""
    part = seal([_event(1)], PROGRAM_KEY)[0].raw
    examples: list[tuple[f.Frame, tuple[bytes, ...]]] = [
        (
            f.Hello(
                protocol=f.PROTOCOL, realm="vectors", name=PROGRAM.name, incarnation=0, firm=False, attachment=1,
                pid=None, version="1", address="",
            ),
            tuple(one.raw for one in PROGRAM.chain),
        ),
        (
            f.Welcome(
                broker="broker/b1", incarnation=5, attachment=6, nonce=bytes(range(16)), realm_ms=1.5e12, store="00"
            ),
            (),
        ),
        (f.Attach(statement=attach()["statement"]), ()),
        (f.Refused(code="trust.revoked", message="no", next=""), ()),
        (f.Time(sent=1.5), ()),
        (f.TimeIs(sent=1.5, realm_ms=1_700_000_000_000.25), ()),
        (f.Keepalive(asks=True), ()),
        (f.Publish(), (part,)),
        (
            f.Acked(
                ranges=((PROGRAM.name, 5, 1, 2),), level="stored", copies=1, synced=False, store="00", row=9, time_ms=1
            ),
            (),
        ),
        (
            f.Nacked(
                source=PROGRAM.name, incarnation=5, sequence=3, code="stale", message="no", next="look", realm_ms=1
            ),
            (),
        ),
        (f.Subscribe(id=1, patterns=("user/",), start="facts"), ()),
        (f.Deliver(id=1, rows=(8,), live=True), (part,)),
        (f.CompleteFrame(id=1, store="00", row=9, time_ms=1, whole=True), ()),
        (f.Consumed(id=1, count=400), ()),
        (f.Tally(token=bytes(16)), ()),
    ]  # fmt: skip
    return [
        {
            "frame": cbor2.loads(pack(frame)[0]),
            "parts": parts,
            "map": pack(frame)[0],
            "message": joined(pack(frame, *parts)),
        }
        for frame, parts in examples
    ]


def grants() -> Any:
    """Which pattern takes which topic or covers which pattern, and who writes where."""
    patterns = ("/", "user/", "user/+", "user/greeting", "+/n1/", "node/+/attributes", "node/", "node/n1")
    topics = ("user/greeting", "user", "user/a/b", "node/n1/attributes", "node/n1", "source/operator/alice")
    names = (ALICE.name, PROGRAM.name, "agent/n1/web/app/0", "node/n1", "monitor/n1", "root", "controller/c1")
    written = (
        "user/greeting", "source/operator/alice", "app/web/x", "app/db/x", "node/n1/attributes", "node/n2/attributes",
        "service/web/slot/app/0", "trust/revoked/00112233445566778899aabbccddeeff/operator/alice", "nowhere/x",
    )  # fmt: skip
    return {
        "matches": [[one, topic, matches(one, topic)] for one in patterns for topic in topics],
        "covers": [[one, other, covers(one, other)] for one in patterns for other in patterns],
        "may_write": [[name, topic, may_write(name, topic)] for name in names for topic in written],
        "publish": {name: publish_patterns(name) for name in names},
    }


def registry() -> Any:
    """The rows of docs/reference/topics.md, for programs."""
    return [
        {"topic": row.template, "type": row.event_type, "kind": row.kind, "writers": row.writers, "ttl_ms": row.ttl_ms}
        for row in TOPICS
    ]


FILES: Final[Mapping[str, Callable[[], Any]]] = {
    "clients/js/topics.json": registry,
    **{
        f"tests/vectors/{make.__name__}.json": make
        for make in (keys, certificates, events, bursts, revocations, attach, frames, grants)
    },
}


def texts() -> dict[str, str]:
    """Every file by its path."""
    return {path: json.dumps(_json(make()), indent=1, ensure_ascii=False) + "\n" for path, make in FILES.items()}


def main() -> int:
    """Write all files."""
    for path, text in texts().items():
        (ROOT / path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
