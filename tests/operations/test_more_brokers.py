"""Brokers that are added to a realm: where they listen, and under which names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.event.kinds.broker import Withheld
from dsmt.event.kinds.realm import MAX_BROKERS
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_broker, init, reach_at
from dsmt.operations.local.members import brokers
from dsmt.operations.local.members.brokers import meshed, of_home
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.telling import silent
from dsmt.operations.write import brokers as words
from dsmt.operations.write.brokers import announce, announced
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import IDENTITY
from tests.bus.idle import run_alone
from tests.bus.realm import memory_network, realm
from tests.controllers.build import Realm as Fleet
from tests.operations.sights import sight
from tests.operations.test_alerts import stats

FAR = BrokerAddress("10.9.9.9:4000", bytes(range(32)))
NEAR = BrokerAddress("10.9.9.10:4000", bytes(range(1, 33)))


def on_a_bus(tmp_path: Path, test: Callable[[Any], Awaitable[None]]) -> None:
    """Have an operator attached while a test runs; to a broker of a name that no home has: a word on that gives it a key."""

    async def within() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await made.broker("elsewhere")
            await test(await made.client("operator/alice"))

    run_alone(within())


async def remove(home: Home, bus: Any, name: str) -> BrokerAddress:
    return await brokers.remove(home, bus, name, by="a", reason="", waits=silent)


async def add(home: Home, bus: Any, name: str, listen: str | None = None, *, leaf: bool = False) -> str:
    at = await brokers.add(home, bus, name, listen=listen, by="a", reason="", now_s=0, waits=silent, leaf=leaf)
    return at.address


class KilledError(Exception):
    """Stands for SIGKILL at a moment within a command."""


def killing(patch: pytest.MonkeyPatch, place: object, name: str) -> None:
    """Have whoever calls this function be killed."""

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    patch.setattr(place, name, killed)


def host(address: str) -> str:
    return address.rpartition(":")[0]


def test_a_broker_listens_where_those_of_its_home_do(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", listen="127.0.0.9:4222")

    async def test(bus: Any) -> None:
        at = await add(home, bus, "b2")
        assert host(at) == "127.0.0.9"
        assert (await announced(bus))["b2"].address == at
        ensure_broker(home, "b3")
        assert {host(address) for address, _ in home.realm().brokers} == {"127.0.0.9"}
        assert len(set(home.realm().brokers)) == 3

    on_a_bus(tmp_path, test)


def test_a_broker_that_the_others_would_not_reach_is_not_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        await announce(bus, {"far": FAR}, by="a")
        for listen in (None, "127.0.0.1:4223"):
            with pytest.raises(InputError, match="the realm's other brokers do not reach one at 127") as refused:
                await add(home, bus, "b2", listen)
            assert "--listen" in refused.value.next
        assert (await announced(bus)).keys() == {"far"}
        assert home.names("brokers") == ["b1"]

    on_a_bus(tmp_path, test)


def test_no_broker_takes_the_name_of_one_on_another_machine(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        await announce(bus, {"far": FAR}, by="a")
        with pytest.raises(RefusedError, match="there is a broker far on another machine"):
            await add(home, bus, "far")
        assert (await announced(bus))["far"].public == FAR.public
        assert home.names("brokers") == ["b1"]

    on_a_bus(tmp_path, test)


def test_a_realm_has_up_to_seven_brokers_and_leaves_beside_them(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        leaves = {f"site{n}": BrokerAddress(f"127.0.1.{n}:4000", bytes([n] * 32), leaf=True) for n in range(1, 9)}
        await announce(bus, leaves, by="a")
        for n in range(2, MAX_BROKERS + 1):
            await add(home, bus, f"b{n}")
        with pytest.raises(RefusedError, match="has 7 brokers, and may have no more") as refused:
            await add(home, bus, "b8")
        assert "dsmt broker remove" in refused.value.next
        assert home.names("brokers") == [f"b{n}" for n in range(1, 8)]
        await add(home, bus, "site9", leaf=True)

    on_a_bus(tmp_path, test)


def test_several_that_are_announced_at_the_same_moment_are_all_announced(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    here, hosts = of_home(home), {f"h{n}": replace(FAR, address=f"10.0.0.{n}:4222") for n in range(5)}

    async def test(bus: Any) -> None:
        await asyncio.gather(*(announce(bus, {**here, name: at}, by="a") for name, at in hosts.items()))
        assert await announced(bus) == {**here, **hosts}

    on_a_bus(tmp_path, test)


@pytest.mark.parametrize("place", [brokers.brokers, brokers], ids=["before it is announced", "before it is started"])
def test_an_addition_that_was_killed_is_done_by_who_types_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        with monkeypatch.context() as patch:
            killing(patch, place, "announce" if place is brokers.brokers else "keep_added")
            with pytest.raises(KilledError):
                await add(home, bus, "b2")
        begun = of_home(home)["b2"]
        with monkeypatch.context() as patch:
            kept: list[str] = []

            async def keep(_: Home, __: str, ___: tuple[str, ...], name: str) -> None:
                kept.append(name)

            patch.setattr(brokers, "is_up", lambda _: True)
            patch.setattr(brokers, "keep_added", keep)
            with pytest.raises(RefusedError, match=f"b2 was begun at {begun.address}"):
                await add(home, bus, "b2", "127.0.0.8:4999")
            assert await add(home, bus, "b2") == begun.address
            assert kept == ["b2"]
        assert (await announced(bus))["b2"] == begun
        with pytest.raises(RefusedError, match="already, and nothing is left to do") as refused:
            await add(home, bus, "b2")
        assert refused.value.next.startswith("dsmt brokers shows it"), "who was killed at the very end adds no second one"

    on_a_bus(tmp_path, test)


def test_a_leaf_whose_addition_was_killed_is_not_announced_as_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        with monkeypatch.context() as patch:
            killing(patch, brokers.brokers, "announce")
            with pytest.raises(KilledError):
                await add(home, bus, "site", leaf=True)
        assert of_home(home).keys() == {"b1", "site"}
        assert meshed(home).keys() == {"b1"}, "whom dsmt up announces"
        await add(home, bus, "site", leaf=True)
        assert (await announced(bus))["site"].leaf

    on_a_bus(tmp_path, test)


@pytest.mark.parametrize("half", [False, True], ids=["before it is ended", "while its directory is removed"])
def test_a_removal_that_was_killed_is_done_by_who_types_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        await add(home, bus, "b2")
        at = of_home(home)["b2"]
        with monkeypatch.context() as patch:
            killing(patch, brokers, "remove_or_empty" if half else "release")
            with pytest.raises(KilledError):
                await remove(home, bus, "b2")
        assert await announce(bus, of_home(home), by="a") == ["b2"], "dsmt up brings it back into no realm"
        assert (await announced(bus)).keys() == {"b1"}
        if half:
            (home.part("brokers", "b2") / IDENTITY).unlink()
        assert await remove(home, bus, "b2") == at
        assert home.names("brokers") == ["b1"]
        assert (await announced(bus)).keys() == {"b1"}
        with pytest.raises(NotFoundError):
            await remove(home, bus, "b2")

    on_a_bus(tmp_path, test)


def test_a_broker_whose_removal_was_killed_may_be_added_again_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        await add(home, bus, "b2")
        with monkeypatch.context() as patch:
            killing(patch, brokers, "release")
            with pytest.raises(KilledError):
                await remove(home, bus, "b2")
        await add(home, bus, "b2")
        assert (await announced(bus)).keys() == meshed(home).keys() == {"b1", "b2"}

    on_a_bus(tmp_path, test)


def test_a_removed_broker_of_another_machine_is_forgotten_here_by_who_types_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    own = init(home, name="test")
    reach_at(home, msgspec.structs.replace(own, brokers=(*own.brokers, (FAR.address, FAR.public))))

    async def test(bus: Any) -> None:
        await announce(bus, {**of_home(home), "far": FAR}, by="a")
        with monkeypatch.context() as patch:
            killing(patch, brokers, "reach_at")
            with pytest.raises(KilledError):
                await remove(home, bus, "far")
        assert await remove(home, bus, "far") == FAR
        assert home.realm() == own
        with pytest.raises(NotFoundError):
            await remove(home, bus, "far")

    on_a_bus(tmp_path, test)


def test_the_only_broker_of_a_home_is_there_already_though_nobody_announced_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        with pytest.raises(RefusedError, match=r"broker b1 is in .* already"):
            await add(home, bus, "b1")
        assert await announced(bus) == {}

    on_a_bus(tmp_path, test)


def test_what_was_removed_or_was_a_leaf_is_known_by_its_key_and_another_key_is_another_broker(tmp_path: Path) -> None:
    site = BrokerAddress("10.9.9.8:4000", bytes([8] * 32), leaf=True)

    async def test(bus: Any) -> None:
        await announce(bus, {"far": FAR, "site": site}, by="a")
        await announce(bus, {"site": replace(site, address="10.9.9.7:4000", leaf=False)}, by="a")
        assert (await announced(bus))["site"].leaf, "it has moved, and is one still"
        with pytest.raises(RefusedError, match="far is the only broker but leaves"):
            await words.remove(bus, "far", {}, by="a", reason="")
        await announce(bus, {"near": NEAR}, by="a")
        await words.remove(bus, "far", {}, by="a", reason="")
        assert await announce(bus, {"far": FAR}, by="a") == ["far"]
        anew = {"far": replace(FAR, public=bytes([7] * 32)), "site": replace(site, public=bytes([6] * 32), leaf=False)}
        assert await announce(bus, anew, by="a") == []
        assert await announced(bus) == {**anew, "near": NEAR}

    on_a_bus(tmp_path, test)


def test_of_so_many_brokers_as_are_needed_none_is_removed(tmp_path: Path) -> None:
    known = {f"b{n}": BrokerAddress(f"10.9.9.{n}:4000", bytes([n] * 32)) for n in range(4)}

    async def test(bus: Any) -> None:
        await announce(bus, known, by="a")
        with pytest.raises(NotFoundError, match=r"no broker broker/b3; there is b0, b1, b2, b3\. write b3, without broker/"):
            await words.remove(bus, "broker/b3", {}, by="a", reason="", least=3)
        await words.remove(bus, "b3", {}, by="a", reason="", least=3)
        with pytest.raises(RefusedError, match="b2 is one of 3 NATS servers, and no fewer than 3 may be left"):
            await words.remove(bus, "b2", {}, by="a", reason="", least=3)
        assert (await announced(bus)).keys() == {"b0", "b1", "b2"}

    on_a_bus(tmp_path, test)


def test_a_second_broker_of_a_home_that_is_down_has_an_address_of_its_own(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (first,) = init(home, name="test").brokers
    ensure_broker(home, "b2")
    assert first in home.realm().brokers
    assert len({address for address, _ in home.realm().brokers}) == 2


def test_of_a_broker_that_is_silent_as_it_is_removed_it_is_known_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, fleet = Home(tmp_path / "home"), Fleet("n1")
    init(home, name="test")
    for name, state in (("b2", "open"), ("b3", "silent")):
        fleet.session(f"broker/{name}", state, since_ms=fleet.now_ms - 9_000)

    async def look(_: object) -> Sight:
        return sight(fleet)

    monkeypatch.setattr(brokers, "look", look)
    found = [asyncio.run(brokers.silent_since_ms(Any, home, name)) for name in ("b1", "b2", "b3", "b9")]
    assert found == [None, None, fleet.now_ms - 9_000, None]


@pytest.mark.parametrize(
    ("name", "b2", "refused"),
    [
        ("b1", {"whole": True}, ""),
        ("b1", {"whole": False}, "no broker but b1 is whole"),
        ("b1", None, "no broker but b1 is alive"),
        ("b2", None, ""),
        ("site", {"whole": True}, ""),
        ("mute", {"whole": True}, ""),
        ("site", {"whole": False}, "no broker but site is whole"),
    ],
)
def test_a_broker_that_alone_is_alive_and_whole_is_not_removed(
    monkeypatch: pytest.MonkeyPatch, name: str, b2: dict[str, bool] | None, refused: str
) -> None:
    fleet, waited = Fleet("n1"), []
    fleet.session("broker/b2", "silent" if b2 is None else "open", since_ms=fleet.now_ms - 9_000)

    async def look(_: object, *, passing: bool) -> Sight:
        seen = sight(fleet)
        seen.passing.stats |= {"b1": (seen.now_ms, stats(whole=True)), "b2": (seen.now_ms, stats(**(b2 or {"whole": True})))}
        seen.passing.withheld["mute"] = {"b2": Withheld(count=1, source="node/n1", incarnation=1, sequence=1)}
        seen.passing.leaves.add("site")
        if name not in seen.passing.stats:  # beside b2
            seen.passing.stats[name] = seen.passing.stats.pop("b1")
        return seen

    async def announced_now(_: object) -> dict[str, BrokerAddress]:
        return {"b2": NEAR, name: replace(FAR, leaf=name == "site")} if name != "b2" else {"b1": FAR, "b2": NEAR}

    monkeypatch.setattr(brokers, "look", look)
    monkeypatch.setattr(words, "announced", announced_now)
    monkeypatch.setattr(brokers, "ANOTHER_S", 0.05)
    monkeypatch.setattr(brokers, "LOOK_S", 0.01)
    work = brokers._another_is_whole(Any, name, waited.append)
    if not refused:
        often = {"b1": brokers.TRIES, "site": brokers.TRIES, "b2": 1, "mute": 0}[name]
        assert asyncio.run(work) == often, "what others have yet to read of one that answers is waited for"
        return
    with pytest.raises(RefusedError, match=refused):
        asyncio.run(work)
    assert waited == [f"no other broker is {refused.rpartition(' ')[2]}"]
