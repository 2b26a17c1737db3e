"""A realm with an operator and issuers, and who holds a token."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dsmt.bus.client.client import BusClient
from dsmt.event.kinds import joining as kinds
from dsmt.event.records import to_data
from dsmt.issuers.issuer import Issuer
from dsmt.operations.connection import Connection
from dsmt.operations.write import tokens
from dsmt.ports.bus import Draft
from dsmt.programs.configuration import RealmConfig
from dsmt.trust.identity import Identity
from dsmt.trust.joining import TOKENS, Token, node_certificate, read_token
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore
from tests.bus.idle import run_alone
from tests.bus.realm import TestRealm, memory_network, reading, realm

OPERATOR = "operator/alice"
ATTRIBUTES = {
    "cpus": 1, "memory_bytes": 1, "memory_free_bytes": 1, "disk_bytes": 1, "disk_free_bytes": 1, "load": 0.1,
    "address": "10.0.0.2", "version": "test", "boot_id": "b",
}  # fmt: skip


class Joining:
    """A realm with an operator and issuers, and who holds a token."""

    def __init__(self, made: TestRealm) -> None:
        self.realm = made
        self.operator = made.identity(OPERATOR)

    async def begin(self, issuers: int = 1) -> None:
        await self.realm.broker()
        self.bus = await self.realm.client(OPERATOR, identity=self.operator)
        self.issuers = [await self.issuer(f"i{n}") for n in range(1, issuers + 1)]

    async def other_side(self) -> tuple[BusClient, Identity]:
        """An issuer on another side of a partition: it hears nothing of this one yet."""
        identity = self.realm.identity("issuer/i2")
        return await self.realm.client("issuer/i2", identity=identity), identity

    async def issuer(
        self, name: str, client: BusClient | None = None, identity: Identity | None = None
    ) -> tuple[BusClient, Identity]:
        identity = identity or self.realm.identity(f"issuer/{name}")
        client = client or await self.realm.client(f"issuer/{name}", identity=identity)
        self.realm.tasks[name] = asyncio.get_running_loop().create_task(Issuer(client, identity, client._trust).run())
        return client, identity

    def connection(self) -> Connection:
        brokers = tuple((one.address, one.public) for one in self.realm.brokers)
        config = RealmConfig(name=self.realm.name, roots=(self.realm.root.public,), brokers=brokers)
        return Connection(self.bus, self.operator, self.realm.trust(), config, "alice", self.realm.brokers)

    async def token(self, **about: Any) -> Token:
        return read_token((await tokens.create(self.connection(), self.operator, **about)).line)

    async def give(self, client: BusClient, issuer: Identity, token: Token, name: str, key: SecretKey) -> None:
        """What an issuer says that knows of nobody else who has this name; and the node comes."""
        async with reading(client, f"{TOKENS}{token.id}") as got:
            (arrived,) = got.arrived
            made = node_certificate(issuer, name, key.public, now_s=int(time.time()), serial=bytes.fromhex(token.id))
            use = {"key": key.key_id.hex(), "member": name, "certificate": made.raw, "freed_ms": 0}
            await client.publish(Draft(f"{TOKENS}{token.id}", arrived.signed.event.data | use, replaces=arrived.signed))
        await self.come(Identity(key, (made, *issuer.chain)))

    async def come(self, node: Identity) -> None:
        """A node attaches, and says its attributes."""
        await self.realm.client(node.name, identity=node)
        name = f"monitor/{node.name.partition('/')[2]}"
        monitor = await self.realm.client(name, identity=self.realm.identity(name, parent=node))
        monitor.emit(Draft(f"node/{node.name.partition('/')[2]}/attributes", ATTRIBUTES))

    async def ask(self, token: Token, name: str, key: SecretKey, trust: TrustStore | None = None) -> Any:
        """What one request brings: the token as it was used, or why not."""
        client = await self.realm.client(token.identity.name, identity=token.identity)
        try:
            async with reading(client, f"joining/{token.id}/", f"{TOKENS}{token.id}") as got:
                asked = to_data(kinds.JoinRequest(name=name, public=key.public))
                client.emit(Draft(f"joining/{token.id}/request", asked))
                refused = f"joining/{token.id}/refused"
                mine = key.key_id.hex()
                await got.until(lambda r: r.of(refused) or any(one["key"] == mine for one in r.of(f"{TOKENS}{token.id}")))
                if trust is not None:
                    trust.merge(client._trust.export())
                return (got.of(refused) or got.of(f"{TOKENS}{token.id}"))[-1]
        finally:
            await self.realm.stop(client)


def scenario(test: Callable[[Joining], Awaitable[None]]) -> Callable[..., None]:
    def run(tmp_path: Path) -> None:
        async def within() -> None:
            async with asyncio.timeout(45), realm(memory_network(), tmp_path) as made:
                await test(Joining(made))

        run_alone(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def new_key() -> SecretKey:
    return SecretKey(os.urandom(32))
