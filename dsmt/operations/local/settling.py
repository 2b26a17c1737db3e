"""Settling: a host that was added before takes the labels that are typed now, and the address that its machine has now.

`python -m dsmt.operations.local.settling HOME`, by `node add` over SSH; what is told and what is answered is JSON.

Rule 1: a node serves at an address of its machine: one that was given another one would have all that it runs looked for at
    the former. Where none is on the way to a broker the node keeps what it has.
Rule 2: a label that is not typed stays.
Rule 3: a broker is known by its address to all who have joined; one whose address has gone is not moved in silence.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dsmt.errors import DsmtError, RefusedError
from dsmt.event.addresses import host_of
from dsmt.operations.local.addresses import is_here, own_address
from dsmt.operations.local.brokers import of_home
from dsmt.operations.local.home import Home
from dsmt.operations.local.lock import alone
from dsmt.operations.words.telling import silent
from dsmt.programs.configuration import NodeFile


class Settling(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed."""

    labels: dict[str, str] = {}


def settle(home: Home, told: Settling) -> bool:
    """Whether a node of a home has other labels or another address now. Raises `RefusedError` for a broker (rule 3)."""
    for name, at in of_home(home).items():
        host = host_of(at.address)
        if not is_here(host):
            said = f"broker {name} listens at {at.address}, and {host} is no address of this machine any more"
            advice = f"give the machine that address; or dsmt node remove {name}, and add it again with its roles"
            raise RefusedError("broker.moved", said, next=advice)
    changed = [_settle_node(home.part("nodes", node), told) for node in home.names("nodes")]
    return any(changed)


def _settle_node(directory: Path, told: Settling) -> bool:
    held = NodeFile.read(directory)
    now = msgspec.structs.replace(held, labels={**held.labels, **told.labels}, address=_address(held))
    if now != held:
        now.write(directory)
    return now != held


def _address(held: NodeFile) -> str:
    """Where a node serves now (rule 1)."""
    if is_here(held.address):
        return held.address
    found = (own_address(address) for address, _ in held.realm.brokers)
    return next((one for one in found if one != "127.0.0.1"), held.address)


async def _alone(home: Home, told: Settling) -> bool:
    async with alone(home, silent):
        return settle(home, told)


def main(argv: Sequence[str]) -> int:
    """Settle what is in a home, by what standard input tells; an error is told as the command line tells it."""
    try:
        told = msgspec.json.decode(sys.stdin.read(), type=Settling)
        changed = asyncio.run(_alone(Home(Path(argv[0])), told))
    except DsmtError as error:
        said = {"code": error.code, "message": error.message, "next": error.next, "exit": error.exit}
        sys.stderr.write(json.dumps({"error": said}) + "\n")
        return error.exit
    sys.stdout.write(json.dumps({"changed": changed}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
