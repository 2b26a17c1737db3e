"""`tail`, `publish`: the stream of events, and a word of one's own in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

import click
from msgspec.structs import replace

from dsmt.cli import event_lines
from dsmt.cli.command import Count, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import columns, document, fitted, line, send_bytes, warn
from dsmt.cli.while_read import while_read
from dsmt.errors import InputError
from dsmt.event.envelope import EventId
from dsmt.event.phrases import counted
from dsmt.event.registry import TOPICS
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.offline import exporting
from dsmt.operations.read.realm.sight import short
from dsmt.operations.read.realm.tailing import CAUGHT_UP, Item, TailQuery
from dsmt.operations.read.realm.tailing import tail as follow_events
from dsmt.operations.words.event_objects import event_object, notice_object
from dsmt.operations.words.expression import compiled
from dsmt.operations.words.times import beginning, moment, zone
from dsmt.ports.bus import Arrived, Notice
from dsmt.spec.mistakes import nearest
from dsmt.trust.grants import NAME_LEVELS

NOTICES: Final = "dsmt.notice."


@command(context_settings={"ignore_unknown_options": False})
@click.argument("topics", nargs=-1)
@click.option("-n", "last", type=Count(min=0), default=None, help="Show the last N first (10).")
@click.option(
    "--since", default=None, metavar="TIME", help="Where to start: 10m (ago), 14:05, an RFC 3339 time or an event id."
)
@click.option("--until", default=None, metavar="TIME", help="Where to end: 10m (ago), 14:05 or an RFC 3339 time.")
@click.option("--type", "types", multiple=True, metavar="GLOB", help="Only events of these types.")
@click.option("--source", "sources", multiple=True, metavar="GLOB", help="Only events of these sources.")
@click.option(
    "--where", default=None, metavar="CEL", help="Only events for which this is true, as in 'data.state == \"failed\"'."
)
@click.option(
    "--follow/--no-follow", "-f", default=True, help="Follow new events (the default), or end after those that are there."
)
@click.option("--no-signals", is_flag=True, help="Only facts, no signals.")
@click.option("--all", "everything", is_flag=True, help="Also heartbeats, measurements, command lines, repeats.")
@click.option("--wide", is_flag=True, help="Print whole lines, with id, clock, cause and topic.")
@click.option("--raw", is_flag=True, help="Print the signed events as a CBOR sequence.")
def tail(
    ctx: CliContext,
    *,
    topics: tuple[str, ...],
    last: int | None,
    since: str | None,
    until: str | None,
    types: tuple[str, ...],
    sources: tuple[str, ...],
    where: str | None,
    follow: bool,
    no_signals: bool,
    everything: bool,
    wide: bool,
    raw: bool,
) -> None:
    """Follow the stream of events on TOPICS, verified. A subtree ends in `/`; without TOPICS, it shows all topics.

    It leaves out what passes all the time: heartbeats, measurements, what instances write, command lines that come
    and go. `--all` shows these. So does naming them: by a topic with `heartbeat`, `stats`, `attributes`, `log` or
    `operator` in it, or by `--type`, `--source`, `--where`.

    `--where` takes an expression in CEL over id, source, type, subject, topic, time, data, cause, to and version.
    """
    _check_raw(ctx, raw=raw)
    warn(filter(None, [*map(_unknown, types), *map(_no_source, sources)]))
    named = TailQuery(
        patterns=topics or ("/",),
        last=10 if last is None and since is None else last,
        types=types,
        sources=sources,
        where=None if where is None else compiled(where),
        signals=not no_signals,
        follow=follow,
        routine=everything or raw,
        repeats=everything or raw or ctx.json,
    )

    async def work(connection: Reading) -> None:
        wanted = _timed(named, since, until, connection.bus.now_ms())
        printer = _Printer(ctx, connection, wanted, wide=wide, raw=raw)
        printer.begin()
        try:
            async for batch in follow_events(connection.bus, wanted):
                printer.batch(batch)
            printer.end()
        finally:
            printer.keep()

    ctx.ask(lambda connection: while_read(work(connection)))


def _check_raw(ctx: CliContext, *, raw: bool) -> None:
    if not raw:
        return
    if ctx.json:
        raise InputError("tail.form", "--raw and --json cannot be combined", next="use one of them")
    if sys.stdout.isatty():
        said = "--raw writes signed events as bytes, which a terminal cannot show"
        raise InputError("tail.form", said, next="write them to a file: dsmt tail --raw > FILE")


def _unknown(wanted: str) -> str:
    """What to say of a type, or a glob of types, that no event has; empty for others."""
    known = {row.event_type for row in TOPICS}
    if wanted.startswith(NOTICES) or any(fnmatchcase(one, wanted) for one in known):
        return ""
    meant = nearest(wanted, known)
    return f"no event has the type {wanted}" + (f"; did you mean {meant}?" if meant else "; --json shows each event's")


def _no_source(wanted: str) -> str:
    """What to say of a source, or a glob, that is none, for its kind is missing or wrong; empty for others."""
    kind, slash, name = wanted.partition("/")
    if set("*?[") & set(kind) or wanted == "root" or (slash and kind in NAME_LEVELS):
        return ""
    if slash:
        near = nearest(kind, NAME_LEVELS)
        meant = f"{near}/{name or '*'}" if near else ""
    else:
        meant = f"{kind}/*" if kind in NAME_LEVELS else f"*/{kind}"
    return f"no source has the name {wanted}; " + (f"did you mean '{meant}'?" if meant else "--json shows each event's")


def _timed(named: TailQuery, since: str | None, until: str | None, now_ms: int) -> TailQuery:
    begin = None if since is None else beginning(since, now_ms)
    end = None if until is None else moment(until, now_ms)
    if isinstance(end, EventId):
        raise InputError("time.form", "--until takes a time, not an event", next="write the time of the event")
    if isinstance(begin, int) and end is not None and end < begin:
        raise InputError("time.order", f"--until {until} is before --since {since}", next="turn them round")
    return replace(named, since=begin, until_ms=end, follow=named.follow and (end is None or end > now_ms))


class _Printer:
    def __init__(self, ctx: CliContext, connection: Reading, wanted: TailQuery, *, wide: bool, raw: bool) -> None:
        self._ctx, self._connection, self._wanted = ctx, connection, wanted
        self._wide, self._raw = wide, raw
        self._shown = False
        self._notices = 0
        self._keys: set[bytes] = set()
        self._repeated = event_lines.Repeated()

    def begin(self) -> None:
        if self._raw or self._ctx.json or not sys.stdout.isatty():
            return
        realm, broker = self._connection.realm.name, short(self._connection.bus.broker)
        ends = "; ^C ends" if self._wanted.follow else ""
        told = f"-- realm {realm}, broker {broker}, times {zone(self._connection.bus.now_ms())}, signatures checked{ends} --"
        sys.stdout.write(fitted(told, self._width()) + "\n")

    def batch(self, items: Iterable[Item]) -> None:
        for item in items:
            self._shown |= isinstance(item, Arrived)
            if self._raw:
                self._write_raw(item)
            elif isinstance(item, Notice):
                self._notice(item)
            elif self._ctx.json:
                line(event_object(item.signed, self._connection.trust))
            else:
                self._event(item)
        self._counted()
        sys.stdout.flush()

    def end(self) -> None:
        if not (self._shown or self._wanted.follow or self._wanted.last == 0):
            sys.stderr.write("-- nothing in the history is what was asked for\n")

    def keep(self) -> None:
        self._counted(rest=True)
        if self._raw and self._keys:
            exporting.keep(self._ctx.home(), self._connection.trust)

    def _write_raw(self, item: Item) -> None:
        if isinstance(item, Arrived):
            if item.signed.key_id not in self._keys:
                self._keys.add(item.signed.key_id)
                exporting.keep(self._ctx.home(), self._connection.trust)
            send_bytes(item.signed.raw)

    def _notice(self, notice: Notice) -> None:
        self._notices += 1
        bus = self._connection.bus
        if self._ctx.json:
            line(notice_object(notice, reader=bus.source, number=self._notices, now_ms=bus.now_ms()))
        elif not self._repeated.takes(notice, bus.now_ms()) and (notice.type != CAUGHT_UP or notice.fields or self._wide):
            sys.stdout.write(event_lines.notice_line(notice, bus.now_ms(), self._width()) + "\n")

    def _counted(self, *, rest: bool = False) -> None:
        if not (self._raw or self._ctx.json):
            lines = self._repeated.lines(self._connection.bus.now_ms(), self._width(), rest=rest)
            sys.stdout.write("".join(f"{one}\n" for one in lines))

    def _event(self, arrived: Arrived) -> None:
        event = arrived.signed.event
        lines = [event_lines.event_line(event, self._width()), *(event_lines.detail_lines(event) if self._wide else [])]
        sys.stdout.write("".join(f"{one}\n" for one in lines))

    def _width(self) -> int | None:
        return None if self._wide else columns()


@command()
@click.argument("topic")
@click.argument("data")
@click.option("--subject", default="", help="What the event is about.")
@click.option("--ttl", default=None, metavar="DUR", help="How long the event is valid (its time to live).")
def publish(ctx: CliContext, topic: str, data: str, subject: str, ttl: str | None) -> None:
    """Publish DATA (JSON) on TOPIC, which begins with `user/`."""
    from dsmt.operations.write.publishing import Published  # noqa: PLC0415 - lazily, for quick help
    from dsmt.operations.write.publishing import publish as say  # noqa: PLC0415 - lazily, for quick help
    from dsmt.spec.quantities import parse_duration  # noqa: PLC0415 - only where one was given

    lifetime = None if ttl is None else parse_duration(ttl)

    async def work(connection: Connection) -> Published:
        ttl_ms = None if lifetime is None else round(lifetime * 1000)
        return await say(connection.bus, topic, data, subject=subject, ttl_ms=ttl_ms)

    done = ctx.act(work)
    if ctx.json:
        document(done)
    else:
        print(f"{done.topic}  {done.id}  {done.level} by {counted(done.copies, 'broker')}")
