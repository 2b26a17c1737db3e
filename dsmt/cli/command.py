"""What all commands share: their options, and how these are read.

Rule 1: `--json`, `--bus`, `--home` and `--debug` may stand before the command or after it.
Rule 2: `--wait` may stand alone or with a duration, as `--wait=30s`; alone it takes no limit back that is given beside it.
    A number behind it that is no duration, and for which the command has no place, is told as no duration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from dsmt.cli.context import CliContext

WAIT_FOREVER: Final = "forever"
LONGEST_REASON: Final = 1000
DIFFERS: Final = 6
"""The exit code with `--exit-code` where something is not as it should be."""
_DURATION: Final = re.compile(r"-?(\d+(\.\d+)?(ms|s|m|h|d))+")
"""What is taken for one behind `--wait`; below zero too, which then is told as no duration."""
_MEANT: Final = re.compile(r"-?\d+(\.\d+)?[A-Za-z]*")
"""What may be meant for one there, and is none: its unit is missing, or no unit."""


def _into(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        if value == "":  # a variable of a script that was not set: not a wish for the default
            raise click.BadParameter("it is empty", ctx, option)
        if value:
            told = ctx.ensure_object(CliContext)
            variable = ctx.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT
            if not (variable and told.bus):  # an option counts, wherever it stands
                setattr(told, name, value)
                told.bus_variable = variable or (told.bus_variable and name != "bus")

    return keep


def among(words: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Completes one of some words."""
    return lambda _ctx, _param, incomplete: [CompletionItem(one) for one in words if one.startswith(incomplete)]


def a_file(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Has the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def a_directory(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Has the shell complete the name of a directory."""
    return [CompletionItem(incomplete, type="dir")]


def common_options() -> list[click.Parameter]:
    """The options that every command has."""
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            is_eager=True,  # it counts for --version, wherever it stands
            expose_value=False,
            callback=_into("json"),
            help="Print JSON, for programs.",
        ),
        click.Option(
            ["--bus"],
            expose_value=False,
            envvar="DSMT_BUS",
            callback=_into("bus"),
            metavar="URL",
            help="The brokers to connect to: dsmt://HOST:PORT,...",
        ),
        click.Option(
            ["--home"],
            expose_value=False,
            callback=_into("home_path"),
            metavar="DIR",
            shell_complete=a_directory,
            help="The home directory of the realm, instead of $DSMT_HOME.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_into("debug"), help="Show the traceback of an error."
        ),
    ]


class Command(click.Command):
    """A command with the common options, and rule 2."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += common_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, after `--wait` has got its duration."""
        waits = any("--wait" in param.opts for param in self.params)
        meant = _meant(args) if waits else None
        if meant is not None and any(param.nargs == -1 for param in self.params) and not os.path.exists(meant):  # noqa: PTH110 - or what it is
            seconds(meant)
        try:
            return super().parse_args(ctx, _with_wait(args) if waits else args)
        except click.UsageError as error:
            if meant is not None and f"({meant})" in error.message:  # the one argument that is too much
                seconds(meant)
            error.ctx = error.ctx or ctx  # click's parser names no command: its help is what comes next
            if isinstance(error, click.NoSuchOption) and re.fullmatch(r"-[0-9]", error.option_name):
                self._count_below_none(ctx, args)
            raise

    def _count_below_none(self, ctx: click.Context, args: list[str]) -> None:
        """Where a count is wanted, fail by what was typed for it, though click takes `-1` for an option."""
        typed = next((one for one in args if re.match(r"-[0-9]", one)), None)
        for param in self.params:
            if typed is not None and isinstance(param, click.Argument) and isinstance(param.type, Count):
                param.type.convert(typed, param, ctx)


def _meant(args: list[str]) -> str | None:
    """What stands behind `--wait` for a duration, and is none."""
    before = args[: args.index("--")] if "--" in args else args
    behind = [after for one, after in pairwise(before) if one == "--wait"]
    return next((one for one in behind if _MEANT.fullmatch(one) and not _DURATION.fullmatch(one)), None)


def _with_wait(args: list[str]) -> list[str]:
    done: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg == "--":
            return [*done, arg, *left]
        if arg != "--wait":
            done.append(arg)
        elif left and _DURATION.fullmatch(left[0]):
            done.append(f"--wait={left.pop(0)}")
        else:
            done.insert(0, f"--wait={WAIT_FOREVER}")
    return done


def command(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function; its first argument is the `CliContext`."""

    def made(function: Callable[..., Any]) -> click.Command:
        return click.command(name, cls=Command, **settings)(click.pass_obj(function))

    return made


class Count(click.IntRange):
    """A whole number in a range, told as people say it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Fails with the range that it must be in."""
        number = int(value) if re.fullmatch(r"[0-9]{1,18}", str(value)) else None  # not `+1`, which is meant as one more
        if number is None or (self.min is not None and number < self.min) or (self.max is not None and number > self.max):
            most = f"from {self.min} to {self.max}" if self.max is not None else f"of at least {self.min}"
            self.fail(f"{value!r} is not a whole number {most}", param, ctx)
        return number


class Engine(click.Choice[str]):
    """The bus of a realm; `embedded` is another word for dsmt's own brokers."""

    def __init__(self) -> None:
        super().__init__(["dsmt", "nats"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Its name. Fails for any other word."""
        return super().convert("dsmt" if value == "embedded" else value, param, ctx)


def seconds(text: str | None) -> float | None:
    """The seconds of a duration that was typed; None for none. Raises `InputError`."""
    from dsmt.spec.quantities import parse_duration  # noqa: PLC0415 - only where one was given

    return None if text is None or text == WAIT_FOREVER else parse_duration(text)


def _short(ctx: click.Context, option: click.Parameter, value: str) -> str:
    if len(value) > LONGEST_REASON:  # it is shown wherever what it is for is shown
        raise click.BadParameter(f"it has {len(value)} characters, and {LONGEST_REASON} are the most", ctx, option)
    return value


reason_option = click.option(
    "--reason", default="", metavar="TEXT", callback=_short, help="Why you do this; other operators can read it."
)
wait_option = click.option("--wait", default=None, metavar="[=DUR]", help="Wait until it is done, at most this long.")
local_option = click.option(
    "--local",
    is_flag=True,
    help="Of this machine alone, by the files of this home: asks no broker. For a machine that is cut off.",
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
