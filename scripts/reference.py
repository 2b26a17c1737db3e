"""Writes the generated references below docs/reference from the tables in the code: `make docs`; a test finds drift."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dsmt.bus.wire import frames as wire
from dsmt.bus.wire.framing import KINDS
from dsmt.cli import COMMANDS, HIDDEN, Group
from dsmt.event.reason import REASONS
from dsmt.event.registry import TOPICS
from dsmt.event.status import Layer, transitions
from dsmt.spec.schema import reference as service_file
from dsmt.spec.supported import SUPPORTED

DIRECTORY: Final = Path(__file__).parents[1] / "docs" / "reference"
NOTE: Final = "<!-- made by `make docs` from the code; do not edit -->\n\n"


def topics() -> str:
    """Every topic, from `dsmt/event/registry.py`."""
    lines = ["# Topics\n", "| topic | kind | type | written by | time to live | kept as |", "|---|---|---|---|---|---|"]
    for row in TOPICS:
        kind = {"fact": "fact", "signal": "signal", None: "either"}[row.kind]
        writers = f"`{row.owner}` only" if row.owner else ", ".join(row.roles)
        life = "durable" if row.ttl_ms is None and row.kind == "fact" else _duration(row.ttl_ms)
        shared = "shared " if row.kind == "fact" and row.shared else ""
        lines.append(f"| `{row.template}` | {shared}{kind} | `{row.event_type}` | {writers} | {life} | {row.budget} |")
    return "\n".join(lines) + "\n"


def _duration(ms: int | None) -> str:
    if ms is None:
        return "-"
    if ms % 60_000:
        return f"{ms // 1000} s"
    minutes = ms // 60_000
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def reasons() -> str:
    """Every reason code, from `dsmt/event/reason.py`."""
    lines = ["# Reason codes\n", "| code | message | next | who acts |", "|---|---|---|---|"]
    for code, template in REASONS.items():
        cells = (template.message, template.next or "-", template.who)
        lines.append(f"| `{code}` | {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def statuses() -> str:
    """Both machines of `dsmt/event/status.py`, as diagrams."""
    lines = ["# Statuses\n"]
    for layer in (Layer.CONTAINER, Layer.APPLICATION):
        name = "container" if layer is Layer.CONTAINER else "agent and application"
        lines += [f"## {name}\n", "```mermaid", "stateDiagram-v2"]
        for before, afters in transitions(layer).items():
            begin = "[*]" if before is None else before.value
            lines += [f"    {begin} --> {after.value}" for after in sorted(afters)]
        lines += ["```\n"]
    return "\n".join(lines)


def file_keys() -> str:
    """Every key of the service file, and which of them have no effect yet."""
    unbuilt = [f"- `{key}`" for key, built in SUPPORTED.items() if built is False]
    partly = [
        f"- `{key}`: {', '.join(str(value).lower() for value in built)}"
        for key, built in SUPPORTED.items()
        if isinstance(built, tuple)
    ]
    parts = ["# Service file", service_file(), "## Not built yet: `apply` refuses it by name", "\n".join(sorted(unbuilt))]
    return "\n\n".join([*parts, "## Built with these values only", "\n".join(sorted(partly))]) + "\n"


def commands() -> str:
    """Every command, from `dsmt/cli/__init__.py`."""
    lines = ["# Commands\n", "| command | does |", "|---|---|"]

    def add(prefix: str, table: Mapping[str, object]) -> None:
        for name, entry in table.items():
            if name in HIDDEN:
                continue
            if isinstance(entry, Group):
                add(f"{prefix} {name}", entry.commands)
            else:
                lines.append(f"| `{prefix} {name}` | {entry.help} |")  # type: ignore[attr-defined]

    add("dsmt", COMMANDS)
    return "\n".join(lines) + "\n"


def frames() -> str:
    """Every frame between a client and a broker, from `dsmt/bus/wire/frames.py`."""
    about = (wire.__doc__ or "").partition("\n\n")[2].strip()
    lines = ["# Frames\n", about + "\n", "| kind | who sends it, and what for | fields |", "|---|---|---|"]
    for kind, frame in KINDS.items():
        fields = ", ".join(f"`{name}`" for name in frame.__struct_fields__) or "-"
        said = " ".join((frame.__doc__ or "").split())
        lines.append(f"| `{kind}` | {said} | {fields} |")
    return "\n".join(lines) + "\n"


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "topics.md": topics,
    "reasons.md": reasons,
    "statuses.md": statuses,
    "service-file.md": file_keys,
    "commands.md": commands,
    "frames.md": frames,
}


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    return {name: NOTE + make() for name, make in PAGES.items()}


def main() -> int:
    """Write all pages."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (DIRECTORY / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
