"""`trust export`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dsmt.cli.command import a_file, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document, send_bytes
from dsmt.errors import InputError
from dsmt.operations.connection import Reading
from dsmt.operations.offline import exporting
from dsmt.system.files import replacing


@command()
@click.argument("file", required=False, shell_complete=a_file)
def export(ctx: CliContext, file: str | None) -> None:
    """Write what is needed to verify this realm's events offline, to FILE or to standard output (`-`)."""
    file = None if file == "-" else file
    if file is None and (sys.stdout.isatty() or ctx.json):
        raise InputError("trust.file", "the export is binary: name a file for it", next="dsmt trust export realm.trust")
    if file is not None and not Path(file).name:
        raise InputError("trust.file", f"{file!r} names no file", next="name the file to write: dsmt trust export r.trust")
    home = ctx.home()
    if file is not None:
        exporting.check_replaces(Path(file), _is_export, code="trust.file", what="export of trust")

    async def read(connection: Reading) -> bytes:
        await exporting.gather(connection.bus)
        return exporting.keep(home, connection.trust)

    if file is None:
        send_bytes(ctx.ask(read))
        return
    try:
        with replacing(file, mode=0o644) as written:  # where it cannot be, nothing is read for it
            exported = ctx.ask(read)
            written.write(exported)
    except OSError as error:
        raise InputError("trust.file", f"{file} cannot be written: {error.strerror}", next="name another file") from error
    if ctx.json:
        document({"file": file, "bytes": len(exported)})
    else:
        print(f"{file}: {len(exported)} bytes; use it as dsmt verify STREAM --trust {file}")


def _is_export(path: Path) -> bool:
    try:
        exporting.from_file(path)
    except InputError:
        return False
    return True
