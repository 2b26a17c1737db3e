"""Roles: what a machine that has joined runs besides its node: a broker, a controller with its issuer, by the node's name.

`python -m dsmt.operations.local.members.roles VERB HOME`, by `node add` over SSH (`answering`).

Rule 1: the keys are made here and never leave. `request` tells the public ones; `accept` takes the certificates for them.
Rule 2: a key is kept before it is told, so who is interrupted goes on with the same one. What has its certificate stays;
    from half of its life on it is given the next one for the same key, and begun anew with that, also by who comes after one
    that was killed in between. A controller or an issuer whose key was revoked is given another key.
Rule 3: an `identity` is written last of its directory, and what has one can run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from dsmt.errors import RefusedError
from dsmt.operations.local.home.addresses import check_address, check_free, free_address
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.making import reach_at
from dsmt.operations.local.members import servers
from dsmt.operations.local.members.answering import answer
from dsmt.operations.local.members.brokers import of_home
from dsmt.operations.local.members.certificates import begin_anew
from dsmt.operations.local.members.servers import Brought, ServerOrder
from dsmt.programs.configuration import IDENTITY, ISSUER, BrokerFile, ControllerFile, read_identity
from dsmt.programs.nats_server import new_key, public_of
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.certificate import read
from dsmt.trust.identity import Identity, dump, load
from dsmt.trust.keys import SecretKey

Role = Literal["broker", "controller"]
TLS_KEY: Final = "server.key"
ASKED: Final = "asked"
"""The directory of keys that have no certificate yet, and of who is to be begun anew with the one that is there."""


class RoleOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is to run, under which name; `reached`: the address at which it was reached; `now_s`: realm time."""

    name: str
    roles: tuple[Role, ...]
    reached: str
    now_s: int
    listen: str | None = None
    brokers: tuple[tuple[str, str], ...] = ()
    """Those that are there already: address and public key."""
    certificates: dict[str, str] = {}
    """By the name of the source."""
    anew: tuple[str, ...] = ()
    """The sources that need another key, for theirs was revoked."""
    removed: bool = False
    """Whether the realm has no broker of this name (any more): one that runs here has to learn anew where the others are."""
    server: ServerOrder | None = None
    """Of a realm on NATS."""
    brought: Brought | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Public keys that need a certificate, by the name of the source; the broker of this machine when it has one."""

    asked: dict[str, str] = {}
    held: dict[str, str] = {}
    """Those that have one, of all but a NATS server."""
    address: str | None = None
    public: str | None = None
    tls: str | None = None
    """Of a NATS server that has no certificate yet: its public key, in PEM."""
    route: str = ""


def _identities(home: Home, told: RoleOrder) -> dict[str, Path]:
    """Where the identity of each source stands that is to be here, by the source's name."""
    found = {}
    if "broker" in told.roles:
        found[f"broker/{told.name}"] = home.part("brokers", told.name) / IDENTITY
    if "controller" in told.roles:
        directory = home.part("controllers", told.name)
        found[f"issuer/{told.name}"] = directory / ISSUER
        found[f"controller/{told.name}"] = directory / IDENTITY
    return found


def _key_file(home: Home, source: str) -> Path:
    return home.root / ASKED / source.replace("/", "-")


def _waiting_file(home: Home, source: str) -> Path:
    """Is there from before a source's identity is written until its program has been told to begin anew with that."""
    return home.root / ASKED / f"{source.replace('/', '-')}.waiting"


def request(home: Home, told: RoleOrder) -> Answer:
    """Make the keys that are missing, and tell them. Raises `RefusedError` for a broker that listens elsewhere."""
    here = of_home(home).get(told.name)
    if here is not None and told.listen not in (None, here.address):
        said = f"broker {told.name} listens at {here.address} already, not at {told.listen}"
        raise RefusedError("broker.address", said, next="leave --listen out; or dsmt node remove, and add it again")
    asked, held = {}, {}
    for source, file in _identities(home, told).items():
        known = read_identity(file) if file.exists() else None
        if known is not None and (told.server is None or not source.startswith("broker/")):
            held[source] = known.key.public.hex()
        if known is None or source in told.anew:
            key = _key_file(home, source)
            if not key.exists():
                write_secret(key, SystemEntropy().bytes(32))
            asked[source] = SecretKey(key.read_bytes()).public.hex()
        elif told.now_s >= known.certificate.renew_s:
            asked[source] = known.key.public.hex()
    public = asked.get(f"broker/{told.name}") if here is None else here.public.hex()
    tls = _tls_key(home) if told.server is not None and here is None and f"broker/{told.name}" in asked else None
    shown = None if tls is None else public_of(tls)
    return Answer(asked=asked, held=held, address=None if here is None else here.address, public=public, tls=shown)


def _tls_key(home: Home) -> str:
    """The key of the NATS server that is to be here (rule 2)."""
    path = home.root / ASKED / TLS_KEY
    if not path.exists():
        write_secret(path, new_key().encode())
    return path.read_text()


def accept(home: Home, told: RoleOrder) -> Answer:
    """Take certificates for what `request` told, and have all that is here know all brokers. Raises `InputError`, ..."""
    files = _identities(home, told)
    given = {source: raw for source, raw in told.certificates.items() if source in files}
    identities = {source: _certified(home, source, files[source], raw) for source, raw in given.items()}
    realm = home.realm()
    brokers = dict.fromkeys([*realm.brokers, *((address, bytes.fromhex(public)) for address, public in told.brokers)])
    here = of_home(home).get(told.name)
    new = None if here is not None else identities.get(f"broker/{told.name}")
    address = "" if new is None else _address(told)
    if new is not None:
        brokers[address, new.key.public] = None
    elif here is not None:  # who was killed may not have come to say it here
        brokers[here.address, here.public] = None
    realm = msgspec.structs.replace(realm, brokers=tuple(brokers))
    if new is not None:
        _make_broker(home, told, BrokerFile(realm=realm, address=address), new.key.public)
    if f"controller/{told.name}" in files:
        ControllerFile(realm=realm).write(home.part("controllers", told.name))
    waiting = [source for source in files if _waiting_file(home, source).exists()]
    for source, identity in identities.items():
        write_secret(_waiting_file(home, source), b"")
        write_secret(files[source], dump(identity))
    for source, file in files.items():
        _let_go(_key_file(home, source), file)
    reach_at(home, realm)
    begin_anew(home, {*identities, *waiting, *([f"broker/{told.name}"] if told.removed else [])})
    for source in files:
        _waiting_file(home, source).unlink(missing_ok=True)
    with suppress(OSError):  # keys of other roles, for which nobody has come back
        (home.root / ASKED).rmdir()
    here = of_home(home).get(told.name)
    return Answer() if here is None else Answer(address=here.address, public=here.public.hex(), route=here.route)


def _let_go(key: Path, identity: Path) -> None:
    """Remove a key that has its certificate; who was killed in between has left it."""
    if key.exists() and identity.exists() and SecretKey(key.read_bytes()).public == read_identity(identity).key.public:
        key.unlink()


def _make_broker(home: Home, told: RoleOrder, file: BrokerFile, public: bytes) -> None:
    directory = home.part("brokers", told.name)
    file.write(directory)
    if told.server is not None and told.brought is not None:
        servers.write(directory, file, public, order=told.server, brought=told.brought, tls_key=_tls_key(home))
        (home.root / ASKED / TLS_KEY).unlink()


def _certified(home: Home, source: str, file: Path, raw: str) -> Identity:
    """The identity of a key that was told, with its certificate. Raises `InputError` where they do not belong together."""
    told = _key_file(home, source)
    key = SecretKey(told.read_bytes()) if told.exists() else read_identity(file).key
    return load(dump(Identity(key, (read(bytes.fromhex(raw))[0],))), where=f"the certificate of {source}")


def _address(told: RoleOrder) -> str:
    """Where the broker is to listen: where it was said, or at a free port. Raises `InputError`, `FailedError`."""
    if told.listen is None:
        return free_address(told.reached)
    check_address(told.listen)
    check_free(told.listen, f"broker {told.name}", then="choose another with --listen")
    return told.listen


def main(argv: Sequence[str]) -> int:
    """Do what a verb says, with what standard input tells."""
    verb, directory = argv
    return answer(directory, RoleOrder, {"request": request, "accept": accept}[verb])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
