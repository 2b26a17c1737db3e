"""Checks across keys: what single values cannot show, one small function each, listed at the end.

Rule 1: a check speaks only of values that could be read, so one mistake is reported once, and hides none beside it.
Rule 2: a default never contradicts, so what could not be read and has its default needs no guard unless it is missed or
    named elsewhere (`trusted`); checks of a choice look at what the file said (`said`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from dsmt.spec import nodeset
from dsmt.spec.completing import DIGEST, GRACE_SHARE_OF_TERM
from dsmt.spec.health import KINDS, ROLES, has_port
from dsmt.spec.keys import JOB_KEYS
from dsmt.spec.mistakes import Mistake, nearest
from dsmt.spec.placeholders import SIMPLE
from dsmt.spec.quantities import format_duration, format_percent, format_size
from dsmt.spec.reading import Path, Reader
from dsmt.spec.templates import check_templates

LEAST_MEMORY: Final = 2**20
"""The address space that a program needs to start at all, in bytes."""

Wrong = tuple[Path, str, str]
Plain = Mapping[str, Any]


class CheckedComponent(msgspec.Struct, frozen=True):
    """One component with what is around it; paths are below the component."""

    reader: Reader
    service: Plain
    name: str
    component: Plain

    def path(self, *keys: str) -> Path:
        """Return the whole path of keys of this component."""
        return ("components", self.name, *keys)

    def said(self, *keys: str) -> bool:
        """Whether the file said this, readably."""
        return self.path(*keys) in self.reader.marks and self.trusted(*keys)

    def trusted(self, *keys: str) -> bool:
        """Whether nothing about these keys was unreadable."""
        return self.reader.trusted(self.path(*keys))


def check_service(reader: Reader, service: Plain) -> None:
    """Note every mistake across the keys of one service in the reader."""
    wrongs: list[Wrong] = []
    for name, component in service["components"].items():
        case = CheckedComponent(reader, service, name, component)
        for check in COMPONENT_CHECKS:
            wrongs.extend((case.path(*path), message, hint) for path, message, hint in check(case))
    for whole in SERVICE_CHECKS:
        wrongs.extend(whole(reader, service))
    for path, message, hint in wrongs:
        reader.mistake_at(path, message, hint)


_TREE: Final = "DSMT_TREE"
_WHOLE_ZIP: Final = re.compile(r"\.(?:whl|jar|war|ear|pyz|egg)\Z", re.IGNORECASE)
"""Files that are zips inside, and that programs take as they are."""
_SECRET: Final = re.compile(r"PASSW|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)


def looks_secret(name: str) -> bool:
    """Whether a variable's value is probably a secret, by its name."""
    return _SECRET.search(name) is not None


def warn_service(reader: Reader, service: Plain) -> Iterator[Mistake]:
    """Yield what is allowed but probably not meant."""
    for name, component in service["components"].items():
        case = CheckedComponent(reader, service, name, component)
        for path, message, hint in (*_open_secrets(case), *_whole_zips(case), *_unfilled(case)):
            node = reader.mark(case.path(*path))
            yield Mistake(reader.file, node.line, node.column, message, hint)


def _open_secrets(case: CheckedComponent) -> Iterator[Wrong]:
    for variable, value in case.component["env"].items():
        if isinstance(value, str) and value and looks_secret(variable):
            yield ("env", variable), f"env.{variable} looks like a secret", "use {file: PATH}, which is read on the node"


def _whole_zips(case: CheckedComponent) -> Iterator[Wrong]:
    for index, artifact in enumerate(case.component["artifacts"]):
        if artifact["unpack"] == "auto" and _WHOLE_ZIP.search(artifact["url"] or ""):
            message = f"`{artifact['url'].rpartition('/')[2][:60]}` is a zip, and is unpacked like one"
            yield ("artifact", str(index), "url"), message, "`unpack: no` keeps it whole; `zip` says it is meant"


def _unfilled(case: CheckedComponent) -> Iterator[Wrong]:
    names = sorted(SIMPLE | {f"port.{port['name']}" for port in case.component["ports"]})
    for index, file in enumerate(case.component["files"]):
        here = ("files", str(index))
        found = [one for one in names if f"{{{one}}}" in (file["content"] or "")]
        if found and not case.said(*here, "template"):
            hint = "`template: true` fills it in, and `{{` is a brace then; `template: false` says that it is meant"
            yield (*here, "content"), f"`{{{found[0]}}}` stays as it is in `{file['to']}`", hint


def _program(case: CheckedComponent) -> Iterator[Wrong]:
    c = case.component
    if c["run"] is None and c["image"] is None and case.trusted("run") and case.trusted("image"):
        yield (), "`run` is missing", "the long-running program, in the foreground"
    if not case.trusted("image"):
        return
    if c["image"] is not None and c["driver"] != "podman":
        yield ("driver",), f"`image` needs the driver podman, not {c['driver']}", "remove one of the two"
    if c["image"] is None and c["driver"] == "podman":
        yield ("driver",), "the driver podman needs an `image`", "name one"


def _partition(case: CheckedComponent) -> Iterator[Wrong]:  # noqa: C901 - a list of what contradicts it
    c = case.component
    if not case.trusted("on_partition"):
        return
    if c["data"] and case.said("update", "order") and c["update"]["order"] == "start_first":
        message = "`data` forbids two copies at a time: both would write the same directory"
        yield ("update", "order"), message, "stop_first, or no `data`"
    if c["on_partition"] != "at_most_one":
        for key in ("term", "fence"):
            if case.said(key):
                yield (key,), f"`{key}` is for `at_most_one` only", "remove it, or on_partition: at_most_one"
        moves = any(step["action"] == "move" for step in c["restart"]["escalate"])
        if c["on_partition"] == "pinned" and moves and case.said("restart", "escalate"):
            message = "`pinned` never moves, and `restart.escalate` says `move`"
            if not case.said("on_partition"):
                message = "what has `data` is pinned to its node, and `restart.escalate` says `move`"
            yield ("restart", "escalate"), message, "remove `move`, or on_partition: at_least_one to lose the data"
        return
    if c["update"]["order"] == "start_first":
        yield ("update", "order"), "`at_most_one` cannot be updated with `start_first`", "stop_first"
    if c["instances"] is None:
        yield ("instances",), "`at_most_one` cannot run on each node", "give a number of instances"
    longest_s = c["term_s"] * GRACE_SHARE_OF_TERM
    if case.said("stop", "grace") and case.trusted("term") and c["stop"]["grace_s"] > longest_s + 1e-9:
        message = f"`stop.grace` is more than 30 % of `term` ({format_duration(c['term_s'])})"
        yield ("stop", "grace"), message, f"at most {format_duration(longest_s)}"


def _ports(case: CheckedComponent) -> Iterator[Wrong]:
    c = case.component
    fixed: dict[tuple[int, str], str] = {}
    variables: dict[str, str] = {}
    for port in c["ports"]:
        number, name = port["port"], port["name"]
        first = fixed.setdefault((number, port["protocol"]), name) if number is not None else name
        if first != name:
            yield ("ports", name), f"port {number} is already given to `{first}`", "choose another, or auto"
        variable = name.replace("-", "_")
        if variables.setdefault(variable, name) != name:
            yield ("ports", name), f"`{name}` and `{variables[variable]}` give the same variable", "rename one"
    one_node = nodeset.most(nodeset.parse(c["nodes"])) == 1
    if fixed and one_node and case.said("update", "order") and c["update"]["order"] == "start_first":
        yield ("update", "order"), "a fixed port on one node forbids two at a time", "stop_first, or port: auto"
    names = {port["name"] for port in c["ports"]}
    sockets = case.reader.mark(case.path("sockets"))
    if case.said("sockets") and case.trusted("ports"):
        for index, item in enumerate(getattr(sockets, "items", (sockets,))):
            if item.text not in names:
                yield ("sockets", str(index)), f"`{item.text}` is not in `ports`", _known(item.text, names)


def _health(case: CheckedComponent) -> Iterator[Wrong]:
    if not case.said("health"):
        return
    roles = [role for role in ROLES if case.said("health", role)]
    paths: list[Path] = [("health", role) for role in roles]
    for path in paths or [("health",)]:
        kinds = [kind for kind in KINDS if case.said(*path, kind)]
        if len(kinds) != 1:
            said = f"`{'` and `'.join(kinds)}` are" if kinds else "nothing is"
            yield path, f"one check is expected, and {said} here", f"one of {', '.join(KINDS)}"
        if path[-1] in {"readiness", "liveness"} and case.said(*path, "deadline"):
            yield (*path, "deadline"), "`deadline` is for start-up only", "put it under `startup`"
        if len(kinds) == 1 and has_port(kinds[0]) and case.trusted("ports"):
            yield from _check_port(case, (*path, kinds[0]))


def _check_port(case: CheckedComponent, path: Path) -> Iterator[Wrong]:
    names = {port["name"] for port in case.component["ports"]}
    if not case.said(*path, "port"):
        if not names:
            yield path, f"`{path[-1]}` needs a port, and there are no `ports`", "ports: {http: auto}"
        return
    node = case.reader.mark(case.path(*path, "port"))
    named = getattr(node, "text", "")
    if named not in names:
        yield (*path, "port"), f"`{named}` is not in `ports`", _known(named, names)


def _resources(case: CheckedComponent) -> Iterator[Wrong]:
    c = case.component
    spells: dict[str, tuple[str, Callable[[Any], str]]] = {
        "memory": ("memory_bytes", format_size), "cpu": ("cpu", str), "disk": ("disk_bytes", format_size),
    }  # fmt: skip
    memory = c["limits"]["memory_bytes"]
    if memory is not None and memory < LEAST_MEMORY:
        message = f"`limits.memory` ({format_size(memory)}) is too small: no program starts with it"
        yield ("limits", "memory"), message, f"at least {format_size(LEAST_MEMORY)}"
    for key, (field, spell) in spells.items():
        limit, reserve = c["limits"][field], c["reserve"][field]
        if limit is not None and reserve > limit:
            message = f"`limits.{key}` ({spell(limit)}) is below `reserve.{key}` ({spell(reserve)})"
            yield ("limits", key), message, "reserve at most the limit"


def _delays(case: CheckedComponent) -> Iterator[Wrong]:
    first, cap = case.component["restart"]["first_s"], case.component["restart"]["cap_s"]
    if case.said("restart", "first") and case.said("restart", "cap") and cap < first:
        message = f"`restart.cap` ({format_duration(cap)}) is below `restart.first` ({format_duration(first)})"
        yield ("restart", "cap"), message, "the longest delay is at least the first one"


def _secrets(case: CheckedComponent) -> Iterator[Wrong]:
    for name, secret in case.component["secrets"].items():
        if (secret["secret"] is None) == (secret["file"] is None) and case.trusted("secrets", name):
            yield ("secrets", name), "a secret comes from one place", "either {secret: NAME} or {file: PATH}"
        if name in case.component["env"] and secret["to"] is None:
            yield ("env", name), f"`{name}` is in `env` and in `secrets`", "keep the one in `secrets`"


def _artifacts(case: CheckedComponent) -> Iterator[Wrong]:
    for index, artifact in enumerate(case.component["artifacts"] if case.trusted("artifact") else ()):
        path = ("artifact", str(index))
        scheme, _, rest = artifact["url"].partition(":")
        if artifact["sha256"] is None and scheme in {"https", "depot"}:
            yield (*path, "url"), f"`sha256` is missing for `{scheme}:`", "what `sha256sum` prints for the file"
        elif scheme == "depot" and DIGEST.fullmatch(rest) and artifact["sha256"] != rest:
            yield (*path, "sha256"), "`sha256` is not the one `depot:` names", "remove it"


def _files(case: CheckedComponent) -> Iterator[Wrong]:
    written: set[str] = set()
    for index, file in enumerate(case.component["files"] if case.trusted("files") else ()):
        to = "/".join(part for part in file["to"].split("/") if part not in ("", "."))
        if not to or file["to"].endswith(("/", "/.")):
            yield ("files", str(index), "to"), f"`{file['to']}` is a directory", "name the file that is to be in it"
            continue
        if to in written:
            yield ("files", str(index), "to"), f"`{file['to']}` is written twice", "keep one of the two"
        for other in sorted(written):
            if to.startswith(f"{other}/") or other.startswith(f"{to}/"):
                above, below = sorted((to, other), key=len)
                said = f"`{above}` is a file here, and a directory for `{below}`"
                yield ("files", str(index), "to"), said, "give one of them another path"
                break
        written.add(to)
        if (file["content"] is None) == (file["source"] is None):
            yield ("files", str(index)), "a file has its text from one place", "either `content` or `from`"


def _own_variable(case: CheckedComponent) -> Iterator[Wrong]:
    if _TREE in case.component["env"]:
        yield ("env", _TREE), f"`{_TREE}` is set by dsmt, which finds by it what it has started", "remove it"


def _shares(case: CheckedComponent) -> Iterator[Wrong]:
    if case.component["instances"] != 1 or not case.trusted("instances"):
        return
    for key in ("max_parallel", "canary"):
        percent = case.component["update"][key]["percent"]
        if percent is not None:
            yield ("update", key), f"{format_percent(percent)} of 1 instance", "write a count, or more instances"


def _jobs(case: CheckedComponent) -> Iterator[Wrong]:
    if case.component["kind"] == "job" or not case.trusted("kind") or not case.reader.trusted(("kind",)):
        return
    for key in JOB_KEYS:
        if case.said(key.name):
            yield (key.name,), f"`{key.name}` is for jobs, and this is a service", "kind: job"


_ALONE: Final = "there is no other one here"


def _neighbours(case: CheckedComponent) -> Iterator[Wrong]:
    known = case.service["components"]  # no set of the others for each of them: a file may name thousands
    for index, after in enumerate(case.component["after"] if case.trusted("after") else ()):
        path = ("after", str(index))
        component, barrier = after["component"], after["barrier"]
        if component is None and barrier is None:
            yield path, "nothing is waited for", "name a component or a barrier"
        if component is not None and (component == case.name or component not in known):
            itself = component == case.name
            message = "a component cannot wait for itself" if itself else f"there is no component `{component}`"
            yield path, message, _known(component, set(known) - {case.name}, none=_ALONE)
        if barrier is not None and barrier not in case.service["barriers"] and case.reader.trusted(("barriers",)):
            yield path, f"there is no barrier `{barrier}`", _known(barrier, set(case.service["barriers"]))
    named = [("apart", i, name) for i, name in enumerate(case.component["apart"]) if case.trusted("apart")]
    named += [("near", i, near["to"]) for i, near in enumerate(case.component["near"]) if case.trusted("near")]
    for key, index, name in named:
        if "/" not in name and (name == case.name or name not in known):
            hint = _known(name, set(known) - {case.name}, none=_ALONE)
            yield (key, str(index)), f"there is no other component `{name}`", hint


def _cycles(_: Reader, service: Plain) -> Iterator[Wrong]:
    edges = {
        name: [after["component"] for after in component["after"] if after["component"] in service["components"]]
        for name, component in service["components"].items()
    }
    done: set[str] = set()
    for start, first in edges.items():
        trail = [start]
        choices = [iter(first)]
        while trail:
            following = next(choices[-1], None)
            if following is None:
                done.add(trail.pop())
                choices.pop()
            elif following in trail[:-1]:
                cycle = " -> ".join([*trail[trail.index(following) :], following])
                yield ("components", trail[-1], "after"), f"`after` forms a cycle: {cycle}", "remove one of them"
            elif following not in done and following != trail[-1]:
                trail.append(following)
                choices.append(iter(edges[following]))


def _barriers(_: Reader, service: Plain) -> Iterator[Wrong]:
    met = {after["barrier"] for component in service["components"].values() for after in component["after"]}
    for name, barrier in service["barriers"].items():
        if name not in met:
            yield ("barriers", name), f"nobody arrives at the barrier `{name}`", f"after: [{{barrier: {name}}}]"
        if barrier["max"] is not None and barrier["max"] < barrier["min"]:
            yield ("barriers", name, "max"), "`max` is below `min`", f"at least {barrier['min']}"


def _known(word: str, known: set[str], *, none: str = "there are none here") -> str:
    close = nearest(word, known)
    if close:
        return f"did you mean `{close}`?"
    return f"there are: {', '.join(sorted(known))}" if known else none


COMPONENT_CHECKS: Final[tuple[Callable[[CheckedComponent], Iterator[Wrong]], ...]] = (
    _program, _partition, _ports, _health, _resources, _delays, _secrets, _artifacts, _files,
    _own_variable, _shares, _jobs, _neighbours,
)  # fmt: skip
SERVICE_CHECKS: Final[tuple[Callable[[Reader, Plain], Iterator[Wrong]], ...]] = (_cycles, _barriers, check_templates)
