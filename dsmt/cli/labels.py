"""The option `--label` of what makes or starts nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import click

from dsmt.errors import InputError


def labels_option(whose: str) -> Callable[[Any], Any]:
    """`--label K=V`, of which node or nodes."""
    told = f"A label of {whose}, for {{node.label.K}} in service files; may be repeated. It has no effect on placement yet."
    return click.option("--label", "labels", multiple=True, metavar="K=V", help=told)


label_option = labels_option("the node")


def labels_of(given: Iterable[str]) -> dict[str, str]:
    """The labels that were typed. Raises `InputError`."""
    from dsmt.spec.shapes import KEY_PATTERNS  # noqa: PLC0415 - only where one was given

    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not re.fullmatch(KEY_PATTERNS["label"], key):
            raise InputError("label.form", f"{one!r} is not a label", next="write --label KEY=VALUE")
        found[key] = value
    return found
