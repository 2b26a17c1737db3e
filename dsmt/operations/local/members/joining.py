"""Joining: this machine becomes a node of a realm that was made elsewhere, by a token (rules J1 and J2).

Rule 1: the node's key is made here and never leaves; it is kept before it is shown to anybody, so who is interrupted goes on
    with the same key, for which the token is good again.
Rule 2: nothing stands in the home before the certificate has come; the realm's file is written last.
Rule 3: a home that has a node of this realm needs no token any more: it is told, and the node takes the labels and the
    address that are typed, or the address that its machine has now (`settling`). If the realm does not let it in any more,
    it joins anew under its name: with its key, where only its certificate has ended. One that runs goes on as who it is now.
Rule 4: where nobody answers at the addresses that the home knows, and somebody does where the token says, the home knows
    those from then on, and so does a node that runs: a realm may have got other brokers, or another engine, while this
    machine was away.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from dsmt.errors import InputError, RefusedError, TransportError, UnusableEventError
from dsmt.event.kinds import joining as kinds
from dsmt.event.records import from_data, to_data
from dsmt.event.topic import is_level, level_of
from dsmt.operations.connection import Connection, attached, reading, while_let_in
from dsmt.operations.local.home.addresses import is_here, own_address
from dsmt.operations.local.home.home import Home, check_part, write_secret
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import let_users_pass, reach_at
from dsmt.operations.local.members.letting_in import learnt
from dsmt.operations.local.members.settling import SETTLED, Settling, note, settle_node
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import Arrived, Draft, Interest, Subscription
from dsmt.ports.realm import ENDED, KEPT_OUT, NatsTerms
from dsmt.programs.configuration import IDENTITY, NodeFile, RealmConfig, read_identity
from dsmt.system.entropy import SystemEntropy
from dsmt.system.records import ask_to_end
from dsmt.together import end_all
from dsmt.trust.identity import Identity, dump
from dsmt.trust.joining import TOKENS, Token, check_unused, read_token
from dsmt.trust.keys import Key, SecretKey
from dsmt.trust.store import TrustStore

KEY_FILE: Final = "joining.key"
ANSWER_S: Final = 20.0
ASK_AGAIN_S: Final = 2.0


class Joined(msgspec.Struct, frozen=True):
    """What `join` did; `made` is False where the home had a node of this realm already.

    `changed`: it has another address, or other labels, than it had.
    """

    node: str
    realm: str
    brokers: tuple[str, ...]
    made: bool
    address: str
    changed: bool = False


async def join(
    home: Home,
    line: str | None,
    *,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    address: str | None = None,
    waits: Tell = silent,
) -> Joined:
    """Make this machine a node of the token's realm; the node is not started yet. One that is a node already needs no token.

    Raises `InputError`, `RefusedError` that says why not, `TransportError`.
    """
    token = None if line is None else read_token(line)
    if token is None and not home.is_joined:
        said = f"{home.root} has joined no realm yet: a machine joins with a token"
        raise InputError("token.none", said, next="dsmt token create, where the realm was made; then here: dsmt join TOKEN")
    realm = home.realm() if token is None else _realm(token)
    if name is not None:
        check_part("node", name)
    async with alone(home, waits):
        known = _node_here(home, realm, name)
        held = None if known is None else read_identity(home.part("nodes", known) / IDENTITY)
        ended = "" if held is None else await _how_it_ended(home, held, realm)
        if known is not None and held is not None and not ended:
            _forget_key(home, held)
            return _settled(home, known, Settling(labels=dict(labels or {}), address=address))
        if token is None:
            raise _needs_token(home, known or name)
        async with _asking(token, realm) as connection:
            keeps = held is not None and not _is_revoked(held, ended, connection.trust)
            key = held.key if held is not None and keeps else _key(home, held)
            asked = _certified(connection, token, key, known or name)
            told, identity = await while_let_in(connection.bus, asked)  # the token may expire meanwhile
        node = identity.name.partition("/")[2]
        directory = home.part("nodes", node)
        where = address or own_address(realm.brokers[0][0])
        typed, elsewhere = {**told.labels, **(labels or {})}, address is not None and not is_here(address)
        is_new = note(directory)
        NodeFile(node=node, realm=realm, address=where, labels=typed, elsewhere=elsewhere).write(directory)
        write_secret(directory / IDENTITY, dump(identity))
        ask_to_end(directory, "container_manager")  # who ran as who the node was; its spawner starts the next one
        if is_new:
            (directory / SETTLED).unlink(missing_ok=True)
        let_users_pass(home, directory)
        if not home.exists:
            realm.write(home.root)
        (home.root / KEY_FILE).unlink(missing_ok=True)
    return Joined(node, realm.name, tuple(at for at, _ in realm.brokers), made=True, address=where)


def _settled(home: Home, node: str, told: Settling) -> Joined:
    """A node that is here takes what was typed, and the address that its machine has now."""
    before, now = settle_node(home.part("nodes", node), told)
    brokers = tuple(at for at, _ in home.realm().brokers)
    return Joined(node, home.realm().name, brokers, made=False, address=now.address, changed=before != now)


def _needs_token(home: Home, node: str | None) -> RefusedError:
    """Why a token is needed here all the same."""
    here = node in home.names("nodes")
    said = f"node {node} of this home is let in no more" if here else f"{home.root} holds no node {node}"
    return RefusedError("token.needed", said, next="dsmt token create, where the realm was made; then here: dsmt join TOKEN")


def _realm(token: Token) -> RealmConfig:
    """The realm that a token is of."""
    nats = None if token.nats is None else NatsTerms(authority=token.nats[0], replicas=token.nats[1])
    return RealmConfig(name=token.realm, roots=token.roots, brokers=token.brokers, nats=nats)


def _node_here(home: Home, realm: RealmConfig, name: str | None) -> str | None:
    """The node of the realm that this home has already (rule 3). Raises `RefusedError` for a home of another realm."""
    if not home.exists:
        return None
    held = home.realm()
    if (held.name, held.roots) != (realm.name, realm.roots):
        said = f"{home.root} belongs to another realm, {held.name}"
        raise RefusedError("home.taken", said, next="join from another home: --home DIR")
    here = [node for node in home.names("nodes") if name in (None, node)]
    if home.is_made and (name is None or not here):
        said = f"{home.root} has an operator of this realm, or the realm itself, and joins nothing"
        advice = "join from another home: --home DIR; or dsmt up --nodes N gives it a node"
        raise RefusedError("home.made", said, next=advice)
    return here[0] if home.is_joined and here else None


async def _how_it_ended(home: Home, node: Identity, realm: RealmConfig) -> str:
    """How the identity of this home's node has ended, by the word of a broker; empty where none says that (rule 4)."""
    ended = await _ended(node, learnt(home))
    if ended is None and home.realm() != realm:
        ended = await _ended(node, realm)
        if ended is not None:
            reach_at(home, realm)
            for directory in home.parts("nodes").values():
                ask_to_end(directory, "container_manager")  # one that runs looks where it did
    return ended or ""


async def _ended(node: Identity, realm: RealmConfig) -> str | None:
    """How a node's identity has ended, by the word of a broker; empty where it has not, None where nobody answers."""
    with suppress(TransportError):
        try:
            async with reading(node, realm):
                return ""
        except RefusedError as error:
            return error.code if error.code in ENDED else ""
    return None


def _is_revoked(node: Identity, ended: str, trust: TrustStore) -> bool:
    """Whether an identity that has ended was revoked: where a gate has not told how, who is attached knows by now."""
    if ended == KEPT_OUT:
        with suppress(UnusableEventError):  # what it stands below is of no use to anybody
            trust.add_all([signed.raw for signed in node.chain])
        return trust.is_revoked(node.key.key_id, node.name)
    return ended == "trust.revoked"


def _key(home: Home, former: Identity | None) -> Key:
    """The key of the node that is to be (rule 1); a join that was killed may have left the former node's, not this one."""
    path = home.root / KEY_FILE
    if not path.exists() or (former is not None and SecretKey(path.read_bytes()).key_id == former.key.key_id):
        write_secret(path, SystemEntropy().bytes(32))
    return SecretKey(path.read_bytes())


def _forget_key(home: Home, held: Identity) -> None:
    """Remove the key of a node that has its certificate: a join that was killed as all else was written has left it."""
    path = home.root / KEY_FILE
    if path.exists() and SecretKey(path.read_bytes()).key_id == held.key.key_id:
        path.unlink()


@asynccontextmanager
async def _asking(token: Token, realm: RealmConfig) -> AsyncIterator[Connection]:
    """The holder of a token, attached. Raises `RefusedError`, `TransportError`."""
    reached = ", ".join(address for address, _ in realm.brokers)
    try:
        async with attached(token.identity, realm) as connection:
            yield connection
    except RefusedError as error:
        if error.code != "trust.expired":
            raise
        raise RefusedError("token.expired", "the token has expired", next="ask for another: dsmt token create") from error
    except TransportError as error:
        if error.code != "bus.unreachable":
            raise
        said = f"no broker of realm {realm.name} answers at {reached}"
        advice = "see that it runs and that this machine reaches it; one at 127.0.0.1 is reached by its own machine only"
        raise TransportError("bus.unreachable", said, next=f"{advice} (dsmt init --listen HOST:PORT)") from error


async def _certified(connection: Connection, token: Token, key: Key, name: str | None) -> tuple[kinds.TokenFact, Identity]:
    """Ask until an issuer has answered: what the token is good for, and who the node is. Raises `RefusedError`, ..."""
    topic = f"{TOKENS}{token.id}"
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            connection.bus.subscribe(Interest((topic, f"joining/{token.id}/refused"))) as batches,
        ):
            asking: asyncio.Task[None] | None = None
            try:
                async for told in _told(batches):
                    if isinstance(told, kinds.JoinRefused):
                        _check_refused(told, key)
                        continue
                    check_unused(told, key.key_id)
                    if told.key:
                        return told, _identity(connection, told, key)
                    asking = asking or asyncio.create_task(_ask(connection, token, key, _name(told, name)))
            finally:
                if asking is not None:
                    await end_all(asking)
    except TimeoutError as error:
        said = f"no issuer of realm {connection.realm.name} has answered within {ANSWER_S:.0f} s"
        advice = "dsmt status, where the realm was made: a controller must be alive, its issuer's certificate not ended"
        advice += "; dsmt up there gives it an issuer's key"
        raise TransportError("token.unanswered", said, next=advice) from error
    raise TransportError("bus.ended", "the connection ended before an issuer had answered", next="try again")


async def _told(batches: Subscription) -> AsyncIterator[kinds.TokenFact | kinds.JoinRefused]:
    async for batch in batches:
        for one in batch:
            if isinstance(one, Arrived):
                event = one.signed.event
                if event.topic.startswith(TOKENS):
                    yield from_data(kinds.TokenFact, event.data)
                else:
                    yield from_data(kinds.JoinRefused, event.data)


async def _ask(connection: Connection, token: Token, key: Key, name: str) -> None:
    """Ask again and again: an issuer may have been away."""
    asked = to_data(kinds.JoinRequest(name=name, public=key.public))
    while True:
        connection.bus.emit(Draft(f"joining/{token.id}/request", asked, subject=f"node/{name}"))
        await asyncio.sleep(ASK_AGAIN_S)


def _check_refused(told: kinds.JoinRefused, key: Key) -> None:
    if told.key == key.key_id.hex():
        raise RefusedError(told.code, told.message, next=told.next)


def _identity(connection: Connection, told: kinds.TokenFact, key: Key) -> Identity:
    """Who the node is, by the certificate that has come; it stands below its issuer's, which came with the fact."""
    certificate = connection.trust.add(told.certificate)
    return Identity(key, tuple(connection.trust.chain(certificate.key_id, certificate.subject)))


def _name(told: kinds.TokenFact, name: str | None) -> str:
    """The name to ask for: the one that was typed, or the only one of the token, or the machine's. Raises `InputError`."""
    if name is not None:
        return name
    if is_level(told.name):
        return told.name
    host = level_of(socket.gethostname())
    if not is_level(host):
        raise InputError("token.name", "this machine's name is no name for a node", next="dsmt join TOKEN --name NAME")
    return host
