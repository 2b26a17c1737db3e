"""Certificates of this home: who has which until when, and how what lives here is given a new one.

Rule 1: a new certificate stands beside the old one until that ends or is revoked. Who runs is begun anew with it by who
    keeps it; what it runs goes on. The newer of two of one name wins at a broker (A11). Times are realm time as far as it
    can be asked (`dating`).
Rule 2: a rotation makes a new key, but for a broker, which every member of the realm knows by its key, and for an issuer,
    by whose key all stand that it has certified. A broker that has lost its key is given another one, at its address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from dsmt.errors import InputError, NotFoundError, UnusableEventError
from dsmt.event.hlc import rfc3339
from dsmt.operations.connection import Connection, attached
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.dating import Dated
from dsmt.operations.local.home.home import KINDS, Home, is_up, write_secret
from dsmt.operations.local.home.making import ensure_broker, had_address, issue
from dsmt.operations.read.rows.certificates import STAND_IN, State, in_use, is_listed, state_of
from dsmt.operations.words.names import meant_whole
from dsmt.operations.write import revoking
from dsmt.operations.write.revoking import Claim, EndedKey, RevokedKey
from dsmt.programs.configuration import IDENTITY, ISSUER, read_identity
from dsmt.system.entropy import SystemEntropy
from dsmt.system.records import ask_to_end
from dsmt.trust.certificate import Certificate
from dsmt.trust.identity import Identity, dump
from dsmt.trust.keys import SecretKey, key_id_of
from dsmt.trust.store import TrustStore

_PROGRAMS: Final = {"broker": "broker", "controller": "controller", "node": "container_manager"}
"""By role, the program that uses a certificate; a controller that of its issuer, too."""


class HeldCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate. `here`: its key is in this home. Of a revoked key no more may be known than who has `revoked` it.

    Who stands below a key that was revoked has ended with that: `revoked` is the end of it then.
    """

    name: str
    key: str
    state: State
    issued: str | None
    renew: str | None
    expires: str | None
    issuer: str | None
    here: bool
    revoked: EndedKey | None = None


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """A new certificate; `before` is the key that had the name until now, `clock` whose clock dated it.

    `restarted`: who had the former one has been ended, and is begun anew with this.
    """

    name: str
    key: str
    before: str
    issued: str
    expires: str
    clock: Literal["realm", "machine"]
    restarted: bool


def here(home: Home) -> dict[str, Path]:
    """The identities of this home, by name."""
    found = {}
    for role, kind in KINDS.items():
        found.update({f"{role}/{name}": directory / IDENTITY for name, directory in home.parts(kind).items()})
    found.update({f"issuer/{name}": directory / ISSUER for name, directory in home.parts("controllers").items()})
    own = home.operator_file
    if own.exists():
        found[home.operator().name] = own
    return {name: path for name, path in found.items() if path.exists()}


def learn(trust: TrustStore, home: Home, *, role: str = "") -> set[bytes]:
    """Have a trust store know the certificates of this home, or those of a role; the ids of the keys that are here.

    What is damaged, or somebody else's, holds none, and keeps nobody from seeing the others: `dsmt up` names it.
    """
    keys = set()
    for path in (path for name, path in here(home).items() if name.startswith(role)):
        try:
            identity = read_identity(path)
        except (InputError, OSError):
            continue
        with suppress(UnusableEventError):  # it is of another realm, and says nothing in this one
            trust.add_all([signed.raw for signed in identity.chain])
        keys.add(identity.key.key_id)
    told = {"operator/": notes.noted(home.operators), "issuer/": notes.noted(home.issuers)}
    for raw in chain.from_iterable(kept for whose, kept in told.items() if whose.startswith(role)):
        with suppress(UnusableEventError):
            trust.add(raw)
    return keys


def listing(
    trust: TrustStore, home: Home, now_s: int, revoked: Mapping[str, EndedKey] = MappingProxyType({})
) -> list[HeldCertificate]:
    """Every certificate that is known here, by name, and each `revoked` key (by id); `trust` learns those of the home."""
    keys = learn(trust, home)
    newest = in_use(trust, now_s)
    found = []
    for one in trust.certificates(now_s):
        if one.subject in newest:
            state = state_of(one, trust, now_s, newest[one.subject])
            ended = _end_of(one, trust, revoked) if state == "revoked" else None
            found.append(_held(one, state, here=one.key_id in keys, revoked=ended))
    known = {held.key for held in found}
    found += [_ended(one) for one in revoked.values() if one.key not in known and _is_known(one)]
    return sorted(found, key=lambda held: (held.name, held.issued or "", held.key))


def _end_of(certificate: Certificate, trust: TrustStore, revoked: Mapping[str, EndedKey]) -> EndedKey | None:
    """How a certificate has ended: by the end of its key, or of the nearest one above it."""
    keys = (one.certificate.key_id.hex() for one in trust.chain(certificate.key_id, certificate.subject))
    return next((revoked[key] for key in keys if key in revoked), None)


def _is_known(ended: EndedKey) -> bool:
    """Whether a key would be listed of which nobody shows a certificate any more. An issuer ends nodes, and nobody else.

    Brokers take a revocation from nobody else than who may end the key. Of one that was named by its key alone nobody
    knows whose it was.
    """
    if ended.signer.startswith("issuer/"):
        return ended.name.startswith("node/")
    return not ended.name or (is_listed(ended.name) and not ended.name.startswith(STAND_IN))


def _ended(ended: EndedKey) -> HeldCertificate:
    return HeldCertificate(
        name=ended.name,
        key=ended.key,
        state="revoked",
        issued=None,
        renew=None,
        expires=None,
        issuer=None,
        here=False,
        revoked=ended,
    )


def _held(certificate: Certificate, state: State, *, here: bool, revoked: EndedKey | None) -> HeldCertificate:
    return HeldCertificate(
        name=certificate.subject,
        key=certificate.key_id.hex(),
        state=state,
        issued=_when(certificate.issued),
        renew=_when(certificate.renew_s),
        expires=_when(certificate.not_after),
        issuer=certificate.issuer,
        here=here,
        revoked=revoked,
    )


def _when(at_s: int) -> str:
    return rfc3339(at_s * 1000)


def one(found: list[HeldCertificate], name: str) -> list[HeldCertificate]:
    """The certificates of a name, or of a key that begins so. Raises `NotFoundError`."""
    matching = [held for held in found if held.name == name or (len(name) >= 4 and held.key.startswith(name))]
    if not matching:
        said = f"no certificate of {name or repr(name)} is known here"
        close = meant_whole(name, {held.name for held in found})
        raise NotFoundError("cert.unknown", said, next=f"{close}dsmt cert list shows them")
    return matching


def rotate(home: Home, name: str, now: Dated) -> Rotated:
    """Give what lives in this home under a name a new certificate. Raises `NotFoundError` without it, or the root key."""
    path = here(home).get(name)
    lost = _lost_key(home, name)
    if lost is not None:
        ensure_broker(home, name.removeprefix("broker/"), now_s=now.now_s)
        return _rotated(home, read_identity(here(home)[name]), lost, now)
    if path is None:
        known = ", ".join(sorted(here(home))) or "nobody"
        advice = "write a full name, as in node/n1; of a host that was added: type its dsmt node add again, with its roles"
        if name.startswith("operator/"):
            other = name.removeprefix("operator/")
            advice = f"dsmt operator add {other} --into DIR makes another key; dsmt cert revoke ends one that nobody uses"
        said = f"{name or repr(name)} is not a member of this home, which has {known}"
        raise NotFoundError("cert.elsewhere", said, next=advice)
    before = read_identity(path)
    root = home.root_key()
    same_key = before.certificate.role in ("broker", "issuer")
    made = issue(root, name, now_s=now.now_s, key=before.key if same_key else None)
    is_operator = made.certificate.role == "operator"
    if is_operator:  # the former stays good until it ends
        notes.note(home.operators, before.chain[0])
    if made.certificate.role == "issuer":
        notes.note(home.issuers, made.chain[0])
    write_secret(path, dump(made))
    if is_operator:  # what is in this home is listed before that; of who is killed no key is noted that nobody has
        notes.note(home.operators, made.chain[0])
    return _rotated(home, made, before.key.key_id, now)


def _lost_key(home: Home, name: str) -> bytes | None:
    """The id of the key by which a broker of this home is known that has lost it; None for all else."""
    role, _, part = name.partition("/")
    realm = home.realm()
    if role != "broker" or name in here(home) or realm.nats is not None:
        return None
    public = dict(realm.brokers).get(had_address(home, part) or "")
    return None if public is None else key_id_of(public)


def _rotated(home: Home, made: Identity, before: bytes, now: Dated) -> Rotated:
    name = made.certificate.subject
    return Rotated(
        name=name,
        key=made.key.key_id.hex(),
        before=before.hex(),
        issued=_when(made.certificate.issued),
        expires=_when(made.certificate.not_after),
        clock=now.clock,
        restarted=is_up(home) and begin_anew(home, [name]),
    )


def begin_anew(home: Home, names: Iterable[str]) -> bool:
    """End each program that has one of these certificates: who keeps it starts the next one; whether any of them runs."""
    users = (name.replace("issuer/", "controller/").split("/", 1) for name in names)
    programs = {(home.part(KINDS[role], name), _PROGRAMS[role]) for role, name in users if role in _PROGRAMS}
    ended = [ask_to_end(directory, program) for directory, program in programs]
    return any(ended)


async def revoke(
    connection: Connection, root: SecretKey, found: Claim, *, drop: Sequence[str] = (), reason: str
) -> RevokedKey:
    """End a key; what stays of what it has said is said again first (`revoking`). Raises what `revoking` does."""
    warnings = await revoking.unheard(connection) + await revoking.updating(connection, found, drop=drop)
    kept, dropped = await revoking.sign_anew(connection, found, drop=drop) if found.ours else ([], [])
    now_s = connection.bus.now_ms() // 1000
    if found.theirs:
        stand_in = stand_in_identity(root, now_s=now_s)
        async with attached(stand_in, connection.realm, connection.brokers) as controller:
            await revoking.stand_in(controller, found)
    async with attached(root_identity(root, now_s=now_s), connection.realm, connection.brokers) as itself:
        await revoking.revoke(itself, found, by=connection.by, reason=reason)
    left = await revoking.wait_for_successors(connection.bus, found.theirs)
    return RevokedKey(name=found.name, key=found.key, kept=kept, dropped=dropped, left=left, warnings=warnings)


def root_identity(root: SecretKey, *, now_s: int) -> Identity:
    """The root as a source, to say what only it may."""
    return issue(root, "root", now_s=now_s, key=root)


def stand_in_identity(root: SecretKey, *, now_s: int) -> Identity:
    """A controller that says again what another one's key has said; its key is kept nowhere."""
    return issue(root, f"{STAND_IN}{SystemEntropy().bytes(4).hex()}", now_s=now_s)
