"""Certificates of passed sources whose events are still stored: on the shelf, and not in memory nor counted (rule D2)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.ingest import Ingest, PublishOutcome
from dsmt.bus.broker.keyring import Keyring
from dsmt.bus.broker.lags import ALL
from dsmt.bus.broker.passed import ROUND_S, STEP
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.words import Words
from dsmt.bus.rules.quota import CERTIFICATES
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import RefusedError, UnusableEventError
from dsmt.ports.network import Peer
from dsmt.ports.store import Shelved
from dsmt.trust.certificate import MAX_BYTES, issue
from dsmt.trust.identity import Identity, delegate
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Pen, TestRealm, memory_network
from tests.bus.saying import status

MIB = 1024 * 1024
WEEKS_MS = 15 * 24 * 3600 * 1000
MORE = CERTIFICATES + 104


def _now_ms() -> int:
    return int(time.time() * 1000)


class Kept:
    """What a broker keeps, without its connections: certificates and events of one node's agents."""

    def __init__(self, r: TestRealm, path: str, *, limit_bytes: int = 1024 * MIB) -> None:
        self.r, self.broker, self.node = r, r.identity("broker/b1"), r.identity("node/n1")
        self.path, self.now = path, 0.0
        self.store = SqliteStore(path, identity="00" * 8, limit_bytes=limit_bytes)
        self.begin()

    def begin(self) -> None:
        self.trust = self.r.trust()
        self.keyring = Keyring(self.broker, self.trust, self.store)
        self.ingest = Ingest(self.broker, self.trust, self.store, Words(self.broker, 1, _now_ms), now_ms=_now_ms)
        self.session = Session(Peer(b"1"), bytes(32), name="node/n1")
        self.here: set[tuple[bytes, str]] = set()

    def again(self) -> None:
        """The broker is started anew, with what it has on its disk."""
        self.store.close()
        self.store = SqliteStore(self.path, identity="00" * 8, limit_bytes=self.store.limit_bytes)
        self.begin()

    def agent(self, number: int) -> Identity:
        """With the one pattern that it needs, so that many are made and checked quickly."""
        name, topic = f"agent/n1/web/app/{number}", f"service/web/status/app/{number}/n1/application"
        key, above = SecretKey(os.urandom(32)), self.node.certificate
        about = {"issuer": above.subject, "subject": name, "public": key.public, "publish": (topic,), "read": ()}
        certificate = msgspec.structs.replace(above, **about, depth=0, quota=64, serial=os.urandom(16))
        return Identity(key, (issue(certificate, self.node.key), *self.node.chain))

    def said(self, who: Identity, *, topic: str = "", key: int = 0) -> PublishOutcome:
        """Somebody's fact is brought, with its certificates, as whoever holds it brings it."""
        self.keyring.introduced(self.session.name, tuple(one.raw for one in reversed(who.chain)))
        place = who.name.rpartition("/")[2]
        signed = Pen(who).write(topic or f"service/web/status/app/{place}/n1/application", status(key))
        return self.ingest.offered(self.session.name, [signed.raw], again=True)

    def rounds(self, count: int = 3) -> None:
        """Rounds of looking for what has passed, to their ends."""
        self.ingest.commit()
        for _ in range(count):
            self.now += ROUND_S
            for _ in range(len(self.trust.delegated()) // STEP + 1):
                self.keyring.let_go(lambda: self.here, self.now)

    def counted(self) -> int:
        return len(self.keyring._certified._kept.get("node/n1", ()))

    def in_memory(self) -> int:
        return len(self.trust.certificates())

    def kept(self) -> int:
        return len(list(self.store.certificates.all()))

    def trim(self) -> None:
        while self.store.trim(int(time.time() * 1000) + WEEKS_MS):
            pass


class Liar:
    """Signs with one key, and says that it was another one."""

    def __init__(self, key: SecretKey, other: SecretKey) -> None:
        self.algorithm, self.key_id, self.sign = key.algorithm, other.key_id, key.sign


@pytest.fixture
def k(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(TestRealm(memory_network(), tmp_path), str(tmp_path / "b1.db"))
    yield kept
    kept.store.close()


def verified(k: Kept, *, each: int = 1) -> list[str]:
    """By whom the stored events are that a stranger can verify with what it is sent along with them; one of so many."""
    stranger = k.r.trust()

    def send(_session, _frame, parts) -> bool:
        stranger.add_all(parts)
        return True

    fan_out = FanOut(k.store, k.trust, send=send, now_ms=lambda: 0, whole=lambda: True, had=lambda *_: ALL)
    reader, after, found = Session(Peer(b"2"), bytes(32)), 0, []
    while rows := k.store.rows(after, 1000):
        after = rows[-1].row
        rows = [row for row in rows if row.row % each == 0]
        fan_out.introductions.introduce(reader, rows)
        found += [stranger.open(row.raw).event.source for row in rows]
    return found


def test_what_somebody_passes_off_as_certificates_of_others_counts_for_nobody(k: Kept) -> None:
    """Who is not let in yet may do so, too: a hello comes with certificates."""
    eve, honest = k.r.identity("node/eve"), k.agent(0)
    k.keyring.take_in(tuple(one.raw for one in honest.chain))
    counted = {name: set(raws) for name, raws in k.keyring._certified._kept.items()}
    for number in range(4):
        for signed, issuer in zip(honest.chain, (k.node.key, k.r.root), strict=True):
            about = {"subject": f"{signed.certificate.subject}{number}", "serial": os.urandom(16)}
            forged = issue(msgspec.structs.replace(signed.certificate, **about), Liar(eve.key, issuer)).raw
            k.keyring.introduced(eve.name, (forged,))
            k.keyring.take_in((forged,))
    assert k.keyring._certified._kept == counted


def test_more_keys_than_a_node_may_have_at_once_pass_while_their_events_are_stored(k):
    for number in range(MORE):
        outcome = k.said(k.agent(number))
        assert len(outcome.accepted) == 1, outcome.refused
        if number % 2000 == 1999:
            k.rounds()
    k.rounds()
    assert (k.counted(), k.in_memory(), k.kept()) == (1, 2, 2)
    assert len(set(verified(k, each=10))) == MORE // 10
    k.again()
    assert (k.counted(), k.in_memory()) == (1, 2)


def test_who_is_away_for_less_than_a_round_has_not_passed_however_often_it_is_looked(k):
    k.said(k.agent(1))
    k.rounds(1)
    for _ in range(10):
        k.keyring.let_go(lambda: k.here, k.now + ROUND_S - 0.1)
    assert k.in_memory() == 3
    k.rounds(1)
    assert k.in_memory() == 2


def test_who_was_here_meanwhile_has_a_whole_round_again_before_it_has_passed(k):
    agent = k.agent(1)
    k.said(agent)
    k.rounds(1)
    for here in ({(agent.key.key_id, agent.name)}, set()):
        k.here = here
        k.rounds(1)
        assert k.in_memory() == 3
    k.rounds(1)
    assert k.in_memory() == 2


def test_who_comes_again_is_in_memory_and_counted_until_it_has_passed_again(k):
    agent = k.agent(0)
    k.said(agent)
    k.rounds()
    assert (k.counted(), k.in_memory()) == (1, 2)
    k.trust.add_all([one.raw for one in agent.chain])
    k.here = {(agent.key.key_id, agent.name)}
    k.rounds()
    assert k.in_memory() == 3
    k.here = set()
    k.rounds()
    assert (k.counted(), k.in_memory(), k.store.certificates.shelved(agent.key.key_id)) == (1, 2, [agent.chain[0].raw])
    assert k.keyring.knows(agent.key.key_id, agent.name)


def test_what_is_on_the_shelf_is_not_taken_in_again_by_who_offers_its_facts(k):
    agent = k.agent(0)
    k.said(agent)
    k.rounds()
    assert k.said(agent, key=1).accepted
    assert (k.counted(), k.in_memory()) == (1, 2)


def test_a_certificate_goes_from_the_store_in_the_moment_when_no_event_is_by_its_key(k):
    old, new = k.agent(0), k.agent(0)
    k.said(old)
    k.rounds()
    k.said(new, key=1)
    k.rounds()
    assert [k.store.certificates.shelved(one.key.key_id) for one in (old, new)] == [[old.chain[0].raw], [new.chain[0].raw]]
    k.trim()
    assert [k.store.certificates.shelved(one.key.key_id) for one in (old, new)] == [[], [new.chain[0].raw]]
    assert k.store.certificates.shelf_bytes("node/n1") == k.store.certificates.shelf_bytes() > 0
    assert not k.keyring.knows(old.key.key_id, old.name)
    assert verified(k) == [new.name]


def test_who_has_certified_what_is_on_the_shelf_stays(k):
    issuer = k.r.identity("issuer/east")
    k.node = k.r.identity("node/n1", parent=issuer)
    agent = k.agent(0)
    k.said(agent)
    k.rounds(6)
    assert set(k.trust.names(k.node.key.key_id)) == {"node/n1"}
    assert verified(k) == [agent.name]


def test_a_key_of_several_names_goes_with_all_of_them_or_not_at_all(k):
    key = k.agent(0)
    other = delegate("agent/n1/web/app/1", k.node, key=key.key, now_s=int(time.time()), serial=os.urandom(16))
    k.said(key)
    k.said(other)
    k.here = {(key.key.key_id, key.name)}
    k.rounds()
    assert (k.trust.names(key.key.key_id), k.in_memory()) == ([key.name, other.name], 4)
    k.here = set()
    k.rounds()
    assert (k.trust.names(key.key.key_id), k.in_memory()) == ([key.name, other.name], 2)
    assert sorted(verified(k)) == [key.name, other.name]


def test_a_node_pays_for_the_facts_and_may_end_the_keys_that_are_on_the_shelf(k):
    agent = k.agent(0)
    k.said(agent)
    k.rounds()
    k.ingest.expire()
    signed = k.store.rows(0, 1)[0].read()
    assert k.ingest._accounts.payer(signed).subject == "node/n1"
    k.session.name = "node/n1"
    word = Pen(k.node).write(topic_of(agent.key.key_id, "node/n1"), {"by": "node/n1"})
    assert k.ingest.offered("node/n1", [word.raw], granted=int(time.time() * 1000) + 10_000).accepted
    k.keyring.revoked(k.ingest.commit())
    assert k.trust.disowns(signed)


def test_a_full_shelf_takes_no_more_and_what_is_counted_is_refused_as_before(tmp_path):
    k = Kept(TestRealm(memory_network(), tmp_path), str(tmp_path / "b1.db"), limit_bytes=2 * MIB)
    try:
        for number in range(60):
            k.said(k.agent(number))
        k.rounds()
        on_shelf = [len(k.store.certificates.shelved(key_id)) for key_id in {row.key_id for row in k.store.rows(0, 100)}]
        assert k.store.certificates.shelf_bytes("node/n1") <= 2 * MIB / 64
        assert 0 < sum(on_shelf) < 60
        assert k.counted() == 61 - sum(on_shelf)
        assert len(verified(k)) == 60
        k.keyring._certified._most = k.counted()
        with pytest.raises(RefusedError):
            k.said(k.agent(100))
    finally:
        k.store.close()


def test_what_a_session_was_shown_is_remembered_up_to_a_bound(k, monkeypatch):
    monkeypatch.setattr("dsmt.bus.broker.introductions.KNOWN", 8)
    sent: list[bytes] = []

    def send(_session, _frame, parts) -> bool:
        sent.extend(parts)
        return True

    agents = [k.agent(number) for number in range(30)]
    for agent in agents:
        k.said(agent)
    k.ingest.commit()
    fan_out = FanOut(k.store, k.trust, send=send, now_ms=lambda: 0, whole=lambda: True, had=lambda *_: ALL)
    reader = Session(Peer(b"2"), bytes(32))
    for row in k.store.rows(0, 100):
        fan_out.introductions.introduce(reader, [row])
        assert len(reader.known) <= 8
    assert {agent.chain[0].raw for agent in agents} <= set(sent)


def test_of_those_whose_facts_others_brought_only_who_is_here_is_remembered(k):
    agent = k.agent(0)
    k.said(agent)
    k.ingest.commit()
    k.ingest._marks.came("node/n1", 1, 1, 0)
    k.ingest._reoffered.add("node/n1")
    k.ingest.expire()
    assert k.ingest._reoffered == {"node/n1"}
    later = Pen(agent, int(time.time() * 1000) + 1)  # within the same millisecond it would be the same incarnation
    again = later.write("service/web/status/app/0/n1/application", status(2))
    assert k.ingest.offered(agent.name, [again.raw]).accepted
    k.ingest.commit()


def test_no_certificate_is_larger_than_one_may_be(k):
    node = k.node.certificate
    about = {"issuer": "node/n1", "subject": "monitor/n1", "public": os.urandom(32), "depth": 0}
    large = msgspec.structs.replace(node, **about, publish=("source/monitor/n1",) * (MAX_BYTES // 10))
    k.trust.add(k.node.chain[0].raw)
    with pytest.raises(UnusableEventError, match=rf"{MAX_BYTES} are the limit"):
        k.trust.add(issue(large, k.node.key).raw)


def test_what_is_put_on_the_shelf_is_not_kept_beside_it(k):
    """Or all of it would be in memory again at the next start."""
    certificates, agent = k.store.certificates, k.agent(1)
    own = agent.chain[0]
    certificates.put(agent.key.key_id, own.raw)
    certificates.shelve([Shelved(own.raw, agent.key.key_id, agent.name, own.issuer_key_id, k.node.name)])
    assert certificates.shelved(agent.key.key_id) == [own.raw]
    assert own.raw not in [raw for _, raw in certificates.all()]
