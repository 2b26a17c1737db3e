"""A client in another language, which stands on no code of ours, against a real broker."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import unpack
from dsmt.bus.zeromq.listener import ZmqListener
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.ports.bus import Draft
from dsmt.ports.network import Message, Peer
from dsmt.programs.configuration import RealmConfig, write_config
from dsmt.trust.identity import Identity, dump
from tests.bus.realm import TestRealm, reading, realm

CLIENT = Path(__file__).parents[2] / "clients" / "js"
pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


class LyingNetwork(ZmqNetwork):
    """A network whose brokers change what they deliver: `lie` is asked about each part."""

    lie: Callable[[bytes], bytes] = staticmethod(lambda part: part)

    async def listen(self, *arguments: Any, **more: Any) -> ZmqListener:
        listener = await super().listen(*arguments, **more)
        honest = listener.send

        def send(peer: Peer, message: Message) -> bool:
            if isinstance(unpack(message)[0], f.Deliver):
                message = (message[0], *map(self.lie, message[1:]))
            return honest(peer, message)

        listener.send = send  # type: ignore[method-assign]
        return listener


@dataclass
class Node:
    """A process of Node.js, and what it has said so far."""

    process: asyncio.subprocess.Process

    async def next(self, key: str) -> dict[str, Any]:
        """The next line that says something of this kind."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            async for line in self.process.stdout:
                told: dict[str, Any] = json.loads(line)
                if key in told:
                    return told
            raise AssertionError((await self.process.stderr.read()).decode() or "it has ended")

    async def end(self) -> tuple[int, str]:
        """Its exit code, and what it said on the error stream, once it has ended."""
        _, err = await asyncio.wait_for(self.process.communicate(), 30)
        return self.process.returncode or 0, err.decode()


def files_of(r: TestRealm, identity: Identity) -> None:
    """What a client of a realm is given, in its directory."""
    brokers = tuple((broker.address, broker.public) for broker in r.brokers)
    write_config(r.directory / "realm.cbor", RealmConfig(name=r.name, roots=(r.root.public,), brokers=brokers))
    (r.directory / "identity").write_bytes(dump(identity))


@asynccontextmanager
async def node(r: TestRealm, identity: Identity, *words: str) -> AsyncIterator[Node]:
    """`dsmt.js`, as an identity of a realm."""
    files_of(r, identity)
    client = r.directory / "client"  # copied, as into another project: it needs nothing beside itself
    if not client.exists():
        shutil.copytree(CLIENT, client, ignore=shutil.ignore_patterns("node_modules", "*.test.js"))
        (client / "node_modules").symlink_to(CLIENT / "node_modules")
    files = ("--realm", str(r.directory / "realm.cbor"), "--identity", str(r.directory / "identity"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("node", str(client / "dsmt.js"), *files, *words, stdout=pipe, stderr=pipe)
    try:
        yield Node(process)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def on_a_realm(test: Callable[[TestRealm, LyingNetwork], Awaitable[None]], directory: Path) -> None:
    async def main() -> None:
        network = LyingNetwork()
        try:
            async with asyncio.timeout(100), realm(network, directory) as r:
                await r.broker()
                await test(r, network)
        finally:
            network.close()

    asyncio.run(main())


def below(r: TestRealm, name: str) -> Identity:
    """An operator's program: two certificates up to the root."""
    return r.identity(name, parent=r.identity(name.split(".", 1)[0]))


def test_the_client_reads_and_writes_the_vectors():
    done = subprocess.run(["node", "--test"], cwd=CLIENT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_what_the_client_publishes_is_verified_and_read_here(tmp_path):
    async def test(r: TestRealm, _: LyingNetwork) -> None:
        bob, words = await r.client("operator/bob"), [json.dumps({"n": n, "half": n / 2}) for n in range(100)]
        async with reading(bob, "user/") as got:
            async with node(r, below(r, "operator/alice.js"), "publish", "user/greeting", *words) as alice:
                first = await alice.next("sequence")
                code, err = await alice.end()
                assert (code, err, first["sequence"], first["level"]) == (0, "", 2, "stored")
            await got.until(lambda g: len(g.of("user/greeting")) == 100)
        assert got.of("user/greeting") == [{"n": n, "half": n / 2} for n in range(100)]
        assert got.notices == []

    on_a_realm(test, tmp_path)


def test_the_client_reads_facts_and_the_live_tail_of_a_burst(tmp_path):
    async def test(r: TestRealm, _: LyingNetwork) -> None:
        bob = await r.client("operator/bob", identity=below(r, "operator/bob.p1"))
        await bob.publish(Draft("user/fact", {"said": "before"}, version=1))
        async with node(r, r.identity("operator/alice"), "tail", "user/") as alice:
            assert (await alice.next("event"))["data"] == {"said": "before"}
            await alice.next("complete")
            said = [bob.emit(Draft("user/greeting", {"n": n, "bytes": b"\x00\xff", "big": 2**60})) for n in range(5)]
            told = [await alice.next("event") for _ in said]
        assert [one["event"] for one in told] == [str(one.id) for one in said]
        assert [one["data"]["n"] for one in told] == list(range(5))
        assert told[0]["data"] == {"n": 0, "bytes": {"hex": "00ff"}, "big": str(2**60)}

    on_a_realm(test, tmp_path)


def test_a_tampered_event_is_refused_by_the_client_and_the_next_one_read(tmp_path):
    async def test(r: TestRealm, network: LyingNetwork) -> None:
        bob = await r.client("operator/bob")
        async with node(r, r.identity("operator/alice"), "tail", "user/") as alice:
            await alice.next("complete")
            network.lie = lambda part: part.replace(b"pay 1", b"pay 9")
            await bob.publish(Draft("user/bill", {"say": "pay 1"}))
            refused = await alice.next("refused")
            await bob.publish(Draft("user/bill", {"say": "pay 3"}))
            read = await alice.next("event")
        assert refused["refused"] == "trust.signature"
        assert read["data"] == {"say": "pay 3"}

    on_a_realm(test, tmp_path)


def test_what_the_client_may_not_say_is_refused_and_it_says_why(tmp_path):
    async def test(r: TestRealm, _: LyingNetwork) -> None:
        async with node(r, r.identity("controller/c9"), "publish", "user/greeting", "{}") as stranger:
            code, err = await stranger.end()
        assert code == 1
        assert "controller/c9 may not publish user/greeting" in err

    on_a_realm(test, tmp_path)


AFTER_ITS_END = """
import { Client, readIdentity, readRealm } from %s;
const client = await Client.attach(readRealm("realm.cbor"), readIdentity("identity"));
client.close();
const draft = { topic: "user/greeting", data: {} };
for (const say of [() => client.publish(draft), () => client.subscribe(["user/"], () => {})]) {
  await Promise.resolve().then(say).catch((error) => console.log(error.message));
}
"""


def test_who_says_something_when_its_link_has_ended_is_told_so_and_does_not_wait_for_ever(tmp_path):
    async def test(r: TestRealm, _: LyingNetwork) -> None:
        files_of(r, r.identity("operator/alice"))
        words = ("--input-type=module", "--eval", AFTER_ITS_END % json.dumps(str(CLIENT / "client.js")))
        ended = await asyncio.create_subprocess_exec("node", *words, cwd=r.directory, stdout=asyncio.subprocess.PIPE)
        said, _err = await asyncio.wait_for(ended.communicate(), 30)
        assert (ended.returncode, said.decode()) == (0, "the client was closed\n" * 2)

    on_a_realm(test, tmp_path)


def test_a_key_that_was_revoked_is_not_believed_by_the_client(tmp_path):
    async def test(r: TestRealm, _: LyingNetwork) -> None:
        mallory, root = r.identity("operator/mallory"), await r.client("root", identity=r.identity("root"))
        said = await r.client("operator/mallory", identity=mallory)
        await said.publish(Draft("user/greeting", {"from": "mallory"}, version=1))
        topic = f"trust/revoked/{mallory.key.key_id.hex()}/root"
        await root.publish(Draft(topic, {"by": "root", "name": mallory.name, "reason": "stolen"}))
        async with node(r, r.identity("operator/alice"), "tail", "user/") as alice:
            assert (await alice.next("refused"))["refused"] == "trust.revoked"
            await alice.next("complete")

    on_a_realm(test, tmp_path)
