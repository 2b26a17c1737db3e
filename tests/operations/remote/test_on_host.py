"""What is run on a host, in directories of a test: what it finds, installs only whole, and says when it cannot."""

from __future__ import annotations

import errno
import json
import mmap
import os
import pwd
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.operations.remote import on_host
from dsmt.operations.remote.on_host import HostError, Installation

ROOT = bytes(range(32))


def parameters(directory: Path, **more: Any) -> dict[str, Any]:
    told = {
        "prefix": f"{directory}/opt/dsmt",
        "home": f"{directory}/state/dsmt",
        "build": "b1",
        "units": {},
        "root": ROOT.hex(),
    }
    return {**told, "root": ROOT.hex(), **more}


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else takes turns with us: whose home it is that is locked is a test's own."""
    home = str(tmp_path_factory.mktemp("user"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=home))


def host(directory: Path, **more: Any) -> Installation:
    return Installation(parameters(directory, **more))


def test_it_is_run_by_any_python_alone_and_says_what_is_there_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "on_host.py"
    script.write_text(Path(on_host.__file__).read_text())
    argv = [sys.executable, "-I", "-S", str(script), "state", json.dumps(parameters(tmp_path))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=True, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["installed"], told["nodes"], told["ours"], told["more"]) == (False, [], True, False)
    assert done.stdout.count("\n") == 1


def test_a_home_is_of_the_realm_whose_root_key_it_names(tmp_path: Path) -> None:
    one = host(tmp_path)
    (one.home / "nodes/web-1").mkdir(parents=True)
    (one.home / "nodes/web-1/identity").touch()
    (one.home / "realm.cbor").write_bytes(b"..." + ROOT + b"...")
    assert (one.state()["ours"], one.state()["nodes"], one.state()["more"]) == (True, ["web-1"], False)
    (one.home / "root.key").touch()
    assert one.state()["more"]
    (one.home / "realm.cbor").write_bytes(b"..." + ROOT[::-1] + b"...")
    assert not one.state()["ours"]


def test_a_wheel_that_is_not_what_was_sent_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/a.whl").write_bytes(b"right")
    monkeypatch.setattr(on_host, "__file__", str(tmp_path / "on_host.py"))
    one = host(tmp_path, sums={"a.whl": sha256(b"other").hexdigest()})
    with pytest.raises(HostError) as caught:
        one.install()
    assert caught.value.told["code"] == "host.wheel"
    assert not one.prefix.exists()


def test_what_an_installation_that_fails_has_made_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/pip-1.whl").write_bytes(b"no wheel")
    monkeypatch.setattr(on_host, "__file__", str(tmp_path / "on_host.py"))
    one = host(tmp_path, sums={}, requirement="dsmt==0")
    with pytest.raises(HostError) as caught:
        one.install()
    assert caught.value.told["code"] == "host.command"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wheels"]
    (one.prefix / "b0").mkdir(parents=True)
    with pytest.raises(HostError):
        one.install()
    assert [path.name for path in one.prefix.iterdir() if path.is_dir()] == ["b0"], "the program of before stays"


def test_what_a_command_of_ours_refuses_is_said_in_its_own_words(tmp_path: Path) -> None:
    said = {"error": {"code": "token.used", "message": "the token was used", "next": "make another", "exit": 4}}
    with pytest.raises(HostError) as caught:
        on_host.run(["sh", "-c", f"echo '{json.dumps(said)}' >&2; exit 4"])
    assert caught.value.told == {"code": "token.used", "message": "the token was used", "next": "make another"}
    with pytest.raises(HostError) as full:
        on_host.run(["sh", "-c", "echo 'OSError: [Errno 28] No space left on device' >&2; exit 1"])
    assert full.value.told["code"] == "host.full"
    with pytest.raises(HostError) as quota:
        on_host.run(["sh", "-c", "echo 'OSError: [Errno 122] Disk quota exceeded' >&2; exit 1"])
    assert quota.value.told["code"] == "host.full"


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "opt").write_text("a file")
    told = parameters(tmp_path, sums={}, requirement="dsmt")
    assert on_host.main("install", json.dumps(told)) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert str(tmp_path) in error["message"]
    assert error["next"]


def test_who_comes_while_another_is_still_at_work_waits_for_it_and_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_host, "BUSY_S", 0.2)
    held = on_host.turn()
    argv = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[held]) as left:
        os.close(held)  # as if it was killed: what it started goes on
        assert on_host.main("state", json.dumps(parameters(tmp_path))) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "host.busy"
        left.communicate()
    assert on_host.main("state", json.dumps(parameters(tmp_path))) == 0


def test_what_is_installed_by_another_one_meanwhile_is_left(tmp_path: Path) -> None:
    one = host(tmp_path, sums={"a.whl": "none of ours"})
    one.program.mkdir(parents=True)
    (one.program / "complete").touch()
    assert one.install() == {}
    assert (one.program / "complete").exists()


def test_a_program_is_said_to_be_whole_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut half a minute later left a whole program of empty files, which was never installed again."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(on_host, "__file__", str(tmp_path / "on_host.py"))
    one, seen, real = host(tmp_path, sums={}), list[tuple[list[str], bool]](), on_host._on_disk

    def installed(_wheels: Path) -> None:
        one.dsmt.parent.mkdir(parents=True)
        one.dsmt.write_text("a program")

    def synced(place: Path) -> None:
        real(place)
        if place == one.program:
            seen.append(([path.name for path in place.rglob("*") if path.is_file()], (place / "complete").exists()))

    monkeypatch.setattr(one, "_environment", installed)
    monkeypatch.setattr(on_host, "_on_disk", synced)
    one.install()
    assert seen == [(["dsmt"], False)]
    assert one.state()["installed"]


def test_what_the_disk_does_not_take_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(on_host, "__file__", str(tmp_path / "on_host.py"))
    one = host(tmp_path, sums={})

    def failing(_descriptor: int) -> int:
        on_host.ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(one, "_environment", lambda _: one.program.mkdir())
    monkeypatch.setattr(on_host.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(syncfs=failing))
    with pytest.raises(OSError, match="No space"):
        one.install()
    assert not one.prefix.exists()


def test_a_unit_is_on_the_disk_before_it_stands_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut left an empty one, and the node that was said to be alive did not come back."""
    monkeypatch.setattr(on_host, "UNITS", tmp_path / "units")
    monkeypatch.setattr(on_host, "run", lambda *_, **__: None)
    synced = list[tuple[str, bool]]()
    monkeypatch.setattr(
        on_host, "_on_disk", lambda place: synced.append((place.name, (tmp_path / "units/dsmt-node@.service").exists()))
    )
    kept_by_systemd(tmp_path, again=False, build="a").start()
    assert synced == [("dsmt-node@.service.new", False)]


def test_what_has_changed_is_begun_anew_by_who_comes_next_though_who_changed_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(argv: list[str], **_: Any) -> str:
        ran.append(" ".join(argv[3:]))
        return json.dumps({"changed": True})

    monkeypatch.setattr(on_host, "run", run)
    (tmp_path / "opt/dsmt").mkdir(parents=True)
    one = host(tmp_path, again=True, labels={"zone": "b"})
    one.runs.write_text("b1")
    for _ in range(2):  # the second finds what the first has left
        assert one.settle() == {"changed": True}
    ran.clear()
    one.start()
    assert ran == ["up --detach --json", "upgrade --json"]


def test_what_runs_of_another_dsmt_is_begun_anew_though_who_brought_the_next_one_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(on_host, "run", lambda argv, **_: ran.append(" ".join(argv[3:])))

    def started(build: str, *, again: bool = True) -> list[str]:
        ran.clear()
        host(tmp_path, build=build, again=again).start()
        return ran.copy()

    (tmp_path / "opt/dsmt").mkdir(parents=True)
    assert started("a", again=False) == ["up --detach --json"]
    assert started("a") == ["up --detach --json"]
    assert started("b") == ["up --detach --json", "upgrade --json"]
    assert started("a") == ["up --detach --json", "upgrade --json"], "an operator has gone back to the one before"
    one = host(tmp_path, build="a", sums={})
    monkeypatch.setattr(Installation, "_environment", lambda *_: one.program.mkdir())
    one.install()  # and is killed: it has the same build, as when somebody works on it
    assert started("a") == ["up --detach --json", "upgrade --json"]


def test_a_former_program_is_removed_once_nothing_runs_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_host, "run", lambda argv, **_: None)
    former, runs, present = (host(tmp_path, build=build).program for build in "abc")
    for program in (former, runs, present):
        program.mkdir(parents=True)
        (program / "module.so").write_bytes(bytes(4096))
        (program / "complete").touch()
    (strange := tmp_path / "opt/dsmt/mine").mkdir()
    with (runs / "module.so").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        host(tmp_path, build="c", again=True).start()
        assert (former.exists(), runs.exists()) == (False, True)
    host(tmp_path, build="c", again=True).start()
    assert (runs.exists(), strange.exists(), present.exists()) == (False, True, True)


def test_who_is_killed_while_it_removes_leaves_no_half_of_a_program_and_what_is_to_go_is_still_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = host(tmp_path)
    one.program.mkdir(parents=True)
    (one.program / "complete").touch()
    above = [str(tmp_path / "opt")]
    (one.prefix / "made.json").write_text(json.dumps(above))

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(on_host.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            one.remove()
    assert not one.state()["installed"]
    assert json.loads((one.prefix / "made.json").read_text()) == above
    one.remove()
    assert not (tmp_path / "opt").exists()


def test_where_there_is_no_room_to_note_what_was_made_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_path: Path, _text: str) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "made.json")

    monkeypatch.setattr(on_host.Path, "write_text", full)
    assert on_host.main("install", json.dumps(parameters(tmp_path, sums={}, requirement="dsmt"))) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "host.full"
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_has_changed_nothing_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(
        on_host, "run", lambda argv, **_: (ran.append(" ".join(argv[3:])), json.dumps({"changed": False}))[1]
    )
    (tmp_path / "opt/dsmt").mkdir(parents=True)
    one = host(tmp_path, build="b1", again=True, labels={"zone": "b"})
    one.runs.write_text("b1")
    assert one.settle() == {"changed": False}
    ran.clear()
    one.start()
    assert ran == ["up --detach --json"]


def kept_by_systemd(directory: Path, **more: Any) -> Installation:
    """A host on which systemd keeps a node, whose unit says so."""
    one = host(directory, units={"node": "ExecStart=/usr/bin/env dsmt node run %i"}, certified=False, **more)
    one.systemd = True
    for made in (one.prefix, one.home / "nodes/n1", on_host.UNITS):
        made.mkdir(parents=True, exist_ok=True)
    (one.home / "nodes/n1/identity").touch()
    return one


def test_systemd_reads_a_unit_that_was_written_though_who_wrote_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(argv: list[str], **_: Any) -> None:
        ran.append(" ".join(argv[1:]))
        if cut and argv[1] == "daemon-reload":
            raise HostError("host.command", "connection timed out", "")

    monkeypatch.setattr(on_host, "UNITS", tmp_path / "units")
    monkeypatch.setattr(on_host, "run", run)
    for again in (False, True):
        one = kept_by_systemd(tmp_path, again=again, build=f"b{again}")
        cut = True
        with pytest.raises(HostError):
            one.start()
        cut = False
        ran.clear()
        kept_by_systemd(tmp_path, again=True, build=f"b{again}").start()
        assert ran[0] == "daemon-reload"
        assert f"b{again}/bin/dsmt node run" in (tmp_path / "units/dsmt-node@.service").read_text()


def test_who_has_another_unit_now_is_restarted_and_others_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(on_host, "UNITS", tmp_path / "units")
    monkeypatch.setattr(on_host, "run", lambda argv, **_: ran.append(" ".join(argv[1:])))
    for build, verb in (("b1", "restart"), ("b1", "start"), ("b2", "restart")):
        kept_by_systemd(tmp_path, again=False, build=build).start()
        assert ran[-1] == f"{verb} dsmt-node@n1"


def test_no_unit_that_failed_as_it_was_ended_is_left_to_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a NATS server's, which was taken out of the cluster and begins no more."""
    ran: list[str] = []
    monkeypatch.setattr(on_host, "UNITS", tmp_path / "units")
    monkeypatch.setattr(on_host, "run", lambda argv, **_: ran.append(" ".join(argv[1:])))
    one = kept_by_systemd(tmp_path, again=False)
    one.start()
    ran.clear()
    one.remove()
    assert ran[:3] == ["disable --now --quiet dsmt-node@n1", "daemon-reload", "reset-failed dsmt-node@*"]


def test_a_disk_that_is_full_leaves_the_unit_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_host, "UNITS", tmp_path / "units")
    monkeypatch.setattr(on_host, "run", lambda *_, **__: None)
    kept_by_systemd(tmp_path, again=False, build="a").start()
    (unit,) = (tmp_path / "units").iterdir()
    before, write = unit.read_text(), Path.write_text

    def full(path: Path, text: str) -> None:
        write(path, "")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(on_host.Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        kept_by_systemd(tmp_path, again=True, build="b").start()
    assert list((tmp_path / "units").iterdir()) == [unit]
    assert unit.read_text() == before


def test_what_runs_is_ended_by_a_program_that_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(on_host, "run", lambda argv, **_: ran.append(argv[0]))
    one = host(tmp_path)
    for build in ("a", "b"):  # who removed the second, as nothing ran from it any more, was killed
        (one.prefix / build / "bin").mkdir(parents=True)
        (one.prefix / build / "bin/dsmt").touch()
    (one.prefix / "a/complete").touch()
    one.home.mkdir(parents=True)
    (one.home / "realm.cbor").write_bytes(ROOT)
    one.remove()
    assert ran == [f"{one.prefix}/a/bin/dsmt"]


def test_a_systemd_that_does_not_answer_is_told_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = tmp_path / "systemctl"
    stuck.write_text("#!/bin/sh\nexec sleep 60\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(on_host, "SYSTEMD_S", 0.1)
    with pytest.raises(HostError) as caught:
        on_host.systemctl("start", "dsmt-node@n1")
    assert caught.value.told["message"] == "systemctl start dsmt-node@n1 has not ended after 0.1 s"
