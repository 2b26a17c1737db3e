"""What is brought to hosts: dsmt's own wheel, made of what runs, and for which platforms others are collected."""

from __future__ import annotations

import asyncio
import io
import shlex
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

import dsmt
from dsmt.errors import InputError, RefusedError
from dsmt.operations.local.home.home import Home
from dsmt.operations.remote import adding, wheels
from dsmt.operations.remote.adding import _name_of
from dsmt.operations.remote.hosts import address_of
from dsmt.operations.remote.places import NodePlace, keep_place, place_of, places
from dsmt.operations.remote.roles import Roles
from dsmt.operations.remote.wheels import OWN, Platform, Wheels, cache_directory, collected, own_wheel, unit_texts
from dsmt.ports.realm import NatsTerms
from dsmt.programs.configuration import RealmConfig
from dsmt.version import __version__

HERE = Platform(version=(3, 11), machine="x86_64", libc="glibc", libc_version="2.36")


def test_dsmts_own_wheel_holds_the_code_that_runs_and_is_the_same_each_time(tmp_path: Path) -> None:
    wheel = own_wheel()
    assert wheel == own_wheel()
    names = set(zipfile.ZipFile(io.BytesIO(wheel)).namelist())
    package = Path(dsmt.__file__).parent
    assert {f"dsmt/{path.relative_to(package)}" for path in package.rglob("*.py")} <= names
    assert "dsmt/deploy/systemd/dsmt-node@.service" in names
    assert not [name for name in names if "__pycache__" in name]


def test_pip_installs_that_wheel_and_its_command_runs(tmp_path: Path) -> None:
    path = tmp_path / OWN
    path.write_bytes(own_wheel())
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(path)], check=True, timeout=60)
    code = "import dsmt, sys; from dsmt.__main__ import main; print(dsmt.__file__)"
    env = {"PYTHONPATH": f"{target}:{':'.join(p for p in sys.path if 'site-packages' in p)}", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(target))
    assert (target / "bin/dsmt").exists()


def test_the_unit_that_is_brought_is_the_one_of_deploy() -> None:
    units = Path(dsmt.__file__).parents[1] / "deploy/systemd"
    assert unit_texts() == {role: (units / f"dsmt-{role}@.service").read_text() for role in ("broker", "controller", "node")}


def test_wheels_are_taken_that_a_platform_runs_and_none_that_are_newer() -> None:
    assert HERE.tags[0] == "manylinux_2_36_x86_64"
    assert HERE.tags[-1] == "manylinux2014_x86_64"
    assert not any("2_37" in tag for tag in HERE.tags)
    alpine = Platform(version=(3, 12), machine="aarch64", libc="", libc_version="")
    assert alpine.tags == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64", "musllinux_1_0_aarch64"]
    assert str(HERE) == "Python 3.11 on x86_64 with glibc 2.36"


def test_a_directory_without_wheels_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError) as caught:
        asyncio.run(collected(HERE, tmp_path, what="dsmt[nats-client]"))
    assert caught.value.code == "wheels.missing"
    command, _, where = caught.value.next.partition(", ")
    made = tmp_path / "cache/dsmt/wheels" / OWN
    assert shlex.split(command) == ["pip", "download", "--dest", str(tmp_path), f"{made}[nats-client]", "pip"]
    assert made.read_bytes() == own_wheel()
    assert "bring it that wheel" in where, "no index knows of it"
    (tmp_path / "pip-1.whl").write_bytes(b"pip")
    found = asyncio.run(collected(HERE, tmp_path))
    assert sorted(found.sums) == [OWN, "pip-1.whl"]
    (tmp_path / "pip-1.whl").write_bytes(b"another")
    assert asyncio.run(collected(HERE, tmp_path)).build != found.build


def test_what_pip_is_told_to_collect_for_is_this_dsmt_with_its_extra_whatever_another_one_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told: list[tuple[str, bytes]] = []

    def pip(*argv: str, **_: object) -> object:
        cached = cache_directory() / OWN
        cached.write_bytes(b"of another dsmt")
        wheel, _, extra = argv[-2].partition("[")
        told.append((extra, Path(wheel).read_bytes()))
        directory = Path(argv[argv.index("--dest") + 1])
        directory.mkdir()
        (directory / "pip-1.whl").write_bytes(b"pip")
        cached.write_bytes(own_wheel())
        return start(sys.executable, "-c", "", stdout=-1, stderr=-1)

    start = asyncio.create_subprocess_exec
    monkeypatch.setattr(asyncio, "create_subprocess_exec", pip)
    for what in ("dsmt", "dsmt[nats-client]", "dsmt[nats-client]"):
        asyncio.run(collected(HERE, what=what))
    assert told == [("", own_wheel()), ("nats-client]", own_wheel())], "each once"


def test_dsmts_own_wheel_is_brought_once_though_a_directory_that_is_given_holds_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (OWN, "pip-1.whl"):
        (tmp_path / name).write_bytes(b"of another dsmt")
    found = asyncio.run(collected(HERE, tmp_path))
    assert [Path(path).name for path in found.files] == [OWN, "pip-1.whl"]
    assert found.sums[OWN] == sha256(own_wheel()).hexdigest()


def test_what_a_host_has_installed_of_a_directory_that_is_given_is_kept_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no network named it once: `node add` of the next host, or of this one again, needs it no more."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(wheels, "_download", Mock(side_effect=AssertionError("there is no network")))
    for number in (1, 2):
        given = tmp_path / str(number)
        given.mkdir()
        for name in (OWN, "pip-1.whl", f"other-{number}.whl"):
            (given / name).write_bytes(b"%d" % number)
        found = asyncio.run(collected(HERE, given))
        wheels.keep(HERE, found, what="dsmt")
        shutil.rmtree(given)
        kept = asyncio.run(collected(HERE))
        assert (kept.sums, kept.build) == (found.sums, found.build), "what was given last takes its place"
        assert [path.name for path in cache_directory().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("nats", [None, NatsTerms(authority="", replicas=1)])
def test_a_host_is_brought_and_installs_what_its_realm_is_carried_by_and_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nats: NatsTerms | None
) -> None:
    what = "dsmt[nats-client]"
    asked: list[str] = []

    async def collect(_platform: Platform, _given: Path | None, *, what: str) -> Wheels:
        asked.append(what)
        return Wheels(files={})

    monkeypatch.setattr(adding, "collected", collect)
    realm = RealmConfig(name="test", roots=(bytes(32),), brokers=(), nats=nats)
    made: Any = SimpleNamespace(realm=realm)
    home, nobody = Home(tmp_path), cast("Any", None)
    told = adding.Adding(made, nobody, home, labels={}, roles=Roles(made, home, ()), tell=nobody)
    assert realm.distribution() == what
    assert realm.distribution(serves=True) == (what if nats is None else "dsmt[nats]")
    wheels = asyncio.run(told._collected(HERE, what))
    assert asked == [what]
    assert told._told(NodePlace(host="web-1"), wheels, what)["requirement"] == f"{what}=={__version__}"
    if nats is not None:
        with pytest.raises(RefusedError, match="born with one NATS server"):
            Roles(made, home, ("broker",))


@pytest.mark.parametrize(
    ("typed", "user", "host", "port"),
    [
        ("web-1", None, "web-1", None),
        ("root@web-1.example.com:2222", "root", "web-1.example.com", 2222),
        ("[2001:db8::1]:22", None, "2001:db8::1", 22),
        ("ops@10.0.0.7", "ops", "10.0.0.7", None),
        ("ops@10.0.0.7:65535", "ops", "10.0.0.7", 65535),
        ("web-1:1", None, "web-1", 1),
    ],
)
def test_an_address_is_taken_apart_as_ssh_does(typed: str, user: str | None, host: str, port: int | None) -> None:
    found = address_of(typed)
    assert (found.user, found.host, found.port, str(found)) == (user, host, port, typed)


@pytest.mark.parametrize("typed", ["", "a b", "@web", "web:port", "web:22:22", "user@", "web:0", "web:65536", "[::1]:99999"])
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(InputError):
        address_of(typed)


def test_a_node_is_called_as_its_host_was_typed_or_as_the_host_calls_itself() -> None:
    assert _name_of(address_of("root@Web-1.example.com"), "ip-10-0-0-1") == "web-1"
    assert _name_of(address_of("root@10.0.0.1"), "ip-10-0-0-1.local") == "ip-10-0-0-1"
    with pytest.raises(InputError) as caught:
        _name_of(address_of("root@10.0.0.1"), "")
    assert "--name" in caught.value.next


def test_where_a_node_was_added_is_known_by_its_name_and_by_its_host_until_it_is_removed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert places(home) == {}
    asyncio.run(keep_place(home, "web-1", NodePlace(host="ops@web-1", user=True)))
    asyncio.run(keep_place(home, "web-2", NodePlace(host="web-2")))
    assert place_of(home, "web-1") == place_of(home, "ops@web-1") == ("web-1", NodePlace(host="ops@web-1", user=True))
    assert place_of(home, "web-3") is None
    asyncio.run(keep_place(home, "web-1", None))
    assert list(places(home)) == ["web-2"]


def test_what_was_collected_is_on_the_disk_before_it_is_taken_for_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut left them empty, and no host could be added any more: their sums were right."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    synced = list[tuple[list[str], list[str]]]()

    async def said() -> tuple[bytes, bytes]:
        return b"", b""

    def downloaded(*argv: str) -> Any:
        fresh = Path(argv[argv.index("--dest") + 1])
        fresh.mkdir()
        (fresh / "pip-1-py3-none-any.whl").write_bytes(b"a wheel")
        return SimpleNamespace(communicate=said, returncode=0)

    async def pip(*argv: str, **_: Any) -> Any:
        return downloaded(*argv)

    def sync(directory: str) -> None:
        kept = [path.name for path in cache_directory().iterdir() if path.is_dir() and not path.name.startswith(".")]
        synced.append(([path.name for path in Path(directory).glob("wheels/*")], kept))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", pip)
    monkeypatch.setattr(wheels, "sync_file_system", sync)
    found = asyncio.run(collected(HERE))
    assert synced == [(["pip-1-py3-none-any.whl"], [])]
    assert {*found.sums} == {OWN, "pip-1-py3-none-any.whl"}
