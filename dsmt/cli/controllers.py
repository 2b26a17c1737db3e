"""`controller add`, `controller remove`."""

from __future__ import annotations

import click

from dsmt.cli.cert import tell_left
from dsmt.cli.command import command, reason_option, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document
from dsmt.event.phrases import counted, some
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.local.home.home import is_up
from dsmt.operations.local.members import controllers
from dsmt.operations.local.members.controllers import Removed
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.controller_rows import controller_rows


@command()
@click.argument("controller")
def add(ctx: CliContext, controller: str) -> None:
    """Add a controller to the realm, on this machine. After that, any other controller may die.

    On another machine: dsmt node add HOST --roles controller,node. Needs the root key in this home.
    """
    home = ctx.home()
    controllers.check_asked(home, controller)

    async def work(connection: Reading) -> None:
        await controllers.add(home, connection.bus, controller, waits=ctx.tell_waits)

    ctx.ask(work)
    ctx.done = True
    if ctx.json:
        document({"controller": controller})
    elif is_up(home):
        print(f"controller {controller} is started\nnext: dsmt controllers shows whether it is alive")
    else:
        print(f"controller {controller} is made; it does not run yet, because this home is down\nnext: dsmt up --detach")


@command()
@click.argument("controller")
@yes_option
@reason_option
def remove(ctx: CliContext, controller: str, *, yes: bool, reason: str) -> None:
    """End a controller of this home for good, or forget one that is gone: its key ends, and the others go on.

    Needs the root key in this home. Another controller first signs again what this one had said for all.
    """
    home = ctx.home()

    async def alive(connection: Reading) -> set[str]:
        sight = await look(connection.bus, passing=True)
        return {one.controller for one in controller_rows(sight) if one.alive}

    living = set() if yes else ctx.ask(alive)
    asked = controller in living and len(living) > 1
    if asked:  # of another one it is said what is wrong
        others = counted(len(living) - 1, "controller")
        ctx.confirm(
            f"controller {controller} ends for good, and its key with it: {others} will be left",
            f"realm {home.realm().name}: remove controller {controller}?",
            no=f"controller {controller} is not removed",
            advice=f"dsmt controller remove {controller} --yes",
        )

    async def work(connection: Connection) -> Removed:
        return await controllers.remove(home, connection, controller, reason=reason, sure=yes or asked, waits=ctx.tell_waits)

    done = ctx.act(work)
    if ctx.json:
        document(done)
        return
    print(f"controller {controller} is removed; the other controllers decide")
    if done.certified:
        are = "are" if len(done.certified) > 1 else "is"
        print(f"{some(done.certified)} {are} certified by the issuer beside it, whose key was left valid for that")
        print(f"if that key was stolen: dsmt cert revoke issuer/{controller}, which ends {'them' if are == 'are' else 'it'}")
    tell_left(done.left)
