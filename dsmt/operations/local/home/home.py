"""A home: all that a realm has on this machine, below `DSMT_HOME` (who makes it: `making`).

realm.cbor                 name, root public keys, brokers
root.key                   the realm's root key (mode 0600): move it off the fleet
servers.key                of a realm on NATS: what makes further servers (mode 0600); as the root key
operator/identity          whose word the command line gives
operators/                 the certificates of operators whose keys were made here
issuers/                   the certificates of the realm's issuers, wherever these are
brokers/<name>/ controllers/<name>/ nodes/<name>/      one directory for each program (programs/configuration.py)
home.lock                  held by who makes, starts or ends what is here
migration/                 of a move to or from NATS: its bridge, and in brokers/ what it moves to, until that is the realm's
keeper/                    the keeper of `up`: what it keeps, who runs, and which run of the realm this is
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import InputError, NotFoundError, RefusedError, unreadable
from dsmt.event.addresses import is_number
from dsmt.event.topic import is_level
from dsmt.programs.configuration import (
    IDENTITY,
    RESTORE,
    MigrationFile,
    RealmConfig,
    read_identity,
)
from dsmt.system.files import write_atomically
from dsmt.system.procfs import words_of
from dsmt.system.reading import places_in
from dsmt.system.records import process_of
from dsmt.trust.identity import Identity
from dsmt.trust.keys import SEED_BYTES, SecretKey

KINDS: Final = {"broker": "brokers", "controller": "controllers", "node": "nodes"}
"""By role, the kind of its parts in a home: the directory in which these are."""
ROLES: Final = {kind: role for role, kind in KINDS.items()}
SERVERS = "migration/brokers"
"""The kind of part that the servers, or brokers, are to which a realm moves."""
ENGINES = {"dsmt": "dsmt's brokers", "nats": "NATS"}
"""What carries a realm, in words."""
WHERE = "check --home, or DSMT_HOME"


def home_directory(told: str | None) -> Path:
    """The directory that was named, else `DSMT_HOME`, else one under the XDG state directory.

    Raises `InputError`, and `RefusedError` for one below a current directory that was removed.
    """
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    named = told or os.environ.get("DSMT_HOME") or f"{state}/dsmt"
    try:
        return _text(Path(named).expanduser().absolute())
    except FileNotFoundError as error:
        said = f"the current directory is gone, and the home {named} is in it"
        raise RefusedError("home.gone", said, next="cd to one that is there, or name the whole path of the home") from error
    except RuntimeError as error:
        said = f"{named} cannot be a home: nobody knows where {named.split('/')[0]} is"
        raise InputError("home.path", said, next=WHERE) from error


def _text(home: Path) -> Path:
    """The path; raises `InputError` for one that is no text: it could be neither written down nor shown."""
    try:
        str(home).encode()
    except UnicodeEncodeError as error:
        said = f"{ascii(str(home))[1:-1]} cannot be a home: its path is not UTF-8 text"
        raise InputError("home.path", said, next="name another one: --home DIR, or DSMT_HOME") from error
    return home


def keeper_directory(home: Home) -> Path:
    """Where the keeper lives."""
    return home.root / "keeper"


def is_up(home: Home) -> bool:
    """Whether the home's keeper runs."""
    return process_of(keeper_directory(home), "spawner") is not None


def check_in_place(home: Home) -> None:
    """Raise `RefusedError` where a home was moved while it runs: its programs look for their files where it was."""
    keeper = process_of(keeper_directory(home), "spawner")
    for word in [] if keeper is None else words_of(keeper.pid):
        before = Path(word)
        if before.is_absolute() and before.name == "keeper" and not before.exists():
            said = f"{home.root} was moved from {before.parent} while its realm runs, which looks for its files there"
            raise RefusedError("home.moved", said, next="dsmt down ends it, then dsmt up; until then what dies stays dead")


class Home(msgspec.Struct, frozen=True):
    """Paths below one home, and what they hold."""

    root: Path

    @property
    def exists(self) -> bool:
        """Whether a realm was made here. Raises `RefusedError` where that cannot be seen."""
        try:
            (self.root / RealmConfig.FILE).stat()
        except FileNotFoundError:
            if self.root.is_symlink() and not self.root.exists():
                said = f"the home {self.root} is a link to {self.root.readlink()}, which is not there"
                raise RefusedError("home.link", said, next=WHERE) from None
            return False
        except NotADirectoryError as error:
            raise RefusedError("home.file", f"{self.root} is not a directory, and a home must be one", next=WHERE) from error
        except OSError as error:
            raise RefusedError("home.unreadable", unreadable(f"the home {self.root}", error), next=WHERE) from error
        return True

    def realm(self) -> RealmConfig:
        """The realm. Raises `NotFoundError` when none was made here, and `InputError` where its file is lost or damaged."""
        if not self.exists:
            self.check_lost()
            raise NotFoundError(
                "home.empty", f"there is no realm in {self.root}", next="dsmt up starts one; or set DSMT_HOME"
            )
        return RealmConfig.read(self.root)

    def check_lost(self) -> None:
        """Raise `InputError` where members of a realm are: another realm would not be theirs.

        Controllers and nodes are made after its file; a broker is made before it, and has its log when it has run.
        """
        left = [f"broker {name}" for name in self.names("brokers") if (self.part("brokers", name) / "broker.log").exists()]
        left += [f"{ROLES[kind]} {name}" for kind in ("controllers", "nodes") for name in self.names(kind)]
        if left:
            file = self.root / RealmConfig.FILE
            said = f"{file} is missing, and {left[0]} of its realm is here; no other one is made over it"
            again = "where this machine was to join a realm, dsmt join again"
            raise InputError("config.missing", said, next=f"{RESTORE}; {again}")

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
        try:
            return read_identity(path)
        except InputError as error:
            anew = "; or remove it, and dsmt up makes a new one" if self.root_key_file.exists() else ""
            raise InputError(error.code, error.message, next=f"{error.next}{anew}") from error

    @property
    def is_joined(self) -> bool:
        """Whether this machine has joined a realm that was made elsewhere: no operator, root key or birth is here."""
        return bool(self.names("nodes")) and not self.is_made

    @property
    def is_made(self) -> bool:
        """Whether a realm, or an operator's home, was made here: `dsmt up` starts only what it has made itself."""
        made = [self.operator_file, self.root_key_file, *self.root.glob("brokers/*/birth")]
        return any(file.exists() for file in made)

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
    def operators(self) -> Path:
        """Where the certificates of operators are whose keys were made here."""
        return self.root / "operators"

    @property
    def issuers(self) -> Path:
        """Where the certificates of issuers are, which the root key has signed (`notes`)."""
        return self.root / "issuers"

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
            raise InputError("trust.damaged", said, next=RESTORE)
        return SecretKey(seed)

    def part(self, kind: str, name: str) -> Path:
        """The directory of a program: `kind` is brokers, controllers or nodes."""
        return self.root / kind / name

    def names(self, kind: str) -> list[str]:
        """The programs of a kind that live here, in natural order (n2 before n10); in an empty directory there is none."""
        found = [path.name for path in places_in(self.root / kind) if places_in(path)]
        return sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])

    def parts(self, kind: str) -> dict[str, Path]:
        """The directories of the programs of a kind that live here, by name, in natural order."""
        return {name: self.part(kind, name) for name in self.names(kind)}


def check_part(kind: str, name: str) -> None:
    """Raise `InputError` for what cannot be the name of a program: it is one of a directory, and a level of topics."""
    if not is_level(name):
        said = f"{name!r} is not a name for a {kind}: at most 63 of a-z, 0-9, `.`, `_`, `-`"
        raise InputError("home.part", said, next=f"one looks like {kind[0]}1")


def check_added(home: Home, kind: str, name: str) -> None:
    """Raise `InputError` for what cannot be the name of what is added here, and for a machine, as `node add` takes them.

    `RefusedError` on a machine that has joined: no key that certifies it is there.
    """
    if "@" in name or (is_number(name) and not name.isdigit()):
        said = f"{name} names a machine, and this adds a {kind} on the one where you type it"
        raise InputError(
            "home.part", said, next=f"on that one: dsmt node add {name} --roles {kind},node; here: a name like {kind[0]}2"
        )
    check_part(kind, name)
    if home.is_joined:
        said = f"{home.root} has joined realm {home.realm().name}, and no {kind} is added there"
        raise RefusedError("up.joined", said, next=f"where the realm was made: dsmt node add HOST --roles {kind},node")


def write_secret(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(str(path), content)
