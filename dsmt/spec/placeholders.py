"""Placeholders `{...}` in commands, environment and files: find them, check them, fill them in.

Rule 1: `{{` and `}}` are literal braces; a brace that stands alone is an error.
Rule 2: the set of placeholders is closed; an unknown one is an error, never left as it is.
Rule 3: filling in is one pass: what a value holds is never expanded again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from dsmt.spec.mistakes import WrongValueError, nearest

SIMPLE: Final = frozenset({"address", "service", "component", "index", "instance", "node", "revision", "directory", "data"})

NODE_LABEL: Final = "node.label."
"""What a placeholder begins with that stands for a label of a node."""

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_LONGEST_SHOWN: Final = 60
_AROUND: Final = 30
"""How much of a line is shown on each side of a brace that stands alone."""


def parts(template: str) -> Iterator[tuple[str, str]]:
    """Yield `("text", literal)` and `("name", placeholder)` in order; raise `WrongValueError` on a lone brace."""
    at = 0
    for token in _TOKEN.finditer(template):
        if token.start() > at:
            yield "text", template[at : token.start()]
        at = token.end()
        text = token.group()
        if text in {"{{", "}}"}:
            yield "text", text[0]
        elif len(text) == 1:
            raise WrongValueError(
                f"a `{text}` stands alone{_where(template, token.start())}", f"write {text}{text} for a literal brace"
            )
        else:
            yield "name", text[1:-1]
    if at < len(template):
        yield "text", template[at:]


def _where(template: str, at: int) -> str:
    """Which brace of a template it is: what stands around it, and in which of several lines that is."""
    line = template.count("\n", 0, at) + 1
    begin, end = template.rfind("\n", 0, at) + 1, template.find("\n", at)
    around = template[max(begin, at - _AROUND) : min(end if end >= 0 else len(template), at + _AROUND)].strip()
    return (f" in line {line} of it" if "\n" in template.strip() else "") + f": `{around}`"


def names(template: str) -> tuple[str, ...]:
    """Return the placeholders of a template in order, without their braces."""
    return tuple(value for kind, value in parts(template) if kind == "name")


def expand(template: str, values: Mapping[str, str]) -> str:
    """Fill in a template; `values` is keyed by placeholder (`port.http`, `node`, `label.tier`).

    Raises `WrongValueError` for a lone brace and for a placeholder that has no value here.
    """
    out = []
    for kind, value in parts(template):
        if kind == "name" and value not in values:
            raise WrongValueError(f"`{{{value[:_LONGEST_SHOWN]}}}` has no value here", _hint(value, values))
        out.append(values[value] if kind == "name" else value)
    return "".join(out)


def check(
    template: str, *, ports: frozenset[str], labels: frozenset[str], endpoints: Mapping[str, frozenset[str]]
) -> list[tuple[str, str]]:
    """Return (message, suggestion) for each placeholder that can never have a value.

    `ports` are the component's, `labels` the service's, `endpoints` the ports of each component of the service.
    """
    try:
        found = names(template)
    except WrongValueError as error:
        return [(error.message, error.next)]
    return [wrong for name in found if (wrong := _wrong(name, ports, labels, endpoints)) is not None]


def _wrong(
    name: str, ports: frozenset[str], labels: frozenset[str], endpoints: Mapping[str, frozenset[str]]
) -> tuple[str, str] | None:
    family, _, key = name.partition(".")
    if name in SIMPLE or (name.startswith(NODE_LABEL) and name != NODE_LABEL):
        return None
    if family == "port" and key:
        return None if key in ports else (f"`{{{name}}}` names no port", _listed(key, ports, "ports"))
    if family == "label" and key:
        return None if key in labels else (f"`{{{name}}}` names no label", _listed(key, labels, "labels"))
    if family == "endpoints" and key:
        component, _, port = key.rpartition(".")
        if component not in endpoints:
            return f"`{{{name}}}` names no component", "write {endpoints.COMPONENT.PORT}"
        if port not in endpoints[component]:
            return f"`{{{name}}}` names no port of {component}", _listed(port, endpoints[component], "ports")
        return None
    known = {*SIMPLE, *(f"port.{port}" for port in ports), *(f"label.{label}" for label in labels)}
    return f"`{{{name[:_LONGEST_SHOWN]}}}` is not a placeholder", _hint(name, dict.fromkeys(sorted(known), ""))


def _listed(word: str, known: frozenset[str], what: str) -> str:
    if not known:
        return f"there are no {what} here; add `{what}:`"
    return f"did you mean {nearest(word, known)}?" if nearest(word, known) else f"{what}: {', '.join(sorted(known))}"


def _hint(name: str, known: Mapping[str, str]) -> str:
    close = nearest(name, known)
    if close:
        return f"did you mean {{{close}}}? A literal brace is written twice"
    return f"for literal braces write {{{{{name[:_LONGEST_SHOWN]}}}}}"
