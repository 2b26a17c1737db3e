"""Applying: service files read, staged into the depot and said as spec facts.

Rule 1: every file is read and checked before anything is done; all mistakes are told at once.
Rule 2: what this version does not act on is refused, never ignored.
Rule 3: a path becomes content in the depot, named by its sha256, before the spec that needs it is said.
Rule 4: a spec that says what stands already makes no new revision.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from dsmt.controllers.left_data import left_by
from dsmt.errors import FailedError, InputError, NotFoundError
from dsmt.event.kinds.service import SpecFact
from dsmt.event.payload import MAX_BODY_BYTES, canonical
from dsmt.operations.read.instances import instances, is_ready
from dsmt.operations.read.planning import ApplyPlan, Difference, base_of, check_plan, difference, left_data, plan, plan_id
from dsmt.operations.read.revisions import following, refused
from dsmt.operations.read.sight import Sight, look
from dsmt.operations.read.waiting import Applied
from dsmt.operations.read.whatif import WhatIf, what_if
from dsmt.operations.words.targets import Target, no_service
from dsmt.operations.write.brokers import announced
from dsmt.operations.write.nodesets import nodes_of, unknown_names
from dsmt.operations.write.writing import anew, bury, follow, say
from dsmt.ports.bus import Bus, BusReader, Draft
from dsmt.spec.mistakes import Mistake, SpecErrors
from dsmt.spec.parsing import Places, read
from dsmt.spec.plain import from_plain, to_plain
from dsmt.spec.records import Artifact, ComponentSpec, ServiceSpec, TextFile
from dsmt.spec.supported import unsupported
from dsmt.spec.yamltree import LARGEST_TEXT
from dsmt.view import View

MOST_PUTS: Final = 8
"""How often an artifact is put from its beginning, for the broker to which it was put is gone."""
BUSY_S: Final = 20.0
AGAIN_S: Final = 0.2
_CHUNK: Final = 256 * 1024
MAX_TEXT: Final = 16 * 1024
"""A small file travels in the spec itself, which must fit into an event."""
MOST_BYTES: Final = MAX_BODY_BYTES - 2048
"""How large a spec may be: one event says it, with who applied it and why, and what slots may go back to (A18)."""
SAID_AT_ONCE: Final = 256
"""Specs that are said before the answers to them are awaited."""
STDIN: Final = "-"


class Declared(msgspec.Struct, frozen=True):
    """One service of a file: its spec, where its paths begin, and what may be worth a look."""

    spec: ServiceSpec
    directory: Path
    warnings: tuple[str, ...]
    file: str = ""
    places: Places = msgspec.field(default_factory=lambda: Places({}, {}))


def read_files(names: Iterable[str]) -> list[Declared]:
    """Read service files, directories of them, and `-`. Raises `SpecErrors` with everything that is wrong (rule 1)."""
    declared: list[Declared] = []
    mistakes: list[Mistake] = []
    places: dict[str, str] = {}
    for name in names:
        for file, text in _texts(name):
            directory = Path.cwd() if file == STDIN else Path(file).parent
            try:
                parsed = read(text, file=file)
            except SpecErrors as error:
                mistakes.extend(error.mistakes)
                continue
            warnings = tuple(f"{w.file}:{w.line}: {w.message}: {w.suggestion}" for w in parsed.warnings)
            for spec, of_spec in zip(parsed.specs, parsed.places, strict=True):
                mistakes += [
                    Mistake(file, *of_spec.of(one.path, key=one.key), str(one), one.advice) for one in unsupported(spec)
                ]
                mistakes += _missing(spec, of_spec, directory, file)
                declared.append(Declared(spec, directory, warnings, file, of_spec))
                line, column = of_spec.of(("service",))
                if spec.service in places:
                    also = f"keep one; the other is at {places[spec.service]}"
                    mistakes.append(Mistake(file, line, column, f"the service `{spec.service}` is declared twice", also))
                places[spec.service] = f"{file}:{line}"
    if mistakes:
        raise SpecErrors(mistakes)
    return declared


def _beginning(path: Path) -> bytes:
    """A file up to where it is too large: a device may have no end."""
    with path.open("rb") as file:
        return file.read(LARGEST_TEXT + 1)


def _texts(name: str) -> list[tuple[str, bytes]]:
    if name == STDIN:
        return [(STDIN, sys.stdin.buffer.read(LARGEST_TEXT + 1))]
    if not name:  # a variable of a script that is not set, and never all that is in this directory
        raise InputError("file.none", f"{name!r} names no file", next="name a service file, or . for all that are here")
    path = Path(name)
    try:
        if path.is_dir():
            files = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml"))
            if not files:
                raise InputError(
                    "file.none", f"there is no service file in {name}", next="service files end in .yaml or .yml"
                )
            return [(str(one), _beginning(one)) for one in files]
        return [(name, _beginning(path))]
    except FileNotFoundError as error:
        raise NotFoundError("file.missing", f"there is no file {name}", next="dsmt example prints one") from error
    except OSError as error:
        said = f"{name} cannot be read: {error.strerror}"
        raise InputError("file.unreadable", said, next="dsmt example prints one") from error


def _missing(spec: ServiceSpec, places: Places, directory: Path, file: str) -> list[Mistake]:
    """Paths that lead nowhere."""
    found = []
    for name, component in spec.components.items():
        artifacts, files = enumerate(component.artifacts), enumerate(component.files)
        paths = [(one.url, ("artifact", str(n), "url")) for n, one in artifacts if one.origin == "path"]
        paths += [(one.source, ("files", str(n), "from")) for n, one in files if one.source is not None]
        for path, key in paths:
            wrong, advice = _no_file(directory / path)
            if wrong:
                line, column = places.of(("components", name, *key))
                found.append(Mistake(file, line, column, f"components.{name}.{key[0]}.{key[2]}: {wrong}", advice))
    return found


def _no_file(path: Path) -> tuple[str, str]:
    """What is wrong with a path that is to be a file, and what helps; nothing of one that is."""
    try:
        if path.is_file():
            return "", ""
        if path.is_dir():
            return f"{path} is a directory, and a file is expected", "pack what is in it: tar czf FILE -C DIRECTORY ."
        if path.exists():
            return f"{path} is not a regular file", "name another file"
    except OSError:  # a name that is too long, a directory that is closed to us
        pass
    return f"there is no file {path}", "a path is relative to the service file"


async def stage(declared: Declared, bus: Bus | None) -> ServiceSpec:
    """The spec with its paths replaced by content (rule 3); with no bus nothing is put anywhere, as for a plan.

    Raises `InputError` for one that no event can hold, and for files that are not as it says.
    """
    components = {}
    for name, component in declared.spec.components.items():
        artifacts = [await _artifact(artifact, declared.directory, bus) for artifact in component.artifacts]
        components[name] = msgspec.structs.replace(
            component, artifacts=tuple(artifacts), files=tuple(_text(one, declared.directory) for one in component.files)
        )
    spec = msgspec.structs.replace(declared.spec, components=components)
    size = len(canonical(to_plain(spec)))
    if size > MOST_BYTES:
        said = f"{spec.service} takes {size} bytes with its texts, and {MOST_BYTES} are the limit; nothing was done"
        where = f"{declared.file}: " if declared.file else ""
        raise InputError("spec.too_big", where + said, next="put large texts into an artifact")
    return spec


async def _artifact(artifact: Artifact, directory: Path, bus: Bus | None) -> Artifact:
    if artifact.origin != "path":
        return artifact
    path = directory / artifact.url
    digest = _digest(path)
    if artifact.sha256 is not None and artifact.sha256 != digest.hex():
        raise InputError(
            "fetch.mismatch",
            f"{path} has sha256 {digest.hex()}, declared {artifact.sha256}; not used",
            next="find out who changed it",
        )
    if bus is not None:
        await _put(bus, path, digest)
    return msgspec.structs.replace(artifact, url=f"depot:{path.name}", sha256=digest.hex())


async def _put(bus: Bus, path: Path, digest: bytes) -> None:
    """Put a file into the depot: from its beginning at each broker to which the link moves, and while one is busy with it.

    Raises `FailedError`.
    """
    loop, moves = asyncio.get_running_loop(), 0
    until = loop.time() + BUSY_S
    while True:
        try:
            return await bus.put_blob(_chunks(path), digest)
        except FailedError as error:
            if error.code == "depot.mismatch":
                said = f"{path} changed while it was put into the depot; its service was not applied"
                raise FailedError(error.code, said, next="apply it again when nobody writes to that file") from error
            moves += error.code == "depot.moved"
            if error.code == "depot.busy" and loop.time() < until:
                await asyncio.sleep(AGAIN_S)
            elif error.code != "depot.moved" or moves == MOST_PUTS:
                raise


def _digest(path: Path) -> bytes:
    whole = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            whole.update(chunk)
    return whole.digest()


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _text(file: TextFile, directory: Path) -> TextFile:
    if file.source is None:
        return file
    path = directory / file.source
    try:
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("file.unreadable", f"{path} cannot be read as text: {error}", next="`files` are text") from error
    if len(content) > MAX_TEXT:
        raise InputError("file.too_big", f"{path} has over {MAX_TEXT} characters", next="make it an artifact")
    return msgspec.structs.replace(file, source=None, content=content)


def _services(declared: Iterable[Declared]) -> list[str]:
    return [one.spec.service for one in declared]


async def plan_all(bus: BusReader, declared: list[Declared], *, by: str) -> list[ApplyPlan]:
    """The plan of each service."""
    specs = [await stage(one, None) for one in declared]
    sight = await look(bus)
    return _plans(sight, declared, specs, by=by, trial=sight.view.copy())


def _plans(sight: Sight, declared: list[Declared], specs: list[ServiceSpec], *, by: str, trial: View) -> list[ApplyPlan]:
    """The plans of services, made one after the other on one copy of the view."""
    return [
        plan(sight, spec, by=by, warnings=_warnings(sight, one), trial=trial)
        for spec, one in zip(specs, declared, strict=True)
    ]


async def foresee(bus: BusReader, declared: list[Declared], *, kill: Sequence[str], drain: Sequence[str], by: str) -> WhatIf:
    """What would become of the realm if services were applied, nodes died, and others were drained, all at once.

    `kill` and `drain` are nodes, named sets or expressions. Raises `NotFoundError`, `NodeSetError`, `InputError`.
    """
    specs = [await stage(one, None) for one in declared]
    sight = await look(bus)
    trial = sight.view.copy()
    plans = _plans(sight, declared, specs, by=by, trial=trial)
    return what_if(sight, plans, trial, kill=nodes_of(sight, kill), drain=nodes_of(sight, drain), by=by)


def _warnings(sight: Sight, declared: Declared) -> list[str]:
    """What may not be meant: in the file, and as the realm is now."""
    told = list(declared.warnings)
    for component, said in unknown_names(sight, declared.spec):
        line, _ = declared.places.of(("components", component, "nodes"))
        told.append(f"{declared.file}:{line}: {said}" if declared.file else said)
    return told


def _before(sight: Sight, declared: Declared, spec: ServiceSpec) -> list[str]:
    """The same, and what is so of a service that was removed before."""
    return [*_warnings(sight, declared), *left_data(sight, spec)]


async def diff_all(bus: BusReader, declared: list[Declared]) -> list[Difference]:
    """What differs between each service and what is applied."""
    specs = [await stage(one, None) for one in declared]
    sight = await look(bus, of=_services(declared))
    return [difference(sight, spec) for spec in specs]


async def apply(bus: Bus, declared: list[Declared], *, by: str, reason: str, plans: tuple[str, ...] = ()) -> list[Applied]:
    """Say every spec, durably acknowledged; with `plans`, exactly those. Raises `RefusedError` (`plan.changed`)."""
    sight = await look(bus, of=_services(declared))
    dry = [await stage(one, None) for one in declared]
    _check_plans(sight.view, dry, plans)
    staged = [await stage(one, bus) for one in declared]
    _check_plans(sight.view, staged, plans)  # a file may be another by now
    done, drafts = [], []
    for one, spec in zip(declared, staged, strict=True):
        said, own_drafts = _to_say(sight, spec, by=by, reason=reason, planned=bool(plans))
        done.append(_warned(said, _before(sight, one, spec)))
        drafts += own_drafts
    copies = [(await say(bus, drafts[n : n + SAID_AT_ONCE])).copies for n in range(0, len(drafts), SAID_AT_ONCE)]
    alone = await _alone(bus) if min(copies, default=2) == 1 else []
    return [one if one.outcome == "unchanged" else _warned(one, alone) for one in done]


def _check_plans(view: View, specs: Iterable[ServiceSpec], plans: Sequence[str]) -> None:
    for spec in specs if plans else ():
        own = plan_id(view, spec)
        check_plan(view, spec, own if own in plans else plans[0])


def _warned(applied: Applied, more: list[str]) -> Applied:
    return msgspec.structs.replace(applied, warnings=[*applied.warnings, *more])


async def _alone(bus: Bus) -> list[str]:
    """A warning, where the one broker that has stored what was said is not the only one of the realm."""
    every = len(await announced(bus))
    if every < 2:
        return []
    said = f"only {bus.broker} of {every} brokers has stored it so far; until others read it, it is lost with its disk"
    return [f"{said}; next: dsmt brokers"]


def _to_say(sight: Sight, spec: ServiceSpec, *, by: str, reason: str, planned: bool) -> tuple[Applied, list[Draft]]:
    """What is to be told of a spec that is applied, and what says it; nothing where it stands already."""
    base = base_of(sight.view, spec.service)
    identity = plan_id(sight.view, spec) if planned else None
    entry = sight.view.services.get(spec.service)
    fact = SpecFact(spec=to_plain(spec), by=by, reason=reason)
    if entry is not None and entry.spec is not None and not entry.spec.record.removed:
        before = entry.spec.record
        if before.spec == fact.spec and refused(entry) is None:  # what was refused is tried again
            return unchanged(sight, spec.service, base, plan=identity), []
    revision, drafts = _drafts_of(sight, fact, spec.service)
    return said_now(spec, revision, plan=identity), drafts


def said_now(spec: ServiceSpec, revision: int, *, plan: str | None = None) -> Applied:
    """What to say of a spec that was applied just now: nothing of it is ready yet."""
    wanted = sum(component.instances or 0 for component in spec.components.values())
    return Applied(service=spec.service, revision=revision, plan=plan, outcome="applied", ready=0, wanted=wanted)


def unchanged(sight: Sight, service: str, revision: int, *, plan: str | None = None) -> Applied:
    """What to say of a service that was left unchanged: how many of its instances are ready."""
    free = [row for row in instances(sight, Target(service)) if row.held is None]
    ready = sum(is_ready(sight, row) for row in free)
    said = Applied(service=service, revision=revision, plan=plan, outcome="unchanged", ready=ready, wanted=len(free))
    return _warned(said, sight.unheard)


async def say_spec(bus: Bus, sight: Sight, fact: SpecFact, service: str) -> int:
    """Say a spec after the one that stands; its revision. Raises `FailedError` when another was first."""
    revision, drafts = _drafts_of(sight, fact, service)
    await say(bus, drafts)
    return revision


def _drafts_of(sight: Sight, fact: SpecFact, service: str) -> tuple[int, list[Draft]]:
    """What says a spec after the one that stands, and its revision.

    A service that was removed is made anew, in the next epoch: what is left of the removal must not end it (rule A6).
    It comes after what slots implement, too: that may have been said by a key that was revoked since (J3).
    Raises `BadSpecEventError` for one that nobody could read: its service would be none any more.
    """
    from_plain(fact.spec)
    topic = f"service/{service}/spec"
    entry = sight.view.services.get(service)
    before = None if entry is None else entry.spec
    if before is not None and before.record.removed and not fact.removed:
        data = left_by(sight.fleet, service)
        grave = bury(sight.view, f"service/{service}", by=before.record.by, reason=before.record.reason, data=data)
        return 1, [grave, anew(sight.view, topic, fact, subject=service)]
    placed = () if entry is None else (slot.fact.record.revision for slot in entry.slots.values() if slot.fact is not None)
    draft = follow(sight.view, topic, following(entry, fact), subject=service, above=max(placed, default=0))
    return draft.version or 1, [draft]


def current(sight: Sight, service: str) -> tuple[ServiceSpec, SpecFact]:
    """A service's spec as it stands. Raises `NotFoundError`."""
    entry = sight.view.services.get(service)
    if entry is None or entry.spec is None or entry.parsed is None or entry.spec.record.removed:
        raise no_service(sight.view, service)
    return entry.parsed, entry.spec.record


def changed(spec: ServiceSpec, component: str, **about: object) -> ServiceSpec:
    """A spec with one component changed. Raises `NotFoundError`."""
    known = spec.components.get(component)
    if known is None:
        named = ", ".join(sorted(spec.components))
        raise NotFoundError("component.unknown", f"{spec.service} has no component {component}", next=f"it has {named}")
    one: ComponentSpec = msgspec.structs.replace(known, **about)
    return msgspec.structs.replace(spec, components={**spec.components, component: one})
