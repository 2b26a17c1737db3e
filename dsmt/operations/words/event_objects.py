"""Events as JSON: the CloudEvents 1.0 JSON format with our extensions; and notices in the same form."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.ports.bus import Notice
from dsmt.trust.store import TrustStore


def event_object(signed: SignedEvent, trust: TrustStore) -> dict[str, Any]:
    """A verified event. `hlc` is text, since it does not fit into JSON's numbers everywhere."""
    event = signed.event
    held = trust.certificate(signed.key_id, event.source)
    return {
        "specversion": "1.0",
        "id": f"{event.incarnation}-{event.sequence}",
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": rfc3339(event.time_ms),
        "datacontenttype": "application/json",
        "data": plain(event.data),
        "topic": event.topic,
        "hlc": str(event.time),
        "cause": " ".join(map(str, event.cause)) or None,
        "signer": None if held is None else held.certificate.subject,
        "verified": held is not None,
        "verifyerror": None if held is not None else "signed with a key that is unknown here",
        "version": event.version,
        "replaces": None if event.replaces is None else str(event.replaces),
        "to": " ".join(event.to) or None,
        "ttl": event.ttl,
        "chain": event.chain.number,
    }


def notice_object(notice: Notice, *, reader: str, number: int, now_ms: int) -> dict[str, Any]:
    """A notice of this reader, as an event that nobody signed; `number` counts them."""
    bad = notice.type == "dsmt.notice.badsignature"
    return {
        "specversion": "1.0",
        "id": f"notice-{number}",
        "source": reader,
        "type": notice.type,
        "subject": notice.fields.get("source"),
        "time": rfc3339(now_ms),
        "datacontenttype": "application/json",
        "data": {"message": notice.message, **plain(dict(notice.fields))},
        "topic": notice.fields.get("topic"),
        "hlc": None,
        "cause": None,
        "signer": None,
        "verified": False if bad else None,
        "verifyerror": notice.message if bad else None,
    }


def plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes become base64."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value
