"""What runs beside the node of a host that was added: its keys, and the certificates that it is given for them."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.errors import DsmtError, RefusedError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_broker, init
from dsmt.operations.local.members import certificates
from dsmt.operations.local.members import roles as on_host
from dsmt.operations.local.members.brokers import of_home
from dsmt.operations.local.members.roles import RoleOrder, accept, request
from dsmt.operations.remote.hosts import address_of
from dsmt.operations.remote.roles import Roles, _certificate
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import ISSUER, BrokerFile, read_identity, write_config
from dsmt.trust.identity import YEAR_S
from dsmt.trust.keys import SecretKey

NOW_S = int(time.time())
HALF_S = YEAR_S // 2


class Host:
    """A host that is given its roles again and again, and the root key that signs for it."""

    def __init__(self, directory: Path) -> None:
        own, self.home = Home(directory / "own"), Home(directory / "there")
        init(own, name="test")
        self.root = own.root_key()
        write_config(self.home.root / "realm.cbor", own.realm())
        self.files = {
            "broker/one": self.home.part("brokers", "one") / "identity",
            "controller/one": self.home.part("controllers", "one") / "identity",
            "issuer/one": self.home.part("controllers", "one") / ISSUER,
        }

    def asked(self, now_s: int) -> Mapping[str, str]:
        return request(self.home, self.order(now_s)).asked

    def order(self, now_s: int, **more: object) -> RoleOrder:
        roles = ("broker", "controller")
        return RoleOrder(name="one", roles=roles, reached="127.0.0.1", now_s=now_s, **more)  # type: ignore[arg-type]

    def given(self, now_s: int, asked: Mapping[str, str], root: SecretKey | None = None) -> None:
        signed = {
            source: _certificate(root or self.root, source, public, now_s).raw.hex() for source, public in asked.items()
        }
        accept(self.home, self.order(now_s, certificates=signed))

    @property
    def keys(self) -> dict[str, str]:
        return {source: read_identity(file).key.public.hex() for source, file in self.files.items()}

    @property
    def ends(self) -> set[int]:
        return {read_identity(file).certificate.not_after for file in self.files.values()}


def test_what_has_a_certificate_is_given_the_next_one_for_its_key_from_half_of_its_life_on(tmp_path: Path) -> None:
    host = Host(tmp_path)
    first = host.asked(NOW_S)
    assert host.asked(NOW_S) == first, "who was interrupted goes on with the same keys"
    host.given(NOW_S, first)
    assert host.keys == first
    assert host.asked(NOW_S) == host.asked(NOW_S + HALF_S - 3600) == {}, "what has its certificate stays"
    (ended,), before = host.ends, (of_home(host.home), host.home.realm())
    for due_s in (NOW_S + HALF_S + 3600, NOW_S + 2 * YEAR_S):
        due = host.asked(due_s)
        assert due == first
        host.given(due_s, due)
        assert host.keys == first
        assert min(host.ends) >= ended + HALF_S
        assert (of_home(host.home), host.home.realm()) == before, "nothing else has changed"
        assert host.asked(due_s) == {}
    assert not (host.home.root / "asked").exists()


def test_a_controller_whose_key_was_revoked_is_given_another_one(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.given(NOW_S, host.asked(NOW_S))
    before = host.keys
    assert request(host.home, host.order(NOW_S)).held == before
    again = host.order(NOW_S, anew=("controller/one",))
    asked = request(host.home, again).asked
    assert asked.keys() == {"controller/one"}
    assert request(host.home, again).asked == asked, "who was interrupted goes on with the same one"
    assert host.keys == before, "nothing has another key before that has a certificate"
    host.given(NOW_S, asked)
    assert host.keys == {**before, **asked} != before
    assert host.asked(NOW_S) == {}


@pytest.mark.parametrize("source", ["broker/one", "controller/one", "issuer/one"])
def test_what_has_a_revoked_key_is_asked_for_another_one_and_a_broker_is_refused(tmp_path: Path, source: str) -> None:
    host = Host(tmp_path)
    host.given(NOW_S, host.asked(NOW_S))
    ended = (read_identity(host.files[source]).key.key_id, source)

    class Reached:
        address = "host-1"

        async def do(self, _verb: str, told: Mapping[str, Any], *, given: str) -> Any:
            return msgspec.to_builtins(request(host.home, msgspec.convert(told["asks"], RoleOrder)))

    roles = Roles.__new__(Roles)
    trust: Any = SimpleNamespace(is_revoked=lambda *one: one == ended)
    roles._connection = SimpleNamespace(trust=trust)  # type: ignore[assignment]
    asking = roles._asked(Reached(), {}, host.order(NOW_S))  # type: ignore[arg-type]
    if source == "broker/one":
        with pytest.raises(RefusedError, match="was revoked") as refused:
            asyncio.run(asking)
        assert refused.value.next == "dsmt node remove one, then dsmt node add host-1 again"
    else:
        assert asyncio.run(asking).asked.keys() == {source}


def test_of_a_broker_elsewhere_it_is_told_how_its_name_becomes_free_and_of_one_of_this_home_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Home(tmp_path / "own")
    init(own, name="test")
    ensure_broker(own, "b2")

    async def announced(_: object) -> dict[str, BrokerAddress]:
        return {"far": BrokerAddress("10.0.0.2:1", bytes(32))}

    monkeypatch.setattr("dsmt.operations.write.brokers.announced", announced)
    connection: Any = SimpleNamespace(bus=None, realm=own.realm())
    for name, advice in (("b2", ""), ("far", "; if far is gone for good: dsmt node remove far --forget")):
        with pytest.raises(RefusedError, match=f"there is a broker {name} already, on another machine") as refused:
            asyncio.run(Roles(connection, own, ("broker", "node")).check_free(address_of("one"), name))
        assert refused.value.next == f"name it another way: --name NAME{advice}"


def test_a_certificate_of_another_key_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.given(NOW_S, host.asked(NOW_S))
    ends = host.ends
    with pytest.raises(DsmtError):
        host.given(NOW_S + YEAR_S, {source: SecretKey(bytes(32)).public.hex() for source in host.files})
    assert host.ends == ends


def test_a_broker_that_was_removed_and_is_given_again_is_begun_anew_with_where_the_others_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, begun = Host(tmp_path), []
    host.given(NOW_S, host.asked(NOW_S))
    file = host.home.part("brokers", "one")

    def ended(directory: Path, program: str) -> bool:
        begun.append((directory, program, [one.address for one in BrokerFile.read(directory).realm.addresses]))
        return True

    monkeypatch.setattr(certificates, "ask_to_end", ended)
    there = ("10.9.8.7:4000", "ab" * 32)
    accept(host.home, host.order(NOW_S, brokers=(there,)))
    assert begun == [], "a broker of the realm goes on"
    accept(host.home, host.order(NOW_S, brokers=(there,), removed=True))
    ((directory, program, known),) = begun
    assert (directory, program) == (file, "broker")
    assert there[0] in known, "it was written before"


def test_who_was_killed_while_it_took_certificates_goes_on_and_no_key_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path)
    first, real = host.asked(NOW_S), Path.unlink

    def killed(path: Path, **more: bool) -> None:
        if path.parent.name == "asked":
            raise KeyboardInterrupt
        real(path, **more)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        host.given(NOW_S, {"issuer/one": first["issuer/one"]})
    monkeypatch.undo()
    again = host.asked(NOW_S)
    assert again == {source: public for source, public in first.items() if source != "issuer/one"}
    host.given(NOW_S, again)
    assert host.keys == first
    assert not (host.home.root / "asked").exists()


def test_a_host_knows_its_own_broker_though_it_was_cut_off_as_that_had_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path)
    first = host.asked(NOW_S)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(on_host, "reach_at", full)
        with pytest.raises(OSError, match="No space"):
            host.given(NOW_S, first)
    host.given(NOW_S, host.asked(NOW_S))
    (own,) = of_home(host.home).values()
    assert (own.address, own.public) in host.home.realm().brokers
    assert BrokerFile.read(host.home.part("brokers", "one")).realm == host.home.realm()


def test_who_has_its_next_certificate_is_begun_anew_though_who_brought_it_was_cut_off_before_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran on with the former one until that ended: the next one was there, and nobody asked for it any more."""
    host, begun = Host(tmp_path), list[set[str]]()
    host.given(NOW_S, host.asked(NOW_S))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(on_host, "begin_anew", lambda _, names: begun.append(set(names)))
    with monkeypatch.context() as patch:
        patch.setattr(on_host, "reach_at", full)
        with pytest.raises(OSError, match="No space"):
            host.given(NOW_S + HALF_S, host.asked(NOW_S + HALF_S))
    for _ in range(2):
        host.given(NOW_S + HALF_S, host.asked(NOW_S + HALF_S))
    assert begun == [set(host.files), set()]
    assert not (host.home.root / "asked").exists()


def test_keys_of_a_role_for_which_nobody_came_back_keep_no_other_one_waiting(tmp_path: Path) -> None:
    host = Host(tmp_path)
    first = host.asked(NOW_S)
    host.given(NOW_S, {source: public for source, public in first.items() if source != "broker/one"})
    assert host.asked(NOW_S) == {"broker/one": first["broker/one"]}, "it goes on with its key"
