"""Brokers of a home whose name another one has by an operator's word (rules C19, R8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.making import init, issue
from dsmt.operations.local.members.brokers import made_ms, of_home
from dsmt.operations.write import brokers as words
from dsmt.operations.write.brokers import announce, announced
from dsmt.programs.configuration import IDENTITY, read_identity
from dsmt.trust.identity import dump
from tests.operations.test_more_brokers import FAR, add, on_a_bus, remove


def test_a_broker_whose_name_is_another_ones_is_ended_here_and_the_other_one_stays(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", brokers=2)

    async def test(bus: Any) -> None:
        await announce(bus, {"b1": of_home(home)["b1"], "b2": FAR}, by="on the other side of a partition")
        assert (await remove(home, bus, "b2")).address != FAR.address
        assert home.names("brokers") == ["b1"]
        assert (await announced(bus))["b2"] == FAR

    on_a_bus(tmp_path, test)


def test_a_broker_whose_name_was_another_ones_that_is_removed_is_ended_here_and_looked_for_no_more(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", brokers=2)

    async def test(bus: Any) -> None:
        await announce(bus, {"b1": of_home(home)["b1"], "b2": FAR}, by="on the other side of a partition")
        await words.remove(bus, "b2", {}, by="there, too", reason="")
        await remove(home, bus, "b2")
        assert home.names("brokers") == ["b1"]
        assert [address for address, _ in home.realm().brokers] == [of_home(home)["b1"].address]

    on_a_bus(tmp_path, test)


def test_a_name_that_was_given_to_another_key_after_a_broker_of_a_home_was_made_is_not_taken_back(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", brokers=2)

    async def test(bus: Any) -> None:
        await announce(bus, {"b1": of_home(home)["b1"], "b2": FAR}, by="on the other side of a partition")
        assert await announce(bus, of_home(home), by="alice", made_ms=made_ms(home)) == ["b2"]
        assert (await announced(bus))["b2"] == FAR
        later = {"b2": made_ms(home)["b2"] + 3_600_000}  # a home that was restored without its keys
        assert await announce(bus, of_home(home), by="alice", made_ms=later) == []
        assert (await announced(bus))["b2"] == of_home(home)["b2"]

    on_a_bus(tmp_path, test)


def test_a_name_that_was_given_to_another_key_by_an_earlier_word_of_the_other_side_is_not_taken_back(tmp_path: Path) -> None:
    """Of two words on both sides of a partition the earlier stands (E2): the loser is most often made after it."""
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        await add(home, bus, "b2")
        here, identity = of_home(home), home.part("brokers", "b2") / IDENTITY
        await announce(bus, {"b2": FAR}, by="on the other side of a partition")
        write_secret(identity, dump(issue(home.root_key(), "broker/b2", now_s=2**31, key=read_identity(identity).key)))
        assert await announce(bus, here, by="alice", made_ms=made_ms(home)) == ["b2"]
        assert (await announced(bus))["b2"] == FAR
        await words.remove(bus, "b2", {}, by="a", reason="")
        assert await announce(bus, here, by="alice", made_ms=made_ms(home)) == ["b2"], "nor when the other one was removed"
        write_secret(identity, dump(issue(home.root_key(), "broker/b2", now_s=2**31)))
        assert await announce(bus, of_home(home), by="alice", made_ms=made_ms(home)) == [], "with another key it is another"

    on_a_bus(tmp_path, test)
