"""Places: on which hosts nodes were added, kept in the operator's home (`hosts.json`), and whether a host is one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from dsmt.errors import UNDECODABLE, InputError, RefusedError
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.members.roles import Role
from dsmt.operations.remote.hosts import HostAddress
from dsmt.operations.words.telling import silent
from dsmt.programs.configuration import RESTORE

HOSTS_FILE: Final = "hosts.json"
TellOfHost = Callable[[str, str], object]
"""Is told of a host, as it was typed, what is done there."""


class NodePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node is: the host as it was typed, whether for its user alone, and what else was added there."""

    host: str
    user: bool = False
    roles: tuple[Role, ...] = ()

    @property
    def paths(self) -> dict[str, str]:
        """Where the program and the node are there."""
        if self.user:
            return {"prefix": "~/.local/lib/dsmt", "home": "~/.local/state/dsmt"}
        return {"prefix": "/opt/dsmt", "home": "/var/lib/dsmt"}


def places(home: Home) -> dict[str, NodePlace]:
    """Where the nodes are that were added from this home, by name. Raises `InputError` for a damaged file."""
    file = home.root / HOSTS_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, NodePlace]) if file.exists() else {}
    except UNDECODABLE as error:
        said = f"{file} is damaged: it does not say on which hosts nodes were added"
        raise InputError("config.broken", said, next=RESTORE) from error


def place_of(home: Home, what: str) -> tuple[str, NodePlace] | None:
    """The node of this name, or of this host, that was added from this home."""
    known = places(home)
    found = [name for name, place in known.items() if what in (name, place.host)]
    return (found[0], known[found[0]]) if found else None


async def keep_place(home: Home, node: str, place: NodePlace | None) -> None:
    """Know where a node is, with what else was added there before; None: nowhere any more."""
    async with alone(home, silent):
        known = places(home)
        before = known.pop(node, None)
        if place is not None:
            roles = dict.fromkeys([*(before.roles if before is not None else ()), *place.roles])
            known[node] = msgspec.structs.replace(place, roles=tuple(roles))
        write_secret(home.root / HOSTS_FILE, msgspec.json.encode(known))


def taken(address: HostAddress, what: str, name: str, *, gone: str = "") -> RefusedError:
    """That a host cannot have a name, for another machine's node, broker or controller has it."""
    said = f"{address}: there is a {what} {name} already, on another machine"
    return RefusedError("host.name", said, next=f"name it another way: --name NAME{gone}")


def check_found(address: HostAddress, realm: str, found: dict[str, Any]) -> None:
    """Raise `RefusedError` for a host that is something else already."""
    if not found["ours"]:
        said = f"{address} belongs to another realm than {realm}"
        raise RefusedError("host.taken", said, next="remove it there first: dsmt node remove, in that realm's home")
    if found["more"]:
        said = f"{address} has a home of realm {realm} that was made there"
        raise RefusedError("host.taken", said, next="start that with dsmt up, there")
