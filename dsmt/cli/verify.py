"""`verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dsmt.cli.command import Seat, command
from dsmt.cli.printing import counted, document
from dsmt.errors import InputError, NotFoundError
from dsmt.operations import exporting
from dsmt.operations.connection import Connection
from dsmt.operations.verifying import Verified
from dsmt.operations.verifying import verify as check
from dsmt.trust.store import TrustStore


@command()
@click.argument("file")
@click.option("--trust", "trust_file", default=None, metavar="FILE", help="What `dsmt trust export` wrote.")
def verify(seat: Seat, file: str, trust_file: str | None) -> int:
    """Check a stream that `dsmt tail --raw` recorded: signatures, chains, sequences. `-` is standard input."""
    trust = exporting.from_file(Path(trust_file)) if trust_file else _trust(seat)
    found = check(_read(file), trust)
    if seat.json:
        document(found)
    else:
        _show(file, found)
    return 0 if found.ok else 1


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError("file.missing", f"{file} does not exist", next="dsmt tail --raw > FILE records one") from error
    except OSError as error:
        raise InputError("file.unreadable", f"{file} cannot be read: {error.strerror}") from error


def _trust(seat: Seat) -> TrustStore:
    """What the home has kept; else what its realm knows."""
    home = seat.home()
    kept = exporting.kept(home)
    if kept is not None:
        return kept

    async def read(connection: Connection) -> TrustStore:
        await exporting.gather(connection.bus)
        exporting.keep(home, connection.trust)
        return connection.trust

    return seat.ask(read)


def _show(file: str, found: Verified) -> None:
    said = f"{file}: {counted(found.events, 'event')}, {counted(found.signers, 'signer')}"
    if found.first is not None:
        said += f", {found.first} to {found.last}"
    print(said)
    for gap in found.gaps:
        where = gap.topic or "its sequence, on a topic that does not show it"
        print(f"GAP         {gap.source}  {where}  #{gap.first}..#{gap.last} missing")
    for fault in found.faults:
        print(f"{_WORDS.get(fault.code, 'BAD'):<11} {fault.event or '-'}  {fault.message}")
    if found.ok:
        print("all verified, no gap")
    else:
        counts = (
            (found.bad_signatures, "bad event"),
            (found.unknown_signers, "unknown signer"),
            (found.unwitnessed, "unwitnessed event"),
            (len(found.gaps), "gap"),
            (found.equivocations, "equivocation"),
        )
        print(f"NOT VERIFIED: {', '.join(counted(number, thing) for number, thing in counts if number)}")


_WORDS = {"trust.stranger": "STRANGER", "event.equivocation": "TWICE", "trust.unwitnessed": "UNWITNESSED"}
