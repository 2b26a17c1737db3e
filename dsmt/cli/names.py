"""Names that a shell completes: of services, instances and nodes, as they were seen last.

Rule 1: completing asks nobody and never waits: it reads what the last `ps`, `status` or `nodes` has seen, from the home.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import click
import msgspec
from click.shell_completion import CompletionItem

from dsmt.cli.context import CliContext
from dsmt.errors import UNDECODABLE, InputError
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.targets import Target, slots_of

FILE: Final = "seen.json"
MANY: Final = 50
"""Names to complete to: of more, only those that end before the next `/`."""


def remember(ctx: CliContext, sight: Sight) -> None:
    """Keep the names that are in sight; a home that cannot be written keeps none."""
    keys = [key for name in sight.view.services for key in slots_of(sight.view, Target(name))]
    targets = {part for key in keys for part in (f"{key.service}/{key.component}", str(key))}
    names = {"targets": sorted({*sight.view.services, *targets}), "nodes": sorted(sight.fleet.members)}
    with suppress(OSError):
        (ctx.home().root / FILE).write_bytes(msgspec.json.encode(names))


class _Seen(click.ParamType[str]):
    """A word that is completed from what was seen last."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Any text: what is not there is told by who looks for it."""
        del param, ctx
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so (rule 1)."""
        del param
        try:
            raw = (ctx.ensure_object(CliContext).home().root / FILE).read_bytes()
            names: list[str] = msgspec.json.decode(raw, type=dict[str, list[str]]).get(self._kind, [])
        except (OSError, InputError, *UNDECODABLE):
            return []
        found = [name for name in names if name.startswith(incomplete)]
        if len(found) > MANY:
            found = [name for name in found if "/" not in name[len(incomplete) :]]
        return [CompletionItem(name) for name in found]


TARGET: Final = _Seen("target", "targets")
NODE: Final = _Seen("node", "nodes")


def revision_number(text: str, *, option: str) -> int:
    """The number of a revision, as people write it."""
    number = int(text.removeprefix("r")) if re.fullmatch(r"r?[0-9]{1,18}", text) else 0  # what an event can hold
    if not number:
        raise click.BadParameter(f"{text!r} is not a revision: write r3 or 3", param_hint=option)
    return number
