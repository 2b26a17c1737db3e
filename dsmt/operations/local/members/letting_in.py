"""Letting in: as whom a machine that has joined reads the bus, at which brokers, and what is told of a node that is out.

Rule 1: it looks for the brokers that its programs have learnt of, and for none that they know as removed: its files name
    those with which it joined, all of which may be gone (R8). A program of a former name learns nothing any more: what all
    of them have kept counts.
Rule 2: it reads as one of its members, the first that is let in. A node that is not is out, by the word of a broker: that
    keeps nobody from the rest of what is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from dsmt.errors import InputError, RefusedError, TransportError
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.event.phrases import another_certificate, quoted, whose
from dsmt.operations.connection import reading
from dsmt.operations.local.home.home import Home
from dsmt.ports.realm import ENDED
from dsmt.programs.bus import kept_brokers, learnt_brokers
from dsmt.programs.configuration import IDENTITY, ISSUER, RealmConfig, read_identity
from dsmt.programs.node_process import bus_of_manager, bus_of_monitor
from dsmt.system.files import DiskFiles
from dsmt.trust.certificate import Certificate
from dsmt.trust.identity import Identity


class Member(NamedTuple):
    """Who reads, and what its client has kept."""

    name: str
    identity: Identity
    known: DiskFiles


def learnt(home: Home) -> RealmConfig:
    """The realm of a home; of a machine that has joined with the brokers that its programs know now (rule 1)."""
    realm = home.realm()
    if not home.is_joined:
        return realm
    found = learnt_brokers(realm, filter(None, map(kept_brokers, _clients(home))))
    return msgspec.structs.replace(realm, brokers=tuple((one.address, one.public) for one in found))


def _clients(home: Home) -> Iterator[Path]:
    """Where programs of a home keep what they learn."""
    for directory in map(str, home.parts("nodes").values()):
        yield from map(Path, (bus_of_manager(directory), bus_of_monitor(directory)))
    yield from home.parts("controllers").values()


def members(home: Home, nodes: Sequence[str]) -> Iterator[Member]:
    """As whom a machine that has joined may read: its nodes, then its controllers. What is damaged is left."""
    for node in nodes:
        directory = home.part("nodes", node)
        with suppress(InputError):
            identity = read_identity(directory / IDENTITY)
            yield Member(f"node/{node}", identity, DiskFiles(bus_of_manager(str(directory)), durable=False))
    for name, directory in home.parts("controllers").items():
        with suppress(InputError):
            yield Member(f"controller/{name}", read_identity(directory / IDENTITY), DiskFiles(str(directory), durable=False))


async def check_let_in(home: Home) -> None:
    """Raise `RefusedError` for a machine that has joined where none of its members is let in; where nobody tells, not."""
    refused, realm = None, learnt(home)
    for member in members(home, home.names("nodes")):
        try:
            with suppress(TransportError):
                async with reading(member.identity, realm, known=member.known):
                    return
        except RefusedError as error:
            if error.code not in ENDED:
                return
            refused = refused or RefusedError(error.code, error.message, next=_mend_member(home, member.name))
    if refused is not None:
        raise refused


def _mend_member(home: Home, member: str) -> str:
    role, _, name = member.partition("/")
    if role == "node":
        return mend(home, name)
    return f"dsmt node add --roles {role} HOST, where the realm was made, gives {member} another key"


def by_broker(home: Home, node: str, error: RefusedError) -> str:
    """What is told of a node that a broker lets in no more."""
    return f"{error.message}: it is let in no more. Next: {mend(home, node)}"


def by_fact(home: Home, node: str, ended: SignedEvent) -> str:
    """What is told of a node whose key this fact has ended."""
    event = ended.event
    by, their = whose(str(event.data.get("by", "")), event.source), event.data.get("reason")
    said = f"the key of node/{node} was revoked by {by} at {rfc3339(event.time_ms)}{quoted(their)}"
    return f"{said}: it is let in no more. Next: {mend(home, node)}"


def by_time(home: Home, kind: str, name: str, now_ms: int) -> str:
    """What is told of a node, or a controller, of this home whose certificate has ended; empty where it has not."""
    certificate = read_identity(home.part(kind, name) / IDENTITY).certificate
    if certificate.not_after * 1000 >= now_ms:
        return ""
    again = mend(home, name) if home.is_joined and kind == "nodes" else another_certificate(certificate.subject)
    return f"{_over(certificate)}: it is let in no more. Next: {again}"


def of_issuer(home: Home, controller: str, now_ms: int) -> str:
    """The same of the issuer beside a controller of this home."""
    kept = home.part("controllers", controller) / ISSUER
    certificate = read_identity(kept).certificate if kept.exists() else None
    if certificate is None or certificate.not_after * 1000 >= now_ms:
        return ""
    again = another_certificate(certificate.subject)
    return f"{_over(certificate)}: it lets no machine join, and renews none. Next: {again}"


def _over(certificate: Certificate) -> str:
    return f"the certificate of {certificate.subject} ended at {rfc3339(certificate.not_after * 1000)}"


def mend(home: Home, node: str) -> str:
    """What is typed for a node of a home that is let in no more."""
    if not home.is_joined:
        return f"dsmt cert rotate node/{node} gives it another key; or dsmt node remove {node} ends it for good"
    alone = home.names("nodes") == [node] and not (home.names("brokers") or home.names("controllers"))
    place = home.root if alone else home.part("nodes", node)
    joins = "dsmt join TOKEN here makes this machine a node again, with --name under another name"
    return f"{joins} (dsmt token create, where the realm was made); or dsmt down, and remove {place}"
