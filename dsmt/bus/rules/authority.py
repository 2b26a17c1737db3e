"""Authority: what a broker asks beyond a certificate's grant: whose key may be ended, and who runs a service (J3).

Rule 1: a revocation is refused where its signer may not end that key, so that nothing stands on `trust/revoked/` in vain.
Rule 2: only an agent whose slot is on its node, by the slot's retained fact, says anything on its service's `app/`: a
    certificate lets a node name agents of any service, the slots say which it has.
"""

from __future__ import annotations

from collections.abc import Callable

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event, SignedEvent
from dsmt.trust.revocations import REVOKED, revoked_by
from dsmt.trust.store import TrustStore

Held = Callable[[str], SignedEvent | None]


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
            next="the root may revoke any key but its own; an issuer, a node or an operator the keys below its own",
        )


def check_runs(event: Event, held: Held) -> None:
    """Check rule 2; what is on another topic passes. Raises `UnusableEventError`."""
    if not event.topic.startswith("app/"):
        return
    _, node, service, component, index = event.source.split("/")
    slot = held(f"service/{service}/slot/{component}/{index}")
    if slot is None or slot.event.data.get("node") != node:
        said = f"{event.source} may not publish {event.topic}: {service}/{component}/{index} is not on {node}"
        raise UnusableEventError("trust.denied", said)
