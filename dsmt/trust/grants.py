"""Grants: which topics a name may publish and read, derived from the registry of topics.

Rule 1: a source may publish the owned topics that name it, and the shared ones that name its role.
Rule 2: a grant also holds what may be delegated: a node's its monitor's and its agents' topics, an operator's its programs'
    and its tokens'.
Rule 3: a grant is a list of patterns; a delegated one must be covered by its parent's (`subset`).
Rule 4: a grant alone lets nobody write: `may_write` asks the topic's row, so what a node, an issuer or an operator
    holds only to delegate it, it cannot publish itself.
Rule 5: an agent writes of its own service only, whatever its node's certificate has room for; that the node runs the
    agent's slot is for a broker to see, who knows the slots.
Rule 6: a name is one of `NAME_LEVELS`, and who may be named by whom is `may_name`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.phrases import another_certificate
from dsmt.event.registry import TOPICS, as_pattern, lookup, owner_of, unify
from dsmt.event.topic import covers, is_topic, matches
from dsmt.trust.certificate import Certificate

DEPTHS: Final = {"root": 3, "issuer": 2, "node": 1, "operator": 1}
"""How many further delegations a role's certificate allows."""
QUOTAS: Final = {"joining": 8, "agent": 64, "monitor": 1_000, "node": 100_000}
"""Live facts a certificate may hold; any other role: `DEFAULT_QUOTA`."""
DEFAULT_QUOTA: Final = 1_000_000
NAME_LEVELS: Final = {
    "root": 1,
    "issuer": 2,
    "operator": 2,
    "broker": 2,
    "controller": 2,
    "joining": 2,
    "node": 2,
    "monitor": 2,
    "agent": 5,
}
"""The kinds of source, and how many levels their names have."""


def is_name(name: str) -> bool:
    """Whether a source may have this name."""
    return is_topic(name) and NAME_LEVELS.get(name.split("/", 1)[0]) == name.count("/") + 1


def publish_patterns(name: str) -> tuple[str, ...]:
    """What a name may publish."""
    role, *levels = name.split("/")
    return tuple(sorted([pattern.format(*levels) for pattern in _templates(role, len(levels))]))


@lru_cache(maxsize=64)
def _templates(role: str, levels: int) -> tuple[str, ...]:
    """What a name of so many levels below its role may publish, `{0}` for the first of them."""
    name = "/".join((role, *(f"{{{number}}}" for number in range(levels))))
    patterns = {*_own(name)}
    for row in TOPICS:
        if role in row.roles:
            patterns.add(as_pattern(row.template, _agent(name)))
    if role == "operator":
        patterns |= _own("operator/+") | _own("joining/+")
    if role == "node":
        patterns |= {*_own("monitor/{0}"), *publish_patterns("agent/{0}/+/+/+")}
    if role == "issuer":
        patterns |= {*publish_patterns("node/+")}
    return _smallest(patterns)


@lru_cache(maxsize=8192)
def is_usual(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether these are what a name may publish, neither more nor less.

    Of two names of which one may name the other, what is usual for that is a `subset` of what is usual for the one; and
    what a name `may_write` is within its own. So most grants need not be looked at pattern by pattern.
    """
    return patterns == publish_patterns(name)


def read_patterns(name: str) -> tuple[str, ...]:
    """What a name may read: agents, monitors and tokens what concerns them, all others everything in the realm."""
    role, _, rest = name.partition("/")
    if role == "agent":
        service = rest.split("/")[1]
        node, below = rest.split("/")[0], (f"service/{service}/", f"app/{service}/", f"tombstone/service/{service}")
        return ("broker/", "config/", f"node/{node}/", *below)
    if role == "monitor":
        return ("broker/", "config/", "node/")
    if role == "joining":
        return (f"joining/{rest}/", f"trust/token/{rest}")
    return ("/",)


def may_name(issuer: str, subject: str) -> bool:
    """Whether the holder of a certificate may give one to somebody of this name.

    An operator names its own programs (`operator/alice.x7`) and tokens, a node its monitor and its agents, an issuer nodes.
    """
    role, _, rest = issuer.partition("/")
    if role == "operator":
        return subject.startswith((f"{issuer}.", "joining/"))
    if role == "node":
        return subject == f"monitor/{rest}" or subject.startswith(f"agent/{rest}/")
    return role == "issuer" and subject.split("/", 1)[0] == "node"


@lru_cache(maxsize=65536)
def may_write(name: str, topic: str) -> bool:
    """Whether the topic's row lets a source of this name write it; its certificate must grant it, too."""
    match = lookup(topic)
    if match is None:
        return False
    owner = owner_of(topic)
    if owner is not None:
        return owner == name
    levels = match.levels
    own = all(levels.get(level, value) == value for level, value in _agent(name).items())
    return own and name.split("/", 1)[0] in match.row.roles


def is_said_again(topic: str) -> bool:
    """Whether controllers say again what a revoked key said on a topic: what they may write there themselves (rule J3)."""
    return may_write("controller/-", topic)


def may_say(certificate: Certificate, topic: str) -> bool:
    """Whether the holder of a certificate may write a topic under its name (rule 4)."""
    name, patterns = certificate.subject, certificate.publish
    return may_write(name, topic) and (is_usual(name, patterns) or may(patterns, topic))


def denied(name: str, topic: str) -> UnusableEventError:
    """That a source may not write a topic: nobody of its role may, or its certificate is of before they could."""
    said = f"{name} may not publish {topic}"
    if not may_write(name, topic):
        return UnusableEventError("trust.denied", said)
    return UnusableEventError("trust.denied", f"{said}: its certificate does not grant that", next=another_certificate(name))


@lru_cache(maxsize=4096)
def widens(above: Certificate, below: Certificate) -> str:
    """How a certificate goes beyond what its issuer's lets it give: empty when it does not."""
    if below.issuer != above.subject or not may_name(above.subject, below.subject):
        return f"{above.subject} may not name {below.subject}"
    if below.depth < 0 or below.depth >= above.depth:
        return f"certificate of {below.subject} may delegate deeper than {above.subject} may"
    usual = is_usual(above.subject, above.publish) and is_usual(below.subject, below.publish)
    may_publish = usual or subset(below.publish, above.publish)
    if not may_publish or not subset(below.read, above.read) or below.quota > above.quota:
        return f"certificate of {below.subject} grants more than {above.subject} may give"
    if below.not_before < above.not_before or below.not_after > above.not_after:
        return f"certificate of {below.subject} outlives that of {above.subject}"
    return ""


def may(patterns: Iterable[str], topic: str) -> bool:
    """Whether one of the patterns takes the topic."""
    return _may(tuple(patterns), topic)


@lru_cache(maxsize=65536)
def _may(patterns: tuple[str, ...], topic: str) -> bool:
    return any(matches(pattern, topic) for pattern in _near(_by_first(patterns), topic))


def subset(narrow: Iterable[str], wide: Iterable[str]) -> bool:
    """Whether each pattern of one grant is covered by one of another."""
    by_first = _by_first(tuple(wide))
    return all(any(covers(a, pattern) for a in _near(by_first, pattern)) for pattern in narrow)


def within(patterns: Iterable[str], wide: Iterable[str]) -> tuple[str, ...]:
    """Those of some patterns that a grant covers."""
    return tuple(pattern for pattern in patterns if subset((pattern,), wide))


def _near(by_first: Mapping[str, Sequence[str]], other: str) -> Iterable[str]:
    """Those of a grant's patterns that may take a topic, or cover a pattern: of its first level, or of any."""
    return (*by_first.get(_first(other), ()), *by_first.get("+", ()), *by_first.get("", ()))


@lru_cache(maxsize=8192)
def _by_first(patterns: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        found.setdefault(_first(pattern), []).append(pattern)
    return found


def _first(pattern: str) -> str:
    return pattern.partition("/")[0]


def _own(name: str) -> set[str]:
    found = set()
    for row in TOPICS:
        levels = None if row.owner is None else unify(row.owner, name)
        if levels is not None:
            found.add(as_pattern(row.template, levels))
    return found


def _agent(name: str) -> dict[str, str]:
    parts = name.split("/")
    return {"service": parts[2]} if parts[0] == "agent" else {}


def _smallest(patterns: set[str]) -> tuple[str, ...]:
    return tuple(sorted(p for p in patterns if not any(q != p and covers(q, p) for q in patterns)))
