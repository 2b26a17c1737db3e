"""Incarnations: who may sign as which process of a name, and who is too old."""

from __future__ import annotations

import asyncio
import os
import time

from dsmt.bus.client.incarnation import FILE, KeptIncarnation
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.handshake import statement
from dsmt.errors import FailedError
from dsmt.ports.bus import Draft, Start
from dsmt.trust.keys import SecretKey
from tests.agents.memory_machine import MemoryFiles
from tests.bus.raw_session import hello
from tests.bus.realm import TestRealm, reading, scenario


@scenario
async def test_an_older_certificate_does_not_take_the_place_of_a_newer_one(r: TestRealm):
    await r.broker()
    newer = await r.client("operator/eve")
    older = r.identity("operator/eve", now_s=int(time.time()) - 1000)
    raw = await r.raw("operator/eve", identity=older, attach=False)
    raw.send(hello(r, older), older.chain[0].raw)
    refused, _ = await raw.next(f.Refused)
    assert refused.code == "trust.superseded"
    await newer.publish(Draft("user/t", {}))


async def _welcomed(r, identity, **more):
    raw = await r.raw(identity.name, identity=identity, attach=False)
    raw.send(hello(r, identity, **more), *(s.raw for s in identity.chain))
    welcome, _ = await raw.next(f.Welcome)
    return raw, welcome


@scenario
async def test_an_incarnation_is_above_all_that_the_broker_knows_of_the_name(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/eve")
    now = int(time.time() * 1000)
    _, fresh = await _welcomed(r, identity)
    assert now - 1000 < fresh.incarnation < now + 60_000, "realm time in ms, when nothing greater is known"
    _, kept = await _welcomed(r, identity, incarnation=now + 5_000, firm=True)
    assert kept.incarnation == now + 5_000, "what its own disk knows is used as it is"
    eve = await r.client("operator/eve", identity=identity)
    await eve.publish(Draft("user/t", {}))
    known = eve._publisher.signer.incarnation
    await r.stop(eve)
    _, same = await _welcomed(r, identity, incarnation=known, firm=True)
    assert same.incarnation == known, "the same process goes on after a lost connection"
    _, behind = await _welcomed(r, identity, incarnation=known - 1, firm=True)
    assert behind.incarnation > known, "a disk that was rolled back is behind: it begins anew"
    _, other = await _welcomed(r, identity)
    assert other.incarnation > known, "another process begins anew"


@scenario
async def test_a_process_that_kept_its_incarnation_signs_at_once_and_greater(r: TestRealm):
    await r.broker()
    files = _Files()
    identity = r.identity("operator/eve")
    first = await r.client("operator/eve", identity=identity, kept=files)
    await first.publish(Draft("user/t", {"n": 1}))
    await r.stop(first)
    second = await r.client("operator/eve", identity=identity, kept=files, wait=False)
    emission = second.emit(Draft("user/t", {"n": 2}))
    assert emission.id is not None, "it need not wait for a broker"
    assert emission.id.incarnation > first._publisher.signer.incarnation
    await emission.acknowledged()
    assert emission.id.incarnation == second._publisher.signer.incarnation
    bob = await r.client("operator/bob")
    async with reading(bob, "source/operator/eve", start=Start.HISTORY) as got:
        started = got.of("source/operator/eve")
        assert [s["previous_incarnation"] for s in started] == [None, first._publisher.signer.incarnation]


class _Files:
    def __init__(self):
        self.kept = {}

    def read(self, path):
        return self.kept.get(path)

    def write(self, path, content, *, mode=0o600):
        self.kept[path] = content


@scenario
async def test_an_attachment_that_was_not_granted_cannot_be_signed(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/eve")
    raw, welcome = await _welcomed(r, identity)
    signed = statement(
        identity.key,
        nonce=welcome.nonce,
        broker=welcome.broker,
        name=identity.name,
        incarnation=welcome.incarnation,
        attachment=welcome.attachment + 1,
    )
    raw.send(f.Attach(statement=signed))
    refused, _ = await raw.next(f.Refused)
    assert refused.code == "trust.attach"
    raw, welcome = await _welcomed(r, identity)
    signed = statement(
        SecretKey(os.urandom(32)),
        nonce=welcome.nonce,
        broker=welcome.broker,
        name=identity.name,
        incarnation=welcome.incarnation,
        attachment=welcome.attachment,
    )
    raw.send(f.Attach(statement=signed))
    refused, _ = await raw.next(f.Refused)
    assert refused.code in ("trust.attach", "trust.signature")


class _TakesNothing(MemoryFiles):
    """A disk that has become read-only."""

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        raise FailedError("node.files", f"{path} cannot be written: read-only file system")


@scenario
async def test_who_cannot_keep_its_incarnation_goes_by_the_broker_s_word_and_loses_nothing_that_it_has_said(r: TestRealm):
    await r.broker()
    empty, of_before = _TakesNothing(), _TakesNothing()
    await (eve := await r.client("operator/eve")).publish(Draft("user/t", {"n": 1}))
    last = eve._publisher.signer.incarnation
    await r.stop(eve)
    MemoryFiles.write(of_before, FILE, str(last).encode())
    clients = [
        await r.client(f"operator/{name}", kept=kept, wait=False) for name, kept in (("bob", empty), ("eve", of_before))
    ]
    said = [one.emit(Draft("user/t", {"n": 2})) for one in clients]
    assert [one.id for one in said] == [None, None], "they await the broker's word"
    for one in said:
        await asyncio.wait_for(one.acknowledged(), 10)
    assert said[1].id is not None
    assert said[1].id.incarnation > last


class _GivesNothing(MemoryFiles):
    """A disk that fails where the incarnation is."""

    def read(self, path: str) -> bytes | None:
        raise FailedError("node.files", f"{path} cannot be read: input/output error")


@scenario
async def test_who_cannot_read_its_incarnation_goes_by_the_broker_s_word_and_writes_it_anew(r: TestRealm):
    await r.broker()
    disk = _GivesNothing()
    await (eve := await r.client("operator/eve", kept=disk)).publish(Draft("user/t", {"n": 1}))
    last = eve._publisher.signer.incarnation
    await r.stop(eve)
    eve = await r.client("operator/eve", kept=disk)
    await eve.publish(Draft("user/t", {"n": 2}))
    assert eve._publisher.signer.incarnation > last
    assert MemoryFiles.read(disk, FILE) == str(eve._publisher.signer.incarnation).encode()


def test_each_process_of_a_name_begins_above_the_one_before_whose_incarnation_was_kept():
    files = MemoryFiles()
    first = KeptIncarnation(files)
    assert (first.last, first.next) == (None, 0)
    first.began(7)
    assert (KeptIncarnation(files).last, KeptIncarnation(files).next) == (7, 8)
    files.write(FILE, b"spoiled")
    assert KeptIncarnation(files).next == KeptIncarnation(None).next == 0
