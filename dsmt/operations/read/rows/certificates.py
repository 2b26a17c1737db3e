"""Certificates: which of a name is in use, and how each stands (`dsmt cert list`).

Rule 1: a certificate is told as `renew` from half of its life on; one that has ended stops no service: who has it is not
    attached any more, and what it runs goes on.
Rule 2: one that has not begun was issued by a wrong clock: it stands in nobody's place, and a rotation gets out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from dsmt.trust.certificate import Certificate
from dsmt.trust.store import TrustStore

State = Literal["valid", "renew", "expired", "early", "revoked", "replaced"]
STAND_IN: Final = "controller/stand-in-"
"""What a controller is called that `cert revoke` makes and ends again; its key is kept nowhere."""
SHOWN: Final = frozenset({"issuer", "broker", "controller", "node", "operator"})
"""Whose certificates are listed: agents and monitors get theirs from their node by themselves."""
NO_BROKER: Final = "nobody knows who is alive, nothing is placed or repaired, and no other broker can take its place"
"""What it means that the key of a realm's only broker has ended: every member knows it by that key."""
WAY_BACK: Final = "keep each file with dsmt get SERVICE, dsmt down, then dsmt up and dsmt apply in another DSMT_HOME"


def state_of(certificate: Certificate, trust: TrustStore, now_s: int, newest: Certificate) -> State:
    """How a certificate stands; `newest` is the last one that was issued for its name and is not revoked."""
    if trust.is_revoked(certificate.key_id, certificate.subject):
        return "revoked"
    if certificate.not_after < now_s:
        return "expired"
    if certificate.not_before > now_s:
        return "early"
    if certificate is not newest:
        return "replaced"
    return "renew" if now_s >= certificate.renew_s else "valid"


def is_listed(name: str) -> bool:
    """Whether the certificates of a source are listed: of an operator's, not those of its programs, which it certifies."""
    role, _, rest = name.partition("/")
    return role in SHOWN and not (role == "operator" and "." in rest)


def in_use(trust: TrustStore, now_s: int) -> dict[str, Certificate]:
    """By name, the newest certificate that is not revoked and has begun, or else the newest; of members and operators."""
    found: dict[str, Certificate] = {}
    known = [one for one in trust.certificates(now_s) if is_listed(one.subject)]

    def order(one: Certificate) -> tuple[bool, bool, int]:
        return not trust.is_revoked(one.key_id, one.subject), one.not_before <= now_s, one.issued

    for one in sorted(known, key=order):
        found[one.subject] = one
    return found


def ended_brokers(used: Mapping[str, Certificate], now_s: int) -> dict[str, Certificate]:
    """Of those in use, the brokers' that have ended: they serve, and nothing that they say is believed."""
    return ended_in("broker", used, now_s)


def unbelieved(used: Mapping[str, Certificate], now_ms: int) -> set[str]:
    """The names of those brokers, without their role: what they said last of sessions may be long over."""
    return {name.removeprefix("broker/") for name in ended_brokers(used, now_ms // 1000)}


def ended_in(role: str, used: Mapping[str, Certificate], now_s: int) -> dict[str, Certificate]:
    """Of those in use, those of a role that have ended."""
    return {name: one for name, one in used.items() if one.role == role and one.not_after < now_s}
