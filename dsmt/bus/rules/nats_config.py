"""The configuration of a NATS server, and what a certificate of the realm lets its holder do there.

Rule 1: a server knows nobody but its gate, which it asks of everybody else (auth callout): a new key needs no new
    configuration. Whoever has a key of the gate lets in whom it likes, so it never leaves the gate's directory.
Rule 2: a source may publish what its certificate grants, under its own name and no other. But a server answers on whatever
    subject is named by who asks, without a permission: what that overwrites a gate puts right (`nats.guard`). Of JetStream
    a source may read, and make consumers; a broker, which a gate is, may do all: it makes the streams.
Rule 3: who may not read everything asks JetStream through a gate, which holds what its certificate lets it read
    (`nats_reads`): of JetStream itself it may ask for nothing but what a consumer has for it.
Rule 4: an answer that is named onto a subject of JetStream's is a question there, and may hold what who had it answered has
    stored. So what makes, changes or removes streams is asked below a token that only gates and servers know, and elsewhere
    nobody hears it: a stream is nobody's to delete who only knows its name.
"""

from __future__ import annotations

import json
import string
from hashlib import sha256
from typing import Any, Final

import msgspec

from dsmt.bus.wire.nkeys import account_nkey, user_nkey
from dsmt.bus.wire.subjects import Subjects
from dsmt.event.kinds.realm import BROKERS
from dsmt.trust.certificate import Certificate

PAYLOAD_BYTES: Final = 256 * 1024
CONNECT_BYTES: Final = 48 * 1024
"""What a client may say when it connects: its certificates, four at most."""
CALLOUT_S: Final = 1.0
"""How long a server waits for its gate, and then says no: a no that comes sooner is the gate's."""
PAGE: Final = 256
"""How much a consumer gives for one question."""
ACCOUNT: Final = "realm"
SYSTEM: Final = "SYS"
LISTED: Final = 65_536
"""So many connections a server is asked for; by itself it tells of 1024."""
ADDED: Final = "~"
RETRIES: Final = 1_000_000
"""How often a server tries a route of which it was told by another one, each second: as long as those it was given."""
LOG_BYTES: Final = 1 << 20
REPORT_EACH: Final = 3600
"""Of so many attempts to reach another server one is told in the log."""
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
ALL: Final = ("/",)
"""What a certificate grants whose holder may read everything."""
_ASKED: Final = ("STREAM.INFO.{}", "STREAM.MSG.GET.{}", "DIRECT.GET.{}", "CONSUMER.CREATE.{}.*")
_CONSUMERS: Final = ("CONSUMER.MSG.NEXT.{}.*", "CONSUMER.DELETE.{}.*")
_API: Final = "$JS.API"
_STREAMS: Final = ("CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT", "RESTORE", "MSG.DELETE", "LEADER.STEPDOWN")
_PEERS: Final = ("PEER.REMOVE", "PEER.EVACUATE")
_OF_CONSUMERS: Final = ("DURABLE.CREATE", "LEADER.STEPDOWN", "PAUSE", "RESET", "UNPIN", *_PEERS)
ADMINISTRATION: Final = (
    *(f"STREAM.{one}.*" for one in (*_STREAMS, *_PEERS)),
    *(f"CONSUMER.{one}.*.*" for one in _OF_CONSUMERS),
)
"""What only gates ask of JetStream, and only on their way (rule 4); how a stream takes over from another one is not."""
ANSWERS: Final = {"max": 1, "ttl": 5_000_000_000}
"""How often, and how long in ns, a gate may answer who asks it."""


class Tls(msgspec.Struct, frozen=True):
    """Paths: a server's certificate and key, and the authority that has signed those of its cluster."""

    certificate: str
    key: str
    authority: str

    def settings(self, *, peers: bool) -> dict[str, Any]:
        """What stands in the configuration; between `peers` both sides show a certificate."""
        own = {"cert_file": self.certificate, "key_file": self.key, "timeout": 2}
        return own | ({"ca_file": self.authority, "verify": True} if peers else {})


class Gate(msgspec.Struct, frozen=True):
    """The public keys of the servers' gates, the same for all servers: that with which they connect, that which lets in.

    `bridge`: who else may come in and do all, while the servers are filled by it and nobody uses them; empty for nobody.
    `way` is the token below which they administer the streams (rule 4).
    """

    system: bytes
    issuer: bytes
    bridge: bytes = b""
    way: str = ""


class Server(msgspec.Struct, frozen=True):
    """One server: its name, where it listens (`host:port`), its directory; where it and its peers listen for each other."""

    name: str
    listen: str
    directory: str
    cluster: str = ""
    routes: tuple[str, ...] = ()
    synced: bool = False
    tls: Tls | None = None
    log: str = ""
    """The file in which it says how it is, of which it keeps so much as anybody of a log; empty for its standard error."""


def server_name(broker: str, public: bytes) -> str:
    """What a server is called that is added: with its key, since a name that was given up is no member again for minutes."""
    return f"{broker}{ADDED}{public[:4].hex()}"


def broker_of(server: str) -> str:
    """The broker that a server is."""
    return server.partition(ADDED)[0]


def peer_of(server: str) -> str:
    """By what the servers know each other in the cluster: a hash of the name, as nats-server makes it."""
    return "".join(_DIGITS[byte % len(_DIGITS)] for byte in sha256(server.encode()).digest()[:8])


def permissions(certificate: Certificate, subjects: Subjects) -> dict[str, Any]:
    """What a source may publish and subscribe to; a gate also `responds` to who asks it."""
    name, streams = certificate.subject, (subjects.history, subjects.facts, subjects.blobs)
    limited, gate = certificate.read != ALL, dict[str, Any]()
    asked = [f"$JS.API.{one.format(stream)}" for stream in streams for one in (*(() if limited else _ASKED), *_CONSUMERS)]
    if limited:
        asked.append(f"{subjects.asking(name, certificate.read)}.>")
    said = [*subjects.grants(name, certificate.publish), subjects.answer(name)]
    heard = [f"_INBOX_{user_nkey(certificate.public)}.>", subjects.asked(name), *subjects.taken_by([BROKERS], signals=False)]
    if certificate.role == "broker":
        asked = ["$JS.API.>", subjects.asked_all, subjects.everything]
        heard += [subjects.everything, subjects.answers, subjects.questions, subjects.all_counts]
        gate = {"responds": ANSWERS}
    return {"publish": {"allow": [*said, *asked]}, "subscribe": {"allow": heard}, **gate}


def way_of(seed: bytes) -> str:
    """The token below which streams are administered, by the seed of the key with which gates connect (rule 4)."""
    return sha256(b"dsmt: the way of the gates\0" + seed).hexdigest()


def is_administration(asked: str) -> bool:
    """Whether only a gate asks JetStream that."""
    tokens = asked.split(".")
    known = (one.split(".") for one in ADMINISTRATION)
    return any(len(tokens) == len(one) and all(a in ("*", b) for a, b in zip(one, tokens, strict=True)) for one in known)


def server_config(server: Server, gate: Gate | None) -> str:
    """A server's configuration, as text; without a gate anybody may do anything."""
    told: dict[str, Any] = {
        "server_name": server.name,
        "listen": server.listen,
        "max_payload": PAYLOAD_BYTES,
        "ping_interval": "2s",
        "ping_max": 2,
        "jetstream": {"store_dir": server.directory, "limits": {"max_request_batch": PAGE}},
    }
    if server.log:
        told |= {"log_file": server.log, "logfile_size_limit": LOG_BYTES, "logfile_max_num": 2}
    if server.synced:
        told["jetstream"]["sync_interval"] = "always"
    if server.cluster:
        routes = [f"nats://{one}" for one in server.routes]
        told["cluster"] = {"name": "dsmt", "listen": server.cluster, "routes": routes, "connect_retries": RETRIES}
        told["reconnect_error_reports"] = REPORT_EACH
    if server.tls is not None:
        told["tls"] = server.tls.settings(peers=False)
        if server.cluster:
            told["cluster"]["tls"] = server.tls.settings(peers=True)
    if gate is not None:
        told |= _gated(gate)
    return json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n"  # nats-server knows no `\u` of JSON


def _gated(gate: Gate) -> dict[str, Any]:
    user, fills = user_nkey(gate.system), [user_nkey(gate.bridge)] if gate.bridge else []
    asked = {"issuer": account_nkey(gate.issuer), "account": SYSTEM, "auth_users": [user, *fills]}
    realm = {"jetstream": "enabled"} | ({"users": [{"nkey": one} for one in fills]} if fills else {})
    hidden = {f"{_API}.{one}": "denied" for one in ADMINISTRATION} | {f"{_API}.{gate.way}.>": f"{_API}.>"}
    return {
        "accounts": {ACCOUNT: realm, SYSTEM: {"users": [{"nkey": user}], "mappings": hidden if gate.way else {}}},
        "system_account": SYSTEM,
        "authorization": {"timeout": CALLOUT_S, "auth_callout": asked},
        "max_control_line": CONNECT_BYTES,
    }
