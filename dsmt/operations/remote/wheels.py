"""Wheels: what is brought to a host, so that it fetches nothing: dsmt's own and those of all it needs, with their sums.

Rule 1: dsmt's own is made of what runs here, so that a host has the very same code; it needs no network and no tools.
Rule 2: the others are collected by pip, for the host's Python, machine and C library, and kept for the next host; or they
    are taken from a directory that an operator names, where there is no network. Those are kept, too, once a host has them.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import shlex
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from dsmt.errors import FailedError, InputError
from dsmt.system.files import sync_file_system, write_atomically
from dsmt.version import __version__

OWN: Final = f"dsmt-{__version__}-py3-none-any.whl"
OLDEST_GLIBC: Final = 17
"""Of which wheels are taken: 2.17 and all after it, up to the host's."""
UNITS: Final = ("broker", "controller", "node")
_PACKAGE: Final = Path(__file__).parents[2]
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: dsmt\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_SCRIPTS: Final = "[console_scripts]\ndsmt = dsmt.__main__:main\n"
_WHEN: Final = (1980, 1, 1, 0, 0, 0)


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's Python runs on: its version, as (3, 11), its machine, as x86_64, and its C library."""

    version: tuple[int, int]
    machine: str
    libc: str
    libc_version: str

    def __str__(self) -> str:
        major, minor = self.version
        libc = f"{self.libc} {self.libc_version}" if self.libc else "an unknown C library"
        return f"Python {major}.{minor} on {self.machine} with {libc}"

    @property
    def tags(self) -> list[str]:
        """The platforms of wheels that run there, the newest first."""
        if self.libc != "glibc":
            return [f"musllinux_1_{minor}_{self.machine}" for minor in (2, 1, 0)]
        newest = int(self.libc_version.split(".")[1])
        found = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, OLDEST_GLIBC - 1, -1)]
        return [*found, f"manylinux2014_{self.machine}"]


class Wheels(msgspec.Struct, frozen=True, kw_only=True):
    """What is brought: files with their sums, and a name for all of them."""

    files: dict[str, str]
    """By path here: sha256."""

    @property
    def sums(self) -> dict[str, str]:
        """By name."""
        return {Path(path).name: digest for path, digest in self.files.items()}

    @property
    def build(self) -> str:
        """A name that differs whenever anything does."""
        told = "".join(f"{name} {digest}\n" for name, digest in sorted(self.sums.items()))
        return f"{__version__}-{sha256(told.encode()).hexdigest()[:12]}"


def unit_texts() -> dict[str, str]:
    """The systemd units by what they run: of this installation, or of the checkout that runs."""
    for place in (_PACKAGE / "deploy", _PACKAGE.parent / "deploy"):
        files = {role: place / "systemd" / f"dsmt-{role}@.service" for role in UNITS}
        if all(file.exists() for file in files.values()):
            return {role: file.read_text() for role, file in files.items()}
    raise FailedError("wheels.unit", "this dsmt was installed without its units", next="install it again")


def own_wheel() -> bytes:
    """The wheel of what runs here (rule 1); the same code gives the same bytes."""
    about = f"dsmt-{__version__}.dist-info"
    files = dict(_own_files())
    files[f"{about}/METADATA"] = (distribution("dsmt").read_text("METADATA") or "").encode()
    files[f"{about}/WHEEL"] = _WHEEL.encode()
    files[f"{about}/entry_points.txt"] = _SCRIPTS.encode()
    record = [f"{name},sha256={_sum(content)},{len(content)}\n" for name, content in files.items()]
    files[f"{about}/RECORD"] = "".join([*record, f"{about}/RECORD,,\n"]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return packed.getvalue()


def _own_files() -> Iterator[tuple[str, bytes]]:
    for path in sorted(_PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield f"dsmt/{path.relative_to(_PACKAGE)}", path.read_bytes()
    for role, text in unit_texts().items():
        yield f"dsmt/deploy/systemd/dsmt-{role}@.service", text.encode()


def _sum(content: bytes) -> str:
    return base64.urlsafe_b64encode(sha256(content).digest()).decode().rstrip("=")


def cache_directory() -> Path:
    """Where collected wheels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dsmt" / "wheels"


async def collected(platform: Platform, given: Path | None = None, *, what: str = "dsmt") -> Wheels:
    """All wheels for a platform of `what` (PEP 508). Raises `FailedError`, `InputError` for a directory that has none."""
    own = own_wheel()
    directory = (given or _kept(platform, what)).absolute()
    mine = cache_directory() / OWN  # another dsmt may put its own there; then the sums are not right, and it is tried again
    mine.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(str(mine), own, durable=False)
    if given is None and not directory.exists():
        await _download(platform, own, what.removeprefix("dsmt"), directory)
    found = sorted(path for path in directory.glob("*.whl") if path.name != OWN)
    if not any(path.name.startswith("pip-") for path in found):
        raise _missing(directory, what, mine)
    return Wheels(files={str(path): sha256(path.read_bytes()).hexdigest() for path in (mine, *found)})


def _kept(platform: Platform, what: str) -> Path:
    """Where those for a platform are kept; what dsmt needs may be other wheels in its next version."""
    needs = sorted(distribution("dsmt").requires or ())
    key = sha256(repr((what, needs, platform)).encode()).hexdigest()[:16]
    return cache_directory() / f"{platform.version[0]}.{platform.version[1]}-{platform.machine}-{key}"


def keep(platform: Platform, wheels: Wheels, *, what: str) -> None:
    """Keep wheels that a host has installed, in the place of what was kept (rule 2); a disk that takes none keeps none."""
    directory = _kept(platform, what).absolute()
    with suppress(OSError), TemporaryDirectory(dir=directory.parent, prefix=".") as beside:
        fresh = Path(beside) / "wheels"
        fresh.mkdir()
        for path in map(Path, wheels.files):
            if path.name != OWN:
                copyfile(path, fresh / path.name)
        sync_file_system(beside)
        if directory.exists():
            directory.rename(Path(beside) / "former")
        fresh.rename(directory)


def _missing(directory: Path, what: str, mine: Path) -> InputError:
    """What fills a directory is named by the file that is made here: no index need know of this dsmt, or of this version."""
    said = f"{directory} does not hold the wheels that {what} needs, pip's own among them"
    command = shlex.join(["pip", "download", "--dest", str(directory), f"{mine}{what.removeprefix('dsmt')}", "pip"])
    return InputError("wheels.missing", said, next=f"{command}, on a machine like the host (bring it that wheel of dsmt)")


async def _download(platform: Platform, own: bytes, extra: str, directory: Path) -> None:
    """Have pip collect what dsmt needs (rule 2); the directory is there when all of it is in it."""
    major, minor = platform.version
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    argv += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", f"{major}.{minor}"]
    for tag in platform.tags:
        argv += ["--platform", tag]
    with TemporaryDirectory(dir=directory.parent, prefix=".") as beside:
        fresh, pipe, mine = Path(beside) / "wheels", asyncio.subprocess.PIPE, Path(beside) / OWN
        mine.write_bytes(own)
        argv += ["--dest", str(fresh), f"{mine}{extra}", "pip"]
        process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            raise _not_collected(platform, said.decode(errors="replace"))
        await asyncio.to_thread(sync_file_system, beside)  # or a power cut leaves empty files, taken for wheels ever after
        with suppress(OSError):  # somebody else has collected the same meanwhile
            fresh.rename(directory)


def _not_collected(platform: Platform, said: str) -> FailedError:
    lines = said.strip().splitlines()
    if any("Retrying" in line for line in lines):
        why = "the package index is not reached"
    else:
        why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "pip has failed")
    advice = "see that this machine reaches its package index; or bring them with --wheels DIR"
    return FailedError("wheels.collect", f"no wheels for {platform}: {why.removeprefix('ERROR: ')}", next=advice)
