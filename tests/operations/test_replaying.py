"""Replaying a history file: what was decided behind the horizon of trimming is decided again, the same."""

from __future__ import annotations

import asyncio
from math import inf
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.store.tables import DAY_MS
from dsmt.controllers.replay import ReplayReport, Rows, fold_and_decide
from dsmt.errors import InputError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.controller import Decision
from dsmt.event.order import newer
from dsmt.event.records import from_data
from dsmt.event.registry import is_fact
from dsmt.operations.offline import replaying
from dsmt.operations.offline.elsewhere import replay_elsewhere
from dsmt.operations.offline.proving import verify
from dsmt.operations.offline.replaying import replay_file
from dsmt.ports.bus import Draft
from dsmt.ports.store import Append
from dsmt.trust.keys import verify as verify_ed25519
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import Realm, TrustStore
from tests.bus.realm import memory_network, realm
from tests.controllers.scenario import Life
from tests.operations.histories import Run, exported


def stored(life: Life) -> tuple[SqliteStore, dict[int, SignedEvent]]:
    """A store with everything that happened in a life, a day's row each minute."""
    store = SqliteStore(":memory:", identity="a" * 16)
    winners: dict[str, SignedEvent] = {}
    events = dict(life.realm.rows)
    for row, signed in sorted(events.items()):
        event = signed.event
        held = winners.get(event.topic)
        winner = is_fact(event) and (held is None or newer(event, held.event))
        if winner:
            winners[event.topic] = signed
        assert store.append([Append(signed, row * 60_000, "evidence", is_fact(event), winner, event.expires_ms)]) == [row]
    return store, events


@pytest.mark.parametrize("seed", range(4))
def test_decisions_behind_the_horizon_of_a_trimmed_store_replay_the_same(seed: int) -> None:
    life = Life(seed)
    for _ in life.live(80):
        pass
    store, events = stored(life)
    middle = life.decisions[len(life.decisions) // 2]
    horizon = from_data(Decision, middle.event.data).row
    for later in (0, 3_700_000, 3_700_001):
        while store.trim((horizon + 1) * 60_000 + 7 * DAY_MS + (later and 1)):
            pass
        store._trimmer._passed_ms = dict.fromkeys(store._trimmer._passed_ms, -(10**9))
    left = [row.row for row in store.rows(0, 100_000)]
    assert len(left) < len(events)
    report = fold_and_decide([(row, events[row]) for row in left], life.decisions)
    outcomes = {
        finding.outcome for finding in report.findings if from_data(Decision, finding.decision.event.data).row > horizon
    }
    assert outcomes == {"same"}


@pytest.mark.parametrize("seed", range(2))
def test_decisions_on_the_rows_of_another_broker_are_decided_again_where_these_come_to_the_same_view(seed: int) -> None:
    life = Life(seed)
    for _ in life.live(40):
        pass
    other = [(2 * row + 7, signed) for row, signed in life.realm.rows]  # it has more rows, of what no view folds
    assert replay_elsewhere(Rows(other), life.decisions, store="s1", ended=lambda _: inf).count("same") == 0
    report = replay_elsewhere(Rows(other), life.decisions, store="another", ended=lambda _: inf)
    assert report.count("same") == len(report.findings) == len(life.decisions)
    ever = [n for n, (_, signed) in enumerate(other) if life.realm.view.winner(signed.event.topic) is signed]
    lacking = [one for n, one in enumerate(other) if n != ever[0]]
    report = replay_elsewhere(Rows(lacking), life.decisions, store="another", ended=lambda _: inf)
    assert report.count("different") == 0
    told = [detail for finding in report.findings if finding.outcome == "inputs incomplete" for detail in finding.details]
    assert told
    assert all("replay an export of that broker" in one for one in told)


def test_what_is_no_history_is_not_replayed() -> None:
    with pytest.raises(InputError, match="not a history"):
        replay_file(b"\xd2\x84", TrustStore(Realm(name="test", roots=(bytes(32),))))


def test_a_key_has_ended_with_the_first_row_of_a_file_that_revokes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lived() -> Run:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await made.broker()
            clients = {name: await made.client(f"operator/{name}") for name in ("eve", "mallory", "bob")}
            root = await made.client("root")
            for client in clients.values():
                await client.publish(Draft(f"{client.source}/said".replace("operator", "user"), {}, version=1))
            for name in ("eve", "mallory"):
                topic = topic_of(clients[name]._identity.key.key_id, "root")
                await root.publish(Draft(topic, {"by": "root", "name": name, "reason": "stolen"}))
            return await exported(made, clients["bob"])

    told: dict[str, Any] = {}

    def fold(rows: Any, _decisions: Any, **about: Any) -> ReplayReport:
        told.update(about, rows=rows)
        return ReplayReport()

    run = asyncio.run(lived())
    monkeypatch.setattr(replaying, "replay_elsewhere", fold)
    assert replay_file(b"".join(run.items), run.trust()).ok
    by_topic = {signed.event.topic: (row, signed) for row, signed in told["rows"].needed}
    first, second = sorted(row for topic, (row, _) in by_topic.items() if topic.startswith("trust/revoked/"))
    by_source = {signed.event.source: signed for _, signed in told["rows"].needed}
    ended = [told["ended"](by_source[f"operator/{name}"]) for name in ("eve", "mallory", "bob")]
    assert ended == [first, second, inf]


def test_no_event_of_a_file_is_checked_twice(tmp_path: Path) -> None:
    async def lived() -> Run:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await made.broker()
            clients = [await made.client(f"operator/{name}") for name in ("eve", "bob")]
            for client in clients:
                await client.publish(Draft(f"{client.source}/said".replace("operator", "user"), {}, version=1))
            return await exported(made, clients[0])

    run, checked = asyncio.run(lived()), [0]

    def count(algorithm: int, public: bytes, message: bytes, signature: bytes) -> bool:
        checked[-1] += 1
        return verify_ed25519(algorithm, public, message, signature)

    raw = b"".join(run.items)
    assert verify(raw, TrustStore(run.realm, verify=count)).ok
    checked.append(0)
    assert replay_file(raw, TrustStore(run.realm, verify=count)).ok
    certificates = sum(item[1:3] == b"aC" for item in run.items)
    assert checked[1] - checked[0] <= certificates < len(run.rows)
