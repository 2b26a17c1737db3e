"""The configuration of a NATS server, made from the certificates of a realm: who may connect, and what it may publish.

Rule 1: a user is a source, known by its own key. It may publish what its certificate grants, under its own name and no
    other: so nobody can write over a retained fact of another source, not even with something that no reader believes.
Rule 2: of JetStream it may read, and make consumers that it is asked for; streams are made, changed and emptied by the
    administrator alone.
Rule 3: everybody may read everything that the realm says: what a certificate lets its holder read, NATS does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dsmt.bus.wire.nkeys import user_nkey
from dsmt.bus.wire.subjects import Subjects
from dsmt.trust.certificate import Certificate

PAYLOAD_BYTES: Final = 256 * 1024
ACCOUNT: Final = "realm"
_ASKED: Final = ("STREAM.INFO.{}", "STREAM.MSG.GET.{}", "DIRECT.GET.{}")
_CONSUMERS: Final = ("CONSUMER.CREATE.{}.*", "CONSUMER.MSG.NEXT.{}.*", "CONSUMER.DELETE.{}.*")


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths: a server's certificate and key, and the authority that has signed those of its cluster."""

    certificate: str
    key: str
    authority: str

    def settings(self, *, peers: bool) -> dict[str, Any]:
        """What stands in the configuration; between `peers` both sides show a certificate."""
        own = {"cert_file": self.certificate, "key_file": self.key, "timeout": 2}
        return own | ({"ca_file": self.authority, "verify": True} if peers else {})


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its name, where it listens (`host:port`), its directory; where it and its peers listen for each other."""

    name: str
    listen: str
    directory: str
    cluster: str = ""
    routes: tuple[str, ...] = ()
    synced: bool = False
    tls: Tls | None = None


def permissions(certificate: Certificate, subjects: Subjects) -> dict[str, Any]:
    """What a source may publish and subscribe to."""
    streams = (subjects.history, subjects.facts, subjects.blobs)
    asked = [f"$JS.API.{one.format(stream)}" for stream in streams for one in (*_ASKED, *_CONSUMERS)]
    return {
        "publish": {"allow": [*subjects.grants(certificate.subject, certificate.publish), *asked]},
        "subscribe": {"allow": [f"_INBOX_{user_nkey(certificate.public)}.>"]},
    }


def users(certificates: Iterable[Certificate], subjects: Subjects, *, administrator: bytes) -> list[dict[str, Any]]:
    """The users of a realm's account; the key of the administrator makes streams."""
    found: dict[str, dict[str, Any]] = {user_nkey(administrator): {"nkey": user_nkey(administrator)}}
    for one in certificates:
        nkey = user_nkey(one.public)
        found.setdefault(nkey, {"nkey": nkey, "permissions": permissions(one, subjects)})
    return list(found.values())


def server_config(server: Server, known: Sequence[dict[str, Any]] | None = None) -> str:
    """A server's configuration, as text; without `known` users anybody may do anything."""
    told: dict[str, Any] = {
        "server_name": server.name,
        "listen": server.listen,
        "max_payload": PAYLOAD_BYTES,
        "ping_interval": "2s",
        "ping_max": 2,
        "jetstream": {"store_dir": server.directory},
    }
    if server.synced:
        told["jetstream"]["sync_interval"] = "always"
    if server.cluster:
        told["cluster"] = {"name": "dsmt", "listen": server.cluster, "routes": [f"nats://{one}" for one in server.routes]}
    if server.tls is not None:
        told["tls"] = server.tls.settings(peers=False)
        if server.cluster:
            told["cluster"]["tls"] = server.tls.settings(peers=True)
    if known is not None:
        told["accounts"] = {ACCOUNT: {"jetstream": "enabled", "users": list(known)}}
    return json.dumps(told, indent=1, sort_keys=True) + "\n"
