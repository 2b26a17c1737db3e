"""`broker add`, `broker remove`."""

from __future__ import annotations

import click

from dsmt.cli.command import command, reason_option, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.local.home.home import is_up
from dsmt.operations.local.members import brokers
from dsmt.operations.words.times import local, time_or_null
from dsmt.operations.write.brokers import announced
from dsmt.ports.realm import BrokerAddress


def lost_with(silent_ms: int) -> str:
    """What goes with a broker that others did not hear since then (realm ms)."""
    return f"it was silent since {local(silent_ms)}: the other brokers may lack what only it has stored since then"


@command()
@click.argument("broker")
@click.option(
    "--listen",
    default=None,
    metavar="HOST:PORT",
    help="Where it listens; by default a free port at the address of this home's brokers.",
)
@click.option(
    "--leaf", is_flag=True, help="Make it a leaf, for a site with a thin uplink: it links to one other broker at a time."
)
@reason_option
def add(ctx: CliContext, broker: str, *, listen: str | None, leaf: bool, reason: str) -> None:
    """Add a broker to the realm, on this machine. After that, any broker may die.

    On another machine: dsmt node add HOST --roles broker,node. A leaf serves only machines that were added for it:
    dsmt token create --broker BROKER, dsmt node add --broker BROKER.
    """
    home = ctx.home()
    brokers.check_asked(home, broker, listen)

    async def work(connection: Connection) -> BrokerAddress:
        now_s = connection.bus.now_ms() // 1000
        return await brokers.add(
            home,
            connection.bus,
            broker,
            listen=listen,
            by=connection.by,
            reason=reason,
            now_s=now_s,
            waits=ctx.tell_waits,
            leaf=leaf,
        )

    at = ctx.act(work)
    if ctx.json:
        document({"broker": broker, "address": at.address})
    else:
        print(added(broker, at.address, runs=is_up(home)))


def added(broker: str, address: str, *, runs: bool) -> str:
    """What is said of a broker that was added."""
    if runs:
        said = f"broker {broker} runs on this machine, and listens at {address}; all attached clients know it"
        return f"{said}\nnext: dsmt brokers shows when it has everything that the others have"
    return (
        f"broker {broker} will listen at {address}; it does not run yet, because this home is down\nnext: dsmt up --detach"
    )


@command()
@click.argument("broker")
@yes_option
@reason_option
def remove(ctx: CliContext, broker: str, *, yes: bool, reason: str) -> None:
    """End a broker; its clients go to another one."""
    home = ctx.home()
    own = broker in home.names("brokers")

    async def standing(connection: Reading) -> set[str]:
        return {*await announced(connection.bus), *brokers.of_home(home)}

    known = set() if yes else ctx.ask(standing)
    if broker in known and len(known) > 1:  # of another one it is said what is wrong
        here = " and its store here is deleted" if own else ""
        ctx.confirm(
            f"broker {broker} ends for good{here}: its clients go to another one, and one copy of the history less is left",
            f"realm {home.realm().name}: remove broker {broker}?",
            no=f"broker {broker} is not removed",
            advice=f"dsmt broker remove {broker} --yes",
        )

    async def work(connection: Connection) -> tuple[BrokerAddress, int | None]:
        silent_ms = await brokers.silent_since_ms(connection.bus, home, broker)
        at = await brokers.remove(home, connection.bus, broker, by=connection.by, reason=reason, waits=ctx.tell_waits)
        return at, silent_ms

    at, silent_ms = ctx.act(work)
    if ctx.json:
        document({"broker": broker, "address": at.address, "silent_since": time_or_null(silent_ms)})
        return
    print(f"broker {broker}, at {at.address}, is removed")
    if silent_ms is not None:
        print(f"  {lost_with(silent_ms)}")
    elif not own:
        print("  its process stays on its machine, and serves nobody: dsmt node remove ends all that was added there")
