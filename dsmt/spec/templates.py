"""Where placeholders may stand in a component, and whether each of them can ever have a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dsmt.spec import placeholders
from dsmt.spec.reading import Path, Reader

_COMMANDS = ("run", "install", "configure", "uninstall")


def check_templates(reader: Reader, service: Mapping[str, Any]) -> Iterator[tuple[Path, str, str]]:
    """Yield (path, message, suggestion) for each placeholder of a service that is unknown or malformed."""
    endpoints = {
        name: frozenset(port["name"] for port in component["ports"]) for name, component in service["components"].items()
    }
    labels = frozenset(service["labels"])
    for name, component in service["components"].items():
        here = ("components", name)
        if not reader.trusted((*here, "ports"), ("labels",)):
            continue
        for path, template in templates(component):
            wrongs = placeholders.check(template, ports=endpoints[name], labels=labels, endpoints=endpoints)
            for message, suggestion in wrongs:
                yield (*here, *path), message, suggestion


def templates(component: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield (path below the component, template) of everything in which placeholders are filled in."""
    commands: list[tuple[Path, Any]] = [((key,), component[key]) for key in _COMMANDS]
    commands.append((("stop", "command"), component["stop"]["command"]))
    commands.append((("reload",), (component["reload"] or {}).get("command")))
    commands += [((key,), component["job"][key]) for key in ("pre", "post") if component["job"] is not None]
    for role, check in reversed((component["health"] or {}).items()):
        how = check["how"] if check is not None else {}
        command = how.get("command")
        if not any(command is told for _, told in commands):  # a start-up that was not written is another's check
            commands.append((("health", role, how.get("kind", "")), command))
    for path, argv in commands:
        for index, word in enumerate(argv or ()):
            yield (*path, str(index)), word
    for variable, value in component["env"].items():
        if isinstance(value, str):
            yield ("env", variable), value
    for index, file in enumerate(component["files"]):
        if file["template"] and file["content"] is not None:
            yield ("files", str(index), "content"), file["content"]
