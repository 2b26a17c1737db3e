"""Up to when all that another broker has surely came by way of one: who reads it for the first time begins there (E5)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.others.holders import LASTING_MS, Holders
from dsmt.ports.realm import BrokerAddress

NOW, LONG, LATELY = 10 * LASTING_MS, 9 * LASTING_MS, 9 * LASTING_MS + 1
B1, B2 = (BrokerAddress(f"127.0.0.1:{n}", f"b{n}".encode()) for n in (1, 2))


def word(state: str = "open", since_ms: int = LONG, leaf: str = "") -> Any:
    return SimpleNamespace(state=state, since_ms=since_ms, leaf=leaf)


def broker(said: dict[tuple[str, str], Any], *leaves: BrokerAddress) -> Any:
    """A broker, `own`, that knows what these have said of these."""
    return SimpleNamespace(
        _own="broker/own",
        leaves={one.address: one.public for one in leaves},
        _name_of=lambda public: f"broker/{public.decode()}",
        _said_of=lambda of: {f"broker/{by}": told for (by, whom), told in said.items() if f"broker/{whom}" == of},
        readings=SimpleNamespace(read_ms=lambda public: {B1.public: NOW}[public]),
    )


@pytest.mark.parametrize(
    ("said", "shared"),
    [
        ({("b1", "b2"): word(), ("b2", "b1"): word()}, NOW),
        ({("b1", "b2"): word(since_ms=LATELY), ("b2", "b1"): word()}, None),
        ({("b1", "b2"): word(), ("b2", "b1"): word(since_ms=LATELY)}, None),
        ({("b1", "b2"): word(), ("b2", "b1"): word("silent")}, None),
        ({("b1", "b2"): word("closed"), ("b2", "b1"): word()}, None),
        ({("b1", "b2"): word()}, None),
        ({("b2", "b1"): word()}, None),
    ],
    ids=["both read each other", "one lately", "the other lately", "silent", "closed", "one way", "the other way"],
)
def test_what_two_that_have_read_each_other_for_long_have_came_by_way_of_either(
    said: dict[tuple[str, str], Any], shared: int | None
) -> None:
    assert Holders._shared_ms(broker(said), B1.public, B2.public) == shared


@pytest.mark.parametrize(
    ("told", "shared"),
    [
        (word(leaf="read", since_ms=LATELY), NOW),
        (word(leaf="behind"), None),
        (word("closed", leaf="read"), LONG),
        (word("closed", since_ms=NOW + 1, leaf="read"), NOW),
    ],
    ids=["read to its end", "behind", "read until it left", "it has left since"],
)
def test_what_a_leaf_has_came_by_way_of_who_had_read_it_to_its_end(told: Any, shared: int | None) -> None:
    assert Holders._shared_ms(broker({("b1", "b2"): told}, B2), B1.public, B2.public) == shared


@pytest.mark.parametrize(
    ("said", "handed"),
    [
        ({("b1", "own"): word(leaf="read"), ("b1", "b2"): word()}, NOW),
        ({("b1", "own"): word(leaf="behind"), ("b1", "b2"): word()}, None),
        ({("b1", "own"): word(leaf="read"), ("b1", "b2"): word(since_ms=LATELY)}, None),
        ({("b1", "own"): word(leaf="read")}, None),
        ({("b1", "b2"): word()}, None),
    ],
    ids=["all was read", "behind", "the next is there lately", "the next is not", "nothing was said of the leaf"],
)
def test_a_leaf_goes_on_where_its_upstream_had_all_of_it_and_of_the_next_one(
    said: dict[tuple[str, str], Any], handed: int | None
) -> None:
    assert Holders.handed_by_ms(broker(said), B1, NOW, B2) == handed
