"""Startable: what of a home can be started: its files are whole, and of its realm, its port is free, and it does not run."""

from __future__ import annotations

from pathlib import Path

from dsmt.errors import DsmtError, FailedError, InputError, RefusedError, UnusableEventError, unreadable
from dsmt.operations.local.home.addresses import NEW_REALM, check_free
from dsmt.operations.local.home.home import ROLES, Home
from dsmt.programs.configuration import (
    IDENTITY,
    ISSUER,
    RESTORE,
    BrokerFile,
    ControllerFile,
    NodeFile,
    RealmConfig,
    read_identity,
)
from dsmt.system.placed import Placed
from dsmt.system.records import process_of
from dsmt.trust.store import TrustStore


def check_alone(directory: str, program: str) -> None:
    """Raise `RefusedError` when a program runs from its directory already: two would contest each other's every word."""
    running = process_of(directory, program)
    if running is not None:
        said = f"the {program} of {directory} runs already, pid {running.pid}"
        raise RefusedError("start.running", said, next="leave it running, or stop it first: dsmt down")


def check_broker(home: Home, name: str) -> None:
    """Raise `FailedError` when somebody else holds the port of a broker of this home, which does not run.

    Raises `InputError` for files of it that are damaged: without it nobody hears anything.
    """
    directory = home.part("brokers", name)
    config = BrokerFile.read(directory)
    check_realm(home, directory / BrokerFile.FILE, config.realm)
    identity = directory / IDENTITY
    if not identity.exists() and (directory / "broker.log").exists():  # it has run, and is known by its key
        said = f"{identity} is missing: broker {name} is known by the key in it to all who have joined"
        again = (
            "" if config.realm.nats else f"; or dsmt cert rotate broker/{name}, and then dsmt node add of each host again"
        )
        raise InputError("trust.identity", said, next=f"restore it from a backup{again}")
    if identity.exists():
        read_identity(identity)
    listens = "broker" if config.realm.nats is None else "nats_server"
    if process_of(directory, listens) is None and Placed().of(str(directory), listens) is None:
        check_free(config.address, f"broker {name}", then="stop it, then try again", moved=_moved(home, name))


def _moved(home: Home, broker: str) -> str:
    """What is to be done where the machine has not the address of a broker of this home, but that address."""
    if home.is_joined:
        return f"dsmt node remove {broker}, where the realm was made, and add it again"
    if len(home.realm().brokers) > 1:
        return f"dsmt broker remove {broker}, while another broker of the realm answers, and dsmt up again"
    return NEW_REALM


def damaged_brokers(home: Home) -> dict[str, str]:
    """What is wrong with which brokers of a home; raises where that is so of all: one that is whole carries the realm."""
    names, found = home.names("brokers"), dict[str, str]()
    for name in names:
        try:
            check_broker(home, name)
        except (InputError, FailedError, OSError) as error:
            if len(found) == len(names) - 1:
                raise
            said = unreadable(error.filename, error) if isinstance(error, OSError) else _told(error)
            found[name] = f"broker {name} does not start, and the others do without it: {said}"
    return found


def check_whole(home: Home) -> None:
    """Raise `InputError` where of a machine that has joined nothing is whole: there is nothing to start."""
    members, found = [*home.names("controllers"), *home.names("nodes")], _damage(home)
    if not home.names("brokers") and len(found) == len(members):
        first = next(iter(found.values()))
        raise InputError("config.broken", f"{first.message}; nothing else is here to start", next=first.next)


def damaged(home: Home) -> dict[str, str]:
    """What is wrong with the files of controllers and nodes of a home, by whose: these do not start, and all else does."""
    return {who: _told(error) for who, error in _damage(home).items()}


def _told(error: DsmtError) -> str:
    return f"{error.message}. Next: {error.next}"


def _damage(home: Home) -> dict[str, InputError]:
    found: dict[str, InputError] = {}
    files: dict[str, type[ControllerFile | NodeFile]] = {"controllers": ControllerFile, "nodes": NodeFile}
    for kind, file in files.items():
        for name, directory in home.parts(kind).items():
            who = f"{ROLES[kind]} {name}"
            try:
                check_realm(home, directory / file.FILE, file.read(directory).realm)
                for path in (directory / IDENTITY, directory / ISSUER):
                    if path.exists() or (path.name == IDENTITY and home.is_joined):  # elsewhere it is made anew
                        _check_trusted(home, path)
            except InputError as error:
                found[who] = InputError(error.code, f"{error.message}; {who} lacks it", next=error.next)
            except OSError as error:  # it is somebody else's, or no file at all
                said = f"{unreadable(error.filename, error)}; {who} lacks it"
                found[who] = InputError("config.broken", said, next="see to its owner and mode, or restore it from a backup")
    return found


def check_realm(home: Home, file: Path, told: RealmConfig) -> None:
    """Raise `InputError` for the file of a member of another realm, as one that was copied into the wrong home."""
    ours = home.realm()
    if told.roots != ours.roots:
        raise InputError("config.realm", f"{file} is of another realm than {ours.name}, the one of this home", next=RESTORE)


def _check_trusted(home: Home, path: Path) -> None:
    """Raise `InputError` for an identity that is damaged, or of another realm."""
    identity = read_identity(path)
    try:
        TrustStore(home.realm().realm).add_all([signed.raw for signed in identity.chain])
    except UnusableEventError as error:
        raise InputError("config.realm", f"{path} is not of this home: {error.message}", next=RESTORE) from error
