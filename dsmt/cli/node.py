"""`nodes`, `node show`, `node drain`, `node exclude`, `node include`, `node remove`."""

from __future__ import annotations

import click

from dsmt.cli import member_screens
from dsmt.cli.command import command, reason_option, seconds, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.hosts import added, clear, ended_here, forgotten
from dsmt.cli.names import NODE, remember
from dsmt.cli.printing import document, one_line, warn
from dsmt.cli.printing import show as put
from dsmt.event.phrases import counted, some
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.certificates import in_use
from dsmt.operations.read.rows.node_rows import node_rows, node_shown
from dsmt.operations.read.rows.outside import Used
from dsmt.operations.write.node_control import Controlled, LastNode, Mode, drained, last_node, set_mode


def _seen(ctx: CliContext) -> tuple[Sight, Used]:
    """The realm now, and the certificates in use."""

    async def work(connection: Reading) -> tuple[Sight, Used]:
        sight = await look(connection.bus, passing=True)
        return sight, in_use(connection.trust, sight.now_ms // 1000)

    sight, used = ctx.ask(work)
    remember(ctx, sight)
    return sight, used


@command()
def nodes(ctx: CliContext) -> None:
    """List the nodes: alive or not, what each has and runs."""
    sight, used = _seen(ctx)
    found = node_rows(sight, used)
    if ctx.json:
        document(found)
    else:
        put(member_screens.nodes(found, sight))


@command()
@click.argument("node", type=NODE)
def show(ctx: CliContext, node: str) -> None:
    """Show one node, and every dsmt process on it. To kill the node, kill them all in this order."""
    sight, used = _seen(ctx)
    found = node_shown(sight, node, used)
    if ctx.json:
        document(found)
    else:
        put(member_screens.node_shown(found, sight))


@command()
@click.argument("node", type=NODE)
@reason_option
@click.option(
    "--deadline", "--wait", default=None, metavar="DUR", help="Wait at most this long, then say what delays the drain."
)
@click.option("--no-wait", is_flag=True, help="Return at once; the drain goes on.")
@yes_option
def drain(ctx: CliContext, node: str, reason: str, deadline: str | None, *, no_wait: bool, yes: bool) -> None:
    """Move everything off NODE, and place nothing more there. Done when only what must stay with its data is left.

    Where no other node takes instances, and something ends for that, it asks first.
    """
    limit = seconds(deadline)
    if not yes:
        _confirm_last(ctx, node)

    async def work(connection: Connection) -> Controlled:
        done = await set_mode(connection.bus, node, "draining", by=connection.by, reason=reason)
        if not ctx.json:
            warn(done.warnings)
        if no_wait:
            return done
        ctx.asked = f"the drain of {node}", f"dsmt node show {node}"
        with ctx.progress() as tell:
            return await drained(connection.bus, node, since=done.version, limit_s=limit, tell=tell)

    done = ctx.act(work)
    if ctx.json:
        document(done)
        return
    was = "" if done.changed else " already"
    moving = [one for one in done.left if not one.stays]
    left = f"{counted(len(moving), 'instance')} to move" if moving else "nothing is left to move there"
    print(f"{node} is {done.mode}{was}: {left}; dsmt node include {node} undoes it")
    for one in done.left:
        if one.stays:
            print(f"  {one.instance} stays: {one_line(one.because)}")
    if done.data:
        come = "it does not come up" if len(done.data) == 1 else "they do not come up"
        print(f"  the data of {some(done.data)} is there too; {come} while {node} is drained")
    if moving:
        print("next: dsmt nodes shows what holds it up")


def _confirm_last(ctx: CliContext, node: str) -> None:
    """Of the last node that takes instances, ask where something ends, else say that nothing has another place.

    Raises `InputError`, and `FailedError` for a no.
    """

    async def foreseen(connection: Reading) -> LastNode | None:
        return await last_node(connection.bus, node)

    found = ctx.ask(foreseen)
    stay = f"{node} is the last node that takes instances: what runs there stays until another one takes it"
    if found is not None and found.ends:
        end = f"{some(found.ends, 8)} {'end' if len(found.ends) > 1 else 'ends'}: each node has one, and there is no other"
        ctx.confirm(
            f"{stay}; but {end}" if found.stays else f"{node} is the last node that takes instances: {end}",
            f"realm {ctx.home().realm().name}: drain {node}?",
            no=f"{node} is not drained",
            advice=f"dsmt node drain {node} --yes; or first another node for it: dsmt nodes",
        )
    elif found is not None and found.stays and not ctx.json:
        warn([stay])


@command()
@click.argument("node", type=NODE)
@reason_option
def exclude(ctx: CliContext, node: str, reason: str) -> None:
    """Place nothing more on NODE; instances that run there stay."""
    done = _set(ctx, node, "excluded", reason)
    if not ctx.json:
        was = "" if done.changed else " already"
        print(f"{node} is excluded{was}: nothing more is placed there; dsmt node include {node} undoes it")


@command()
@click.argument("node", type=NODE)
@reason_option
def include(ctx: CliContext, node: str, reason: str) -> None:
    """Use NODE again."""
    done = _set(ctx, node, "active", reason)
    if not ctx.json:
        print(f"{node} is active{'' if done.changed else ' already'}")


def _set(ctx: CliContext, node: str, mode: Mode, reason: str) -> Controlled:
    async def work(connection: Connection) -> Controlled:
        return await set_mode(connection.bus, node, mode, by=connection.by, reason=reason)

    done = ctx.act(work)
    if ctx.json:
        document(done)
    else:
        warn(done.warnings)
    return done


@command()
@click.argument("node", type=NODE, metavar="NODE|HOST")
@click.option("--forget", is_flag=True, help="Only forget it: its machine is gone.")
@yes_option
@reason_option
def remove(ctx: CliContext, node: str, *, forget: bool, yes: bool, reason: str) -> None:
    """Forget NODE, which is gone for good. A node that is alive elsewhere is refused. It comes back if it attaches again.

    If the node is of this home, or was added from here with `node add`, this ends it first, and leaves nothing of it.
    """
    if not forget and added(ctx, node):
        clear(ctx, node, yes=yes, reason=reason)
        return
    if not forget and node in ctx.home().names("nodes"):
        done = ended_here(ctx, node, yes=yes, reason=reason)
        if ctx.json:
            document(done)
        else:
            print(f"{node} is removed; nothing of it is left here")
        return
    done = forgotten(ctx, node, yes=yes, reason=reason)
    if ctx.json:
        document(done)
        return
    was = "" if done.changed else " already"
    elsewhere = "; what may run on other nodes is started there" if done.instances else ""
    print(f"{node} is removed{was}{elsewhere}; it comes back when it attaches again")
    directory = ctx.home().part("nodes", node)
    if directory.exists():
        print(f"  dsmt up starts it again: its directory is {directory}")
    else:
        print(f"  if its machine is not yours any more, end its keys: dsmt cert revoke node/{node}, and of what else it had")
