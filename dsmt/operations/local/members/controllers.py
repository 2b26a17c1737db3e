"""Controllers of a realm: one more is made and started; one is ended, and forgotten."""

from __future__ import annotations

import msgspec

from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.operations.connection import Connection
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.home import Home, check_added, check_part, is_up
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import ensure_controller
from dsmt.operations.local.members import certificates
from dsmt.operations.local.processes.ending import release
from dsmt.operations.local.processes.keeping import keep_added
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.words.telling import Tell
from dsmt.operations.write.revoking import claim
from dsmt.ports.bus import BusReader
from dsmt.system.records import process_of
from dsmt.system.removing import remove_or_empty


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A controller that was removed; what of its words nobody has said again yet, and which nodes its issuer certified."""

    controller: str
    left: list[str]
    certified: list[str]


def check_asked(home: Home, name: str) -> None:
    """Raise for a controller that nobody can add: as `check_added`, and `NotFoundError` without the root key."""
    check_added(home, "controller", name)
    home.root_key()


async def add(home: Home, bus: BusReader, name: str, *, waits: Tell) -> None:
    """Make a controller in this home, and start it when the realm is up here.

    Where that was interrupted the rest of it is done. Raises as `check_asked`, and `RefusedError` for a name that is taken.
    """
    check_asked(home, name)
    async with alone(home, waits):
        here = name in home.names("controllers")
        if here and (process_of(home.part("controllers", name), "controller") is not None or not is_up(home)):
            said = f"controller {name} is in {home.root} already, and nothing is left to do for it"
            raise RefusedError("controller.exists", said, next="dsmt controllers shows it; one more needs another name")
        if not here and any(one.controller == name for one in controller_rows(await look(bus))):
            said = f"there is a controller {name} on another machine"
            raise RefusedError("controller.exists", said, next="choose another name")
        ensure_controller(home, name, now_s=bus.now_ms() // 1000)
        await keep_added(home, "controllers", ("controller",), name)


async def remove(home: Home, connection: Connection, name: str, *, reason: str, sure: bool, waits: Tell) -> Removed:
    """End a controller of this home, or forget one that is gone, by ending its keys, and its issuer's unless nodes need it.

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
        left, certified = list[str](), list[str]()
        for key in [*_keys(connection, f"controller/{name}"), *_keys(connection, f"issuer/{name}")]:
            found = await claim(connection, key.hex())
            if found.below:
                certified += found.below
            else:
                left += (await certificates.revoke(connection, root, found, reason=reason)).left
        if here:
            remove_or_empty(str(home.part("controllers", name)))
            notes.drop(home.issuers, name)
    return Removed(controller=name, left=left, certified=certified)


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
        raise RefusedError("controller.last", said, next="dsmt controller add NAME; then this again")
    if name in alive and not sure:
        said = f"controller {name} is alive by now, and would end for good, its key with it; nothing was done"
        raise InputError("confirm", said, next=f"dsmt controller remove {name} --yes")


def _keys(connection: Connection, name: str) -> list[bytes]:
    """The keys of a name that are believed."""
    trust = connection.trust
    known = {one.key_id for one in trust.certificates() if one.subject == name}
    return sorted(key for key in known if not trust.is_revoked(key, name))
