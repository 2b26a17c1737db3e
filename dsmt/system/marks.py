"""Marks: what each process of a tree bears from its start on, wherever it is forked to and whatever it calls itself.

Rule 1: a mark is of one tree, and names the tree's owner: the directory of a container.
Rule 2: it is borne twice: as a variable of the environment, in words, and as a number, which is the soft limit of file locks
    (RLIMIT_LOCKS, setrlimit(2): not enforced since Linux 2.4). Programs write their titles over the environment they
    were started with (nginx, PostgreSQL, Redis), or give others an empty one; limits are kept by fork and by exec.
Rule 3: one of the two is enough: a kernel may refuse the second, and what an older dsmt has started has the first alone.
    An agent, which is forked and not executed, has the second alone.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Final

from dsmt.ports.processes import ProcessIdentity
from dsmt.system.files import is_within
from dsmt.system.procfs import environment_value, identity_of, mounts_of, pids, soft_limit, with_all_below

MARK: Final = "DSMT_TREE"
"""The environment variable that carries a mark in words."""
UNMARKED: Final = 0
"""The number of no mark."""
_LOCKS: Final = 10
"""RLIMIT_LOCKS, which `resource` does not name."""
_TREE_BITS: Final = 16
"""How many bits of a number tell the trees of one owner apart; the 47 above them are the owner's."""


def make_mark(owner: str, number: int) -> str:
    """A mark that no other tree of this machine has: its owner, who makes it, and a number."""
    own = identity_of(os.getpid())
    return f"{owner}#{os.getpid()}.{0 if own is None else own.started}.{number}"


def owner_of(mark: str) -> str:
    """The owner that a mark names."""
    return mark.rpartition("#")[0]


def number_of(mark: str) -> int:
    """A mark as a number, below 2^63."""
    return (_number_of_owner(owner_of(mark)) << _TREE_BITS) + _hashed(mark, _TREE_BITS)


@contextmanager
def bearing(mark: str) -> Iterator[dict[str, str]]:
    """What is started inside, with these variables in its environment, bears the mark (rule 2)."""
    with _limited(number_of(mark)):
        yield {MARK: mark}


def bear(owner: str) -> None:
    """Have this process bear a mark of an owner, by its limit alone (rule 3): what it starts has marks of its own."""
    with suppress(OSError, ValueError):
        resource.setrlimit(_LOCKS, (number_of(make_mark(owner, 0)), resource.getrlimit(_LOCKS)[1]))


@contextmanager
def unmarked() -> Iterator[dict[str, str]]:
    """What is started inside, with this environment, bears no mark: it is none of the tree in which this process may be."""
    with _limited(resource.getrlimit(_LOCKS)[1]):
        yield {name: value for name, value in os.environ.items() if name != MARK}


@contextmanager
def _limited(soft: int) -> Iterator[None]:
    before = resource.getrlimit(_LOCKS)
    with suppress(OSError, ValueError):
        resource.setrlimit(_LOCKS, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(_LOCKS, before)


def numbers_of(pid: int) -> Iterator[int]:
    """The numbers of the marks that a process bears: of one, where nobody has changed its limit or its environment."""
    limit = soft_limit(pid, _LOCKS, "Max file locks")
    if limit is not None:
        yield limit
    words = environment_value(pid, MARK)
    if words is not None:
        yield number_of(words)


def borne_by(pid: int) -> int:
    """The number of the mark that a process bears; `UNMARKED` when it bears none."""
    return next(numbers_of(pid), UNMARKED)


def bearers(owners: Iterable[str], spared: Container[int] = ()) -> set[ProcessIdentity]:
    """The living processes, but this one, that bear a mark of these owners which is not one of the `spared`; and all below.

    What they have started may bear none: su(1) and sudo(8) take off both.
    """
    wanted = {_number_of_owner(owner) for owner in owners}
    found: set[int] = set()
    for pid in pids():
        number = next((number for number in numbers_of(pid) if number >> _TREE_BITS in wanted), UNMARKED)
        if number != UNMARKED and number not in spared and pid != os.getpid():
            found.add(pid)
    return {one for one in with_all_below(found) if one.pid != os.getpid()}


def owners_below(place: str) -> set[str]:
    """The owners below a directory whom the marks of the living name in words; their own directories may be no more.

    Only who sees the same mounts as we do is meant.
    """
    root, own = os.path.realpath(place), mounts_of(os.getpid())
    named = {pid: owner_of(mark) for pid in pids() if (mark := environment_value(pid, MARK)) is not None}
    return {owner for pid, owner in named.items() if is_within(os.path.realpath(owner), root) and mounts_of(pid) == own}


def _number_of_owner(owner: str) -> int:
    return _hashed(owner, 47)


def _hashed(text: str, bits: int) -> int:
    digest = blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - bits)
