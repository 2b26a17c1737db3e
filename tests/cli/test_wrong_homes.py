"""Homes that are spoiled, closed or none: each is told in its sentence with its exit code."""

# ruff: noqa: E501 - a row of a table stays one line

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsmt.cli.root import main
from tests.cli.in_process import DENIED, MISSING, NO, WRONG, Run


def _cut(path: str, content: bytes | None) -> Callable[[Path], None]:
    def spoil(home: Path) -> None:
        (home / path).unlink()
        if content is not None:
            (home / path).write_bytes(content)

    return spoil


def _as_directory(path: str) -> Callable[[Path], None]:
    def spoil(home: Path) -> None:
        (home / path).unlink()
        (home / path).mkdir()

    return spoil


def _lost(home: Path) -> None:
    (home / "brokers" / "b1" / "broker.log").write_text("it has run")
    (home / "realm.cbor").unlink()


HOMES: list[tuple[Callable[[Path], None], list[str], int, str]] = [
    (shutil.rmtree, ["ps"], MISSING, "there is no realm in "),
    (shutil.rmtree, ["down"], MISSING, "there is no realm in "),
    (shutil.rmtree, ["node", "run"], MISSING, "there is no realm in "),
    (shutil.rmtree, ["init", "--name", ""], WRONG, "'' is not a name for a realm"),
    (shutil.rmtree, ["init", "--name", "Bad Name"], WRONG, "'Bad Name' is not a name for a realm"),
    (shutil.rmtree, ["up", "--name", ""], WRONG, "'' is not a name for a realm"),
    (shutil.rmtree, ["up", "--name", "a/b"], WRONG, "'a/b' is not a name for a realm"),
    (shutil.rmtree, ["up", "--name", "x" * 64], WRONG, "at most 63 of a-z"),
    (shutil.rmtree, ["init", "--listen", "x"], WRONG, "'x' is not an address to listen at"),
    (shutil.rmtree, ["init", "--listen", "h:0"], WRONG, "a port is a number from 1 to 65535"),
    (shutil.rmtree, ["init", "--listen", "h:99999"], WRONG, "a port is a number from 1 to 65535"),
    (shutil.rmtree, ["init", "--listen", "192.0.2.99:4222", "--brokers", "3"], WRONG, "192.0.2.99 is no address of this machine"),
    (shutil.rmtree, ["init", "--brokers", "0"], WRONG, "a realm has 1 to 7 brokers"),
    (shutil.rmtree, ["init", "--brokers", "2", "--engine", "nats"], WRONG, "a realm has 1, 3 or 5 of them"),
    *((_cut("realm.cbor", raw), ["ps"], WRONG, "realm.cbor is damaged: it holds no configuration. Next: restore it from a backup")
      for raw in (b"", b"nonsense", b"\x80", b"\xff" * 9, b"\x7a\x00\x00\xff\x41abc")),
    (_as_directory("realm.cbor"), ["ps"], NO, "realm.cbor: is a directory"),
    (_lost, ["status"], WRONG, "realm.cbor is missing, and broker b1 of its realm is here"),
    (_lost, ["upgrade"], WRONG, "realm.cbor is missing, and broker b1 of its realm is here"),
    *((_cut("operator/identity", None), [verb, "web"], MISSING, "the operator's key, which commands need to talk to the realm. Next: dsmt up makes a new one") for verb in ("ps", "stop", "logs")),
    (_cut("operator/identity", b""), ["ps"], WRONG, "operator/identity is damaged: it holds no identity. Next: restore it"),
    (_cut("operator/identity", b"\x80"), ["ps"], WRONG, "operator/identity is damaged"),
    (_cut("operator/identity", b"\x80"), ["ps"], WRONG, "restore it from a backup; or remove it, and dsmt up makes a new one"),
    (_cut("root.key", None), ["cert", "rotate", "broker/b1"], MISSING, "the root key is not in"),
    (_cut("root.key", b"short"), ["node", "run"], WRONG, "root.key is damaged: a root key has 32 bytes, and this has 5"),
    (_cut("brokers/b1/broker.cbor", None), ["broker", "run"], WRONG, "broker.cbor is missing. Next: restore it from a backup"),
    (_cut("brokers/b1/broker.cbor", b"x"), ["broker", "run"], WRONG, "broker.cbor is damaged"),
    (_cut("brokers/b1/broker.cbor", b"x"), ["up", "--detach"], WRONG, "broker.cbor is damaged"),
    (_cut("brokers/b1/identity", b"x"), ["up", "--detach"], WRONG, "brokers/b1/identity is damaged: it holds no identity. Next: restore it"),
    (_cut("brokers/b1/identity", None), ["broker", "run"], MISSING, "holds no identity; brokers here: b1. Next: restore it"),
]  # fmt: skip


@pytest.mark.parametrize("verb", ["verify", "replay"])
@pytest.mark.parametrize("raw", [b"\x85aH", b"\xd2"], ids=["history", "recording"])
def test_who_checks_a_file_where_no_realm_is_is_sent_to_the_trust_file(
    run: Run, tmp_path: Path, verb: str, raw: bytes
) -> None:
    (tmp_path / "file").write_bytes(raw)
    code, told = run(verb, str(tmp_path / "file"), home=tmp_path / "none", attached=False)
    assert "there is no realm in " in told
    assert "Next: --trust FILE, with the file that dsmt trust export writes" in told
    assert code == MISSING


@pytest.mark.parametrize("row", HOMES, ids=[str(n) for n in range(len(HOMES))])
def test_a_spoiled_home(
    run: Run, made: Path, tmp_path: Path, row: tuple[Callable[[Path], None], list[str], int, str]
) -> None:
    spoil, arguments, code, said = row
    home = tmp_path / "home"
    shutil.copytree(made, home)
    spoil(home)
    found, told = run(*arguments, home=home, attached=False)
    assert said in told
    assert "Next: " in told
    assert found == code


NOT_A_HOME = ["link", "/proc/nohome", "file", "file/below", "loop", "n" * 300]


NOT_SO = (
    "is not a directory, and a home must be one",
    "cannot be read: ",
    "/nothing, which is not there",
    "no directory can be made at /proc/nohome",
)


@pytest.mark.parametrize("where", NOT_A_HOME)
@pytest.mark.parametrize("arguments", [["ps"], ["init"], ["up", "--detach"], ["down"], ["broker", "run"]], ids=" ".join)
def test_what_cannot_be_a_home(run: Run, tmp_path: Path, where: str, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    code, told = run(*arguments, home=tmp_path / where, attached=False)
    if where.startswith("/proc") and arguments[0] not in {"init", "up"}:
        assert (code, told.startswith("dsmt: there is no realm in /proc/nohome")) == (MISSING, True)
        return
    assert any(one in told for one in NOT_SO)
    assert "Next: check --home, or DSMT_HOME" in told
    assert code == DENIED


def test_a_home_in_a_directory_that_is_gone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, told = run("up", "--detach", home="below", attached=False)
    assert told.startswith("dsmt: the current directory is gone, and the home below is in it. Next: cd to one that is there")
    assert code == DENIED


@pytest.mark.parametrize("closed", [0o000, 0o500], ids=["unreadable", "unwritable"])
def test_a_home_that_is_closed_to_who_types(tmp_path: Path, made: Path, closed: int) -> None:
    """As another user where we are root, who may read and write everything."""
    above = tmp_path / "above"
    above.mkdir()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = _as_nobody(above, closed)
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    above.chmod(stat.S_IRWXU)
    told = (tmp_path / "told").read_text()
    assert "permission denied" in told
    assert "internal error" not in told
    assert "Next: " in told
    assert os.waitstatus_to_exitcode(ended) == DENIED


def _as_nobody(above: Path, closed: int) -> int:
    with (above.parent / "told").open("w") as told:
        above.chmod(closed)
        if os.geteuid() == 0:
            for place in (above, *above.parents[:3]):
                place.chmod(place.stat().st_mode | (stat.S_IXOTH if place != above else 0))
            os.chown(above, 65_534, 65_534)
            os.setresuid(65_534, 65_534, 65_534)
        os.environ["DSMT_HOME"] = str(above / "home")
        sys.stderr = told
        return main(["init"])


@pytest.mark.parametrize("mask", [0o000, 0o777, 0o277, 0o002])
def test_whatever_the_umask_is_a_home_is_its_owners_to_use_and_nobody_elses_to_change(tmp_path: Path, mask: int) -> None:
    """With 000 anybody could put a broker of their own into a home that was there; with 777 nobody could use one."""
    (tmp_path / "home").mkdir(mode=0o755)
    command = [sys.executable, "-m", "dsmt", "--home", str(tmp_path / "home"), "init"]
    done = subprocess.run(command, umask=mask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for place in (tmp_path / "home").rglob("*"):
        mode = place.stat().st_mode & 0o777
        assert not mode & 0o022, f"{place} is {mode:o}"
        assert mode & 0o600 == 0o600, f"{place} is {mode:o}"
        assert mode & 0o100 or not place.is_dir(), f"{place} is {mode:o}"
