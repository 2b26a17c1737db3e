"""The history file: whatever is done to one event of it is noticed, what was trimmed honestly is not held against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest

from dsmt.bus.broker import fan_out
from dsmt.bus.client.client import BusClient
from dsmt.errors import RefusedError
from dsmt.event.kinds.broker import BrokerStats
from dsmt.event.records import from_data
from dsmt.event.registry import TOPICS
from dsmt.operations.offline.history import Exported, export, packed, read
from dsmt.operations.offline.proving import verify
from dsmt.operations.offline.replaying import replay_file
from dsmt.operations.offline.verifying import Faults
from dsmt.ports.bus import Draft, HistoryPage
from dsmt.trust.store import Realm
from tests.bus.realm import memory_network, realm
from tests.bus.spoiled import Full
from tests.loops import in_real_time
from tests.operations.histories import DAY_MS, Run, decoded, exported, hidden, judged, lived, numbered, said, trim
from tests.waiting import until

EVENTS = 520


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    async def main() -> Run:
        async with lived(tmp_path_factory.mktemp("run"), EVENTS * 3 // 4) as (made, _, reader):
            return await exported(made, reader)

    return asyncio.run(main())


def test_the_file_as_it_was_written_verifies_whole(run: Run) -> None:
    found = judged(run, run.items)
    assert found.ok, found.faults
    assert len(run.rows) >= 500
    assert found.events == len(run.rows) == found.history.rows
    assert (found.history.trimmed, found.history.left_out, found.history.lost) == (0, 0, 0)
    assert found.history.heads >= 2


def removed(run: Run, at: int) -> list[bytes]:
    return [*run.items[:at], *run.items[at + 1 :]]


def renumbered(changed: list[bytes]) -> list[bytes]:
    """The rows numbered as they stand, so that no number shows what was done."""
    number, out = 0, []
    for item in changed:
        if item[1:3] == b"aR":
            number += 1
            item = numbered(item, number)  # noqa: PLW2901
        out.append(item)
    return out


def removed_and_renumbered(run: Run, at: int) -> list[bytes]:
    return renumbered(removed(run, at))


def added_elsewhere(run: Run, at: int) -> list[bytes]:
    """Once more, as another row at another place."""
    places = run.rows
    there = places[(places.index(at) + len(places) // 2) % len(places)]
    return renumbered([*run.items[:there], run.items[at], *run.items[there:]])


def moved(run: Run, at: int) -> list[bytes]:
    """Before its neighbour, both with the numbers of their new places."""
    other = at + 1 if at + 1 in run.rows else at - 1
    changed = list(run.items)
    changed[at], changed[other] = changed[other], changed[at]
    return renumbered(changed)


def flipped(run: Run, at: int) -> list[bytes]:
    """One byte of it, each time another."""
    item = bytearray(run.items[at])
    item[(at * 37) % len(item)] ^= 1 + at % 255
    return [*run.items[:at], bytes(item), *run.items[at + 1 :]]


def arrived_later(run: Run, at: int) -> list[bytes]:
    row, arrived_ms, raw = cbor2.loads(run.items[at])[1:]
    return [*run.items[:at], packed("R", row, arrived_ms + 1, raw), *run.items[at + 1 :]]


class NoticedError(Exception):
    """Something is wrong with a file: how much else is makes no difference."""


@pytest.fixture
def is_noticed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run, list[bytes]], bool]:
    """Whether anything is found wrong with a changed history: it is read no further than to there."""

    def notice(*_: object) -> None:
        raise NoticedError

    def noticed(run: Run, changed: list[bytes]) -> bool:
        with monkeypatch.context() as at:
            at.setattr(Faults, "wrong", notice)
            at.setattr(Faults, "unusable", notice)
            try:
                return not judged(run, changed).ok
            except NoticedError:
                return True

    return noticed


@pytest.mark.timeout(240)
@pytest.mark.parametrize("change", [removed, hidden, removed_and_renumbered, added_elsewhere, moved, flipped, arrived_later])
def test_whatever_is_done_to_any_one_event_is_noticed(
    run: Run, change: Callable[[Run, int], list[bytes]], is_noticed: Callable[[Run, list[bytes]], bool]
) -> None:
    assert not is_noticed(run, run.items)
    unnoticed = [at for at in run.rows if not is_noticed(run, change(run, at))]
    assert unnoticed == [], f"{len(unnoticed)} of {len(run.rows)} were not noticed"


def test_a_file_that_is_cut_anywhere_is_noticed(run: Run) -> None:
    whole = b"".join(run.items)
    for end in (*range(0, len(run.items), 50), len(run.items) - 1):
        assert not judged(run, run.items[:end]).ok or end == 0
    for end in range(1, len(whole), len(whole) // 40):
        assert not verify(whole[:end], run.trust()).ok, end


def test_a_history_that_does_not_verify_is_not_replayed_as_if_it_did(run: Run) -> None:
    good = replay_file(b"".join(run.items), run.trust())
    assert (good.ok, good.verified) == (True, True)
    spoilt = replay_file(b"".join(removed(run, run.rows[len(run.rows) // 2])), run.trust())
    assert (spoilt.ok, spoilt.verified, spoilt.different) == (False, False, 0)


def test_an_earlier_head_in_the_place_of_the_last_one_is_noticed(run: Run) -> None:
    stats = [cbor2.loads(run.items[at])[3] for at in run.rows if b"dsmt.broker.stats" in run.items[at]]
    assert stats
    for raw in stats:
        found = judged(run, [*run.items[:-1], packed("E", raw)])
        assert not found.ok
        assert any(fault.code == "history.head" for fault in found.faults)


def test_another_store_or_realm_in_the_header_is_noticed(run: Run) -> None:
    _, version, name, store, patterns = cbor2.loads(run.items[0])
    for header in ((version, "other", store, patterns), (version, name, "f" * 16, patterns), (9, name, store, patterns)):
        assert not judged(run, [packed("H", *header), *run.items[1:]]).ok
    strangers = Run(run.items, Realm(name=run.realm.name, roots=(bytes(32),)))
    assert judged(strangers, run.items).unknown_signers + judged(strangers, run.items).bad_signatures > 0


def topic_of(item: bytes) -> str:
    return decoded(cbor2.loads(item)[3]).event.topic


def filtered(run: Run, *patterns: str) -> list[bytes]:
    """As if only these topics had been wanted: no more is changed than the header."""
    _, version, name, store, _ = cbor2.loads(run.items[0])
    return [packed("H", version, name, store, list(patterns)), *run.items[1:]]


@pytest.mark.parametrize(
    "patterns", [("/",), ("user/alice/", "+/"), tuple(f"{root}/" for root in {row.template.split("/")[0] for row in TOPICS})]
)
def test_who_wants_every_topic_leaves_no_row_out(run: Run, patterns: tuple[str, ...]) -> None:
    assert judged(run, filtered(run, *patterns)).ok
    for at in run.rows[::50]:
        found = judged(run, [filtered(run, *patterns)[0], *hidden(run, at)[1:]])
        assert "history.missing" in {fault.code for fault in found.faults}, topic_of(run.items[at])


def test_a_row_that_is_there_was_wanted(run: Run) -> None:
    """Who hides a row of a whole history and says that it was not wanted hides all that is of no wanted topic as well."""
    found = judged(run, filtered(run, "user/"))
    assert {fault.code for fault in found.faults} == {"history.pattern"}
    others = [
        at for at in run.rows if not topic_of(run.items[at]).startswith(("user/", "broker/b1/stats", "broker/b1/trimmed"))
    ]
    some = Run(filtered(run, "user/"), run.realm)
    for at in others:
        some = Run(hidden(some, at), run.realm)
    found = judged(some, some.items)
    assert found.ok, found.faults
    assert found.history.left_out == len(others)
    assert found.history.wanted == ("user/",)
    assert "that no other row was there" not in found.proves
    assert any("user/" in sentence and "nobody has signed it" in sentence for sentence in found.cannot_prove)


@in_real_time
async def test_an_export_of_some_topics_proves_their_rows_and_says_what_it_cannot(tmp_path: Path) -> None:
    async with lived(tmp_path, 60) as (made, _, reader):
        some = await exported(made, reader, "user/alice/")
    found = judged(some, some.items)
    assert found.ok, found.faults
    assert found.history.left_out > 0
    assert len(some.rows) + found.history.left_out == found.history.rows
    assert {decoded(cbor2.loads(some.items[at])[3]).event.topic.split("/")[0] for at in some.rows} <= {
        "user",
        "broker",
    }
    for at in some.rows:
        for change in (removed, moved, flipped, arrived_later):
            assert not judged(some, change(some, at)).ok
    chains: dict[tuple[str, str], list[int]] = {}
    for at in some.rows:
        event = decoded(cbor2.loads(some.items[at])[3]).event
        chains.setdefault((event.source, event.topic), []).append(at)
    between = [at for places in chains.values() for at in places[1:-1]]
    assert len(between) > 10
    for at in between:
        assert judged(some, hidden(some, at)).gaps, topic_of(some.items[at])


def test_who_exports_is_told_how_many_events_are_in_the_file(tmp_path: Path) -> None:
    async def main() -> tuple[Exported, int]:
        async with lived(tmp_path, 20) as (_, _, reader):
            written: list[bytes] = []
            done = await export(reader, reader._trust, written.append, ("user/alice/",))
            return done, sum(letter == "R" for letter, _ in read(b"".join(written)))

    done, rows = asyncio.run(main())
    assert 0 < done.rows == rows < done.head


def test_what_was_read_of_another_store_is_in_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link went to another broker between two pages, or the broker has taken a new id."""
    real, asked = BusClient.history, []

    async def history(self: BusClient, after: int) -> HistoryPage:
        page = await real(self, after)
        asked.append(after)
        if len(asked) > 1:
            return page
        others = tuple((row, arrived_ms + 1, raw) for row, arrived_ms, raw in page.rows[: len(page.rows) // 2])
        return HistoryPage("f" * 16, others, page.nodes, page.lost)

    async def main() -> Run:
        async with lived(tmp_path, 20) as (made, _, reader):
            return await exported(made, reader)

    monkeypatch.setattr(BusClient, "history", history)
    run = asyncio.run(main())
    assert judged(run, run.items).ok


def test_who_exports_right_after_another_waits_for_a_head_of_its_own(tmp_path: Path) -> None:
    async def main() -> tuple[Run, Run]:
        async with lived(tmp_path, 10) as (made, _, reader):
            before = await exported(made, reader)
            client = await made.client("operator/alice")
            await client.emit(Draft("user/alice/later", {"said": "between the two"})).acknowledged()
            return before, await exported(made, reader)

    before, after = asyncio.run(main())
    assert judged(after, after.items).ok
    assert len(after.rows) > len(before.rows)


@in_real_time
async def test_who_may_not_read_everything_cannot_export(tmp_path: Path) -> None:
    async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
        await made.broker()
        name = "agent/n1/web/app/0"
        agent = await made.client(name, identity=made.identity(name, parent=made.identity("node/n1")))
        asking = asyncio.create_task(agent.history(0))
        await until(lambda: agent.refusal is not None or asking.done())
        refused, answered = agent.refusal, asking.done()
        asking.cancel()
    assert isinstance(refused, RefusedError)
    assert not answered


@in_real_time
async def test_an_honestly_trimmed_history_verifies_and_says_what_was_trimmed(tmp_path: Path) -> None:
    async with lived(tmp_path, 200) as (made, broker, reader):
        before = broker._store.head
        trim(broker, broker.now_ms() + DAY_MS)
        some = await exported(made, reader)
        found = judged(some, some.items)
        assert found.ok, (found.faults, found.gaps)
        assert found.history.trimmed > 100
        assert len(some.rows) + found.history.trimmed == found.history.rows > before
        for at in some.rows:
            for change in (removed, hidden, removed_and_renumbered, moved, flipped, arrived_later):
                assert not judged(some, change(some, at)).ok, (change, at)


@pytest.mark.parametrize(("page_rows", "trimmed_behind"), [(512, 1), (128, 1), (128, 2), (64, 3)])
def test_what_is_trimmed_while_it_is_exported_is_held_against_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page_rows: int, trimmed_behind: int
) -> None:
    """By the broker itself, for its age, between one page and the next."""
    monkeypatch.setattr(fan_out, "PAGE_ROWS", page_rows)

    async def main() -> None:
        async with lived(tmp_path, 200) as (made, broker, reader):
            pages: list[HistoryPage] = []
            ask = reader.history

            async def history(after: int) -> HistoryPage:
                pages.append(await ask(after))
                if len(pages) == trimmed_behind:
                    trim(broker, broker.now_ms() + DAY_MS)
                return pages[-1]

            monkeypatch.setattr(reader, "history", history)
            run = await exported(made, reader)
        found = judged(run, run.items)
        assert (found.faults, found.gaps) == ([], [])
        assert found.ok
        assert len(run.rows) + found.history.trimmed == found.history.rows
        assert replay_file(b"".join(run.items), run.trust()).ok
        for at in run.rows[::20]:
            for change in (removed, removed_and_renumbered, moved, flipped, arrived_later):
                assert not judged(run, change(run, at)).ok, (change, at)

    asyncio.run(main())


@in_real_time
async def test_a_full_store_is_exported_up_to_the_last_head_that_its_broker_could_sign(tmp_path: Path) -> None:
    async with lived(tmp_path, 40) as (made, broker, reader):
        first = await exported(made, reader)
        await said(made, [await made.client("operator/dave")], 9)

        broker._store.append = Full()
        heads = [row for row in broker._store.rows(0, 10**6) if row.topic == "broker/b1/stats"]
        last = from_data(BrokerStats, heads[-1].read().event.data).head
        run = await exported(made, await made.client("operator/erin", reads=True))
    found = judged(run, run.items)
    assert found.ok
    assert judged(first, first.items).history.rows <= last == found.history.rows < broker._store.head


@in_real_time
async def test_evidence_that_was_deleted_by_hand_is_lost_and_not_trimmed(tmp_path: Path) -> None:
    async with lived(tmp_path, 60) as (made, broker, reader):
        trim(broker, broker.now_ms() + DAY_MS)
        broker._store._db.do("DELETE FROM events WHERE row = (SELECT min(row) FROM events WHERE topic = 'broker/b1/stats')")
        some = await exported(made, reader)
    found = judged(some, some.items)
    assert not found.ok
    assert found.history.lost == 1
    assert any(fault.code == "history.lost" for fault in found.faults)


@in_real_time
async def test_the_head_goes_on_over_a_restart_and_an_export_after_it_is_whole(tmp_path: Path) -> None:
    async with lived(tmp_path, 40) as (made, broker, reader):
        first = await exported(made, reader)
        await made.restarted(broker)
        again = await made.client("operator/dave")
        await said(made, [again], 10)
        second = await exported(made, again)
    for run in (first, second):
        assert judged(run, run.items).ok
    rows = {place: item for place, item in enumerate(second.items) if item[1:3] == b"aR"}
    assert {item for item in first.items if item[1:3] == b"aR"} <= set(rows.values())


def test_reading_stops_at_what_is_no_item(run: Run) -> None:
    assert len(list(read(b"".join(run.items)))) == len(run.items)
    for junk in (b"\x80", b"\x81aX", packed("R", 1, 2, 3), packed("N", -1, 0, b""), packed("L", 1), b"\x01"):
        assert not judged(run, [*run.items[:-1], junk, run.items[-1]]).ok
