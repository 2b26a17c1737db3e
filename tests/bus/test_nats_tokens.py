"""What passes between a client, a NATS server and its gate: names of connections, questions of a server, and answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dsmt.bus.wire.frames import PROTOCOL, Hello
from dsmt.bus.wire.nats_tokens import (
    AuthRequest,
    certificates_token,
    connection_name,
    kept_out,
    let_in,
    read_asked,
    read_connection_name,
)
from dsmt.bus.wire.nkeys import account_nkey
from dsmt.errors import UnusableEventError
from dsmt.event.codec import EDDSA
from dsmt.ports.realm import About
from dsmt.trust.keys import SecretKey, verify

SIGNATURE = bytes(range(192, 256))
"""In base64 it has what the two alphabets write otherwise."""
ASKED = AuthRequest("UUSER", "NSERVER", 17, "operator/alice 1", "UALICE", "once", SIGNATURE, (b"own", b"above"))
ISSUER = SecretKey(b"i" * 32)
OPEN = {"publish": {"allow": ["a.>"]}, "subscribe": {"deny": ["b.>"]}}


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def question(client: dict[str, Any], shown: dict[str, Any]) -> bytes:
    """A server's question: header, claims and signature."""
    client = {"id": 17, "nonce": "once", **client}
    shown = {"auth_token": certificates_token(ASKED.certificates), **shown}
    told = {"user_nkey": "UUSER", "server_id": {"id": "NSERVER"}, "client_info": client, "connect_opts": shown}
    return f"e30.{encoded(json.dumps({'nats': told}).encode())}.c2ln".encode()


def claims(answer: bytes) -> dict[str, Any]:
    """What an answer, or the token of a user in it, says; it is signed by the issuer."""
    assert b"=" not in answer, "base64url of JSON Web Tokens has no padding"
    head, body, signature = answer.decode().split(".")
    padded = [part + "=" * (-len(part) % 4) for part in (head, body, signature)]
    header, told, signed = (base64.urlsafe_b64decode(part) for part in padded)
    assert json.loads(header) == {"typ": "JWT", "alg": "ed25519-nkey"}
    assert verify(EDDSA, ISSUER.public, f"{head}.{body}".encode(), signed)
    found: dict[str, Any] = json.loads(told)
    assert (found.pop("iss"), found.pop("iat")) == (account_nkey(ISSUER.public), 50)
    assert found.pop("jti")
    return found


@pytest.mark.parametrize("write", [base64.urlsafe_b64encode, base64.b64encode])
@pytest.mark.parametrize("padding", ["", "=="])
def test_a_server_s_question_says_which_connection_has_shown_what(write: Any, padding: str) -> None:
    shown = {"name": "operator/alice 1", "nkey": "UALICE", "sig": write(SIGNATURE).decode().rstrip("=") + padding}
    assert read_asked(question({}, shown)) == ASKED
    assert read_asked(question({}, {})) == ASKED._replace(name="", nkey="", signature=b"")


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        ({"id": "x"}, {}),
        ({"id": None}, {}),
        ({}, {"auth_token": ""}),
        ({}, {"auth_token": "?"}),
        ({}, {"auth_token": encoded(bytes([24, 200]))}),
        ({}, {"auth_token": encoded(bytes([0x81, 5]))}),
        ({}, {"sig": "?"}),
    ],
)
def test_a_question_that_shows_no_certificates_or_of_no_connection_is_told_as_such(client: Any, shown: Any) -> None:
    with pytest.raises(UnusableEventError, match="shows no certificates"):
        read_asked(question(client, shown))


@pytest.mark.parametrize("raw", [b"", b"e30", b"\xff.e30.x", b"e30.e30.x", b"e30.?.x", b"e30.bnVsbA.x"])
def test_what_is_no_question_is_told_as_such(raw: bytes) -> None:
    with pytest.raises(UnusableEventError, match="question"):
        read_asked(raw)


@pytest.mark.parametrize("responds", [{}, {"responds": {"max": 1}}])
def test_who_is_let_in_may_what_it_is_permitted_until_its_certificate_ends(responds: dict[str, Any]) -> None:
    told = claims(let_in(ASKED, ISSUER, "ACCOUNT", OPEN | responds, now_s=50, until_s=90))
    assert (told["sub"], told["aud"], told["nats"]["type"], told["nats"]["version"]) == (
        "UUSER", "NSERVER", "authorization_response", 2,
    )  # fmt: skip
    user = claims(told["nats"]["jwt"].encode())
    assert (user["sub"], user["aud"], user["exp"]) == ("UUSER", "ACCOUNT", 90)
    about = {"subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
    answers = {"resp": responds["responds"]} if responds else {}
    assert user["nats"] == {"pub": OPEN["publish"], "sub": OPEN["subscribe"], **about, **answers}


def test_who_is_kept_out_is_kept_out_of_this_connection_alone_and_the_server_is_told_why() -> None:
    told = claims(kept_out(ASKED, ISSUER, "it was revoked", now_s=50))
    assert told == {
        "sub": "UUSER", "aud": "NSERVER",
        "nats": {"error": "it was revoked", "type": "authorization_response", "version": 2},
    }  # fmt: skip


@pytest.mark.parametrize("address", ["", "127.0.0.1", "[::1]:5 %"])
@pytest.mark.parametrize("reads", [False, True])
def test_a_connection_is_called_what_its_hello_says(address: str, reads: bool) -> None:
    hello = Hello(PROTOCOL, "lab", "agent/n1/web/app/0", 17, False, 4711, 99, "0.1.0+x y", address, reads)
    name = connection_name(hello.name, About(99, hello.version, address), 4711, 17, reads=reads)
    assert read_connection_name(name, "lab") == hello
    bare = read_connection_name(connection_name("node/n1", About(None, "0.1.0", address), 4711), "lab")
    assert (bare.pid, bare.incarnation, bare.reads, bare.address) == (None, 0, False, address)


@pytest.mark.parametrize("name", ["", "operator/alice", "a 1 2 3 v a", "a -1 2 3 v a says", "a 1 2 ³ v a says", "x" * 99])
def test_a_connection_that_no_source_of_dsmt_made_is_told_apart(name: Any) -> None:
    with pytest.raises(UnusableEventError):
        read_connection_name(name, "lab")
