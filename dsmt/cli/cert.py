"""`cert list`, `show`, `rotate`, `revoke`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

import click

from dsmt.cli.command import command, reason_option, yes_option
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document, table, warn
from dsmt.cli.printing import show as show_text
from dsmt.cli.screens import NONE
from dsmt.errors import InputError, RefusedError, TransportError
from dsmt.event.phrases import counted, quoted, whose
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.local.home.dating import Dated, dated
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.members import certificates
from dsmt.operations.local.members.certificates import HeldCertificate
from dsmt.operations.read.rows.certificates import NO_BROKER, WAY_BACK
from dsmt.operations.write import revoking
from dsmt.operations.write.revoking import Claim, EndedKey, RevokedKey
from dsmt.trust.store import TrustStore

_SHOWN = 20


def _known(ctx: CliContext) -> list[HeldCertificate]:
    """What the home holds, with what the realm says when it answers, also to who has no valid certificate itself."""
    home = ctx.home()

    async def work(connection: Reading) -> tuple[TrustStore, int, Mapping[str, EndedKey]]:
        revoked = await revoking.revoked_keys(connection.bus)
        return connection.trust, connection.bus.now_ms() // 1000, revoked

    try:
        trust, now_s, revoked = ctx.ask(work)
    except (TransportError, RefusedError) as error:
        if isinstance(error, RefusedError) and error.code != "trust.expired":
            raise
        trust, now_s, revoked = TrustStore(home.realm().realm), date(ctx).now_s, {}
        warn([f"only what this home has is listed, and not which keys are revoked: {error.message}"])
    return certificates.listing(trust, home, now_s, revoked)


def date(ctx: CliContext) -> Dated:
    """What time it is for a new certificate, by the brokers that are named, or the realm's."""
    realm = ctx.home().realm()
    named = None if realm.nats else ctx.brokers(realm)
    return asyncio.run(dated(realm.clocks if named is None else named))


@command("list")
def list_all(ctx: CliContext) -> None:
    """List the certificates of the realm that are known here, when each expires, and who has ended which key, and why."""
    _print(ctx, _known(ctx))


@command()
@click.argument("name")
def show(ctx: CliContext, name: str) -> None:
    """Show the certificates of NAME, such as node/n1, or of a key."""
    _print(ctx, certificates.one(_known(ctx), name))


def _print(ctx: CliContext, found: list[HeldCertificate]) -> None:
    if ctx.json:
        document(found)
        return
    show_text(listed(found))


def _cells(one: HeldCertificate) -> tuple[str, ...]:
    return one.name or NONE, one.state, one.expires or NONE, one.issuer or NONE, "here" if one.here else "", one.key


def _end_of(one: HeldCertificate) -> list[str]:
    """Who has revoked a key, when and why."""
    if one.revoked is None:
        return []
    who = "" if one.revoked.key == one.key else f"{one.revoked.name or one.revoked.key}, above it, was "
    return [f"{who}revoked by {whose(one.revoked.by, one.revoked.signer)} at {one.revoked.at}{quoted(one.revoked.reason)}"]


def listed(found: list[HeldCertificate]) -> str:
    """Every certificate in a line, and what is to be done next."""
    rows = [(_cells(one), _end_of(one)) for one in found]
    due = [f"next: dsmt cert rotate {one.name}" for one in found if one.state in ("renew", "expired", "early") and one.here]
    return "\n".join([table(("NAME", "STATE", "EXPIRES", "ISSUER", "", "KEY"), rows), *due])


async def _rotated(ctx: CliContext, name: str, now: Dated) -> certificates.Rotated:
    home = ctx.home()
    async with alone(home, ctx.tell_waits):  # of two at once the second one ends what the first one has made
        return certificates.rotate(home, name, now)


@command()
@click.argument("name")
def rotate(ctx: CliContext, name: str) -> None:
    """Give NAME, a member of this home, a new key and certificate. The former ones stay valid until they end."""
    done = asyncio.run(_rotated(ctx, name, date(ctx)))
    ctx.done = True
    if ctx.json:
        document(done)
        return
    own = name.startswith("operator/")
    begins = "the next command uses it" if own else "it is used from its next start on"
    if done.restarted:
        begins = "it is started anew with it, and services go on"
    print(f"{name} has a new certificate until {done.expires}; {begins}")
    if done.clock == "machine":
        why = "NATS tells no realm time" if ctx.home().realm().nats else "no broker answers"
        print(f"{why}: it is dated by this machine's clock, {done.issued}; if that is wrong, do it again when it is right")
    if done.before != done.key and name.startswith("broker/"):
        print("members on other machines know it by its former key: type dsmt up, then dsmt node add again for each host")
    if done.before != done.key:
        first = "" if own or done.restarted else "start it anew, then "
        print(f"its former key ends with its certificate; only if it was stolen: {first}dsmt cert revoke {done.before}")


@command()
@click.argument("what", metavar="NAME|KEY")
@click.option("--keep", is_flag=True, help="Sign again everything that the key has signed, except what you drop.")
@click.option("--drop", multiple=True, metavar="SERVICE", help="End this service, which was applied with the key.")
@yes_option
@reason_option
def revoke(ctx: CliContext, what: str, *, keep: bool, drop: tuple[str, ...], yes: bool, reason: str) -> None:
    """Revoke a key for good: nobody trusts what it, or a key below it, signed. Needs the root key in this home."""
    root_key = ctx.home().root_key()

    async def look(connection: Reading) -> tuple[Claim, list[str]]:
        certificates.learn(connection.trust, ctx.home())
        found = await revoking.claim(connection, what)
        return found, [] if yes else await revoking.live(connection, found)

    found, live = ctx.ask(look)
    if not yes:
        _confirm_end(ctx, found, live)
    _confirm(ctx, found, keep=keep, drop=drop)

    async def work(connection: Connection) -> RevokedKey:
        return await certificates.revoke(connection, root_key, found, drop=drop, reason=reason)

    _tell(ctx, ctx.act(work), only_broker=found.only_broker)


def _confirm_end(ctx: CliContext, found: Claim, live: Sequence[str]) -> None:
    """Ask on a terminal whether what uses the key may end; refuse without one. Raises `InputError`, `FailedError`."""
    name = found.name or found.key
    nodes = ", ".join(found.below[:_SHOWN])
    if found.only_broker:
        said = f"{name} is the only broker: without its key {NO_BROKER}"
        after = f"the way back is a new realm: {WAY_BACK}"
    elif found.below:
        said = f"{name} has certified {nodes}, which end with it"
        after = "then each joins again with a token of its own: dsmt token create, dsmt join"
    elif any(one.startswith("broker/") for one in live):
        said = f"{name} runs with this key: nobody is attached to it any more, and one copy of the history less is left"
        after = f"for another key alone: dsmt cert rotate {name}, where it lives"
    elif live:
        are = "is" if len(live) == 1 else "are"
        ends = "nobody lets in who has it, or believes what it says, any more"
        said = f"{' and '.join(live)} {are} attached with this key: {ends}"
        runs = any(one.startswith("node/") for one in live)
        said += "; what runs there goes on, unheard, and is started elsewhere, too" if runs else ""
        after = "for another key alone: dsmt cert rotate, where it lives"
    else:
        return
    ask = f"realm {ctx.home().realm().name}: revoke {name}?"
    ctx.confirm(said, ask, no=f"{name} is not revoked", advice=f"dsmt cert revoke {name} --yes; {after}", after=after)


def _confirm(ctx: CliContext, found: Claim, *, keep: bool, drop: tuple[str, ...]) -> None:
    """See that somebody has decided about each thing that the key has said. Raises `InputError`, `click.Abort`."""
    open_ones = [topic for topic in found.ours if topic not in {f"service/{service}/spec" for service in drop}]
    if keep or not open_ones:
        return
    said = f"{found.name or found.key} is the only signer of {counted(len(open_ones), 'fact')}"
    if ctx.json or not sys.stdin.isatty():
        raise InputError(
            "cert.decide",
            f"{said}: {', '.join(open_ones[:_SHOWN])}",
            next="--keep signs them again; --drop SERVICE ends a service",
        )
    print("\n".join([f"{said}:", *(f"  {topic}" for topic in open_ones)]))
    click.confirm("Sign them again as they are?", abort=True)


def _tell(ctx: CliContext, done: RevokedKey, *, only_broker: bool) -> None:
    if ctx.json:
        document(done)
        return
    print(f"{done.name or done.key} is revoked")
    if only_broker:
        print(f"it was the only broker: {NO_BROKER}")
        print(f"next: {WAY_BACK}")
    if done.kept:
        print(f"signed again: {', '.join(done.kept[:_SHOWN])}")
        specs = [topic.split("/")[1] for topic in done.kept if topic.startswith("service/") and topic.endswith("/spec")]
        if specs:
            print(f"dsmt rollback cannot go back to what this key had applied before, of {', '.join(specs[:_SHOWN])}")
    if done.dropped:
        print(f"ended: {', '.join(done.dropped)}")
    tell_left(done.left)
    warn(done.warnings)


def tell_left(left: Sequence[str]) -> None:
    """Tell what the key of a controller has said that nobody has said again yet."""
    if left:
        print(f"not yet signed again by any controller: {', '.join(left[:_SHOWN])}")
        print("next: dsmt controllers; one that was attached before signs them again when it is back")
