"""The sessions of a NATS server: what a gate makes of connections that come, go, and say nothing."""

from __future__ import annotations

import asyncio
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats.accounts import NatsAccounts
from dsmt.bus.nats.presence import NatsPresence
from dsmt.bus.rules.nats_config import permissions
from dsmt.bus.rules.nats_sessions import NatsSession, NatsSessions, ServerConnection
from dsmt.bus.rules.presence import RENEW_AFTER, Presence
from dsmt.bus.rules.session_words import SessionWords
from dsmt.bus.wire.nkeys import public_of, user_nkey
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import RefusedError, UnusableEventError
from dsmt.event.kinds.broker import SessionFact
from dsmt.trust.certificate import Certificate
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm, TrustStore
from tests.waiting import until

NOW_MS = 1_800_000_000_000


class Said:
    """What the gate has said: (source, state, how)."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, str | None]] = []

    def say(self, topic, record, **_about) -> None:
        self.all.append((topic.removeprefix("broker/b1/session/"), record.state, record.how))


class Gate:
    def __init__(self) -> None:
        self.said = Said()
        self.sessions = NatsSessions("broker/b1", SessionWords("broker/b1", self.said, 0.0))

    def open(
        self,
        name: str,
        number: int,
        now: float,
        *,
        payer: str = "",
        reads: bool = False,
        attachment: int = 7,
        attaches: bool = True,
        incarnation: int = 1,
        certificate: Certificate | None = None,
    ) -> None:
        session = NatsSession(
            at=ServerConnection("S1", number),
            name=name,
            public=bytes(32),
            certificate=certificate,
            incarnation=incarnation,
            claimed=incarnation,
            attachment=attachment,
            pid=None,
            version="",
            address="",
            payer=payer or name,
            reads=reads,
            heard=now,
        )
        self.sessions.opened(session, now, NOW_MS)
        if attaches and not reads:
            self.sessions.heard(name, now, NOW_MS)


def test_of_two_connections_of_one_name_the_later_one_counts_and_the_end_of_the_other_is_not_told() -> None:
    gate = Gate()
    gate.open("node/n1", 1, 1.0, attachment=7)
    gate.open("node/n1", 2, 2.0, attachment=8)
    gate.sessions.ended(ServerConnection("S1", 1), "Client Closed", 2.1, NOW_MS)
    assert gate.said.all == [("node/n1", "open", None), ("node/n1", "open", None)]
    gate.sessions.heard("node/n1", 3.0, NOW_MS)
    gate.sessions.ended(ServerConnection("S1", 2), "Client Closed", 3.1, NOW_MS)
    assert gate.said.all[2:] == [("node/n1", "closed", "peer")]


def test_who_had_closed_and_comes_again_with_the_number_that_it_had_is_said_to_be_open() -> None:
    gate = Gate()
    gate.open("node/n1", 1, 1.0)
    gate.sessions.ended(ServerConnection("S1", 1), "Client Closed", 1.1, NOW_MS)
    gate.open("node/n1", 2, 2.0)
    assert [state for _, state, _ in gate.said.all] == ["open", "closed", "open"]


def test_who_was_attached_before_the_gate_came_may_be_quiet_for_as_long_as_before() -> None:
    """It is asked as a delegate is: late."""
    gate = Gate()
    words = gate.sessions._words
    known = SessionFact(attachment=7, state="open", how=None, since_ms=1, incarnation=1, pid=1, version="", address="")
    for name in ("node/n1", "monitor/n1"):
        words.presence.restore(name, known, 0.0, NOW_MS)
    gate.open("node/n1", 1, 1.0, attaches=False)
    gate.open("monitor/n1", 2, 1.0, payer="node/n1", attaches=False)
    for turn in range(1, 24):
        now = 1.0 + turn / 4
        gate.sessions.heard("node/n1", now, NOW_MS)
        if "monitor/n1" in gate.sessions.ask(now):
            gate.sessions.heard("monitor/n1", now, NOW_MS)
        words.tick(now, NOW_MS, 0.25)
    assert not gate.said.all


def issued(at_s: int) -> Certificate:
    key = SecretKey(bytes(32))
    return root_issued("node/n1", key, key=key, now_s=at_s, serial=bytes(16)).chain[0].certificate


def test_of_two_connections_of_one_name_the_one_that_attached_before_is_to_be_ended() -> None:
    gate = Gate()
    gate.open("node/n1", 1, 1.0, attachment=1)
    gate.open("node/n2", 2, 1.0)
    gate.open("node/n1", 3, 2.0, attachment=3, attaches=False)
    assert not gate.sessions.to_end, "it has not attached yet"
    gate.sessions.heard("node/n1", 2.0, NOW_MS)
    assert [at.number for at in gate.sessions.to_end] == [1]
    gate.sessions.ended(ServerConnection("S1", 1), "Kicked", 2.1, NOW_MS)
    assert not gate.sessions.to_end


def test_who_comes_with_an_older_certificate_is_to_be_ended_and_counts_for_nothing() -> None:
    gate = Gate()
    gate.open("node/n1", 1, 1.0, attachment=1, certificate=issued(1000))
    gate.open("node/n1", 2, 2.0, attachment=2, certificate=issued(999))
    assert [at.number for at in gate.sessions.to_end] == [2]
    gate.sessions.ended(ServerConnection("S1", 2), "Kicked", 2.1, NOW_MS)
    assert gate.said.all == [("node/n1", "open", None)]
    gate.open("node/n1", 3, 3.0, attachment=3, certificate=issued(1000))
    assert [at.number for at in gate.sessions.to_end] == [1]


def test_of_two_processes_that_take_turns_both_are_kept_out_and_the_key_is_named() -> None:
    gate = Gate()
    for number in range(5):  # each comes back once before it is known by its incarnation
        assert not gate.sessions._words.presence.contested("node/n1", 1000)
        gate.open("node/n1", number, float(number), attachment=number, incarnation=5 + number % 2, certificate=issued(1000))
        gate.sessions.ended(ServerConnection("S1", number - 1), "Kicked", number + 0.1, NOW_MS)
    assert [at.number for at in gate.sessions.to_end] == [4], "nobody counts any more"
    gate.sessions.ended(ServerConnection("S1", 4), "Kicked", 5.0, NOW_MS)
    record = gate.sessions._words.presence.record_of("node/n1")
    assert (record.state, record.kept_out) == ("closed", issued(1000).key_id.hex())
    gate.open("node/n1", 6, 6.0, attachment=9, incarnation=5, certificate=issued(1000), attaches=False)
    assert [at.number for at in gate.sessions.to_end] == [6], "another gate has let it in"


def test_who_is_kept_out_and_is_still_connected_when_the_last_that_counted_ends_does_not_count_either() -> None:
    gate = Gate()
    for number in range(5):
        gate.open("node/n1", number, float(number), attachment=number, incarnation=5 + number % 2, certificate=issued(1000))
        gate.sessions.ended(ServerConnection("S1", number - 1), "Kicked", number + 0.1, NOW_MS)
    gate.open("node/n1", 6, 5.0, attachment=9, incarnation=5, certificate=issued(1000), attaches=False)
    gate.sessions.ended(ServerConnection("S1", 4), "Kicked", 5.1, NOW_MS)
    gate.sessions.heard("node/n1", 5.2, NOW_MS)
    assert gate.said.all[-1] == ("node/n1", "closed", "local")


def test_who_only_reads_is_not_ended_for_one_of_its_name_that_attaches() -> None:
    gate = Gate()
    gate.open("operator/alice", 1, 1.0, reads=True)
    gate.open("operator/alice", 2, 2.0)
    gate.open("operator/alice", 3, 3.0, reads=True, attachment=9)
    gate.sessions.heard("operator/alice", 3.1, NOW_MS)
    assert not gate.sessions.to_end
    assert gate.said.all == [("operator/alice", "open", None)]


def test_a_process_that_is_started_anew_takes_no_turn_for_it_claims_no_incarnation_at_first() -> None:
    gate = Gate()
    for number in range(8):
        gate.open(
            "node/n1", number, float(number), attachment=number, incarnation=number % 2 * number, certificate=issued(1000)
        )
    assert not gate.sessions._words.presence.contested("node/n1", 1000)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([7, 8], [7, 8]),
        ([8, 7], [8, 9]),
        ([NOW_MS, 2**62], [NOW_MS, NOW_MS + 10_000]),
        ([2**62, 2**62], [NOW_MS + 10_000, NOW_MS + 10_001]),
    ],
    ids=["later", "of a clock that went back", "far ahead", "far ahead again"],
)
def test_a_number_that_is_told_is_bounded_and_above_those_before(numbers: list[int], told: list[int]) -> None:
    gate, found = Gate(), []
    for place, number in enumerate(numbers):
        gate.open("node/n1", place, float(place), attachment=number)
        record = gate.sessions._words.presence.record_of("node/n1")
        assert record is not None
        found.append(record.attachment)
        gate.sessions.ended(ServerConnection("S1", place), "Client Closed", place + 0.5, NOW_MS)
    assert found == told
    assert [state for _, state, _ in gate.said.all] == ["open", "closed"] * len(numbers)


@pytest.mark.parametrize(("claimed", "told"), [(1, 1), (NOW_MS, NOW_MS), (2**62, NOW_MS + 10_000)])
def test_an_incarnation_that_is_told_is_the_one_that_is_claimed_and_no_further_ahead_than_one_may_be(
    claimed: int, told: int
) -> None:
    gate = Gate()
    gate.open("node/n1", 1, 0.0, incarnation=claimed)
    record = gate.sessions._words.presence.record_of("node/n1")
    assert record is not None
    assert record.incarnation == told


def test_a_connection_that_is_listed_again_is_told_once() -> None:
    gate = Gate()
    for now in (1.0, 2.0):
        gate.open("node/n1", 1, now)
    assert gate.said.all == [("node/n1", "open", None)]


def test_a_connection_that_has_ended_does_not_come_back_with_a_list_that_was_written_before() -> None:
    gate = Gate()
    gate.open("node/n1", 1, 1.0)
    gate.sessions.ended(ServerConnection("S1", 1), "Client Closed", 1.1, NOW_MS)
    gate.open("node/n1", 1, 1.2)
    assert [state for _, state, _ in gate.said.all] == ["open", "closed"]


def test_who_connects_and_cannot_attach_is_not_told_and_neither_is_its_end() -> None:
    gate = Gate()
    gate.open("node/n1", 1, 1.0)
    for number in (2, 3):
        gate.open("node/n1", number, 2.0, attachment=8, attaches=False)
        gate.sessions.ended(ServerConnection("S1", number), "Client Closed", 2.1, NOW_MS)
    assert [state for _, state, _ in gate.said.all] == ["open"]
    gate.sessions.ended(ServerConnection("S1", 1), "Client Closed", 3.0, NOW_MS)
    assert [state for _, state, _ in gate.said.all] == ["open", "closed"]


def test_the_gate_tells_nothing_of_itself_and_of_who_only_reads() -> None:
    gate = Gate()
    gate.open("broker/b1", 1, 1.0)
    gate.open("operator/alice", 2, 1.0, reads=True)
    gate.sessions.ended(ServerConnection("S1", 2), "Client Closed", 1.1, NOW_MS)
    assert gate.said.all == []


def test_who_is_quiet_is_asked_and_a_delegate_only_when_its_node_is_not_heard_either() -> None:
    gate = Gate()
    gate.open("node/n1", 1, 0.0)
    gate.open("agent/n1/web/app/0", 2, 0.0, payer="node/n1")
    assert gate.sessions.ask(0.9) == []
    assert gate.sessions.ask(1.0) == ["node/n1"]
    gate.sessions.heard("node/n1", 1.1, NOW_MS)
    assert gate.sessions.ask(2.0) == []
    assert gate.sessions.ask(3.0) == ["node/n1", "agent/n1/web/app/0"]
    assert gate.sessions.ask(3.5) == []


def test_what_only_a_gate_may_do_no_other_certificate_grants() -> None:
    root, subjects = SecretKey(os.urandom(32)), Subjects("lab")

    def granted(name: str) -> dict[str, dict[str, list[str]]]:
        identity = root_issued(name, root, key=SecretKey(os.urandom(32)), now_s=0, serial=b"")
        return permissions(identity.certificate, subjects)

    gates = {"$JS.API.>", subjects.asked_all, subjects.everything, subjects.answers}
    for role in ("node/n1", "monitor/n1", "controller/c1", "operator/alice", "issuer/c1"):
        told = granted(role)
        assert not gates & {*told["publish"]["allow"], *told["subscribe"]["allow"]}
        asks = [one for one in told["publish"]["allow"] if one.startswith("$JS.API.STREAM.MSG.GET.")]
        assert len(asks) == (0 if role == "monitor/n1" else 3), "who may not read everything asks through a gate"
    told = granted("broker/b1")
    assert gates <= {*told["publish"]["allow"], *told["subscribe"]["allow"]}


@pytest.mark.parametrize("wrong", ["", "U", "x" * 56, "A" * 56])
def test_a_name_of_a_key_is_read_back_and_nothing_else_is_one(wrong: str) -> None:
    key = SecretKey(os.urandom(32))
    assert public_of(user_nkey(key.public)) == key.public
    damaged = user_nkey(key.public)[:-1] + ("A" if user_nkey(key.public)[-1] != "A" else "B")
    for one in (wrong, damaged):
        with pytest.raises(UnusableEventError):
            public_of(one)


def test_a_connection_has_ended_when_two_lists_of_its_server_running_do_not_have_it() -> None:
    gate, nothing = Gate(), SimpleNamespace(source="broker/b1", now_ms=lambda: NOW_MS, boottime=lambda: 2.0)
    gate.open("node/n1", 1, 1.0)
    gate.open("node/n2", 2, 1.0)
    bus: Any = nothing
    trust = TrustStore(Realm(name="test", roots=(bytes(32),)))
    presence = NatsPresence(bus, trust, nothing, accounts=NatsAccounts(bus, trust, nothing), ended=lambda _: None)
    presence._sessions = gate.sessions
    for server, numbers in (("S1", {1}), ("S2", set()), ("S1", {1, 2}), ("S1", {1})):  # one that comes while it counts
        presence._missing(server, numbers)
        assert {at.number for at in gate.sessions.at} == {1, 2}
    presence._missing("S2", set())  # which tells of its own alone
    presence._missing("S1", {1})
    assert {at.number for at in gate.sessions.at} == {1}
    assert gate.said.all[-1] == ("node/n2", "closed", "timeout")


def test_whose_certificate_could_not_be_read_as_it_came_is_known_with_the_next_list() -> None:
    """Else nobody would pay for what it costs, and of two processes of its name none would be the newer one."""
    gate, root = Gate(), SecretKey(os.urandom(32))
    own = root_issued("node/n1", root, key=SecretKey(os.urandom(32)), now_s=NOW_MS // 1000, serial=os.urandom(16))
    gate.open("node/n1", 1, 1.0)
    (session,) = gate.sessions.at.values()
    session.public, session.payer = own.key.public, ""
    bus: Any = SimpleNamespace(source="broker/b1", now_ms=lambda: NOW_MS, boottime=lambda: 2.0)
    trust = TrustStore(Realm(name="test", roots=(root.public,)))
    accounts: Any = SimpleNamespace(over=lambda *_: "")
    presence = NatsPresence(bus, trust, bus, accounts=accounts, ended=lambda _: None)
    presence._sessions = gate.sessions
    trust.add_all([signed.raw for signed in own.chain])
    listed = {"server": {"id": "S1", "name": "b1"}, "data": {"connections": [{"cid": 1}]}}

    async def within() -> None:
        following = asyncio.create_task(presence._follow(bus))
        await presence._told.put(SimpleNamespace(subject="", data=json.dumps(listed)))  # type: ignore[arg-type]
        await until(lambda: session.payer)
        following.cancel()

    asyncio.run(within())
    assert (session.certificate, session.payer) == (own.certificate, "node/n1")


def test_what_was_sent_over_a_connection_goes_to_its_account_when_it_ends() -> None:
    gate, nothing = Gate(), SimpleNamespace(source="broker/b1", now_ms=lambda: NOW_MS, boottime=lambda: 2.0)
    gate.open("node/n1", 1, 1.0)
    gate.open("node/n2", 2, 1.0)
    bus: Any = nothing
    ended: list[tuple[str, int]] = []
    accounts: Any = SimpleNamespace(ended=lambda session, sent: ended.append((session.name, sent["msgs"])))
    presence = NatsPresence(
        bus, TrustStore(Realm(name="test", roots=(bytes(32),))), nothing, accounts=accounts, ended=lambda _: None
    )
    presence._sessions = gate.sessions
    one, other = sorted(gate.sessions.at)
    presence._ended(one, "Client Closed", {"msgs": 7, "bytes": 9})
    presence._ended(one, "Client Closed", {"msgs": 7, "bytes": 9})
    presence._ended(other, "")
    assert ended == [("node/n1", 7)]


def test_who_is_kept_out_by_a_gate_and_comes_again_is_said_again_before_its_fact_dies() -> None:
    now, own = 1.1 * RENEW_AFTER, issued(1000)
    bus: Any = SimpleNamespace(source="broker/b1", now_ms=lambda: NOW_MS, boottime=lambda: now)
    trust = TrustStore(Realm(name="test", roots=(bytes(32),)))
    presence = NatsPresence(bus, trust, bus, accounts=NatsAccounts(bus, trust, bus), ended=lambda _: None)
    kept_out = SessionFact(
        attachment=1, state="closed", how="local", since_ms=NOW_MS, incarnation=1, pid=None, version="", address="",
        kept_out=own.key_id.hex(), kept_out_issued=1000,
    )  # fmt: skip
    known = presence._words.presence = Presence(0.0)
    known.restore("node/n1", kept_out, 0.0, NOW_MS)
    presence.check(issued(1001))
    with pytest.raises(RefusedError) as caught:
        presence.check(own)
    assert caught.value.code == "trust.contested"
    assert known.tick(now, NOW_MS, now) == [("node/n1", kept_out)]
