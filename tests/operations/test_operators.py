"""Further operators: their homes are made where the root key is, and what was made is known there."""

import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.dating import Dated
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init
from dsmt.operations.local.members import certificates, operators
from dsmt.operations.local.members.certificates import HeldCertificate
from dsmt.programs.configuration import RealmConfig
from dsmt.trust.identity import YEAR_S
from dsmt.trust.store import TrustStore


def now() -> Dated:
    return Dated(int(time.time()), "realm")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    init(made, name="test")
    return made


def known(home: Home, name: str) -> list[HeldCertificate]:
    found = certificates.listing(TrustStore(home.realm().realm), home, now().now_s)
    return [one for one in found if one.name == name]


def test_a_further_operator_has_a_home_with_a_key_and_nothing_of_the_root_in_it(home: Home, tmp_path: Path) -> None:
    done = operators.add(home, "bob", tmp_path / "new" / "bob", now())
    made = Home(tmp_path / "new" / "bob")
    identity = made.operator()
    assert (done.name, identity.name, made.realm()) == ("operator/bob", "operator/bob", home.realm())
    assert (done.key, done.home) == (identity.key.key_id.hex(), str(made.root))
    assert identity.certificate.not_after == pytest.approx(now().now_s + YEAR_S, abs=YEAR_S / 100)
    trust = TrustStore(made.realm().realm)
    trust.add_all([one.raw for one in identity.chain])
    assert [one.subject for one in trust.certificates(now().now_s)] == ["operator/bob"]
    assert sorted(path.name for path in made.root.rglob("*")) == ["identity", "operator", "realm.cbor"]
    assert stat.S_IMODE(made.root.stat().st_mode) == 0o700
    with pytest.raises(NotFoundError, match="the root key is not in"):
        made.root_key()


def test_what_is_known_of_the_brokers_goes_along_for_a_leaf_tells_its_own_key_to_nobody(home: Home, tmp_path: Path) -> None:
    learnt = home.operator_file.with_name("brokers")
    learnt.write_bytes(b"what brokers have said of each other")
    operators.add(home, "bob", tmp_path / "bob", now())
    assert (tmp_path / "bob" / "operator" / "brokers").read_bytes() == learnt.read_bytes()


def test_what_was_made_is_listed_where_it_was_though_it_has_said_nothing(home: Home, tmp_path: Path) -> None:
    first = operators.add(home, "bob", tmp_path / "first", now())
    second = operators.add(home, "bob", tmp_path / "second", now())
    found = known(home, "operator/bob")
    assert {one.key for one in found} == {first.key, second.key}
    assert not any(one.here for one in found)


def test_the_former_key_of_an_operator_is_listed_after_a_rotation(home: Home) -> None:
    own = home.operator().name
    done = certificates.rotate(home, own, now())
    assert {one.key: one.here for one in known(home, own)} == {done.before: False, done.key: True}


def test_a_rotation_that_is_killed_as_the_next_key_is_written_leaves_no_key_that_nobody_has(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, killed = home.operator().name, type("KilledError", (BaseException,), {})
    with monkeypatch.context() as at:
        at.setattr(certificates, "write_secret", Mock(side_effect=killed))
        with pytest.raises(killed):
            certificates.rotate(home, own, now())
    assert {one.key: one.here for one in known(home, own)} == {home.operator().key.key_id.hex(): True}
    done = certificates.rotate(home, own, now())
    assert {one.key: one.here for one in known(home, own)} == {done.before: False, done.key: True}


def test_nothing_is_overwritten_and_what_is_no_name_makes_nothing(home: Home, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(RefusedError, match="is there already"):
        operators.add(home, "bob", tmp_path / "there", now())
    for name in ("Bob!", "", "bob.smith", "a/b", "b" * 41, "bob\n"):
        with pytest.raises(InputError, match="is not a name for an operator"):
            operators.add(home, name, tmp_path / "bob", now())
    home.root_key_file.unlink()
    with pytest.raises(NotFoundError, match="the root key is not in"):
        operators.add(home, "bob", tmp_path / "bob", now())
    assert not (tmp_path / "bob").exists()
    assert known(home, "operator/bob") == []


def test_nobody_is_added_under_the_name_of_whose_home_it_is(home: Home, tmp_path: Path) -> None:
    """The own key would be said to be replaced, and what two people do would stand under one name."""
    own = home.operator().name
    with pytest.raises(RefusedError, match=f"{own} is the operator of this home") as raised:
        operators.add(home, own.removeprefix("operator/"), tmp_path / "new", now())
    assert raised.value.next == f"name the other person; or dsmt cert rotate {own}, for your own next key"
    assert not (tmp_path / "new").exists()
    home.operator_file.unlink()
    assert operators.add(home, own.removeprefix("operator/"), tmp_path / "new", now()).name == own


def test_where_the_disk_takes_no_more_no_half_of_a_home_is_left(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RealmConfig, "write", full)
    with pytest.raises(OSError, match="No space left"):
        operators.add(home, "bob", tmp_path / "bob", now())
    assert not (tmp_path / "bob").exists()
    assert not (tmp_path / ".bob.new").exists()
    assert known(home, "operator/bob") == []


@pytest.mark.parametrize("step", ["write_secret", "note", "dump", "write", "rename"])
def test_who_is_killed_over_a_home_is_given_the_same_command_again_and_no_key_is_unknown(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as at:
        where = {"note": notes, "write": RealmConfig, "rename": Path}.get(step, operators)
        at.setattr(where, step, killed)
        with pytest.raises(KilledError):
            operators.add(home, "bob", tmp_path / "bob", now())
    left = {Home(path.parents[1]).operator().key.key_id.hex() for path in tmp_path.rglob("operator/identity")}
    assert left - {home.operator().key.key_id.hex()} <= {one.key for one in known(home, "operator/bob")}
    done = operators.add(home, "bob", tmp_path / "bob", now())
    assert [one.key for one in known(home, "operator/bob")] == [done.key], "the key that nobody was given is nobody's"
    assert not (tmp_path / ".bob.new").exists()


def test_who_is_killed_over_a_home_again_and_again_leaves_the_note_of_no_key(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = operators.add(home, "bob", tmp_path / "given", now())
    acts, act = 0, 0
    killed = type("KilledError", (BaseException,), {})

    def watched(name: str, *_: object) -> None:
        nonlocal acts
        acts += name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
        if acts == act:
            raise killed

    ended = False
    sys.addaudithook(lambda name, told: None if ended else watched(name, told))
    try:
        while not (tmp_path / "bob").exists():
            acts, act = 0, act + 1
            with suppress(killed):
                operators.add(home, "bob", tmp_path / "bob", now())
    finally:
        ended = True
    keys = {given.key, Home(tmp_path / "bob").operator().key.key_id.hex()}
    assert {one.key for one in known(home, "operator/bob")} == keys
    assert act > 10


def test_who_is_killed_over_a_home_and_again_as_its_half_is_removed_leaves_the_note_of_no_key(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = type("KilledError", (BaseException,), {})
    with monkeypatch.context() as at:
        at.setattr(Path, "rename", Mock(side_effect=killed))
        with pytest.raises(killed):
            operators.add(home, "bob", tmp_path / "bob", now())
    with monkeypatch.context() as at:
        at.setattr(notes, "place", Mock(side_effect=killed))  # the certificate has gone, the note has not
        with pytest.raises(killed):
            operators.add(home, "bob", tmp_path / "bob", now())
    assert list(tmp_path.rglob("operators/bob.*"))
    done = operators.add(home, "bob", tmp_path / "bob", now())
    assert [one.key for one in known(home, "operator/bob")] == [done.key]
