"""What is run on a machine that becomes a node, or is one no more, by its own Python and the standard library.

`python3 on_host.py VERB PARAMETERS`, with PARAMETERS in JSON; a token comes on standard input. The last line of its output
is a JSON object: what was found or done, or an `error` with its code, sentence and advice.

Rule 1: each verb may be repeated: what is there is left as it is, and what a failure, or a power cut, has left half done is
    removed: what is whole is on the disk.
Rule 2: nothing is fetched: what is installed was brought, and is what its sum says.
Rule 3: what is made stands in two directories and, with systemd, a unit file for each role; `remove` leaves none of it.
Rule 4: of former programs those are kept from which anything runs: what is begun later may be needed by it.
Rule 5: one verb at a time is at work for a user: who was cut off may still be, and the next one waits for it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

UNITS: Final = Path("/etc/systemd/system")
NODE_UNIT: Final = "dsmt-node@"
MADE: Final = "made.json"
LOST_FOUND: Final = "lost+found"  # it belongs to a file system that is mounted
LAST_LINES: Final = 3
RESTARTED_S: Final = 10.0
"""How long a unit that was restarted may take to have its manager."""
FULL: Final = ("No space left on device", "Errno 28", "Disk quota exceeded", "Errno 122")
BUSY_S: Final = 120.0
"""How long the next one waits for whoever is at work."""
AGAIN_S: Final = 0.1
SYSTEMD_S: Final = 300.0
"""How long systemd may take for one word: it waits for 90 s for what does not end, and kills it then."""


class Installation:
    """A machine, as the parameters have it: `prefix` holds the program, `home` the rest, `units` are the texts by role."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told
        self.turn = -1
        """The descriptor of the lock (rule 5), which what writes here beside us holds, too, when we have been killed."""
        self.prefix, self.home = (Path(told[name]).expanduser() for name in ("prefix", "home"))
        self.program = self.prefix / told["build"]
        self.dsmt = self.program / "bin/dsmt"
        self.runs = self.prefix / "runs"
        """Holds which build runs here, all of it."""
        self.systemd = bool(told["units"]) and os.geteuid() == 0 and Path("/run/systemd/system").is_dir()

    @property
    def nodes(self) -> list[str]:
        """The nodes that are here."""
        return self.names("node")

    def names(self, role: str) -> list[str]:
        """What is here of a role."""
        return sorted(path.parent.name for path in self.home.glob(f"{role}s/*/identity"))

    @property
    def units(self) -> list[tuple[Path, str, list[str]]]:
        """The unit file of each role, what it is to hold, and whom it runs here."""
        texts = [(role, text.replace("/usr/bin/env dsmt", str(self.dsmt))) for role, text in self.told["units"].items()]
        return [
            (UNITS / f"dsmt-{role}@.service", text.replace("/var/lib/dsmt", str(self.home)), self.names(role))
            for role, text in texts
        ]

    def state(self) -> dict[str, Any]:
        """What is here: is the program, which nodes, and is the home, if there is one, of the realm with this root key."""
        file = self.home / "realm.cbor"
        held = file.read_bytes() if file.exists() else None
        return {
            "installed": (self.program / "complete").exists(),
            "nodes": self.nodes,
            "ours": held is None or bytes.fromhex(self.told["root"]) in held,
            "more": any(any(self.home.glob(name)) for name in ("brokers/*/birth", "operator", "root.key")),
            "hostname": os.uname().nodename,
            "systemd": self.systemd,
        }

    def install(self) -> dict[str, Any]:
        """Make an environment with what was brought, of which the sums are right; what runs in an older one stays there."""
        if (self.program / "complete").exists():
            return {}
        wheels = Path(__file__).parent / "wheels"
        for name, digest in self.told["sums"].items():
            if sha256((wheels / name).read_bytes()).hexdigest() != digest:
                raise HostError("host.wheel", f"{name} did not arrive as it was sent", "try again")
        above = {*self.prefix.parents, *self.home.parents}
        made = sorted((str(path) for path in above if not path.exists()), key=len, reverse=True) + self._made()
        try:
            self.prefix.mkdir(parents=True, exist_ok=True)
            self.runs.unlink(missing_ok=True)
            if made:
                _write(self.prefix / MADE, json.dumps(made))
            self._environment(wheels)
            _on_disk(self.program)  # or a power cut leaves a whole program of empty files
            (self.program / "complete").touch()
        except BaseException:
            self._discard(self.program)
            self._forget_prefix(made)
            raise
        return {}

    def _environment(self, wheels: Path) -> None:
        self._discard(self.program)
        run([sys.executable, "-m", "venv", "--without-pip", str(self.program)], keeps=self.turn)
        pip = next(wheels.glob("pip-*.whl"))
        args = ["install", "--no-index", "--no-cache-dir", "--quiet", "--find-links", str(wheels), self.told["requirement"]]
        argv = [str(self.program / "bin/python"), f"{pip}/pip", "--isolated", "--disable-pip-version-check", *args]
        run(argv, keeps=self.turn)

    def join(self) -> dict[str, Any]:
        """Make this machine a node, by the token on standard input; what runs with a key that was revoked `ends` first."""
        if self.nodes and self.told["ends"]:
            self._end("stop")
        argv = [str(self.dsmt), "--home", str(self.home), "join", "-", "--no-start", "--json", "--name", self.told["name"]]
        for key, value in self.told["labels"].items():
            argv += ["--label", f"{key}={value}"]
        told: dict[str, Any] = json.loads(run(argv, given=sys.stdin.readline(), keeps=self.turn))
        return told

    def roles(self, verb: str) -> dict[str, Any]:
        """`request`: make keys for what is to run here besides the node; `accept`: take the certificates of these keys."""
        argv = [str(self.program / "bin/python"), "-I", "-m", "dsmt.operations.local.members.roles", verb, str(self.home)]
        asks = dict(self.told["asks"])
        if self.told.get("brings"):  # what no command line may show
            asks["brought"] = json.loads(sys.stdin.readline())
        told: dict[str, Any] = json.loads(run(argv, given=json.dumps(asks)))
        return told

    def settle(self) -> dict[str, Any]:
        """Have the node that is here take the labels that were typed, and the address that its machine has now."""
        argv = [str(self.program / "bin/python"), "-I", "-m", "dsmt.operations.local.members.settling", str(self.home)]
        told: dict[str, Any] = json.loads(run(argv, given=json.dumps({"labels": self.told["labels"]})))
        if told["changed"]:
            self.runs.unlink(missing_ok=True)  # what runs is begun anew, by whoever comes next if we are cut off
        return told

    def start(self) -> dict[str, Any]:
        """Have what is here run: by systemd, or as `dsmt up --detach` does; what is of another dsmt is begun anew."""
        newer = self.told["again"] and not (self.runs.exists() and self.runs.read_text() == self.told["build"])
        if self.systemd:
            self._start_units(newer=newer)
        else:
            self._run("up", "--detach")
            if newer:
                self._run("upgrade")
        self.runs.write_text(self.told["build"])
        for program in (path.parent for path in self.prefix.glob("*/complete")):
            if program != self.program and not _is_running(program):
                self._discard(program)
        return {"kept": "systemd" if self.systemd else "up"}

    def _start_units(self, *, newer: bool) -> None:
        former = self._managers() if newer else set()
        changed = self._write_units(newer=newer)
        for unit, _, names in self.units:
            again = self.told["certified"] or newer or unit in changed
            if former and unit.stem == NODE_UNIT:  # begun anew below, in its own process
                again = False
            for name in names:
                systemctl("enable", "--quiet", unit.stem + name)
                systemctl("restart" if again else "start", unit.stem + name)
        if former:
            self._run("upgrade")
        if former & self._managers():  # an earlier dsmt cannot do so
            for name in self.nodes:
                systemctl("restart", NODE_UNIT + name)
            deadline = time.monotonic() + RESTARTED_S
            while former & self._managers() and time.monotonic() < deadline:
                time.sleep(0.05)
            self._run("upgrade")  # a unit that is restarted leaves agents alone

    def _write_units(self, *, newer: bool) -> list[Path]:
        """Have systemd know the units of what is here; those that it has not had so."""
        known = {unit: text for unit, text, names in self.units if names}
        changed = [unit for unit, text in known.items() if not unit.exists() or unit.read_text() != text]
        for unit in changed:
            _write(unit, known[unit])
        if changed or newer:  # who wrote them may have been cut off before this
            systemctl("daemon-reload")
        return changed

    def _run(self, *words: str) -> None:
        """Run a command of the dsmt that is installed here, about the home."""
        run([str(self.dsmt), "--home", str(self.home), *words, "--json"])

    def _managers(self) -> set[bytes]:
        """Who manages the nodes that are here, by their records."""
        return {record.read_bytes() for record in self.home.glob("nodes/*/run/container_manager.json")}

    def remove(self) -> dict[str, Any]:
        """End what runs here, with its services, and remove all that was made."""
        nodes = self.nodes
        self._end("disable", "--now")
        for unit, _, _ in self.units if self.systemd else ():
            if unit.exists():
                unit.unlink()
                systemctl("daemon-reload")
                systemctl("reset-failed", f"{unit.stem}*")  # else who ended badly is told for good: the host is degraded
        self._clear(self.home)
        self._forget_prefix(self._made(), all_of_it=True)
        return {"nodes": nodes}

    def _end(self, *verb: str) -> None:
        """End what runs here; systemd, where it is that keeps it, is told by this verb."""
        for unit, _, names in self.units if self.systemd else ():
            for name in names if unit.exists() else ():
                systemctl(*verb, "--quiet", unit.stem + name)
        if (self.home / "realm.cbor").exists():
            found = sorted(self.prefix.glob("*/bin/dsmt"), key=lambda dsmt: (dsmt.parents[1] / "complete").exists())
            if not found:
                raise HostError("host.program", f"{self.prefix} holds no dsmt to stop what runs", "end it, then try again")
            run([str(found[-1]), "--home", str(self.home), "down"])

    def _made(self) -> list[str]:
        """The directories above what is here that were made for it, the deepest first."""
        file = self.prefix / MADE
        told: list[str] = json.loads(file.read_text()) if file.exists() else []
        return told

    def _forget_prefix(self, made: list[str], *, all_of_it: bool = False) -> None:
        """Remove the program's directory, when nothing is left in it or all of it is to go, and what was made for it.

        What was made is known there until the rest has gone: who is killed here is followed by one that knows it, too.
        """
        for program in (one for one in self.prefix.glob("*/") if all_of_it and one.name != LOST_FOUND):
            self._discard(program)
        left = {path.name for path in self.prefix.iterdir()} if self.prefix.exists() else set()
        if all_of_it or left <= {MADE, LOST_FOUND}:
            self._clear(self.prefix)
        for path in made if not self.prefix.exists() else ():
            with suppress(OSError):
                Path(path).rmdir()

    def _clear(self, directory: Path) -> None:
        """Remove a directory; of a mount point, or a link, which others have made, only what is in there."""
        theirs = directory.is_dir() and (directory.is_symlink() or str(directory.resolve()) in _mounted_in(directory))
        for place in [one for one in directory.iterdir() if one.name != LOST_FOUND] if theirs else (directory,):
            self._discard(place)

    @staticmethod
    def _discard(place: Path) -> None:
        if place.is_dir() and not place.is_symlink():
            for mounted in _mounted_in(place):  # it may be anybody's
                raise HostError("host.mounted", f"something is mounted at {mounted}", f"umount {mounted}, then try again")
            (place / "complete").unlink(missing_ok=True)  # first: half of a program is none
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def _mounted_in(directory: Path) -> list[str]:
    """Where something is mounted, at a directory or below it."""
    places = [line.split()[4].replace(r"\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if f"{place}/".startswith(f"{directory.resolve()}/")]


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(text)
        _on_disk(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _on_disk(place: Path) -> None:
    """Have a file, or all that the file system of a directory holds back, be on the disk. Raises OSError."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        if not place.is_dir():
            os.fsync(descriptor)
        elif ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(place))
    finally:
        os.close(descriptor)


def _is_running(program: Path) -> bool:
    """Whether anything runs from a program: its compiled modules are in somebody's memory."""
    mapped = f" {program.resolve()}/"
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # it has ended, or is another user's
            if mapped in maps.read_text():
                return True
    return False


class HostError(Exception):
    """What went wrong here."""

    def __init__(self, code: str, message: str, advice: str) -> None:
        super().__init__(message)
        self.told = {"code": code, "message": message, "next": advice}


def turn() -> int:
    """The descriptor of the lock of who works here, once it is ours (rule 5). Raises `HostError`, OSError."""
    home = pwd.getpwuid(os.geteuid()).pw_dir
    descriptor = os.open(home if Path(home).is_dir() else "/", os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise HostError("host.busy", "another dsmt is at work there, and does not end", "try again") from None
            time.sleep(AGAIN_S)
        else:
            return descriptor


def systemctl(*words: str) -> None:
    """Have systemd do something. Raises `HostError`, also where it has not after `SYSTEMD_S`: it goes on with it."""
    try:
        run(["systemctl", *words], limit_s=SYSTEMD_S)
    except subprocess.TimeoutExpired:
        said = f"systemctl {' '.join(words)} has not ended after {SYSTEMD_S:g} s"
        raise HostError("host.command", said, "systemctl list-jobs there shows what it waits for; then try again") from None


def run(argv: list[str], *, given: str = "", keeps: int = -1, limit_s: float | None = None) -> str:
    """Run a command, which has the descriptor `keeps`, to its end; what it printed.

    Raises `HostError` with what it said, and `TimeoutExpired` where it lasts for longer than `limit_s`.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "DSMT_"))}
    fds = () if keeps < 0 else (keeps,)
    done = subprocess.run(
        argv, input=given, capture_output=True, text=True, check=False, env=clean, pass_fds=fds, timeout=limit_s
    )
    if done.returncode == 0:
        return done.stdout
    text = (done.stderr or done.stdout).strip()
    if any(word in text for word in FULL):
        raise _full(argv[0])
    with suppress(ValueError, KeyError, TypeError):
        error = json.loads(text.splitlines()[-1])["error"]
        raise HostError(error["code"], error["message"], error["next"])
    said = " / ".join(text.splitlines()[-LAST_LINES:]) or f"it ended with {done.returncode}"
    raise HostError("host.command", f"{Path(argv[0]).name} has failed: {said}", "see what is wrong there, and try again")


def _full(where: str) -> HostError:
    return HostError("host.full", f"the disk is full: {where}", "free 200 MB there, and try again")


VERBS: Final[Mapping[str, Callable[[Installation], dict[str, Any]]]] = {
    "state": Installation.state,
    "install": Installation.install,
    "join": Installation.join,
    "request": lambda here: here.roles("request"),
    "accept": lambda here: here.roles("accept"),
    "settle": Installation.settle,
    "start": Installation.start,
    "remove": Installation.remove,
}


def main(verb: str, parameters: str) -> int:
    """Do what a verb says, and tell it."""
    os.umask(0o022)
    told: dict[str, Any]
    try:
        here = Installation(json.loads(parameters))
        here.turn = turn()
        try:
            told = VERBS[verb](here)
        finally:
            os.close(here.turn)
    except HostError as error:
        told = {"error": error.told}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = str(error.filename or "")
        said = HostError("host.failed", f"{where}: {error.strerror}".lower(), "see what is wrong there, and try again")
        told = {"error": (_full(where) if full else said).told}
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if "error" in told else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
