"""Controllers of a realm: one is ended, and forgotten."""

from __future__ import annotations

from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.operations.connection import Connection
from dsmt.operations.local.home.home import Home, check_part
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.members import certificates
from dsmt.operations.local.members.brokers import clear
from dsmt.operations.local.processes.ending import release
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.words.telling import Tell
from dsmt.operations.write.revoking import claim


async def remove(home: Home, connection: Connection, name: str, *, reason: str, sure: bool, waits: Tell) -> list[str]:
    """End a controller of this home, or forget one that is gone, by ending its keys; what nobody has said again yet.

    Raises `NotFoundError` for one that nobody knows, and without the root key, `RefusedError` for one that is alive on
    another machine, and for the only one that is alive, `InputError` for another one that is, unless who asks is `sure`,
    `FailedError` where it does not end.
    """
    check_part("controller", name)
    root = home.root_key()
    async with alone(home, waits):
        here = name in home.names("controllers")
        check(await look(connection.bus), name, here=here, sure=sure)
        if here:
            await release(home, "controller", name)
        certificates.learn(connection.trust, home)
        left: list[str] = []
        for key in _keys(connection, f"controller/{name}"):
            found = await claim(connection, key.hex())
            left += (await certificates.revoke(connection, root, found, reason=reason)).left
        if here:
            clear(home.part("controllers", name))
    return left


def check(sight: Sight, name: str, *, here: bool, sure: bool) -> None:
    """Raise where a controller, which is of this home if it is `here`, is not known, runs elsewhere, or is the last one.

    And where one is alive and nobody is `sure`: it, or the others, were not when it was looked who is to be asked.
    """
    known = controller_rows(sight)
    alive = {one.controller for one in known if one.alive}
    names = sorted({one.controller for one in known})
    if name not in names and not here:
        said = f"there is no controller {name}; there is {', '.join(names) or 'none'}"
        raise NotFoundError("controller.unknown", said, next="dsmt controllers lists them")
    if any(one.controller == name and one.in_doubt for one in known) and not here:
        said = f"whether controller {name} is alive is not known yet: its broker was lost a moment ago; nothing was done"
        raise RefusedError("controller.in_doubt", said, next="try again in a few seconds")
    if name in alive and not here:
        said = f"controller {name} runs on another machine; nothing was done"
        raise RefusedError("controller.alive", said, next="dsmt node remove NODE ends all that was added on its machine")
    if not alive - {name}:
        said = f"no controller but {name} is alive: without one nothing is placed or repaired elsewhere"
        raise RefusedError("controller.last", said, next="dsmt up --controllers 2 --detach; then this again")
    if name in alive and not sure:
        said = f"controller {name} is alive by now, and would end for good, its key with it; nothing was done"
        raise InputError("confirm", said, next=f"dsmt controller remove {name} --yes")


def _keys(connection: Connection, name: str) -> list[bytes]:
    """The keys of a name that are believed."""
    trust = connection.trust
    known = {one.key_id for one in trust.certificates() if one.subject == name}
    return sorted(key for key in known if not trust.is_revoked(key, name))
