"""Settling: a machine that is a node already takes the labels that are typed now, and the address that it has now.

`python -m dsmt.operations.local.members.settling HOME`, by `node add` over SSH (`answering`).
On the machine itself by `dsmt up`, which takes labels, and by `dsmt join`, which takes all that is typed.

Rule 1: a node serves at an address of its machine: one that was given another one would have all that it runs looked for at
    the former. Where none is on the way to a broker the node keeps what it has. One that was typed, and is no address of its
    machine, stays: it is reached there from elsewhere.
Rule 2: a label that is not typed stays.
Rule 3: a broker is known by its address to all who have joined; one whose address has gone is not moved in silence.
Rule 4: of a node that runs, that its file is another one now, or its identity (`joining`), is written down first, until it
    has been begun anew with that (`upgrading`): who types it again does what is left.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import InputError, RefusedError
from dsmt.event.addresses import host_of
from dsmt.operations.local.home.addresses import is_here, own_address
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.members.answering import answer
from dsmt.operations.local.members.brokers import of_home
from dsmt.programs.configuration import IDENTITY, NodeFile, read_identity
from dsmt.system.records import process_of

SETTLED: Final = "settled"
"""Stands beside a node's files that say something else than that with which the node runs (rule 4)."""


class Settling(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed."""

    labels: dict[str, str] = {}
    address: str | None = None


def settle(home: Home, told: Settling) -> bool:
    """Whether a node of a home has other labels or another address now. Raises `RefusedError` for a broker (rule 3)."""
    for name, at in of_home(home).items():
        host = host_of(at.address)
        if not is_here(host):
            said = f"broker {name} listens at {at.address}, and {host} is no address of this machine any more"
            advice = f"give the machine that address; or dsmt node remove {name}, and add it again with its roles"
            raise RefusedError("broker.moved", said, next=advice)
    changed = [settle_node(directory, told) for directory in home.parts("nodes").values()]
    return any(before != now for before, now in changed)


def ends_s(home: Home) -> int | None:
    """When the first certificate of the nodes of a home ends, in seconds; None where there is none that can be read."""
    ends = []
    for directory in home.parts("nodes").values():
        with suppress(InputError, OSError):  # who starts it says so
            ends.append(read_identity(directory / IDENTITY).certificate.not_after)
    return min(ends, default=None)


def settle_node(directory: Path, told: Settling) -> tuple[NodeFile, NodeFile]:
    """What a node's file said, and what it says now. Raises `InputError` for a damaged one."""
    held = NodeFile.read(directory)
    address = _address(held) if told.address is None else told.address
    elsewhere = (held.elsewhere or told.address is not None) and not is_here(address)
    now = msgspec.structs.replace(held, labels={**held.labels, **told.labels}, address=address, elsewhere=elsewhere)
    if now != held:
        note(directory)
        now.write(directory)
    return held, now


def note(directory: Path) -> bool:
    """Note of a node that runs that its files are others now (rule 4); whether that was not noted yet."""
    noted = (directory / SETTLED).exists()
    if process_of(directory, "spawner") is not None:
        (directory / SETTLED).touch()
    return not noted


def settle_nodes(home: Home) -> list[str]:
    """Have all nodes of a home serve at an address of this machine (rule 1); in words, which do so from now on.

    One whose file is damaged, or somebody else's, is left: who starts it says so.
    """
    said = []
    for node, directory in home.parts("nodes").items():
        with suppress(InputError, OSError):
            before, now = settle_node(directory, Settling())
            if before.address != now.address:
                said.append(
                    f"node {node} serves at {now.address} now: {before.address} is no address of this machine any more"
                )
    return said


def label_nodes(home: Home, labels: dict[str, str]) -> None:
    """Have all nodes of a home bear labels (rule 2). One whose file is damaged is left: who starts it says so."""
    for directory in home.parts("nodes").values() if labels else ():
        with suppress(InputError, OSError):
            settle_node(directory, Settling(labels=labels))


def _address(held: NodeFile) -> str:
    """Where a node serves now (rule 1)."""
    if held.elsewhere or is_here(held.address):
        return held.address
    found = (own_address(address) for address, _ in held.realm.brokers)
    return next((one for one in found if one != "127.0.0.1"), held.address)


def main(argv: Sequence[str]) -> int:
    """Settle what is in a home, by what standard input tells."""
    return answer(argv[0], Settling, lambda home, told: {"changed": settle(home, told), "ends_s": ends_s(home)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
