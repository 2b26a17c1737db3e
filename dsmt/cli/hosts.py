"""`node add`, and the half of `node remove` that clears a machine: nodes on other machines, over SSH."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dsmt.cli.brokers import lost_with
from dsmt.cli.command import a_directory, command
from dsmt.cli.context import CliContext
from dsmt.cli.labels import label_option, labels_of
from dsmt.cli.printing import columns, document, fitted, one_line, send, warn
from dsmt.errors import FailedError, InputError
from dsmt.event.phrases import counted
from dsmt.operations.connection import Connection
from dsmt.operations.local.home.addresses import check_address
from dsmt.operations.local.home.home import check_part
from dsmt.operations.local.members.brokers import silent_since_ms
from dsmt.operations.write.node_control import Controlled

if TYPE_CHECKING:
    from dsmt.operations.local.members.roles import Role
    from dsmt.operations.remote.adding import HostOutcome
    from dsmt.operations.remote.hosts import HostAddress


class HostLines:
    """A line for each host: what is done there, and what came of it. On a terminal it stays one line."""

    def __init__(self, hosts: Sequence[str], *, silent: bool) -> None:
        self._lines = dict.fromkeys(hosts, "")
        self._width = max(map(len, hosts))
        self._silent, self._live = silent, sys.stderr.isatty() and not silent
        self._drawn = 0

    def tell(self, host: str, step: str) -> None:
        """Something is done there."""
        if self._live:
            self._lines[host] = f"{step} ..."
            self._draw()

    def done(self, host: str, said: str) -> None:
        """It has ended there."""
        self._lines[host] = said
        if self._live:
            self._draw()
        elif not self._silent:
            print(f"{host:<{self._width}}  {one_line(said)}", flush=True)

    def _draw(self) -> None:
        room = columns(sys.stderr)
        width = None if room is None else room - 1
        lines = [fitted(one_line(f"{host:<{self._width}}  {said}"), width) for host, said in self._lines.items()]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        send(sys.stderr, up + "".join(f"\r\x1b[K{line}\n" for line in lines))
        self._drawn = len(lines)


@command()
@click.argument("hosts", nargs=-1, required=True, metavar="[USER@]HOST[:PORT]...")
@label_option
@click.option(
    "--name", default=None, metavar="NAME", help="The node's name, if you add one host; by default the host's name."
)
@click.option("--user", is_flag=True, help="Install in the user's home on the host, without root.")
@click.option(
    "--wheels",
    default=None,
    metavar="DIR",
    type=click.Path(path_type=Path),
    shell_complete=a_directory,
    help="A directory of wheels to bring, if this machine has no network.",
)
@click.option(
    "--roles", default="node", metavar="R,R", help="What runs on the host, of broker,controller,node; by default node."
)
@click.option(
    "--listen",
    default=None,
    metavar="HOST:PORT",
    help="Where its broker listens; by default the address by which you reach the host.",
)
@click.option("--leaf", is_flag=True, help="Make its broker a leaf: the broker of a site with a thin uplink.")
@click.option("--broker", default=None, metavar="BROKER", help="The broker that the host uses: the leaf of its site.")
def add(
    ctx: CliContext,
    hosts: tuple[str, ...],
    *,
    labels: tuple[str, ...],
    name: str | None,
    wheels: Path | None,
    roles: str,
    listen: str | None,
    leaf: bool,
    broker: str | None,
    user: bool,
) -> None:
    """Make each HOST a node of this realm, over SSH. This brings dsmt to the host, which fetches nothing. You may repeat it.

    dsmt uses your SSH configuration, agent, keys, known hosts and jump hosts. A host needs Python 3.11 or later. As root, or
    with sudo, the node is for the whole machine; where systemd runs, it keeps the node up. With --roles the host also gets a
    broker or a controller, with the name of the node. It makes their keys; the root key certifies them, and stays here.
    """
    from dsmt.operations.remote.adding import Adding  # noqa: PLC0415 - lazily, for quick help
    from dsmt.operations.remote.roles import Roles  # noqa: PLC0415 - the same

    given, typed = labels_of(labels), _typed(hosts, name)
    more, home = _besides_a_node(roles), ctx.home()
    _check_broker(more, len(typed), listen=listen, leaf=leaf)
    progress = HostLines([one.typed for one in typed], silent=ctx.json)

    async def work(connection: Connection) -> list[HostOutcome]:
        adding = Adding(
            connection,
            home.operator(),
            home,
            labels=given,
            roles=Roles(connection, home, more, listen=listen, leaf=leaf),
            broker=broker,
            name=name,
            user=user,
            wheels=wheels,
            tell=progress.tell,
        )
        return await adding.add(typed, ended)

    def ended(one: HostOutcome) -> None:
        if one.error is None or len(typed) > 1:  # the error of the only one is that of the command
            progress.done(one.host, _outcome(one))

    found = ctx.act(work)
    if ctx.json:
        document(found)
    _check_all_added(found)


def _check_all_added(found: Sequence[HostOutcome]) -> None:
    failed = [one for one in found if one.error is not None]
    if failed:
        said = f"{len(failed)} of {counted(len(found), 'host')} could not be added: {', '.join(one.host for one in failed)}"
        raise FailedError(
            "node.add", said, next="see the reason of each above, and type it again: what is done is not done twice"
        )


def _typed(hosts: Iterable[str], name: str | None) -> list[HostAddress]:
    """What was typed, each once, of which one can have a name. Raises `InputError`."""
    from dsmt.operations.remote.hosts import address_of  # noqa: PLC0415 - lazily, for quick help

    typed = [address_of(host) for host in dict.fromkeys(hosts)]
    if name is not None:
        check_part("node", name)
        if len(typed) > 1:
            raise InputError("node.name", f"--name {name}: {len(typed)} hosts cannot all have it", next="leave --name out")
    return typed


def _check_broker(more: Sequence[Role], hosts: int, *, listen: str | None, leaf: bool) -> None:
    """Check what was typed of the broker that a host gets. Raises `InputError`."""
    if listen is not None:
        check_address(listen)
        if hosts > 1 or "broker" not in more:
            raise InputError("node.listen", f"--listen {listen}: it is for the broker of one host", next="leave it out")
    if leaf and "broker" not in more:
        raise InputError("node.leaf", "--leaf: it is for a host that gets a broker", next="add --roles broker,node")


BESIDES: Final[tuple[Role, ...]] = ("broker", "controller")


def _besides_a_node(roles: str) -> list[Role]:
    """What a host gets besides its node. Raises `InputError`."""
    named = set(roles.split(","))
    if "node" not in named or not named <= {"broker", "controller", "node"}:
        said = f"--roles {roles}: a host gets a node, and with it a broker, a controller, or both"
        raise InputError("node.roles", said, next="write --roles broker,controller,node, or fewer of them, or leave it out")
    return [role for role in BESIDES if role in named]


def _outcome(one: HostOutcome) -> str:
    if one.error is not None:
        said = one.error["message"].removeprefix(f"{one.host}: ").removeprefix(f"{one.host} ")
        return f"failed: {said}. Next: {one.error['next']}"
    kept = "systemd keeps it" if one.kept == "systemd" else "without systemd: after a reboot of it, add it again"
    more = [*([f"a broker at {one.broker}"] if one.broker else ()), *(["a controller"] if one.controller else ())]
    beside = f", with {' and '.join(more)}" if more else ""
    others = f"{' and '.join(one.beside)} {'lives' if len(one.beside) == 1 else 'live'} on that machine, too"
    twice = f"; {others}: dsmt node remove the one that is not needed" if one.beside else ""
    now = f"; it {'runs your dsmt now' if one.brought else 'had your dsmt before'}" if one.already else ""
    already = "a node already and " if one.already else ""
    return f"{one.node} is {already}alive{beside}{now}{twice}; {kept}  ({one.took_s:.1f} s)"


def added(ctx: CliContext, what: str) -> bool:
    """Whether a node, by its name or its host's, was added from this home."""
    from dsmt.operations.remote.places import place_of  # noqa: PLC0415 - lazily, for quick help

    return place_of(ctx.home(), what) is not None


def clear(ctx: CliContext, what: str, *, yes: bool, reason: str) -> None:
    """Remove a node that was added from here, with all that was made on its host."""
    from dsmt.operations.remote.places import place_of  # noqa: PLC0415 - lazily, for quick help
    from dsmt.operations.remote.removing import remove  # noqa: PLC0415 - lazily, for quick help

    home = ctx.home()
    known = place_of(home, what)
    if known is None:
        raise InputError("node.host", f"{what} was not added from {home.root}", next="dsmt nodes shows what there is")
    node, place = known
    progress = HostLines([place.host], silent=ctx.json)

    async def work(connection: Connection) -> tuple[Controlled, int | None]:
        silent_ms = await silent_since_ms(connection.bus, home, node) if "broker" in place.roles else None
        return await remove(connection, home, node, place, reason=reason, sure=yes, tell=progress.tell), silent_ms

    done, silent_ms = ctx.act(work)
    progress.done(place.host, f"{node} is removed; nothing of dsmt is left there")
    if silent_ms is not None:
        warn([f"broker {node}: {lost_with(silent_ms)}"])
    if ctx.json:
        document(done)


def ended_here(ctx: CliContext, node: str, *, yes: bool, reason: str) -> Controlled:
    """Remove a node of this home, with all that was made for it."""
    from dsmt.operations.remote.removing import remove_own  # noqa: PLC0415 - lazily, for quick help

    home = ctx.home()
    return ctx.act(lambda connection: remove_own(connection, home, node, reason=reason, sure=yes, waits=ctx.tell_waits))


def forgotten(ctx: CliContext, node: str, *, yes: bool, reason: str) -> Controlled:
    """Forget a node that is gone, and the broker that was added with it."""
    from dsmt.operations.remote.removing import forget  # noqa: PLC0415 - lazily, for quick help

    home = ctx.home()
    return ctx.act(lambda connection: forget(connection, home, node, reason=reason, sure=yes, waits=ctx.tell_waits))
