"""`status`: the realm in one screen, or one service."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from dsmt.cli import screens
from dsmt.cli.command import CliContext, command
from dsmt.cli.printing import counted, document, one_line, page, table, word
from dsmt.errors import NotFoundError
from dsmt.operations.local.connection import Connection
from dsmt.operations.read.instances import Row, instances, is_problem
from dsmt.operations.read.sight import Sight, look, patience
from dsmt.operations.read.summaries import Service
from dsmt.operations.read.summaries import service as of_service
from dsmt.operations.read.summaries import status as of_realm
from dsmt.operations.read.tailing import Wanted, tail
from dsmt.operations.words.event_objects import event_object
from dsmt.operations.words.sentences import predicate, speaker, subject
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import local, zone
from dsmt.ports.bus import Arrived

LAST_EVENTS = 8


@command()
@click.argument("service", required=False)
def status(ctx: CliContext, service: str | None) -> None:
    """The realm in one screen; or SERVICE: its instances, what is wrong with them, what happened last."""
    if service is None:
        _realm(ctx)
    else:
        _service(ctx, service)


def _realm(ctx: CliContext) -> None:
    known = ctx.home().realm().addresses

    async def work(connection: Connection) -> tuple[Any, Sight]:
        sight = await look(connection.bus, passing=True)
        return of_realm(sight, connection.trust, known), sight

    told, sight = ctx.ask(work)
    if ctx.json:
        document(told)
    else:
        print(screens.status(told, sight))


def _service(ctx: CliContext, name: str) -> None:
    target = Target.parse(name)

    async def work(connection: Connection) -> tuple[Service, list[Row], list[Arrived], list[Any], Sight, str]:
        sight = await look(connection.bus, passing=True)
        rows = instances(sight, target)
        found = of_service(sight, target.service)
        if found is None:
            raise NotFoundError("service.unknown", f"there is no service {name}", next="dsmt services lists them")
        events: list[Arrived] = []
        wanted = Wanted((f"service/{target.service}/",), last=LAST_EVENTS, follow=False, types=("dsmt.s*", "dsmt.health"))
        async with patience("its last events"):
            async for batch in tail(connection.bus, wanted):
                events += [item for item in batch if isinstance(item, Arrived)]
        objects = [event_object(item.signed, connection.trust) for item in reversed(events)]
        return found, rows, events, objects, sight, connection.realm.name

    found, rows, events, objects, sight, realm = ctx.ask(work)
    if ctx.json:
        document({**msgspec.to_builtins(found), "instances": rows, "events": objects, "realm": realm})
        return
    print(screen(found, rows, events, sight=sight, realm=realm))


def screen(found: Service, rows: list[Row], events: list[Arrived], *, sight: Sight, realm: str) -> str:
    """The screen of one service."""
    state = word(found.state if found.state in ("ok", "held", "starting", "removing") else found.state.upper())
    ready = f"{found.ready} of {found.wanted} ready" + (f", {found.held} held" if found.held else "")
    lines = [f"{found.service}   {state}   {ready}      realm {realm}   {local(sight.now_ms)} {zone(sight.now_ms)}"]
    note = f': "{found.note}"' if found.note else ""
    lines.append(
        f"  revision  {screens.revisions(found)}, applied {screens.age(found.at, sight.now_ms)} ago by {found.by}{note}"
    )
    if found.refused is not None and found.refused.reason is not None:
        lines.append(f"  refused   {one_line(found.refused.reason.message)}")
    lines += [f"  owner     {found.owner}"] if found.owner else []
    lines += [f"  about     {found.description}"] if found.description else []
    lines += [f"  limits    {said}" for said in found.limits]
    header = ("INSTANCE", "STATE", "HEALTH", "NODE", "PORTS", "RESTARTS", "SINCE")
    laid = [(_cells(row, sight.now_ms), ()) for row in rows]
    lines += ["", *(f"  {one}" for one in table(header, laid).splitlines())]
    for row in rows:
        if is_problem(sight, row) or row.held is not None:
            lines += ["", *_sick(row, sight.now_ms)]
    lines += ["", f"  {'LAST EVENTS':<40} dsmt tail service/{found.service}/"]
    for item in reversed(events):
        event = item.signed.event
        about = subject(event).removeprefix(f"{found.service}/")
        lines.append(f"  {local(event.time_ms, milli=True)}  {about:<8} {predicate(event):<48} {speaker(event.source)}")
    return page([*lines, screens.freshness(sight)])


def _cells(row: Row, now_ms: int) -> tuple[str, ...]:
    ports = " ".join(f"{name}:{port}" for name, port in row.ports.items()) or "-"
    health = row.health if row.health != "none" else "-"
    name = f"{row.component}/{row.index}"
    since = screens.age(row.since, now_ms)
    return name, row.state.value, health, row.node or "-", ports, str(row.restarts), since


def _sick(row: Row, now_ms: int) -> list[str]:
    name = f"{row.component}/{row.index}"
    if row.held is not None:
        their = f': "{row.held.reason}"' if row.held.reason else ""
        said = f"  {name}: held by {row.held.by} {screens.age(row.held.at, now_ms)} ago{their}"
        return [said, f"    you    | dsmt start {row.instance}"]
    why = row.reason
    if why is None:
        return [f"  {name}: {row.state}", f"    you    | dsmt why {row.instance}"]
    recent = f", {counted(row.restarts_recent, 'restart')} lately" if row.restarts_recent else ""
    lines = [f"  {name}: {one_line(why.message)}{recent}   {why.code}"]
    output = why.last_output or (row.last_exit.reason.last_output if row.last_exit and row.last_exit.reason else None)
    lines += [f"    stderr | {line}" for line in (output or "").splitlines()[-5:]]
    lines.append(f"    {why.who:<6} | {why.next or 'nothing need be done'}")
    lines.append(f"    look   | dsmt why {row.instance}      dsmt logs {row.instance} --previous")
    return lines
