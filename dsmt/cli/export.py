"""`export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import BinaryIO

import click

from dsmt.cli.command import a_file, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document
from dsmt.errors import InputError
from dsmt.event.phrases import counted
from dsmt.operations.connection import Reading
from dsmt.operations.offline import exporting
from dsmt.operations.offline.history import BEGINS, Exported, is_history
from dsmt.operations.offline.history import export as write_history
from dsmt.operations.read.realm.patience import patience
from dsmt.operations.words.patterns import some_topic
from dsmt.operations.words.times import beginning
from dsmt.system.files import replacing

READ_S = 3600.0


@command()
@click.argument("file", shell_complete=a_file)
@click.argument("topics", nargs=-1)
@click.option(
    "--since",
    default=None,
    metavar="TIME",
    help="Only what the broker has stored since: 10m (ago), 14:05, an RFC 3339 time or an event id.",
)
def export(ctx: CliContext, file: str, topics: tuple[str, ...], since: str | None) -> None:
    """Write a broker's whole history to FILE, with the proof that nothing is missing; with TOPICS, only of these.

    `dsmt verify FILE` notices each event that is removed, added, changed or moved in it. With `--since` that holds from
    then on, and of what was before only hashes are there; `dsmt replay` lacks the facts of before.
    """
    path, home = Path(file), ctx.home()
    topics = tuple(map(some_topic, topics))
    if not path.name or file == "-":
        raise InputError("file.unwritable", f"{file!r} names no file", next="name the file to write: dsmt export h.dsmt")

    async def read(connection: Reading, written: BinaryIO) -> Exported:
        async with patience("the whole history", READ_S):
            where = str(path.parent)  # a full /tmp would be told of FILE
            begin = None if since is None else beginning(since, connection.bus.now_ms())
            exported = await write_history(
                connection.bus, connection.trust, written.write, topics, since=begin, beside=where
            )
        exporting.keep(home, connection.trust)
        return exported

    try:
        exporting.check_replaces(path, _is_history, code="file.unwritable", what="history")
        with replacing(str(path)) as written:
            done = ctx.ask(lambda connection: read(connection, written))
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            "file.unwritable", f"{file} cannot be written: {error.strerror}", next="name another file"
        ) from error
    if ctx.json:
        document({"file": file, "bytes": size, **done._asdict()})
        return
    print(
        f"{file}: {counted(done.rows, 'event')} of {counted(done.head, 'row')} that {done.broker} has stored, {size} bytes"
    )
    if done.before:
        print(f"it begins behind row {done.before}: of what was before nothing is claimed")
    print(f"check it with dsmt verify {shlex.quote(file)}")


def _is_history(path: Path) -> bool:
    with path.open("rb") as there:
        return is_history(there.read(BEGINS))
