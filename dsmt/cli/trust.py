"""`trust export`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dsmt.cli.command import CliContext, command
from dsmt.cli.printing import document, send_bytes
from dsmt.errors import InputError
from dsmt.operations.connection import Reading
from dsmt.operations.offline import exporting
from dsmt.system.files import write_atomically
from dsmt.trust.store import TrustStore


@command()
@click.argument("file", required=False)
def export(ctx: CliContext, file: str | None) -> None:
    """Write what is needed to verify this realm's events offline, to FILE or to standard output (`-`)."""
    file = None if file == "-" else file
    if file is None and (sys.stdout.isatty() or ctx.json):
        raise InputError("trust.file", "the export is binary: name a file for it", next="dsmt trust export realm.trust")
    home = ctx.home()
    if file is not None:
        _check_replaces(Path(file))

    async def read(connection: Reading) -> bytes:
        await exporting.gather(connection.bus)
        return exporting.keep(home, connection.trust)

    exported = ctx.ask(read)
    if file is None:
        send_bytes(exported)
        return
    try:
        write_atomically(file, exported, mode=0o644, durable=False)
    except OSError as error:
        raise InputError("trust.file", f"{file} cannot be written: {error.strerror}", next="name another file") from error
    if ctx.json:
        document({"file": file, "bytes": len(exported)})
    else:
        print(f"{file}: {len(exported)} bytes; use it as dsmt verify STREAM --trust {file}")


def _check_replaces(path: Path) -> None:
    """Check what is there: it is replaced, and a service file or a key would be lost."""
    if not path.exists():
        return
    said = f"{path} is there, and is no export of trust: it would be replaced"
    try:
        raw = path.read_bytes() if path.is_file() else b"-"
        if raw:
            TrustStore.from_export(raw)
    except OSError as error:
        raise InputError("trust.file", f"{path} cannot be written: {error.strerror}", next="name another file") from error
    except InputError as error:
        raise InputError("trust.file", said, next="name another file, or remove that one") from error
