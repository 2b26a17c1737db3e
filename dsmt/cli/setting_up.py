"""`init`, `version`, `example`, `schema`, `explain`: what needs no realm."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import click

from dsmt.cli.command import Engine, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document
from dsmt.version import __version__

if TYPE_CHECKING:
    from dsmt.programs.configuration import RealmConfig


@command()
@click.option("--name", default="main", help="The realm's name.")
@click.option(
    "--listen",
    default=None,
    metavar="HOST:PORT",
    help="Where the first broker listens; by default a free port of 127.0.0.1.",
)
@click.option("--brokers", default=1, type=int, metavar="N", help="How many brokers; 1 by default.")
@click.option("--engine", default="dsmt", type=Engine(), help="The bus of the realm; `dsmt` by default.")
def init(ctx: CliContext, name: str, listen: str | None, brokers: int, engine: str) -> None:
    """Make a realm in this home: keys, one broker or several, an operator."""
    import asyncio  # noqa: PLC0415 - a third of the time of `--help`

    from dsmt.operations.local.home import making  # noqa: PLC0415 - lazily, for quick help
    from dsmt.operations.local.home.addresses import check_address  # noqa: PLC0415 - the same
    from dsmt.operations.local.home.lock import alone  # noqa: PLC0415 - the same
    from dsmt.operations.local.up.wanted import Wanted, check_counts  # noqa: PLC0415 - the same

    home = ctx.home()
    making.check_name(name)
    check_counts(Wanted(brokers=brokers, engine=engine))
    if listen is not None:
        check_address(listen)

    async def made() -> RealmConfig:
        async with alone(home, ctx.tell_waits):
            return making.init(home, name=name, listen=listen, brokers=brokers, nats=engine == "nats")

    realm = asyncio.run(made())
    ctx.done = True
    addresses = [address for address, _ in realm.brokers]
    if ctx.json:
        document({"realm": name, "home": str(home.root), "brokers": addresses, "root_key": str(home.root_key_file)})
        return
    what, runs = ("broker b1 listens", "it runs") if brokers == 1 else (f"{brokers} brokers listen", "they run")
    print(f"realm {name} is in {home.root}; its {what} at {', '.join(addresses)} once {runs}")
    print(f"the root key is {home.root_key_file}: keep it off the fleet")
    print("next: dsmt up")


@command()
def version(ctx: CliContext) -> None:
    """Print the version of this program."""
    if ctx.json:
        document({"version": __version__, "python": platform.python_version(), "platform": sys.platform})
    else:
        print(f"dsmt {__version__} (Python {platform.python_version()})")


@command()
def example(ctx: CliContext) -> None:
    """Print a service file to begin with."""
    from dsmt.spec.schema import example as text  # noqa: PLC0415 - lazily, for quick help

    if ctx.json:
        document({"example": text()})
    else:
        sys.stdout.write(text())


@command()
def schema(ctx: CliContext) -> None:
    """Print the JSON Schema of service files."""
    from dsmt.spec.schema import json_schema  # noqa: PLC0415 - lazily, for quick help

    del ctx  # it is JSON either way
    document(json_schema())


@command()
@click.argument("key", required=False)
def explain(ctx: CliContext, key: str | None) -> None:
    """Explain KEY of the service file, such as `stop.grace`; without KEY, list every key."""
    from dsmt.spec import schema as keys  # noqa: PLC0415 - lazily, for quick help

    told = keys.overview() if key is None else keys.explain(key)
    if ctx.json:
        document({"key": key, "text": told})
    else:
        print(told)
