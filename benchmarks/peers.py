"""Peers: where each other program comes from; who cannot be had is told in the row, never replaced by a number."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.sizes import is_tiny

APT_S = 300
NPM_S = 300


class UnavailableError(Exception):
    """A peer, or what a benchmark needs, cannot be had here; the text says why."""


def from_python(program: str) -> str:
    """A peer of the extra `bench`, which pip puts beside the interpreter."""
    _check_wanted(program)
    return beside_python(program)


def beside_python(program: str) -> str:
    """A program of a package, which pip puts beside the interpreter."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise UnavailableError(f"no {program}: pip install 'dsmt[bench]'")
    return found


def _check_wanted(program: str) -> None:
    if is_tiny:
        raise UnavailableError(f"{program} is left out: no peer is asked whether a figure runs")


def from_debian(program: str, package: str) -> str:
    """A program of a Debian package, installed when it is missing and we may."""
    _check_wanted(program)
    found = shutil.which(program)
    if found is not None:
        return found
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise UnavailableError(f"no {program}: apt-get install {package}")
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(command, environment=environment, timeout_s=APT_S)
    found = shutil.which(program)
    if found is None:
        raise UnavailableError(f"{package} has no {program}")
    return found


def unpacked_from_debian(program: str, package: str, directory: Path) -> str:
    """A program of a Debian package that would start a daemon when installed: it is only unpacked, into a directory."""
    _check_wanted(program)
    found = shutil.which(program)
    if found is not None:
        return found
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"no {program}, and no apt-get")
    directory.mkdir(parents=True)
    # apt's own unprivileged downloader may not enter our directory
    _run(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], cwd=directory, timeout_s=APT_S)
    for archive in directory.glob("*.deb"):
        _run(["dpkg-deb", "-x", archive.name, "."], cwd=directory, timeout_s=60)
    for path in (directory / "usr" / "bin" / program, directory / "usr" / "sbin" / program):
        if path.exists():
            return str(path)
    raise UnavailableError(f"{package} has no {program}")


def from_npm(program: str, directory: Path) -> str:
    """A program of the npm package of the same name, installed into a directory."""
    _check_wanted(program)
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError(f"no npm for {program}")
    directory.mkdir(parents=True)
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    _run([npm, "install", "--prefix", str(directory), *quiet, program], timeout_s=NPM_S)
    return str(directory / "node_modules" / ".bin" / program)


def _run(
    command: list[str], *, timeout_s: float, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> None:
    try:
        subprocess.run(command, env=environment, cwd=cwd, capture_output=True, check=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{' '.join(command[:2])}: no end after {timeout_s:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UnavailableError(f"{' '.join(command[:2])} failed: {lines[-1]}") from error
    except OSError as error:
        raise UnavailableError(str(error)) from error
