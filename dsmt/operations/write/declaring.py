"""Declaring: service files read, and what they name staged into the depot.

Rule 1: every file is read and checked before anything is done; all mistakes are told at once.
Rule 2: what this version does not act on is refused, never ignored.
Rule 3: a path becomes content in the depot, named by its sha256, before the spec that needs it is said.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import FailedError, InputError, NotFoundError
from dsmt.event.payload import MAX_BODY_BYTES, canonical
from dsmt.operations.read.realm.patience import told_if_slow
from dsmt.ports.bus import Bus
from dsmt.spec.mistakes import Mistake, SpecErrors
from dsmt.spec.parsing import Places, read_as_far
from dsmt.spec.plain import to_plain
from dsmt.spec.records import Artifact, ServiceSpec, TextFile
from dsmt.spec.supported import unsupported
from dsmt.spec.yamltree import LARGEST_TEXT

MOST_PUTS: Final = 8
"""How often an artifact is put from its beginning, for the broker to which it was put is gone."""
BUSY_S: Final = 20.0
AGAIN_S: Final = 0.2
_CHUNK: Final = 256 * 1024
MAX_TEXT: Final = 16 * 1024
"""A small file travels in the spec itself, which must fit into an event."""
_MOST_RAW: Final = 4 * MAX_TEXT
MOST_BYTES: Final = MAX_BODY_BYTES - 2048
"""How large a spec may be: one event says it, with who applied it and why, and what slots may go back to (A18)."""
STDIN: Final = "-"
_LOOK: Final = "check its owner and mode"


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
            parsed, wrong = read_as_far(text, file=file)
            mistakes += wrong
            warnings = tuple(f"{w.file}:{w.line}: {w.message}: {w.suggestion}" for w in parsed.warnings)
            for spec, of_spec in zip(parsed.specs, parsed.places, strict=True):
                more = [*_unbuilt(spec, of_spec, file), *_missing(spec, of_spec, directory, file)]
                declared.append(Declared(spec, directory, warnings, file, of_spec))
                line, column = of_spec.of(("service",))
                if spec.service in places:
                    also = f"keep one; the other is at {places[spec.service]}"
                    more.append(Mistake(file, line, column, f"the service `{spec.service}` is declared twice", also))
                places[spec.service] = f"{file}:{line}"
                told = {(one.line, one.column) for one in wrong}
                mistakes += [one for one in more if (one.line, one.column) not in told]
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
            return [(str(one), _one_of(one)) for one in files]
        return [(name, _beginning(path))]
    except FileNotFoundError as error:
        raise NotFoundError("file.missing", f"there is no file {name}", next="dsmt example prints one") from error
    except OSError as error:
        raise _unreadable(name, error) from error


def _one_of(path: Path) -> bytes:
    """One file of a directory: what is wrong with it is told of it, and not of the directory."""
    try:
        return _beginning(path)
    except FileNotFoundError as error:
        said = f"{path} is a link to {path.readlink()}, which is not there" if path.is_symlink() else f"{path} is gone"
        raise InputError("file.unreadable", said, next="remove it, or name the files one by one") from error
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _unreadable(name: str, error: OSError) -> InputError:
    advice = _LOOK if isinstance(error, PermissionError) else "name another file"
    return InputError("file.unreadable", f"{name} cannot be read: {error.strerror or error}", next=advice)


def _unbuilt(spec: ServiceSpec, places: Places, file: str) -> list[Mistake]:
    """What this version does not act on (rule 2), but for keys of which another mistake has told so."""
    found = [one for one in unsupported(spec) if one.path not in places.unbuilt]
    return [Mistake(file, *places.of(one.path, key=one.key), str(one), one.advice) for one in found]


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
            return ("", "") if os.access(path, os.R_OK) else (f"{path} cannot be read: Permission denied", _LOOK)
        if path.is_dir():
            return f"{path} is a directory, and a file is expected", "pack what is in it: tar czf FILE -C DIRECTORY ."
        if path.exists():
            return f"{path} is not a regular file", "name another file"
    except OSError:  # a name that is too long, a directory that is closed to us
        pass
    if "~" in path.parts:
        return f"there is no file {path}", "`~` is no home directory here: write the whole path"
    return f"there is no file {path}", "a path is relative to the service file"


async def stage(declared: Declared, bus: Bus | None) -> ServiceSpec:
    """The spec with its paths replaced by content (rule 3); with no bus nothing is put anywhere, as for a plan.

    Raises `InputError` for one that no event can hold, and for files that are not as it says.
    """
    components = {}
    for name, component in declared.spec.components.items():
        artifacts = []
        for n, artifact in enumerate(component.artifacts):
            with _in_place(declared, name, "artifact", n, "sha256"):
                artifacts.append(await _artifact(artifact, declared.directory, bus))
        texts = []
        for n, text in enumerate(component.files):
            with _in_place(declared, name, "files", n, "from"):
                texts.append(_text(text, declared.directory))
        components[name] = msgspec.structs.replace(component, artifacts=tuple(artifacts), files=tuple(texts))
    spec = msgspec.structs.replace(declared.spec, components=components)
    size = len(canonical(to_plain(spec)))
    if size > MOST_BYTES:
        said = f"{spec.service} takes {size} bytes with its texts, and {MOST_BYTES} are the limit; nothing was done"
        where = f"{declared.file}: " if declared.file else ""
        raise InputError("spec.too_big", where + said, next="put large texts into an artifact")
    return spec


@contextmanager
def _in_place(declared: Declared, component: str, key: str, n: int, inner: str) -> Iterator[None]:
    """Tell what is wrong with a file with the place in the service file that names it."""
    try:
        yield
    except InputError as error:
        if not declared.file:
            raise
        line, column = declared.places.of(("components", component, key, str(n), inner))
        where = f"{declared.file}:{line}:{column}: components.{component}.{key}.{inner}"
        raise InputError(error.code, f"{where}: {error.message}", next=error.next) from error


async def _artifact(artifact: Artifact, directory: Path, bus: Bus | None) -> Artifact:
    if artifact.origin != "path":
        return artifact
    path = directory / artifact.url
    digest = _digest(path)
    if artifact.sha256 is not None and artifact.sha256 != digest.hex():
        raise InputError(
            "fetch.mismatch",
            f"{path} has sha256 {digest.hex()}, declared {artifact.sha256}; not used",
            next="correct `sha256`, or find out who changed the file",
        )
    if bus is not None:
        with told_if_slow(f"the depot, which takes {path.name}"):
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
        with path.open("rb") as opened:
            raw = opened.read(_MOST_RAW + 1)
        content = raw.decode() if len(raw) <= _MOST_RAW else None
    except OSError as error:
        raise _unreadable(str(path), error) from error
    except UnicodeDecodeError as error:
        raise InputError("file.unreadable", f"{path} is not text in UTF-8", next="make it an artifact") from error
    if content is None or len(content) > MAX_TEXT:
        raise InputError("file.too_big", f"{path} has over {MAX_TEXT} characters", next="make it an artifact")
    return msgspec.structs.replace(file, source=None, content=content)
