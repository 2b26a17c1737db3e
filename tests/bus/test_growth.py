"""Growth: neither what a reader costs grows with what others have said, nor a broker with who has gone."""

from __future__ import annotations

import pytest

from dsmt.bus.broker import recorder
from dsmt.bus.broker.fan_out import PAGE_ROWS
from dsmt.bus.store.sqlite import CHECKPOINT_PAGES, SqliteStore
from dsmt.operations.offline.followed import Followed
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.stored import append
from tests.bus.test_routing import Wire
from tests.waiting import until

COMMANDS = "service/web/command/app/0"


class Counted(SqliteStore):
    """Counts the rows that are read."""

    read = 0

    def _rows(self, where, values):
        found = super()._rows(where, values)
        self.read += len(found)
        return found


def wire(others: int, commands: int) -> tuple[Wire, Counted]:
    """A broker whose store has signals of others, and commands for one slot among them."""
    store = Counted(":memory:", identity="a" * 16)
    each = max(1, others // max(1, commands))
    topics = [COMMANDS if n % (each + 1) == each else f"node/n{n % 50}/heartbeat" for n in range(others + commands)]
    store.append(
        [append(n, topic=topic, budget="evidence" if topic == COMMANDS else "signal") for n, topic in enumerate(topics, 1)]
    )
    made = Wire()
    made.deliveries._store = store
    return made, store


@pytest.mark.parametrize("commands", [0, 3])
def test_an_agent_that_comes_back_reads_its_commands_and_nothing_that_others_have_said(commands):
    read = []
    for others in (PAGE_ROWS, 8 * PAGE_ROWS):
        made, store = wire(others, commands)
        made.subscribe(patterns=(COMMANDS,), start="history")
        made.pump()
        assert len(made.got) == commands
        assert made.marks == [(commands, others + commands)]
        read.append(store.read)
        store.close()
    assert read == [commands, commands]


def test_more_commands_than_a_page_come_all_and_in_order():
    made, store = wire(4 * PAGE_ROWS, 2 * PAGE_ROWS)
    made.subscribe(patterns=(COMMANDS,), start="history")
    made.pump()
    assert [row for row, _ in made.got] == [*range(3, 6 * PAGE_ROWS + 1, 3)]
    store.close()


@pytest.mark.parametrize("patterns", [("service/web/command/app/+",), ("service/web/command/",), (COMMANDS, "user/t")])
def test_who_takes_more_than_evidence_of_exact_topics_reads_the_log(patterns):
    made, store = wire(10, 3)
    made.subscribe(patterns=patterns, start="history")
    made.pump()
    assert (len(made.got), store.read) == (3, 13)
    store.close()


def test_the_file_of_a_store_that_is_trimmed_while_it_is_read_grows_no_more(tmp_path):
    limit, path, sizes, number = 500_000, tmp_path / "s.db", [], 0
    store = SqliteStore(str(path), identity="a" * 16, limit_bytes=limit)
    after, read = 0, 0
    for turn in range(40):
        batch = [
            append(number + n, budget=("evidence", "signal", "log")[n % 3], arrived=turn, size=300) for n in range(1, 101)
        ]
        number += 100
        store.append(batch)
        more = True
        while more:
            more = store.trim(turn, 200)
            for row in store.rows(after, 20):
                after, read = row.row, read + 1
        for trim in store.untold():
            store.told(trim.number, store.head)
        sizes.append(path.stat().st_size)
        assert (tmp_path / "s.db-wal").stat().st_size < 3 * CHECKPOINT_PAGES * 4096
    assert read > 100
    assert sizes[-1] < 1.5 * limit
    assert sizes[-1] < 1.1 * sizes[20], "what was trimmed is filled again"
    assert store._db.do("PRAGMA integrity_check") == [("ok",)]
    store.close()


@scenario
async def test_a_broker_remembers_what_it_said_of_a_bounded_number_of_passed_commands(r: TestRealm):
    """A realm in which a command is typed each minute has half a million of them in a year, each with a name of its own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recorder, "TOPICS", 12)
        broker = await r.broker()
        words, watcher = broker._recorder.words, await r.client("operator/watcher")
        first = words.chain.incarnation
        async with reading(watcher, "broker/b1/", "source/broker/b1") as got:
            for number in range(40):
                await r.stop(await r.client(f"operator/alice.{number:08x}"))
                await until(lambda: words.chain.topics <= 12)
            assert words.chain.incarnation > first
            await got.until(lambda g: any(one["previous_incarnation"] == first for one in g.of("source/broker/b1")))
            assert not got.notices
        await until(lambda: broker._store.winner(f"broker/b1/session/operator/alice.{39:08x}"))
        followed = Followed()
        for row in broker._store.rows(0, 10_000):
            followed.add(row.read(), row.row)
        assert (followed.chains(), list(followed.sequences()), followed.equivocations) == ([], [], [])
