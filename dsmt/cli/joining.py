"""`token create`, `token list`, `token revoke`, and `join`: how machines join a realm."""

from __future__ import annotations

import asyncio
import sys

import click
from msgspec.structs import replace

from dsmt.cli.command import command, reason_option, seconds
from dsmt.cli.context import CliContext
from dsmt.cli.labels import label_option, labels_of
from dsmt.cli.printing import document, show, table, warn
from dsmt.errors import RefusedError
from dsmt.operations.connection import Connection
from dsmt.operations.local.members import joining
from dsmt.operations.local.members.joining import Joined
from dsmt.operations.local.up import coming_up, machine, upgrading
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.write import tokens
from dsmt.operations.write.tokens import Created, Listed


@command()
@click.option(
    "--role",
    default="node",
    type=click.Choice(["node", "broker", "controller"]),
    help="What joins with the token; only a node can.",
)
@click.option(
    "--name", default="*", metavar="PATTERN", help="Which names the machine may take, such as web-*; by default any."
)
@click.option("--ttl", default="1h", metavar="DUR", help="How long the token is valid, from 1m to 30d; 1h by default.")
@click.option("--broker", default=None, metavar="BROKER", help="The broker that the machine uses: the leaf of its site.")
@label_option
@reason_option
def create(
    ctx: CliContext, *, role: str, name: str, ttl: str, broker: str | None, labels: tuple[str, ...], reason: str
) -> None:
    """Make a token with which one machine can join this realm. Its line is shown once, and is valid for one use."""
    tokens.check_role(role)
    given, lives_s = labels_of(labels), seconds(ttl) or 0.0

    async def work(connection: Connection) -> Created:
        operator = ctx.home().operator()
        return await tokens.create(
            connection, operator, name=name, labels=given, ttl_s=lives_s, broker=broker, reason=reason
        )

    made = ctx.act(work)
    ends = f"dsmt token revoke {made.token[:8]}, for its line is shown once; then make another"
    ctx.asked = f"token {made.token[:8]}", ends
    if ctx.json:
        document(made)
        return
    print(made.line)
    sys.stdout.flush()
    warn(made.warnings)
    print(
        f"token {made.token[:8]}, for one machine until {made.expires}; next, there: dsmt join TOKEN",
        file=sys.stderr,
    )


@command("list")
def list_all(ctx: CliContext) -> None:
    """List the tokens that are known: open, used, expired or revoked."""
    found = ctx.ask(lambda connection: tokens.listing(connection.bus))
    if ctx.json:
        document(found)
    elif found:
        show(listed(found))
    else:
        print("no token; next: dsmt token create")


def listed(found: list[Listed]) -> str:
    """Every token in a line."""
    rows = []
    for one in found:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
        cells = (one.token[:8], one.state, one.role, one.member or one.name, labels, one.expires or "", one.by, one.reason)
        rows.append((cells, ()))
    return table(("TOKEN", "STATE", "ROLE", "NAME", "LABELS", "EXPIRES", "BY", "REASON"), rows)


@command()
@click.argument("token")
@reason_option
def revoke(ctx: CliContext, token: str, reason: str) -> None:
    """End TOKEN, named by the beginning of its id or by its line: no machine can join with it any more."""
    done = ctx.act(lambda connection: tokens.revoke(connection, token, reason=reason))
    if ctx.json:
        document(done)
    else:
        print(f"token {done.token[:8]} is revoked: nobody joins with it")


@command()
@click.argument("token", required=False)
@click.option(
    "--name", default=None, metavar="NAME", help="The node's name; by default that of the token, or of this machine."
)
@click.option(
    "--address",
    default=None,
    metavar="ADDR",
    help="Where its services can be reached; by default the address from which it reaches the broker.",
)
@click.option("--no-start", is_flag=True, help="Do not start the node; dsmt node run or an init system does.")
@label_option
def join(
    ctx: CliContext, token: str | None, name: str | None, address: str | None, labels: tuple[str, ...], *, no_start: bool
) -> None:
    """Make this machine a node of the realm that made TOKEN, and start it; `-` reads the token from standard input.

    A machine that has joined needs no TOKEN: it takes the labels and the address that are typed, or the address that it
    has now.
    """
    home, given = ctx.home(), labels_of(labels)
    line = sys.stdin.readline() if token == "-" else token  # noqa: S105 - the sign for standard input

    async def work() -> Joined:
        done = await joining.join(home, line, name=name, labels=given, address=address, waits=ctx.tell_waits)
        if not no_start:
            ctx.asked = f"what was started in {home.root}", "dsmt down ends it"
            started = await machine.up(home, Wanted(), waits=ctx.tell_waits)
        await upgrading.begin_settled(home, waits=ctx.tell_waits)
        if not no_start:
            out: dict[str, str] = {}
            await coming_up.attached(
                home, replace(started, nodes=(done.node,)), out=out
            )  # another one may be let in no more
            if out:
                raise RefusedError("node.out", out[done.node])
        return done

    done = asyncio.run(work())
    ctx.done = True
    if ctx.json:
        told = {"node": done.node, "realm": done.realm, "home": str(home.root), "made": done.made, "started": not no_start}
        document({**told, "address": done.address, "changed": done.changed})
        return
    print(f"{done.node} is a node of realm {done.realm}{'' if done.made else ' already'}; home {home.root}")
    if done.changed:
        print(f"it has what was typed now, and serves at {done.address}; services go on")
    if no_start:
        print(f"next: dsmt node run {done.node}")
    else:
        print("it runs, and is attached; dsmt down ends it, dsmt up starts it again")
