"""Operators: each person has a key of their own, and a home in which the command line finds it.

Rule 1: a further operator's home is made where the root key is, and brought to that person; that key is nowhere else.
Rule 2: the certificate stays here, too. So a key that has said nothing yet is known, and ends with its name. It is noted
    before there is a home with the key: one that was noted and never given is told rather than one given and not told.
Rule 3: a home is there whole or not at all: who is killed over it is given the same command again. The key of the half that
    was left is nobody's then: its note goes with it. It is found by its seed, which is written before anything is certified.
Rule 4: what this home has learnt of the realm's brokers goes along: the new home may be brought to a site whose uplink is
    down, where nobody but a leaf could tell it the leaf's key.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import DsmtError, InputError, NotFoundError, RefusedError
from dsmt.event.hlc import rfc3339
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.dating import Dated
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.making import issue
from dsmt.programs.bus import brokers_file, kept_brokers
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.identity import dump
from dsmt.trust.keys import SEED_BYTES, Key, SecretKey

NAME: Final = "[a-z0-9-]{1,40}"
"""A dot parts it from the names of its programs."""
SEED: Final = "seed"
"""In a half of a home: that of the key which it is to have."""


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """An operator that was added: the name, the id of the key, until when it is valid, and the home that was made."""

    name: str
    key: str
    expires: str
    home: str


def add(home: Home, name: str, into: Path, now: Dated) -> Added:
    """Make the home of an operator of this name. Raises `InputError`, `RefusedError` for a taken place or our own name."""
    if not re.fullmatch(NAME, name):
        said = f"{name!r} is not a name for an operator: at most 40 of a-z, 0-9, `-`"
        raise InputError("home.part", said, next="name it another way, as in bob or anna-2")
    root, realm = home.root_key(), home.realm()
    with suppress(NotFoundError, InputError):  # who has lost the own key can still give others theirs
        _check_other(home, f"operator/{name}")
    if into.exists():
        raise RefusedError("home.taken", f"{into} is there already", next="name another directory: --into DIR")
    half = Home(into.with_name(f".{into.name}.new"))
    _drop(home, name, half)
    key = SecretKey(SystemEntropy().bytes(SEED_BYTES))
    try:
        half.root.mkdir(parents=True, mode=0o700)
        write_secret(half.root / SEED, key.seed)
        identity = issue(root, f"operator/{name}", now_s=now.now_s, key=key)
        notes.note(home.operators, identity.chain[0])
        write_secret(half.operator_file, dump(identity))
        realm.write(half.root)
        known = kept_brokers(home.operator_file.parent)
        if known is not None:
            write_secret(brokers_file(half.operator_file.parent), known)
        (half.root / SEED).unlink()
        half.root.rename(into)
    except OSError:
        _drop(home, name, half)
        raise
    return Added(
        name=identity.name,
        key=identity.key.key_id.hex(),
        expires=rfc3339(identity.certificate.not_after * 1000),
        home=str(into),
    )


def _check_other(home: Home, name: str) -> None:
    """Raises `RefusedError` for who this home is of: two people of one name could not be told apart."""
    if home.operator().name == name:
        said = f"{name} is the operator of this home; nothing was done"
        raise RefusedError(
            "operator.own", said, next=f"name the other person; or dsmt cert rotate {name}, for your own next key"
        )


def _drop(home: Home, name: str, half: Home) -> None:
    """Remove a half of a home, with the note of its key (rule 3): nobody was given that. Its certificate goes first."""
    keys = list[Key]()
    with suppress(OSError, DsmtError):
        keys.append(half.operator().key)
    with suppress(OSError, DsmtError):
        keys.append(SecretKey((half.root / SEED).read_bytes()))
    with suppress(OSError):
        if len(keys) == 1:  # who is killed before the note has gone finds the key once more
            write_secret(half.root / SEED, keys[0].seed)
    with suppress(OSError):
        half.operator_file.unlink(missing_ok=True)
    for key in keys:
        notes.place(home.operators, name, key.key_id).unlink(missing_ok=True)
    shutil.rmtree(half.root, ignore_errors=True)
