"""`why`, `why-not`."""

from __future__ import annotations

import click

from dsmt.cli.command import CliContext, command
from dsmt.cli.printing import counted, document, one_line, table
from dsmt.operations.local.connection import Connection
from dsmt.operations.read import explaining, fitting
from dsmt.operations.read.explaining import Explained, Link
from dsmt.operations.read.fitting import Fitting
from dsmt.operations.read.sight import look
from dsmt.operations.words.sentences import speaker
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import local, milliseconds


@command()
@click.argument("target")
@click.option("--depth", type=click.IntRange(min=0), default=explaining.DEPTH, help="How far back to go.")
@click.option("--events", is_flag=True, help="Also the events' ids.")
def why(ctx: CliContext, target: str, depth: int, *, events: bool) -> None:
    """The chain of signed events that led to TARGET (an instance, a service, node/NODE or an event id), newest first."""

    async def work(connection: Connection) -> Explained:
        return (await explaining.why(connection.bus, connection.trust, target, depth=depth)).explained

    found = ctx.ask(work)
    if ctx.json:
        document(found)
    else:
        print("\n".join(screen(found, events=events)))


def screen(found: Explained, *, events: bool) -> list[str]:
    """A chain as people read it."""
    lines = [f"{found.target}: {one_line(found.chain[0].says)}" if found.chain else f"{found.target}: nothing is known", ""]
    for number, link in enumerate(found.chain):
        if number and _names(found.chain[:number], link):
            lines.append("  because")
        elif number:
            lines.append("  and")
        at = local(milliseconds(link.event["time"]), milli=True)
        lines.append(f"  {at}  {one_line(link.says)}")
        signed = f"signed {link.event['source']}"
        sequence = link.event["id"].rsplit("-", 1)[1]
        word = "verified" if link.event["verified"] else "NOT VERIFIED"
        lines.append(f"                {signed:<40} #{sequence:<6} {word}")
        if events:
            lines.append(f"                {link.event['source']}#{link.event['id']}  {link.event['topic']}")
    signers = {speaker(link.event["source"]) for link in found.chain}
    if found.complete:
        lines.append("  nothing earlier is named as a cause.")
    lines += [f"  {one} is named as a cause, and the history does not hold it any more." for one in found.missing]
    bad = sum(not link.event["verified"] for link in found.chain)
    verified = f"{bad} NOT VERIFIED" if bad else "all verified"
    gap = "no gap" if found.complete else "not complete"
    lines += ["", f"{counted(len(found.chain), 'event')}, {counted(len(signers), 'signer')}, {verified}, {gap}."]
    return lines


def _names(later: list[Link], link: Link) -> bool:
    own = f"{link.event['source']}#{link.event['id']}"
    return any(own in one.because for one in later)


@command("why-not")
@click.argument("target")
@click.option("--node", default=None, metavar="NODE", help="Why not there.")
def why_not(ctx: CliContext, target: str, node: str | None) -> None:
    """What keeps an instance of TARGET off the nodes, clause by clause, and the smallest change that helps."""

    async def work(connection: Connection) -> Fitting:
        return fitting.why_not(await look(connection.bus), Target.parse(target), node)

    found = ctx.ask(work)
    if ctx.json:
        document(found)
        return
    print(f"{found.target}: {len(found.fits)} of {counted(found.nodes, 'node')} fit: {', '.join(found.fits) or '-'}")
    if found.reason is not None:
        print(f"it waits: {one_line(found.reason.message)}   {found.reason.code}")
    if found.clauses:
        laid = [
            ((one.clause, f"{one.removes} of {found.nodes}", str(one.alone)), list(one.nodes.values()))
            for one in found.clauses
        ]
        print("\n" + table(("CLAUSE", "REMOVES", "ALONE"), laid, right=("ALONE",)))
        print("REMOVES: nodes that fail it.  ALONE: nodes that fail nothing else.")
    if found.suggestions:
        print("\n  smallest changes that give a place")
        for one in found.suggestions:
            print(f"    {one}")
