"""The root of the command line: finds the command; turns each error, a full disk too, into a sentence and an exit code.

Rule 1: exit codes and the error object are those of docs/reference/commands.md.
Rule 2: a closed pipe ends a command with 0 and no message; an interrupt with 130, and with a word on what goes on.
Rule 3: no traceback reaches a user without `--debug`; what the machine refuses is no error of ours, and is said as its word.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO, cast

import click
from click.shell_completion import CompletionItem, shell_complete

from dsmt.cli import COMMANDS, HIDDEN, Entry, Group
from dsmt.cli.command import common_options
from dsmt.cli.context import CliContext
from dsmt.cli.printing import UNWRITTEN, Escaping, encoded, one_line
from dsmt.errors import DsmtError, FailedError, RefusedError, incomplete, leaves

USAGE: Final = 2
INTERRUPTED: Final = 130
COMPLETING: Final = "_DSMT_COMPLETE"
"""Set by the shell while it asks for what a word may become: see `dsmt completion`."""
_DEBUG: Final = "--debug"
MOST_SHOWN: Final = 100
"""Mistakes of files that are told on a screen; `--json` tells all."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def __init__(self, table: Mapping[str, Entry | Group], **settings: Any) -> None:
        super().__init__(**settings)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name that is listed, in the order of the table."""
        del ctx
        return [name for name in self._table if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, Group):
            return LazyGroup(entry.commands, name=cmd_name, help=_sentence(entry.help))
        command = entry.load()
        command.help = command.help or _sentence(entry.help)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a wrong verb is never guessed, only told with the one that was probably meant."""
        if args[0] not in self._table and not args[0].startswith("-") and not ctx.resilient_parsing:  # as who completes
            from dsmt.cli.meaning import meant  # noqa: PLC0415 - lazily, for quick help

            path = ctx.command_path
            raise UnknownCommandError(
                f"there is no command `{path} {args[0]}`", ctx, meant=meant(path, args[0], self._table)
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, without importing any; of options, what click has."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self._table[name].help) for name in names]
        return items if not incomplete.startswith("-") else click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._table[name].help) for name in self.list_commands(ctx)])


class UnknownCommandError(click.UsageError):
    """A verb that is not in the table; `meant` is the command line that was probably meant, or empty."""

    def __init__(self, message: str, ctx: click.Context, *, meant: str) -> None:
        super().__init__(message, ctx)
        self.advice = f"did you mean `{meant}`?" if meant else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def root() -> click.Group:
    """The root group."""
    return LazyGroup(
        COMMANDS,
        name="dsmt",
        help="Keeps services alive on a fleet of machines, and explains why each is in its state.",
        params=[*common_options(), _version_option()],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def _version_option() -> click.Option:
    def told(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            from dsmt.cli.setting_up import version  # noqa: PLC0415 - lazily, for quick help

            ctx.invoke(version)
            ctx.exit(0)

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, callback=told, help="Print the version of this program."
    )


def main(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    if completing := os.environ.get(COMPLETING):
        return shell_complete(root(), {"obj": CliContext()}, "dsmt", COMPLETING, completing)
    _any_text()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", Escaping(stream)) for stream in streams)
    try:
        return _main(arguments)
    finally:
        sys.stdout, sys.stderr = streams


def _main(arguments: Sequence[str]) -> int:
    ctx = CliContext()
    try:
        code = _run(list(arguments), ctx)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_pipe()
        return 0
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(ctx, arguments)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        advice = getattr(error, "advice", "") or f"{context.command_path if context is not None else 'dsmt'} --help"
        return _tell(ctx, arguments, code="usage", message=_usage(error), advice=advice, exit_code=USAGE)
    except BaseExceptionGroup as group:
        return _failed(ctx, arguments, next(leaves(group)))
    except Exception as error:  # noqa: BLE001 - the outermost frame
        return _failed(ctx, arguments, error)
    return code if isinstance(code, int) else 0


def _any_text() -> None:
    """Have streams that take every text: one that is closed swallows it, one of a narrow encoding escapes it."""
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - as long as the process lives
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: list[str], ctx: CliContext) -> object:
    """What the command returns; click's own `main` would end the process on a closed pipe."""
    group = root()
    try:
        with group.make_context("dsmt", arguments, obj=ctx) as context:
            return group.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx is not None else error.format_message())
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code


def _usage(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption) and error.possibilities:  # click's guesses reach far
        from dsmt.spec.mistakes import nearest  # noqa: PLC0415 - lazily, for quick help

        meant = nearest(error.option_name.lstrip("-"), [one.lstrip("-") for one in error.possibilities])
        error.possibilities[:] = [f"--{meant}"] if meant else []
    message = error.format_message().replace("\n\t", " ").replace(". (Did", ". Did").replace("?)", "?").rstrip(".")
    return message[:1].lower() + message[1:]


def _failed(ctx: CliContext, arguments: Sequence[str], error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return _interrupted(ctx, arguments)
    if ctx.debug or _DEBUG in arguments:
        raise error
    if isinstance(error, OSError) and error.errno is not None:
        error = _misfortune(error)
    if isinstance(error, ImportError | SyntaxError):
        error = incomplete(error, sys.executable)
    if isinstance(error, DsmtError):
        if error.code == UNWRITTEN:
            _close_pipe()
            error = _untold(ctx, error)
        lines = [_mistake(one) for one in error.fields.get("mistakes", ())]
        return _tell(
            ctx,
            arguments,
            code=error.code,
            message=error.message,
            advice=error.next,
            exit_code=error.exit,
            lines=lines,
            fields=error.fields,
        )
    said = f"internal error: {type(error).__name__}: {error}"
    advice = "run it again with --debug and report what it prints"
    return _tell(ctx, arguments, code="dsmt.bug", message=said, advice=advice, exit_code=1)


def _untold(ctx: CliContext, error: DsmtError) -> DsmtError:
    """Who has asked for something that is done hears that, though the answer cannot be written."""
    if not ctx.done:
        return error
    shows = "" if ctx.asked is None else ctx.asked[1]
    return FailedError(UNWRITTEN, f"what was asked for is done, but {error.message}", next=shows)


def _interrupted(ctx: CliContext, arguments: Sequence[str]) -> int:
    """An interrupt undoes nothing: whoever had asked for something hears that it goes on."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # Python would tell of what has not begun
    if ctx.asked is None:
        return INTERRUPTED
    what, advice = ctx.asked
    said = f"interrupted; {what} goes on"
    return _tell(ctx, arguments, code="interrupted", message=said, advice=advice, exit_code=INTERRUPTED)


def _misfortune(error: OSError) -> DsmtError:
    """What the machine said no to, as a sentence."""
    said = f"{error.filename or 'the machine'}: {(error.strerror or str(error)).lower()}"
    if error.errno == errno.EROFS:
        return RefusedError("machine.denied", said, next="have that disk writable again, or choose another home: --home DIR")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return RefusedError("machine.denied", said, next="check its owner and mode, or choose another home: --home DIR")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return FailedError("machine.full", said, next="free space there")
    return FailedError("machine.failed", said, next="see what is wrong there; --debug shows where it was needed")


def _mistake(mistake: Mapping[str, Any]) -> str:
    tail = f" ({mistake['suggestion']})" if mistake["suggestion"] else ""
    return f"{mistake['file']}:{mistake['line']}:{mistake['column']}: {mistake['message']}{tail}"


def _tell(
    ctx: CliContext,
    arguments: Sequence[str],
    *,
    code: str,
    message: str,
    advice: str = "",
    exit_code: int,
    lines: Sequence[str] = (),
    fields: Mapping[str, Any] | None = None,
) -> int:
    if ctx.json or "--json" in arguments:
        told: dict[str, Any] = {"code": code, "message": message, "next": advice, "exit": exit_code}
        if fields and "mistakes" in fields:
            told["mistakes"] = fields["mistakes"]
        said = [encoded({"error": told})]
    elif lines:
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "1 mistake"
        more = [f"... and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
        said = [*map(one_line, lines[:MOST_SHOWN]), *more, f"dsmt: {count}, nothing was done"]
    else:
        end = "" if message.endswith("?") else "."
        said = [one_line(f"dsmt: {message.rstrip('.')}" + (f"{end} Next: {advice}" if advice else ""))]
    with suppress(OSError, FailedError):  # where errors go nowhere, the exit code is what is left
        sys.stderr.write("".join(f"{line}\n" for line in said))
        sys.stderr.flush()
    return exit_code


def _close_pipe() -> None:
    """Nobody reads any more: whatever is still buffered goes nowhere."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
