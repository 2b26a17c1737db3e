"""Authority: what is asked beyond a certificate's grant to publish: whose key may be ended, who runs a service, who reads.

Rule 1: a revocation is refused where its signer may not end that key, so that nothing stands on `trust/revoked/` in vain.
    What is too large is refused, too, but for the root's: it stands for good, and everybody is told it.
Rule 2: only an agent whose slot is on its node, by the slot's retained fact, says anything on its service's `app/`: a
    certificate lets a node name agents of any service, the slots say which it has. A slot that is to be gone is on no node:
    controllers say so to any node that tells an orphan, also one that it made up (A5).
Rule 3: a certificate also says what its holder may read. A source asks itself first: a broker ends the connection for it.
Rule 4: what ends something always may, whatever its source has. A tombstone of a service that is not there is charged as any
    fact: or a controller would bury made-up ones until nobody else's facts had room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from dsmt.errors import RefusedError, UnusableEventError
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.topic import check_pattern, covers
from dsmt.trust.revocations import ENDS_MOST, LARGEST, REVOKED, revoked_by
from dsmt.trust.store import TrustStore

Held = Callable[[str], SignedEvent | None]


def check_reads(name: str, granted: Sequence[str], patterns: Sequence[str]) -> None:
    """Check rule 3. Raises `InputError` for a pattern that is none, `RefusedError` for one that is not granted."""
    for pattern in patterns:
        check_pattern(pattern)
        if not any(covers(wide, pattern) for wide in granted):
            raise RefusedError("trust.denied", f"{name} may not read {pattern}")


def check_revocation(trust: TrustStore, signed: SignedEvent) -> None:
    """Check rule 1; anything else passes. Raises `UnusableEventError`."""
    event = signed.event
    if not event.topic.startswith(REVOKED):
        return
    key_id = revoked_by(event.topic)
    if key_id is None:
        raise UnusableEventError("event.topic", f"{event.topic} names no key", next=f"{REVOKED}<32 hex digits>/<source>")
    if event.ttl is not None:
        said = f"{event.source} revoked a key for {event.ttl} ms only: a revocation is for good"
        raise UnusableEventError("event.schema", said, next="say it without a time to live")
    if not trust.may_revoke(signed.key_id, key_id):
        raise UnusableEventError(
            "trust.denied",
            f"{event.source} may not revoke key {key_id.hex()}",
            next="the root may revoke any key but its own; an issuer, a node or an operator the keys below its own, "
            f"{ENDS_MOST} of them",
        )
    if signed.size > LARGEST and event.source != "root":
        said = f"{event.source} revoked a key in {signed.size} bytes, {LARGEST} are the limit"
        raise UnusableEventError("quota", said, next="give a shorter reason")


def obeys(trust: TrustStore, signed: SignedEvent) -> bool:
    """Whether an event is a revocation that may be said: its key has ended then, also where its time is yet to come (J3)."""
    if revoked_by(signed.event.topic) is None:
        return False
    with suppress(UnusableEventError):
        check_revocation(trust, signed)
        trust.revoke(signed)
        return True
    return False


def ends_something(event: Event, held: Held) -> bool:
    """Whether an event ends a key, or a thing; a service only where that is there (rule 4)."""
    if event.ends.startswith("service/"):
        return held(f"{event.ends}/spec") is not None
    return bool(event.ends) or revoked_by(event.topic) is not None


def check_runs(event: Event, held: Held) -> None:
    """Check rule 2; what is on another topic passes. Raises `UnusableEventError`."""
    if not event.topic.startswith("app/"):
        return
    _, node, service, component, index = event.source.split("/")
    slot = held(f"service/{service}/slot/{component}/{index}")
    decided = {} if slot is None else slot.event.data
    if decided.get("node") == node and decided.get("desired") != "gone":
        return
    why = f"is to be gone from {node}" if decided.get("node") == node else f"is not on {node}"
    raise UnusableEventError(
        "trust.denied",
        f"{event.source} may not publish {event.topic}: {service}/{component}/{index} {why}",
        next=f"dsmt ps {service} names the nodes whose agents may",
    )
