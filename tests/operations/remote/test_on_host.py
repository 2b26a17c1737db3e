"""What is run on a host, in directories of a test: what it finds, installs only whole, and says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
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


def host(directory: Path, **more: Any) -> Installation:
    return Installation(parameters(directory, **more))


def test_it_is_run_by_any_python_alone_and_says_what_is_there_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "on_host.py"
    script.write_text(Path(on_host.__file__).read_text())
    argv = [sys.executable, "-I", "-S", str(script), "state", json.dumps(parameters(tmp_path))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path)
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


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "opt").write_text("a file")
    told = parameters(tmp_path, sums={}, requirement="dsmt")
    assert on_host.main("install", json.dumps(told)) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert str(tmp_path) in error["message"]
    assert error["next"]
