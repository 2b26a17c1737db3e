"""Joining where a realm, or an operator's home, was made: `dsmt up` starts there only what it has made."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsmt.errors import RefusedError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init
from dsmt.operations.local.members.joining import join
from dsmt.operations.local.up.machine import StartedRealm, left_out
from dsmt.trust.identity import Identity
from dsmt.trust.joining import Token, joining_identity
from dsmt.trust.keys import SecretKey

NOW_S = 1_800_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    init(made, name="test", listen="127.0.0.1:1")
    return made


def line_of(home: Home, operator: Identity) -> str:
    """A token of a home's realm."""
    realm = home.realm()
    member = joining_identity(operator, key=SecretKey(bytes(32)), token_id=bytes(16), now_s=NOW_S, lifetime_s=3600)
    chain = tuple(one.raw for one in member.chain)
    return Token(realm=realm.name, roots=realm.roots, brokers=realm.brokers, seed=member.key.seed, chain=chain).line()


@pytest.mark.parametrize("gone", [(), ("root.key",)], ids=["the realm", "an operator"])
@pytest.mark.parametrize("name", [None, "web-1"])
def test_where_a_realm_or_an_operators_home_was_made_nothing_joins_and_the_token_is_left(
    home: Home, gone: tuple[str, ...], name: str | None
) -> None:
    line = line_of(home, home.operator())
    for file in gone:
        (home.root / file).unlink()
    with pytest.raises(RefusedError, match="an operator of this realm, or the realm itself, and joins nothing") as refused:
        asyncio.run(join(home, line, name=name))
    assert refused.value.next == "join from another home: --home DIR; or dsmt up --nodes N gives it a node"
    assert home.names("nodes") == []


def test_so_it_is_where_it_has_nodes_already_that_nobody_named(home: Home) -> None:
    home.part("nodes", "n1").mkdir(parents=True)
    (home.part("nodes", "n1") / "identity").touch()
    with pytest.raises(RefusedError, match="joins nothing"):
        asyncio.run(join(home, line_of(home, home.operator()), name=None))
    assert home.names("nodes") == ["n1"]


def test_what_up_starts_with_no_number_is_told_apart_from_what_it_never_starts(home: Home) -> None:
    for kind, name in (("nodes", "n1"), ("nodes", "n2"), ("nodes", "db-1"), ("controllers", "c1"), ("controllers", "spare")):
        home.part(kind, name).mkdir(parents=True)
        (home.part(kind, name) / "identity").touch()
    started = StartedRealm("test", (), ("c1",), ("n1",), made=False)
    assert left_out(home, started) == [
        "n2 of this home is not started: dsmt up, with no number, starts all of it",
        "dsmt up does not start db-1: dsmt node run db-1 does",
        "dsmt up does not start spare: dsmt controller run spare does",
    ]
    assert left_out(home, StartedRealm("test", (), ("c1", "spare"), ("db-1", "n1", "n2"), made=False)) == []
