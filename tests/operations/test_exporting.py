"""Trust export: what an operator's connection learns of the realm's history, and keeps."""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.offline import exporting, history
from dsmt.operations.offline.proving import verify
from dsmt.ports.bus import Draft, HistoryPage
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import Realm, TrustStore
from tests.bus.realm import memory_network, realm
from tests.loops import in_real_time
from tests.operations.histories import exported, judged, lived


@in_real_time
async def test_an_export_holds_every_signer_and_every_revocation_of_the_history(tmp_path: Path) -> None:
    async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
        await made.broker()
        eve = made.identity("operator/eve")
        alice, mallory = await made.client("operator/alice"), await made.client("operator/eve", identity=eve)
        await mallory.publish(Draft("user/t", {"n": 1}))
        root = await made.client("root")
        await root.publish(Draft(topic_of(eve.key.key_id, "root"), {"by": "alice"}))
        carol = await made.client("operator/carol")
        await exporting.gather(carol)
        (tmp_path / "home").mkdir()
        kept = exporting.keep(Home(tmp_path / "home"), carol._trust)
    trust = TrustStore.from_export(kept)
    assert {one.subject for one in trust.certificates()} >= {"operator/alice", "operator/eve", "broker/b1"}
    assert trust.is_revoked(eve.key.key_id)
    assert not trust.is_revoked(alice._identity.key.key_id)


def test_what_a_home_has_kept_of_another_realm_is_not_mixed_into_this_ones_export(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before, now = (TrustStore(Realm(name="test", roots=(root * 32,))) for root in (b"a", b"b"))
    exporting.keep(home, before)
    assert TrustStore.from_export(exporting.keep(home, now)).realm == now.realm
    kept = exporting.kept(home)
    assert kept is not None
    assert kept.realm == now.realm


def test_a_home_whose_disk_takes_nothing_keeps_nobody_from_an_export(small_disk: Path) -> None:
    trust = TrustStore(Realm(name="test", roots=(b"a" * 32,)))
    with suppress(OSError):
        (small_disk / "filling").write_bytes(bytes(1 << 20))
    assert exporting.keep(Home(small_disk), trust) == trust.export()
    assert [path.name for path in small_disk.iterdir()] == ["filling"]
    (small_disk / "filling").unlink()
    exporting.keep(Home(small_disk), trust)
    assert exporting.kept(Home(small_disk)) is not None


def test_a_history_is_exported_though_the_disk_for_temporary_files_is_full(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with suppress(OSError):
        (small_disk / "filling").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    monkeypatch.setattr(history, "_IN_MEMORY", 1)

    async def main() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await made.broker()
            reader = await made.client("operator/alice", reads=True)
            written = list[bytes]()
            await history.export(reader, reader._trust, written.append, beside=str(tmp_path))
        assert verify(b"".join(written), reader._trust).ok

    asyncio.run(main())


@in_real_time
async def test_an_export_ends_also_where_something_comes_with_each_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a slow link, or of a realm that says much, no page was ever empty."""
    monkeypatch.setattr(history, "READ_ON_MS", 200)
    async with asyncio.timeout(30), lived(tmp_path, 20) as (made, broker, reader):
        says, ask = await made.client("operator/erin"), reader.history

        async def page(after: int) -> HistoryPage:
            await says.emit(Draft("user/erin/on", {"said": after})).acknowledged()
            return await ask(after)

        monkeypatch.setattr(reader, "history", page)
        run = await exported(made, reader)
        assert judged(run, run.items).ok
        assert len(run.rows) <= broker._store.head
