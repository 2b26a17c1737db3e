"""Writes the generated references below docs/reference from the tables in the code: `make docs`; a test finds drift."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import click

from dsmt.agents.rules import acts as agent
from dsmt.agents.rules import life, resuming, served
from dsmt.bus.wire import frames as wire
from dsmt.bus.wire.framing import KINDS
from dsmt.cli import COMMANDS, HIDDEN, Entry, Group
from dsmt.cli.command import common_options
from dsmt.controllers import wants
from dsmt.event.reason import REASONS
from dsmt.event.registry import TOPICS
from dsmt.event.status import Layer, State, transitions
from dsmt.operations.words.topics import TOPICS as HELP
from dsmt.spec.built import SUPPORTED
from dsmt.spec.drivers import DRIVERS
from dsmt.spec.schema import reference as service_file
from dsmt.view.shown import WORDS
from scripts.shapes import fields_of

DIRECTORY: Final = Path(__file__).parents[1] / "docs" / "reference"
PACKAGE: Final = Path(__file__).parents[1] / "dsmt"
NOWHERE: Final = click.Context(click.Command(None))
"""What a command's parameters are asked in, for what is said of them: none that runs."""
NOTE: Final = "<!-- made by `make docs` from {source}; do not edit -->\n\n"


def topics() -> str:
    """Every topic with its record: the registry's rows."""
    lines = ["# Topics\n", "A view folds the kinds that are marked; all else passes it by.\n"]
    lines += [
        "| topic | kind | type | written by | time to live | kept as | record | view |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in TOPICS:
        kind = {"fact": "fact", "signal": "signal", None: "either"}[row.kind]
        shared = "shared " if row.kind == "fact" and row.shared else ""
        cells = (
            f"`{row.template}`",
            f"{shared}{kind}",
            f"`{row.event_type}`",
            f"`{row.owner}` only" if row.owner else ", ".join(row.roles),
            "durable" if row.ttl_ms is None and row.kind == "fact" else _duration(row.ttl_ms),
            row.budget,
            f"`{row.record.__name__}`" if row.record else "any map",
            "folded" if row.folded else "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_records()]) + "\n"


def _records() -> Iterator[str]:
    yield from ("## Records\n", "| record | what | fields |", "|---|---|---|")
    for record in dict.fromkeys(row.record for row in TOPICS if row.record):
        fields = ", ".join(f"`{name}`" for name in record.__struct_fields__)
        yield f"| `{record.__name__}` | {' '.join((record.__doc__ or '').split())} | {fields} |"


def _duration(ms: int | None) -> str:
    if ms is None:
        return "-"
    if ms % 60_000:
        return f"{ms // 1000} s"
    minutes = ms // 60_000
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def reasons() -> str:
    """Every reason code."""
    lines = ["# Reason codes\n", "| code | message | next | who acts |", "|---|---|---|---|"]
    for code, template in REASONS.items():
        cells = (template.message, template.next or "-", template.who)
        lines.append(f"| `{code}` | {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def statuses() -> str:
    """Both machines of statuses, as diagrams, and the one word that operators see of them."""
    lines = ["# Statuses\n"]
    for layer in (Layer.CONTAINER, Layer.APPLICATION):
        name = "container" if layer is Layer.CONTAINER else "agent and application"
        lines += [f"## {name}\n", "```mermaid", "stateDiagram-v2"]
        for before, afters in transitions(layer).items():
            begin = "[*]" if before is None else before.value
            lines += [f"    {begin} --> {after.value}" for after in sorted(afters)]
        lines += ["```\n"]
    lines += [
        "## What `ps` shows\n",
        "The application's word decides where there is one; else the agent's; else the container's.\n",
        "A later word that no agent can be begun decides before it.\n",
    ]
    lines += [f"| state | {' | '.join(WORDS)} |", "|---|---|---|---|"]
    for state in State:
        words = [table.get(state) for table in WORDS.values()]
        if any(words):
            lines.append(f"| {state} | {' | '.join(word or '-' for word in words)} |")
    lines += [
        "\n`failed` is `backoff` with a next try, `parked` where a cause is waited for, else `failed`. What no node has",
        "spoken of is `waiting`; what had not ended is `lost` on a dead node, or where who speaks of it is silent;",
        "what has ended with code 0, and is not run again, is `done`.\n",
    ]
    return "\n".join(lines)


def lives() -> str:
    """The machines of one run and of what is served, each with its rules, and its table as a diagram."""
    ends = (life.State.STARTING, life.State.ENDED)
    runs = _diagram(((before, what, after) for (before, what), after in life.TRANSITIONS.items()), *ends)
    ways = [(before, what, after) for (before, what), (after, _) in served.TRANSITIONS.items()]
    lines = ["# The life of a run\n", *_rules(life), *runs]
    return "\n".join([*lines, "## Which copy is served\n", *_rules(served), *_diagram(ways, served.State.NOBODY)])


def _diagram(ways: Iterable[tuple[Enum, Enum, Enum]], begin: Enum, end: Enum | None = None) -> Iterator[str]:
    """A table of transitions as a diagram; those from one state to another in one line."""
    between: dict[tuple[Enum, Enum], list[str]] = {}
    for before, what, after in ways:
        between.setdefault((before, after), []).append(what.value)
    yield from ("```mermaid", "stateDiagram-v2", f"    [*] --> {begin.value}")
    yield from (f"    {before.value} --> {after.value}: {', '.join(inputs)}" for (before, after), inputs in between.items())
    if end is not None:
        yield f"    {end.value} --> [*]"
    yield "```\n"


def acts() -> str:
    """What an agent does first, and next, row by row, from the tables of `dsmt/agents/rules/`."""
    lines: list[str] = []
    tables = (("What an agent does next", agent, agent.ACTS), ("What it does first", resuming, resuming.FIRST))
    for title, module, rows in tables:
        lines += [f"{'##' if lines else '#'} {title}\n", *_rules(module), "| | act | when | unless |", "|---|---|---|---|"]
        lines += [f"| {n} | `{row.do}` | {_told(row.when)} | {_told(row.unless)} |" for n, row in enumerate(rows, 1)]
        lines.append("")
    return "\n".join(lines)


def _rules(module: ModuleType) -> Iterator[str]:
    """The rules at the head of a module, a paragraph each."""
    yield (module.__doc__ or "").partition("\n\n")[2].strip().replace("\nRule", "\n\nRule") + "\n"


def _told(conditions: Sequence[Callable[..., bool]]) -> str:
    return "; ".join((one.__doc__ or "").rstrip(".") for one in conditions) or "-"


def file_keys() -> str:
    """Every key of the service file, and which of them have no effect yet."""
    unbuilt = [f"- `{key}`" for key, built in SUPPORTED.items() if built is False]
    partly = [
        f"- `{key}`: {', '.join(str(value).lower() for value in built)}"
        for key, built in SUPPORTED.items()
        if isinstance(built, tuple)
    ]
    _, braces, where = HELP["placeholders"].split("\n\n")
    parts = ["# Service file", service_file(), "## Placeholders", f"```text\n{braces}\n```", where]
    parts += ["## Not built yet: `apply` refuses it by name", "\n".join(sorted(unbuilt))]
    return "\n\n".join([*parts, "## Built with these values only", "\n".join(sorted(partly))]) + "\n"


def commands() -> str:
    """Every command: a table, and then what each of them takes."""
    every = [*_commands("dsmt", COMMANDS)]
    lines = ["# Commands\n", "| command | does |", "|---|---|", *(f"| `{name}` | {entry.help} |" for name, entry in every)]
    codes = [line.split(maxsplit=1) for line in HELP["exit-codes"].splitlines() if line.startswith("  ")]
    lines += ["\n## Exit codes\n", "| code | means |", "|---|---|", *(f"| {code} | {means} |" for code, means in codes)]
    error = '{"error": {"code", "message", "next", "exit"}}'
    lines.append(f"\nWith `--json`, an error is `{error}` on standard error.")
    common = common_options()
    lines += ["\n## What each takes\n", "All of them, before the command or after it:\n", *map(_option, common), ""]
    shared = {name for option in common for name in option.opts}
    for name, entry in every:
        taken = entry.load().params
        words = [one.make_metavar(NOWHERE) for one in taken if isinstance(one, click.Argument)]
        options = [one for one in taken if isinstance(one, click.Option) and not shared.intersection(one.opts)]
        if words or options:
            lines += [f"### `{' '.join((name, *words))}`", ""]
        if options:
            lines += [*map(_option, options), ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(prefix: str, table: Mapping[str, Entry | Group]) -> Iterator[tuple[str, Entry]]:
    """Each with all its words."""
    for name, entry in table.items():
        if name in HIDDEN:
            continue
        if isinstance(entry, Group):
            yield from _commands(f"{prefix} {name}", entry.commands)
        else:
            yield f"{prefix} {name}", entry


def _option(option: click.Parameter) -> str:
    """As a line of a list."""
    record = option.get_help_record(NOWHERE)
    return "" if record is None else f"- `{record[0]}`: {record[1]}"


def frames() -> str:
    """Every frame between a client and a broker."""
    about = (wire.__doc__ or "").partition("\n\n")[2].strip()
    lines = [
        "# Frames\n",
        "How they are used, and what stands in their parts: [the protocol](protocol.md). Types are written as in CDDL",
        "(RFC 8610), but the size of a text is in characters. A `uint` is at most 2^62; a `float` may be written as an",
        "integer. `?`: it may be left out, and is then what follows `=`.\n",
        about + "\n",
        "| kind | who sends it, and what for | fields |",
        "|---|---|---|",
    ]
    for kind, frame in KINDS.items():
        fields = "<br>".join(f"`{field}`" for field in fields_of(frame)) or "-"
        said = " ".join((frame.__doc__ or "").split())
        lines.append(f"| `{kind}` | {said} | {fields} |")
    return "\n".join(lines) + "\n"


def precedence() -> str:
    """What a slot wants, rule by rule, from the tables of `dsmt/controllers/wants.py`."""

    def about(rule: Callable[..., object]) -> str:
        return (rule.__doc__ or "").partition("\n\n")[0].strip()

    tables = (("that lives, or may", wants.ON_A_NODE), ("that is dead or has left", wants.ON_A_LOST_NODE))
    lines = [
        "# What a slot wants\n",
        "Controllers ask these rules in their order; the first that asks for an action has its way. At what pace that is",
        "done `dsmt/controllers/service.py` says, and where it goes `dsmt/controllers/placement.py`. A slot that is on no",
        "node is placed: where a node runs it already or has its data, else where there is room.\n",
    ]
    for title, table in tables:
        lines += [f"## A slot on a node {title}\n", "| | rule | asks for an action when |", "|---|---|---|"]
        lines += [f"| {n} | `{rule.__name__.strip('_')}` | {about(rule)} |" for n, rule in enumerate(table, 1)]
        lines.append("")
    return "\n".join(lines)


def drivers() -> str:
    """Every driver, from `dsmt/spec/drivers.py`."""
    lines = ["# Drivers\n", "| `driver` | how it contains a program | built |", "|---|---|---|"]
    lines += [f"| `{word}` | {row.about} | {'yes' if row.adapter else 'not yet'} |" for word, row in DRIVERS.items()]
    return "\n".join(lines) + "\n"


class Page(NamedTuple):
    """A page, and the file or folder that it is made from."""

    source: str
    make: Callable[[], str]


def modules() -> str:
    """Every module by its room, with the first sentence of what it says of itself."""
    lines = [
        "# Modules\n",
        "What each module is, in its own words. Where a question is decided: [the architecture](../architecture.md).\n",
    ]
    for room in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        told = [(path.name, _first_sentence(path)) for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
        if told:
            lines += [f"## dsmt/{room.relative_to(PACKAGE)}/\n".replace("/./", "/"), "| module | what |", "|---|---|"]
            lines += [f"| `{name}` | {said} |" for name, said in told] + [""]
    return "\n".join(lines)


def _first_sentence(path: Path) -> str:
    """What stands before the first empty line of a module's docstring."""
    told = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(told.split("\n\n")[0].split()).replace("|", "\\|")


PAGES: Final[Mapping[str, Page]] = {
    "topics.md": Page("dsmt/event/kinds/", topics),
    "reasons.md": Page("dsmt/event/reason.py", reasons),
    "statuses.md": Page("dsmt/event/status.py and dsmt/view/shown.py", statuses),
    "service-file.md": Page("dsmt/spec/schema.py and dsmt/spec/built.py", file_keys),
    "commands.md": Page("dsmt/cli/", commands),
    "frames.md": Page("dsmt/bus/wire/frames.py", frames),
    "precedence.md": Page("dsmt/controllers/wants.py", precedence),
    "lives.md": Page("dsmt/agents/rules/life.py and dsmt/agents/rules/served.py", lives),
    "acts.md": Page("dsmt/agents/rules/acts.py and dsmt/agents/rules/resuming.py", acts),
    "modules.md": Page("the modules of dsmt/", modules),
    "drivers.md": Page("dsmt/spec/drivers.py", drivers),
}


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    return {name: NOTE.format(source=page.source) + page.make() for name, page in PAGES.items()}


def main() -> int:
    """Write all pages."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (DIRECTORY / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
