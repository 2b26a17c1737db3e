"""Operators: each person has a key of their own, and a home in which the command line finds it.

Rule 1: a further operator's home is made where the root key is, and brought to that person; that key is nowhere else.
Rule 2: the certificate stays here, too. So a key that has said nothing yet is known, and ends with its name. It is noted
    before there is a home with the key: one that was noted and never given is told rather than one given and not told.
Rule 3: a home is there whole or not at all: who is killed over it is given the same command again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import InputError, RefusedError
from dsmt.operations.local.home.dating import Dated
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.making import issue
from dsmt.operations.words.times import rfc3339
from dsmt.trust.identity import Identity, dump

NAME: Final = "[a-z0-9-]{1,40}"
"""A dot parts it from the names of its programs."""


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """An operator that was added: the name, the id of the key, until when it is valid, and the home that was made."""

    name: str
    key: str
    expires: str
    home: str


def add(home: Home, name: str, into: Path, now: Dated) -> Added:
    """Make the home of an operator of this name. Raises `InputError`, and `RefusedError` for a taken place."""
    if not re.fullmatch(NAME, name):
        said = f"{name!r} is not a name for an operator: at most 40 of a-z, 0-9, `-`"
        raise InputError("home.part", said, next="name it another way, as in bob or anna-2")
    root, realm = home.root_key(), home.realm()
    if into.exists():
        raise RefusedError("home.taken", f"{into} is there already", next="name another directory: --into DIR")
    identity = issue(root, f"operator/{name}", now_s=now.now_s)
    half = Home(into.with_name(f".{into.name}.new"))
    shutil.rmtree(half.root, ignore_errors=True)
    noted_at = note(home, identity)
    try:
        half.root.mkdir(parents=True, mode=0o700)
        write_secret(half.operator_file, dump(identity))
        realm.write(half.root)
        half.root.rename(into)
    except OSError:
        shutil.rmtree(half.root, ignore_errors=True)
        noted_at.unlink(missing_ok=True)
        raise
    return Added(
        name=identity.name,
        key=identity.key.key_id.hex(),
        expires=rfc3339(identity.certificate.not_after * 1000) or "",
        home=str(into),
    )


def note(home: Home, operator: Identity) -> Path:
    """Keep an operator's certificate here (rule 2); where."""
    place = home.operators / f"{operator.name.partition('/')[2]}.{operator.key.key_id.hex()}"
    write_secret(place, operator.chain[0].raw)
    return place


def noted(home: Home) -> Iterator[bytes]:
    """The certificates of operators whose keys were made here."""
    for path in sorted(home.operators.glob("*")):
        yield path.read_bytes()
