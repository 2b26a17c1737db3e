"""`verify`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import click

from dsmt.cli.command import a_file, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document, one_line
from dsmt.errors import InputError, NotFoundError, unreadable
from dsmt.event.phrases import counted
from dsmt.operations.connection import Reading
from dsmt.operations.offline import exporting
from dsmt.operations.offline.history import BEGINS, is_history
from dsmt.operations.offline.proving import verify as check
from dsmt.operations.offline.verifying import HistoryHead, Verified, is_recording
from dsmt.operations.words.telling import Tell, silent
from dsmt.trust.store import TrustStore

trust_option = click.option(
    "--trust",
    "trust_file",
    default=None,
    metavar="FILE",
    shell_complete=a_file,
    help="The file that `dsmt trust export` wrote.",
)


@command()
@click.argument("file", shell_complete=a_file)
@trust_option
def verify(ctx: CliContext, file: str, trust_file: str | None) -> int:
    """Check a file of `dsmt export` or `dsmt tail --raw`: signatures, chains, completeness. `-` is standard input."""
    raw, trust = read_with_trust(ctx, file, trust_file)
    with told(ctx) as tell:
        found = check(raw, trust, tell)
    if ctx.json:
        document(found)
    else:
        _show(file, found)
    return 0 if found.ok else 1


@contextlib.contextmanager
def told(ctx: CliContext) -> Iterator[Tell]:
    """Tell on a terminal how much of a large file is read."""
    with ctx.progress() if sys.stderr.isatty() else contextlib.nullcontext(silent) as tell:
        yield tell


def read_file(file: str) -> bytes:
    """A file's bytes. Raises `NotFoundError` or `InputError`."""
    if not file:
        raise InputError("file.unreadable", "'' names no file", next="name what dsmt export FILE wrote")
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as opened:
            raw = opened.read(BEGINS)
            if is_history(raw) or is_recording(raw):  # of anything else no more is read: a device may have no end
                raw += opened.read()
    except FileNotFoundError as error:
        raise NotFoundError("file.missing", f"{file} does not exist", next="dsmt export FILE writes one") from error
    except OSError as error:
        raise InputError("file.unreadable", unreadable(file, error), next="name what dsmt export FILE wrote") from error
    if not raw:
        raise InputError("history.form", f"{file} is empty: it is not a history", next="dsmt export FILE writes one")
    if not (is_history(raw) or is_recording(raw)):
        said = f"{file} begins neither as a history nor as a recording"
        raise InputError("history.form", said, next="dsmt export FILE and dsmt tail --raw write one")
    return raw


def read_with_trust(ctx: CliContext, file: str, trust_file: str | None) -> tuple[bytes, TrustStore]:
    """A file's bytes, and whom to believe: who stands in the named trust file, else whom the home knows."""
    if trust_file is not None:
        trust = exporting.from_file(Path(trust_file))
        return read_file(file), trust
    raw = read_file(file)
    return raw, _known(ctx, raw)


def _known(ctx: CliContext, raw: bytes) -> TrustStore:
    """What the home has kept, else its realm's root (for a history), else what that realm knows."""
    home = ctx.home()
    kept = exporting.kept(home)
    if kept is not None:
        return kept
    if not home.exists:
        home.check_lost()
        said = f"there is no realm in {home.root}, which would say whom to believe"
        advice = "--trust FILE, with the file that dsmt trust export writes where the realm is; or set DSMT_HOME"
        raise NotFoundError("home.empty", said, next=advice)
    if is_history(raw):
        return TrustStore(home.realm().realm)

    async def read(connection: Reading) -> TrustStore:
        await exporting.gather(connection.bus)
        exporting.keep(home, connection.trust)
        return connection.trust

    return ctx.ask(read)


def _show(file: str, found: Verified) -> None:
    said = f"{file}: {counted(found.events, 'event')}, {counted(found.signers, 'signer')}"
    if found.first is not None:
        said += f", {found.first} to {found.last}"
    print(said)
    for gap in found.gaps:
        where = gap.topic or "its sequence, on a topic that does not show it"
        print(f"GAP         {gap.source}  {where}  #{gap.first}..#{gap.last} missing")
    for fault in found.faults:
        print(f"{_WORDS.get(fault.code, 'BAD'):<11} {fault.event or '-'}  {one_line(fault.message)}")
    if found.history is not None:
        _show_history(found.history)
    if found.ok:
        print("all verified, no gap")
        for sentence in found.cannot_prove:
            print(f"  it cannot prove {sentence}")
    else:
        counts = (
            (found.bad_signatures, "bad event"),
            (found.unknown_signers, "unknown signer"),
            (found.unwitnessed, "unwitnessed event"),
            (len(found.gaps), "gap"),
            (found.equivocations, "equivocation"),
        )
        print(f"NOT VERIFIED: {', '.join(counted(number, thing) for number, thing in counts if number)}")


def _show_history(history: HistoryHead) -> None:
    print(f"the history of {history.broker}: {counted(history.rows, 'row')}, signed {history.signed_at}")
    if history.before:
        began = f"row {history.before + 1}" if history.begins is None else f"row {history.before + 1}, of {history.begins}"
        print(f"  it begins with {began}: of the {counted(history.before, 'row')} before it nothing is claimed")
    for number, what in (
        (history.trimmed, "trimmed, as the broker says"),
        (history.left_out, f"left out, the file's writer says: of topics other than {', '.join(history.wanted)}"),
        (history.lost, "LOST: nothing says that they were trimmed"),
    ):
        if number:
            print(f"  {counted(number, 'row')} {what}")
    for source, number in islice(history.never_came_of.items(), _NAMED):
        by = "as it says itself by that source's numbers"
        print(f"  {counted(number, 'event')} of {source} never reached the broker, {by}")
    if (others := len(history.never_came_of) - _NAMED) > 0:
        print(f"  so did events of {counted(others, 'other source')}")


_NAMED: Final = 3
"""Of so many sources it is told how much of them never came."""
_WORDS = {"trust.stranger": "STRANGER", "event.equivocation": "TWICE", "trust.unwitnessed": "UNWITNESSED"}
