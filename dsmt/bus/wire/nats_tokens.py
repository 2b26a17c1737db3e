"""What passes between a client, a NATS server and its gate when the client connects (auth callout, JSON Web Tokens of NATS).

Rule 1: a connection is named by who makes it and what a broker's hello says of it, as words of one line: so whoever asks a
    server for its connections is told everything that is said of sessions. Its token holds the certificates.
Rule 2: a token of NATS is signed by an nkey: header, claims and signature, each in base64url.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import cbor2
import msgspec

from dsmt.bus.wire.frames import PROTOCOL, Hello
from dsmt.bus.wire.nkeys import account_nkey
from dsmt.errors import UnusableEventError
from dsmt.event.payload import canonical
from dsmt.ports.realm import About
from dsmt.trust.keys import Key

_WORDS: Final = 7
_READS: Final = "reads"
_SAYS: Final = "says"
_PLAIN: Final = "/:.,+[]"


def connection_name(source: str, about: About, attachment: int, incarnation: int = 0, *, reads: bool = False) -> str:
    """What a connection is called (rule 1)."""
    numbers = (attachment, incarnation, about.pid or 0)
    words = (source, *map(str, numbers), about.version, about.address or "-", _READS if reads else _SAYS)
    return " ".join(quote(one, safe=_PLAIN) for one in words)


def read_connection_name(name: str, realm: str) -> Hello:
    """What it says. Raises `UnusableEventError`."""
    words = [unquote(one) for one in name.split(" ")]
    if len(words) != _WORDS or not all(one.isdecimal() and len(one) < 20 for one in words[1:4]):
        raise UnusableEventError("nats.name", f"{name[:200]!r} is not how a source of dsmt calls its connection")
    attachment, incarnation, pid = map(int, words[1:4])
    hello = {
        "protocol": PROTOCOL,
        "realm": realm,
        "name": words[0],
        "incarnation": incarnation,
        "firm": False,
        "attachment": attachment,
        "pid": pid or None,
        "version": words[4],
        "address": "" if words[5] == "-" else words[5],
        "reads": words[6] == _READS,
    }
    try:
        return msgspec.convert(hello, Hello)  # its numbers go into facts
    except msgspec.ValidationError as error:
        raise UnusableEventError("nats.name", f"{name[:200]!r} is not how a source calls its connection: {error}") from error


def certificates_token(raws: Sequence[bytes]) -> str:
    """Certificates, as a connection shows them."""
    return base64.b64encode(canonical(list(raws))).decode()


class AuthRequest(NamedTuple):
    """A server's question whether somebody may come in: which connection of which server, and what it has shown.

    `user` is the one-time name under which it is let in.
    """

    user: str
    server: str
    connection: int
    name: str
    nkey: str
    nonce: str
    signature: bytes
    certificates: tuple[bytes, ...]


def read_asked(raw: bytes) -> AuthRequest:
    """Read a question. Raises `UnusableEventError`."""
    try:
        told = json.loads(_decoded(raw.decode().split(".")[1]))["nats"]
        client, shown = told["client_info"], told["connect_opts"]
        certificates = cbor2.loads(_decoded(shown["auth_token"]))
        if not isinstance(certificates, list) or not all(isinstance(one, bytes) for one in certificates):
            raise TypeError("they are no list of bytes")  # noqa: TRY301 - a number would be taken for a size
        return AuthRequest(
            told["user_nkey"],
            told["server_id"]["id"],
            int(client["id"]),
            shown.get("name", ""),
            shown.get("nkey", ""),
            client.get("nonce", ""),
            _decoded(shown.get("sig", "")),
            tuple(certificates),
        )
    except (LookupError, TypeError, ValueError, cbor2.CBORDecodeError) as error:
        raise UnusableEventError("nats.question", f"a server's question shows no certificates: {error}") from error


def let_in(
    asked: AuthRequest, issuer: Key, account: str, permissions: Mapping[str, Any], *, now_s: int, until_s: int
) -> bytes:
    """The answer that lets somebody into an account, until its certificate ends."""
    user = {
        "sub": asked.user,
        "aud": account,
        "exp": until_s,
        "nats": {
            "pub": permissions["publish"],
            "sub": permissions["subscribe"],
            "subs": -1,
            "data": -1,
            "payload": -1,
            "type": "user",
            "version": 2,
            **({"resp": permissions["responds"]} if "responds" in permissions else {}),
        },
    }
    return _answer(asked, issuer, {"jwt": _signed(user, issuer, now_s)}, now_s)


def kept_out(asked: AuthRequest, issuer: Key, why: str, *, now_s: int) -> bytes:
    """The answer that keeps somebody out; the server writes why into its log."""
    return _answer(asked, issuer, {"error": why}, now_s)


def _answer(asked: AuthRequest, issuer: Key, said: dict[str, str], now_s: int) -> bytes:
    claims = {"sub": asked.user, "aud": asked.server, "nats": {**said, "type": "authorization_response", "version": 2}}
    return _signed(claims, issuer, now_s).encode()


def _signed(claims: dict[str, Any], issuer: Key, now_s: int) -> str:
    told = {**claims, "iss": account_nkey(issuer.public), "iat": now_s}
    told["jti"] = base64.b32encode(sha256(json.dumps(told).encode()).digest()).decode().rstrip("=")
    parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, told)
    text = ".".join(_encoded(json.dumps(one).encode()) for one in parts)
    return f"{text}.{_encoded(issuer.sign(text.encode()))}"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    """Of either alphabet, padded or not."""
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
