"""Making what a home holds: a realm with its root key, and brokers, controllers and nodes, each where it is missing."""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.event.addresses import host_of
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.addresses import check_address, check_free, free_address, keep_free, own_address
from dsmt.operations.local.home.home import ROLES, Home, check_part, write_secret
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import (
    BIRTH,
    IDENTITY,
    ISSUER,
    BrokerFile,
    ControllerFile,
    NodeFile,
    RealmConfig,
    set_realm,
)
from dsmt.spec.shapes import NAME_PATTERN
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.identity import Identity, dump, root_issued
from dsmt.trust.keys import SEED_BYTES, Key, SecretKey


def operator_name() -> str:
    """The name of who types, as a level of a topic."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "operator"
    return re.sub(r"[^a-z0-9-]", "-", user.lower())[:40] or "operator"


def check_name(name: str) -> None:
    """Raise `InputError` for what cannot be a realm's name."""
    if not re.fullmatch(NAME_PATTERN, name):
        said = f"{name!r} is not a name for a realm: at most 63 of a-z, 0-9, `.`, `_`, `-`, first and last a letter or digit"
        raise InputError("home.name", said, next="name it another way: --name NAME")


def init(home: Home, *, name: str, listen: str | None = None, brokers: int = 1, nats: bool = False) -> RealmConfig:
    """Make a realm: root key, brokers `b1` ..., the first with the store in which it is born, the operator.

    A root key that is there already is used. With `nats` the brokers are NATS servers with their gates, the first of which
    will make the streams. Who calls it holds the home's lock (`lock.alone`). Raises `RefusedError` when there is a realm
    already, and `InputError` for one whose file is lost, and what is no name or address.
    """
    if home.exists:
        raise RefusedError("home.taken", f"{home.root} holds a realm already", next="use it, or set another DSMT_HOME")
    home.check_lost()
    check_name(name)
    host = "127.0.0.1"
    if listen is not None:
        check_address(listen)
        keep_free(listen)
        host = host_of(listen)
    addresses = {f"b{n}": listen if listen and n == 1 else free_address(host) for n in range(1, brokers + 1)}
    if not home.root_key_file.exists():
        write_secret(home.root_key_file, SystemEntropy().bytes(SEED_BYTES))
    root = home.root_key()
    made = {one: issue(root, f"broker/{one}") for one in addresses}
    reached = tuple((addresses[one], identity.certificate.public) for one, identity in made.items())
    config = RealmConfig(name=name, roots=(root.public,), brokers=reached)
    if nats:
        from dsmt.programs.nats_server import make_servers  # noqa: PLC0415 - only there

        routes = tuple(free_address(host) for _ in made) if brokers > 1 else ()
        directories = [home.part("brokers", one) for one in made]
        config = make_servers(directories, config, routes, home=home.root)
    else:
        for one in made:
            BrokerFile(realm=config, address=addresses[one]).write(home.part("brokers", one))
        _bear(home.part("brokers", "b1"), name, root)
    for one, identity in made.items():
        write_secret(home.part("brokers", one) / IDENTITY, dump(identity))
    write_secret(home.operator_file, dump(issue(root, f"operator/{operator_name()}")))
    config.write(home.root)
    return config


def _bear(directory: Path, realm: str, root: SecretKey) -> None:
    from dsmt.programs.birth import birth_record, open_store  # noqa: PLC0415 - no other command needs a store

    store = open_store(directory)
    store.close()
    write_secret(directory / BIRTH, birth_record(realm, "broker/b1", store.identity, root))


def ensure_operator(home: Home, *, now_s: int | None) -> None:
    """See to it that the home has an operator; a new one needs the root key."""
    if not home.operator_file.exists():
        write_secret(home.operator_file, dump(issue(home.root_key(), f"operator/{operator_name()}", now_s=now_s)))


def ensure_broker(
    home: Home,
    name: str,
    *,
    listen: str | None = None,
    now_s: int | None = None,
    leaf: bool = False,
    more: Callable[[Path, BrokerFile, bytes], object] | None = None,
) -> Path:
    """The directory of a broker of a realm that is there, made when missing. Where it listens nobody says, the others do.

    One that has lost its key is given another one, at its address: nobody can know it by the former any more.
    Raises `InputError` for what is no name.

    A leaf is for its site: nobody of this home is configured with it (E5). `more` writes what a NATS server needs, too.
    Its identity is written last: who was cut off before makes another one.
    """
    check_part("broker", name)
    directory = home.part("brokers", name)
    if not (directory / IDENTITY).exists():
        identity, realm = issue(home.root_key(), f"broker/{name}", now_s=now_s), home.realm()
        had = had_address(home, name)
        address = listen or had or free_address(broker_host(home))
        others = tuple(one for one in realm.brokers if one[0] not in (address, had))
        realm = msgspec.structs.replace(realm, brokers=(*others, (address, identity.certificate.public)))
        file = BrokerFile(realm=realm, address=address)
        file.write(directory)
        if more is not None:
            more(directory, file, identity.certificate.public)
        if not leaf:
            reach_at(home, realm)
        write_secret(directory / IDENTITY, dump(identity))
    return directory


def had_address(home: Home, name: str) -> str | None:
    """The address at which the realm knows a broker that was made here; None for one that it does not know.

    A home that was restored without its brokers, and whose realm has one, had that, if nobody listens there on this machine.
    """
    known = dict(home.realm().brokers)
    with suppress(InputError, FailedError):
        if len(known) == 1 and not home.names("brokers"):
            (address,) = known
            check_free(address, f"broker {name}", then="stop it")
            return address
        address = BrokerFile.read(home.part("brokers", name)).address
        return address if address in known else None
    return None


def broker_host(home: Home) -> str:
    """Where brokers of a home listen: where the first one does."""
    first = next((one for one in home.parts("brokers").values() if (one / IDENTITY).exists()), None)
    return "127.0.0.1" if first is None else host_of(BrokerFile.read(first).address)


def reach_at(home: Home, realm: RealmConfig) -> None:
    """Have everybody of this home know these brokers at the next start."""
    for kind in ROLES:
        for directory in home.parts(kind).values():
            set_realm(directory, realm)
    realm.write(home.root)


def reach_also(home: Home, at: BrokerAddress) -> None:
    """Have everybody of this home know one more broker at the next start, unless all do."""
    realm = home.realm()
    if (at.address, at.public) not in realm.brokers:
        reach_at(home, msgspec.structs.replace(realm, brokers=(*realm.brokers, (at.address, at.public))))


def ensure_controller(home: Home, name: str, *, now_s: int | None = None) -> Path:
    """The directory of a controller, made when missing. Raises `InputError` for what is no name."""
    check_part("controller", name)
    directory = home.part("controllers", name)
    if not (directory / IDENTITY).exists():
        ControllerFile(realm=home.realm()).write(directory)
        write_secret(directory / IDENTITY, dump(issue(home.root_key(), f"controller/{name}", now_s=now_s)))
    if lacks_issuer(home, name):
        issuer = issue(home.root_key(), f"issuer/{name}", now_s=now_s)
        notes.note(home.issuers, issuer.chain[0])
        write_secret(directory / ISSUER, dump(issuer))
    return directory


def lacks_issuer(home: Home, controller: str) -> bool:
    """Whether a controller is to be given the key with which it certifies nodes, and can be: the root key is here."""
    return not (home.part("controllers", controller) / ISSUER).exists() and home.root_key_file.exists()


def ensure_node(home: Home, name: str, *, now_s: int | None = None) -> Path:
    """The directory of a node, made when missing. Its services are reached where its broker is, or on the way to it.

    Raises `InputError` for what is no name.
    """
    check_part("node", name)
    directory = home.part("nodes", name)
    if not (directory / IDENTITY).exists():
        realm = home.realm()
        NodeFile(node=name, realm=realm, address=own_address(realm.brokers[0][0])).write(directory)
        write_secret(directory / IDENTITY, dump(issue(home.root_key(), f"node/{name}", now_s=now_s)))
    let_users_pass(home, directory)
    return directory


def let_users_pass(home: Home, directory: Path) -> None:
    """Let users of services pass to a node's directory, and look at nothing (`dsmt.system.giving`)."""
    if os.geteuid() == 0:
        for place in (home.root, directory.parent, directory):
            place.chmod(0o711)


def issue(root: SecretKey, name: str, *, now_s: int | None = None, key: Key | None = None) -> Identity:
    """A new identity under the root; with a new key unless one is given. `now_s`: by the machine's clock if none is."""
    entropy = SystemEntropy()
    key = key or SecretKey(entropy.bytes(32))
    return root_issued(name, root, key=key, now_s=int(time.time()) if now_s is None else now_s, serial=entropy.bytes(16))
