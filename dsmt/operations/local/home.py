"""A home: all that a realm has on this machine, below `DSMT_HOME`, and how it is made.

realm.cbor                 name, root public keys, brokers
root.key                   the realm's root key (mode 0600): move it off the fleet
servers.key                of a realm on NATS: what makes further servers (mode 0600); as the root key
operator/identity          whose word the command line gives
brokers/<name>/ controllers/<name>/ nodes/<name>/      one directory for each program (programs/configuration.py)
home.lock                  held by who makes, starts or ends what is here
migration/                 of a move to or from NATS: its bridge, and in brokers/ what it moves to, until that is the realm's
keeper/                    the keeper of `up`: what it keeps, and who runs
"""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dsmt.errors import FailedError, InputError, NotFoundError, RefusedError
from dsmt.event.topic import is_level
from dsmt.operations.local.addresses import check_address, check_free, free_address, keep_free
from dsmt.programs.configuration import (
    BIRTH,
    IDENTITY,
    ISSUER,
    RESTORE,
    BrokerFile,
    ControllerFile,
    MigrationFile,
    NodeFile,
    RealmConfig,
    read_identity,
    set_realm,
)
from dsmt.spec.shapes import NAME_PATTERN
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import write_atomically
from dsmt.trust.identity import Identity, dump, root_issued
from dsmt.trust.keys import SEED_BYTES, Key, SecretKey

SERVERS = "migration/brokers"
"""The kind of part that the servers, or brokers, are to which a realm moves."""
ENGINES = {"dsmt": "dsmt's brokers", "nats": "NATS"}
"""What carries a realm, in words."""
WHERE = "check --home, or DSMT_HOME"


def home_directory(told: str | None) -> Path:
    """The directory that was named, else `DSMT_HOME`, else one under the XDG state directory. Raises `InputError`."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    named = told or os.environ.get("DSMT_HOME") or f"{state}/dsmt"
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError as error:
        said = f"{named} cannot be a home: nobody knows where {named.split('/')[0]} is"
        raise InputError("home.path", said, next=WHERE) from error


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one home, and what they hold."""

    root: Path

    @property
    def exists(self) -> bool:
        """Whether a realm was made here. Raises `RefusedError` where that cannot be seen."""
        try:
            (self.root / RealmConfig.FILE).stat()
        except FileNotFoundError:
            return False
        except NotADirectoryError as error:
            raise RefusedError("home.file", f"{self.root} is not a directory, and a home must be one", next=WHERE) from error
        except OSError as error:
            said = f"the home {self.root} cannot be read: {(error.strerror or str(error)).lower()}"
            raise RefusedError("home.unreadable", said, next=WHERE) from error
        return True

    def realm(self) -> RealmConfig:
        """The realm. Raises `NotFoundError` when none was made here."""
        if not self.exists:
            raise NotFoundError(
                "home.empty", f"there is no realm in {self.root}", next="dsmt up starts one; or set DSMT_HOME"
            )
        return RealmConfig.read(self.root)

    def operator(self) -> Identity:
        """The operator whose word the command line gives. Raises `NotFoundError`, or `InputError` for a damaged file."""
        path = self.operator_file
        if not path.exists():
            rooted = self.root_key_file.exists()
            advice = "dsmt up makes a new one" if rooted else f"restore it; or bring root.key to {self.root}, then dsmt up"
            said = f"{path} is missing: the operator's key, which commands need to talk to the realm"
            if not rooted and self.is_joined:
                advice = "type it where the realm was made; this machine has joined it"
            raise NotFoundError("home.operator", said, next=advice)
        return read_identity(path)

    @property
    def is_joined(self) -> bool:
        """Whether this machine has joined a realm that was made elsewhere: no operator, root key or birth is here."""
        made = [self.operator_file, self.root_key_file, *self.root.glob("brokers/*/birth")]
        return bool(self.names("nodes")) and not any(file.exists() for file in made)

    @property
    def migration(self) -> Path:
        """Where a move of the realm keeps what it needs, while there is one."""
        return self.root / "migration"

    def moving(self) -> MigrationFile | None:
        """The move of the realm that is under way."""
        return MigrationFile.read(self.migration) if (self.migration / MigrationFile.FILE).exists() else None

    @property
    def operator_file(self) -> Path:
        """Where the operator's identity is."""
        return self.root / "operator" / IDENTITY

    @property
    def root_key_file(self) -> Path:
        """Where the realm's root key is, unless it was moved away."""
        return self.root / "root.key"

    def root_key(self) -> SecretKey:
        """The realm's root key. Raises `NotFoundError` when it was moved away."""
        path = self.root_key_file
        if not path.exists():
            joins = "dsmt join TOKEN gives this machine's node another certificate, if it needs one"
            advice = joins if self.is_joined else "bring it there to issue certificates"
            raise NotFoundError("trust.root", f"the root key is not in {path}", next=advice)
        seed = path.read_bytes()
        if len(seed) != SEED_BYTES:
            said = f"{path} is damaged: a root key has {SEED_BYTES} bytes, and this has {len(seed)}"
            raise InputError("trust.root", said, next=RESTORE)
        return SecretKey(seed)

    def part(self, kind: str, name: str) -> Path:
        """The directory of a program: `kind` is brokers, controllers or nodes."""
        return self.root / kind / name

    def names(self, kind: str) -> list[str]:
        """The programs of a kind that live here, in natural order (n2 before n10); in an empty directory there is none."""
        directory = self.root / kind
        paths = directory.iterdir() if directory.exists() else ()
        found = [path.name for path in paths if path.is_dir() and any(path.iterdir())]
        return sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])


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
    will make the streams. Who calls it holds the home's lock (`lock.alone`). Raises `InputError` when there is a realm
    already, also one whose file is lost, or the name or the address is none.
    """
    if home.exists:
        raise InputError("home.taken", f"{home.root} holds a realm already", next="use it, or set another DSMT_HOME")
    _check_lost(home)
    check_name(name)
    host = "127.0.0.1"
    if listen is not None:
        check_address(listen)
        keep_free(listen)
        host = listen.rpartition(":")[0]
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


def _check_lost(home: Home) -> None:
    """Raise `InputError` where members of a realm are: they are made after its file, and another realm is not theirs."""
    left = [f"{kind.removesuffix('s')} {name}" for kind in ("controllers", "nodes") for name in home.names(kind)]
    if left:
        said = f"{home.root / RealmConfig.FILE} is missing, and {left[0]} of its realm is here; no other one is made over it"
        again = "where this machine was to join a realm, dsmt join again"
        raise InputError("config.missing", said, next=f"{RESTORE}; {again}")


def _bear(directory: Path, realm: str, root: SecretKey) -> None:
    from dsmt.programs.birth import birth_record, open_store  # noqa: PLC0415 - no other command needs a store

    store = open_store(directory)
    store.close()
    write_secret(directory / BIRTH, birth_record(realm, "broker/b1", store.identity, root))


def check_part(kind: str, name: str) -> None:
    """Raise `InputError` for what cannot be the name of a program: it is one of a directory, and a level of topics."""
    if not is_level(name):
        said = f"{name!r} is not a name for a {kind}: at most 63 of a-z, 0-9, `.`, `_`, `-`"
        raise InputError("home.part", said, next=f"one looks like {kind[0]}1")


def ensure_operator(home: Home, *, now_s: int | None = None) -> None:
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
    """
    check_part("broker", name)
    directory = home.part("brokers", name)
    if not (directory / IDENTITY).exists():
        identity, realm = issue(home.root_key(), f"broker/{name}", now_s=now_s), home.realm()
        address = listen or had_address(home, name) or free_address(broker_host(home))
        others = tuple(one for one in realm.brokers if one[0] != address)
        realm = msgspec.structs.replace(realm, brokers=(*others, (address, identity.certificate.public)))
        file = BrokerFile(realm=realm, address=address)
        file.write(directory)
        if more is not None:
            more(directory, file, identity.certificate.public)
        write_secret(directory / IDENTITY, dump(identity))
        if not leaf:
            reach_at(home, realm)
    return directory


def had_address(home: Home, name: str) -> str | None:
    """The address of a broker that was made, and by which it is known; None for one that is not known.

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
    made = (home.part("brokers", name) for name in home.names("brokers"))
    first = next((one for one in made if (one / IDENTITY).exists()), None)
    return "127.0.0.1" if first is None else BrokerFile.read(first).address.rpartition(":")[0]


def reach_at(home: Home, realm: RealmConfig) -> None:
    """Have everybody of this home know these brokers at the next start."""
    for kind in ("brokers", "controllers", "nodes"):
        for name in home.names(kind):
            set_realm(home.part(kind, name), realm)
    realm.write(home.root)


def ensure_controller(home: Home, name: str, *, now_s: int | None = None) -> Path:
    """The directory of a controller, made when missing. Raises `InputError` for what is no name."""
    check_part("controller", name)
    directory = home.part("controllers", name)
    if not (directory / IDENTITY).exists():
        ControllerFile(realm=home.realm()).write(directory)
        write_secret(directory / IDENTITY, dump(issue(home.root_key(), f"controller/{name}", now_s=now_s)))
    if lacks_issuer(home, name):
        write_secret(directory / ISSUER, dump(issue(home.root_key(), f"issuer/{name}", now_s=now_s)))
    return directory


def lacks_issuer(home: Home, controller: str) -> bool:
    """Whether a controller is to be given the key with which it certifies nodes, and can be: the root key is here."""
    return not (home.part("controllers", controller) / ISSUER).exists() and home.root_key_file.exists()


def ensure_node(home: Home, name: str, *, now_s: int | None = None) -> Path:
    """The directory of a node, made when missing. Raises `InputError` for what is no name."""
    check_part("node", name)
    directory = home.part("nodes", name)
    if not (directory / IDENTITY).exists():
        NodeFile(node=name, realm=home.realm()).write(directory)
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


def write_secret(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(str(path), content)
