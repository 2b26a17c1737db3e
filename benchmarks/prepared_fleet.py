"""A prepared fleet: a home whose broker's store holds the facts of a fleet at rest, each signed as in a real one.

Rule 1: what is known of the fleet is made as the controllers' tests make it, and signed anew, each event alone, with a key
    for each source and a certificate below its node's: who reads it verifies all of that.
Rule 2: only retained facts are stored, no history and no signals. None of the sources lives: a broker that is started on
    this store closes their sessions after a while.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from benchmarks.peers import beside_python
from benchmarks.processes import running
from benchmarks.sizes import sized
from benchmarks.usage import usage, used
from dsmt.bus.rules.nats_quota import paid_by
from dsmt.event.chain import SourceChain
from dsmt.event.codec import seal
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.registry import lookup
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init, issue
from dsmt.ports.store import Append
from dsmt.programs.birth import open_store
from dsmt.programs.configuration import read_identity
from dsmt.trust.identity import Identity, delegate
from dsmt.trust.keys import SecretKey
from dsmt.view import SlotKey
from tests.controllers.build import Realm, agent, web
from tests.controllers.signing import START_MS

SERVICE: Final = 50
"""Instances of a service."""
BATCH: Final = 1000
PATIENCE_S: Final = 60.0
QUIET_S, QUIET_LOOKS = 0.05, sized(5, 1)
"""CPU time of a second below which a broker does nothing but what it does all the time, and for how many of them: it calls
silent those who were attached before when it has run for 3 s."""


def prepare(home: Home, nodes: int, each: int) -> int:
    """Make a home with a fleet of so many nodes and instances of each; how many facts its store holds."""
    init(home, name="bench")
    facts = _facts(nodes, each)
    signing = _Signing(home)
    store = open_store(home.part("brokers", "b1"))
    now_ms = int(time.time() * 1000)
    try:
        appends = [_append(signing.signed(event, now_ms), now_ms) for event in facts]
        for identity in signing.identities.values():
            for signed in identity.chain:
                store.certificates.put(signed.certificate.key_id, signed.raw)
        for at in range(0, len(appends), BATCH):
            store.append(appends[at : at + BATCH])
    finally:
        store.close()
    return len(appends)


@contextmanager
def served(home: Home) -> Iterator[int]:
    """The home's broker for the length of a block, once it has said what became of who was attached: its pid."""
    host, _, port = home.realm().brokers[0][0].rpartition(":")
    with running([beside_python("dsmt"), "broker", "run", "b1"], environment={"DSMT_HOME": str(home.root)}) as broker:
        deadline, quiet = time.monotonic() + PATIENCE_S, 0
        while quiet < QUIET_LOOKS:
            if broker.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the broker of {home.root} did not come to rest within {PATIENCE_S:.0f} s")
            before = usage([broker.pid])
            time.sleep(1.0)
            busy_s = used(before, usage([broker.pid]), [broker.pid])[0]
            quiet = quiet + 1 if busy_s < QUIET_S and _listens(host, int(port)) else 0
        yield broker.pid


def _listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1.0):
        return True
    return False


def _facts(nodes: int, each: int) -> Iterable[Event]:
    """What holds in a fleet in which all runs, the last word on each topic."""
    realm = Realm(*(f"n{number}" for number in range(nodes)))
    services = max(1, nodes * each // SERVICE)
    for number in range(services):
        realm.apply(web(nodes * each // services, service=f"s{number}"))
    realm.settle()
    for service, entry in realm.view.services.items():
        for component, index in entry.slots:
            key = SlotKey(service, component, index)
            slot = realm.view.slot(key)
            if slot is not None and slot.fact is not None and slot.fact.record.node is not None:
                realm.session(agent(key, slot.fact.record.node), "open")
    return {signed.event.topic: signed.event for _, signed in realm.rows}.values()


class _Signing:
    """The identities of a fleet, made when something is to be signed, and the chain of each."""

    def __init__(self, home: Home) -> None:
        self._root = home.root_key()
        self.identities = {"broker/b1": read_identity(home.part("brokers", "b1") / "identity")}
        self._chains: dict[str, SourceChain] = {}

    def signed(self, event: Event, now_ms: int) -> SignedEvent:
        """An event, said now, alone."""
        chain = self._chains.setdefault(event.source, SourceChain(START_MS))
        sequence, link = chain.next(event.topic)
        said = msgspec.structs.replace(event, sequence=sequence, chain=link, time=hlc(now_ms, sequence % 65536))
        signed = seal([said], self._identity(event.source).key)[0]
        chain.signed(said, signed.leaf)
        return signed

    def _identity(self, name: str) -> Identity:
        if name not in self.identities:
            self.identities[name] = self._issued(name)
        return self.identities[name]

    def _issued(self, name: str) -> Identity:
        role, _, rest = name.partition("/")
        if role not in ("monitor", "agent"):
            return issue(self._root, name)
        node = self._identity(f"node/{rest.partition('/')[0]}")
        key = SecretKey(os.urandom(32))
        return delegate(name, node, key=key, now_s=int(time.time()), serial=os.urandom(16))


def _append(signed: SignedEvent, now_ms: int) -> Append:
    event = signed.event
    match = lookup(event.topic)
    if match is None:
        raise RuntimeError(f"{event.topic} is no topic")
    return Append(signed, now_ms, match.row.budget, True, True, event.expires_ms, paid_by(event.source))
