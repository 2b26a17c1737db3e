"""Which broker a client tries next, how long it waits for it, and what it keeps of where brokers are (rule R8)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.bus.client import brokers, homing
from dsmt.bus.client.brokers import KnownBrokers
from dsmt.bus.client.client import BusClient
from dsmt.bus.rules.brokers import BROKERS_FILE
from dsmt.errors import DsmtError, FailedError, RefusedError, TransportError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.bus import the_bus
from tests.agents.memory_machine import MemoryFiles
from tests.bus.realm import TestRealm, memory_network
from tests.bus.test_known_brokers import Keys, seed, word
from tests.loops import in_virtual_time

B1, B2, B3, L1, L2 = (seed(name) for name in ("b1", "b2", "b3", "l1", "l2"))
L1, L2 = replace(L1, leaf=True), replace(L2, leaf=True)


class Trust(Keys):
    """Believes these words, and no other."""

    def __init__(self, *believed: SignedEvent, disowned: SignedEvent | None = None) -> None:
        super().__init__()
        self.believed, self.disowned = {one.raw: one for one in believed}, disowned

    def open(self, raw: bytes) -> SignedEvent:
        if raw not in self.believed:
            raise UnusableEventError("event.signature", "it is signed by nobody")
        return self.believed[raw]

    def disowns(self, one: SignedEvent) -> bool:
        return one == self.disowned

    def proof(self, *_: Any) -> list[bytes]:
        return []

    def add_all(self, _: list[bytes]) -> None:
        pass


class Client:
    """Of several that it may try it takes the first, or the last."""

    def __init__(self, *seeds: BrokerAddress, last: bool = False, files: Any = None, trust: Any = None) -> None:
        self.logged: list[str] = []
        self.last = last
        log: Any = SimpleNamespace(warning=lambda said, **why: self.logged.append(f"{said}: {why['reason']}"))
        entropy: Any = SimpleNamespace(uniform=lambda low, high: high - 0.5 if self.last else low)
        self.brokers = KnownBrokers(seeds, trust or Trust(), entropy, files, log)

    def tries(self, count: int) -> list[BrokerAddress]:
        return [self.brokers.next() for _ in range(count)]


@pytest.mark.parametrize("last", [False, True])
def test_all_are_tried_before_one_is_tried_again(last: bool) -> None:
    client = Client(B1, B2, B3, last=last)
    for _ in range(3):
        assert {*client.tries(3)} == {B1, B2, B3}
        client.brokers.attached()


@pytest.mark.parametrize("last", [False, True])
def test_after_a_lost_link_another_one_is_tried_first(last: bool) -> None:
    client = Client(B1, B2, B3, last=last)
    (lost,) = client.tries(1)
    for _ in range(3):
        client.brokers.attached()
        (other,) = client.tries(1)
        assert other != lost
        lost = other


def test_one_that_is_alone_is_tried_again_and_again() -> None:
    assert Client(B1).tries(3) == [B1] * 3


@pytest.mark.parametrize("last", [False, True])
def test_a_leaf_is_tried_first_by_whom_it_is_for_and_others_while_it_does_not_answer(last: bool) -> None:
    client = Client(B1, L1, B2, last=last)
    assert (client.brokers.leaves, client.brokers.better) == ((L1,), L1)
    assert client.tries(1) == [L1]
    assert client.brokers.better is None
    assert {*client.tries(2)} == {B1, B2}
    assert client.brokers.better == L1
    client.brokers.attached()
    assert client.tries(1) == [L1]


def test_who_is_attached_to_one_of_its_leaves_is_at_home() -> None:
    client = Client(B1, L1, L2)
    assert client.tries(3) == [L1, L2, B1]
    assert client.brokers.better == L1
    assert Client(L1, L2, last=True).brokers.better == L2
    client.brokers.attached()
    assert client.tries(2) == [L1, L2]
    assert client.brokers.better is None


def test_one_that_hangs_is_waited_for_shortly_while_another_was_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "FIRST_S", 0.01)
    monkeypatch.setattr(brokers, "ATTACH_S", 0.02)
    client, waited = Client(B1, B2), []

    async def wait() -> None:
        async with client.brokers.patience():
            await asyncio.Event().wait()

    for _ in range(3):
        client.tries(1)
        with pytest.raises(TransportError) as silent:
            asyncio.run(wait())
        assert silent.value.code == "link.silent"
        waited.append(silent.value.message)
    first, long = "no broker answered within 0.01 s", "no broker answered within 0.02 s"
    assert waited == [first, long, long]


def test_what_is_told_of_brokers_is_kept_for_the_next_process_and_what_is_not_believed_hides_none() -> None:
    there, leaf, nobody = word("b2"), word("l1", leaf=True), word("b3")
    files, trust = MemoryFiles(), Trust(there, leaf)
    client = Client(B1, files=files, trust=trust)
    client.brokers.told([nobody.raw, there.raw, leaf.raw, there.raw])
    assert client.logged == ["word on a broker not believed: it is signed by nobody"]
    assert [one.address for one in client.brokers.all] == ["b1.first:4000", "b2.said:4000"], "a leaf is for who was given it"
    later = Client(B1, files=files, trust=trust)
    assert later.brokers.all == client.brokers.all
    files.remove(BROKERS_FILE)
    client.brokers.told([there.raw])
    assert files.read(BROKERS_FILE) is None, "it is no news"
    client.brokers.told([])
    assert Client(B1, trust=trust).brokers.all == (B1,)


def test_a_broker_is_brought_the_words_that_it_lacks_and_of_those_that_it_has_only_newer_ones() -> None:
    older, newer, other, disowned = word("b2"), word("b2", 2), word("b3"), word("b4")
    client = Client(B1, trust=Trust(older, newer, other, disowned, disowned=disowned))
    assert client.brokers.told([newer.raw, other.raw, disowned.raw]) == []
    assert client.brokers.told([]) == [newer, other]
    assert client.brokers.told([older.raw, other.raw]) == [newer]


def test_what_was_kept_and_cannot_be_read_is_not_used_and_that_is_logged() -> None:
    files = MemoryFiles()
    files.write(BROKERS_FILE, b"spoiled")
    client = Client(B1, files=files)
    assert client.brokers.all == (B1,)
    assert client.logged[0].startswith("kept brokers not used: what was kept is none: ")


async def looked(client: Client, *answers: bool | DsmtError, share: float = 0.0) -> tuple[float, list[BrokerAddress]]:
    """After how many seconds a client leaves for a better broker, and where it looked; it has closed each link.

    `answers` are whether that one is isolated, or why it lets nobody in. `share` is of the time that is left to chance.
    """
    open_, asked, given = list[BrokerAddress](), list[BrokerAddress](), list(answers)

    async def connect(there: BrokerAddress) -> Any:
        async def close() -> None:
            open_.remove(there)

        open_.append(there)
        asked.append(there)
        return SimpleNamespace(close=close)

    async def greet(_: Any) -> Any:
        answer = given.pop(0)
        if isinstance(answer, DsmtError):
            raise answer
        return SimpleNamespace(isolated=answer)

    entropy: Any = SimpleNamespace(uniform=lambda low, high: low + share * (high - low))
    began = asyncio.get_running_loop().time()
    with pytest.raises(TransportError, match="is the better one"):
        await homing.go_home(client.brokers, connect, greet, entropy)
    assert (open_, given) == ([], [])
    return round(asyncio.get_running_loop().time() - began, 3), asked


@in_virtual_time
async def test_the_processes_of_a_node_go_home_one_after_the_other() -> None:
    for share in (0.0, 0.5, 1.0):
        assert await looked(Client(B1, L1), False, share=share) == (homing.HOME_S + share * homing.JITTER_S, [L1])


@in_virtual_time
async def test_who_is_at_an_isolated_broker_goes_to_one_that_lets_it_in_and_is_not_isolated() -> None:
    client = Client(B1, B2, last=True)
    assert client.tries(1) == [B2]
    client.brokers.attached()
    assert client.brokers.better is None
    client.brokers.told([], isolated=True)
    refused, silent = RefusedError("trust.expired", "no"), TransportError("link.silent", "no broker answered")
    assert await looked(client, True, refused, silent, False) == (4 * homing.HOME_S, [B1] * 4)
    assert client.tries(1) == [B1]


@in_virtual_time
async def test_who_leaves_for_a_better_broker_tries_that_one_next_whichever_chance_would_have_it_try() -> None:
    client = Client(B1, B2, B3, last=True)
    assert client.tries(1) == [B3]
    client.brokers.attached()
    client.brokers.told([], isolated=True)
    assert (await looked(client, False))[1] == [B2]
    client.last = False
    assert client.tries(1) == [B2]


def test_who_was_at_an_isolated_broker_tries_the_better_one_next_and_then_any() -> None:
    client = Client(B1, B2, B3)
    assert client.tries(1) == [B1]
    client.brokers.attached()
    client.brokers.told([], isolated=True)
    assert client.brokers.better == B2
    client.brokers.prefer(B3)
    assert client.tries(2) == [B3, B1]
    client.brokers.attached()
    assert client.brokers.better is None, "the next one has said nothing yet"


def test_those_that_were_given_are_tried_before_all_that_are_known_are() -> None:
    there = word("b2")
    client = Client(B1, trust=Trust(there))
    client.brokers.told([there.raw])
    assert (len(client.brokers.all), client.brokers.given_tried) == (2, False)
    assert client.tries(1) == [B1]
    assert (client.brokers.given_tried, client.brokers.all_tried) == (True, False)


def test_who_is_at_home_stays_there_and_who_is_not_goes_home_or_to_another_from_an_isolated_broker() -> None:
    client = Client(B1, L1, B2, last=True)
    assert client.tries(1) == [L1]
    client.brokers.told([], isolated=True)
    assert client.brokers.better is None
    assert client.tries(1) == [B2]
    assert client.brokers.better == L1
    assert Client(B1, L1, B2).brokers.better == L1


def test_what_a_full_disk_does_not_keep_of_brokers_is_known_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    there, files = word("b2"), MemoryFiles()

    def full(*_: object, **__: object) -> None:
        raise FailedError("node.files", "the disk is full")

    monkeypatch.setattr(files, "write", full)
    client = Client(B1, files=files, trust=Trust(there))
    assert client.brokers.told([there.raw]) == []
    assert len(client.brokers.all) == 2


@pytest.mark.parametrize(("kept", "known"), [(True, False), (False, True), (True, True)])
def test_where_brokers_are_is_kept_where_alone_they_are_kept_or_beside_the_incarnation(
    kept: bool, known: bool, tmp_path: Path
) -> None:
    """A controller keeps nothing else, and knows where brokers are that nobody had when it was made."""
    made, both, alone = TestRealm(memory_network(), tmp_path), MemoryFiles(), MemoryFiles()
    identity, trust = made.identity("operator/a"), made.trust()
    with the_bus(identity, trust, [B1], kept=both if kept else None, known=alone if known else None) as bus:
        assert isinstance(bus, BusClient)
        assert bus.brokers._files is (alone if known else both)
