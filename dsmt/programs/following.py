"""Following: a member of a realm, on whatever machine, goes with it to what it moves to (rule R9, docs/decisions/0038).

Rule 1: where it moves (`config/engine`) is kept on the disk first; then it is said that it was heard.
Rule 2: while nobody carries the realm where it was, the place to which it moves is tried. Nobody is let in there before it
    has moved, and it is nowhere else after that.
Rule 3: who is let in writes down that it has moved, for its home first, and ends, to be started again. What else
    runs in its directory sees that there, while nobody carries the realm where it was, and ends likewise. What services run
    goes on.
Rule 4: where the realm moves by the word of a key that has ended nobody goes (J3): what stands is read anew when a key ends.
    The word is kept with the place, and who has signed it: who was away when that key ended finds no such word any more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from msgspec.structs import asdict, replace

from dsmt.errors import DsmtError, InputError, UnusableEventError
from dsmt.event.codec import decode
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import ENGINE, EngineWord
from dsmt.event.kinds.source import Following
from dsmt.event.records import from_data, to_data
from dsmt.logs import Logger
from dsmt.ports.bus import Arrived, Bus, Complete, Delivery, Draft, Interest, Notice
from dsmt.ports.realm import KEY_ENDED, NatsTerms
from dsmt.programs.bus import running, the_bus
from dsmt.programs.configuration import NodeFile, RealmConfig, read_config, set_realm, write_config
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore

DESTINATION: Final = "moves.cbor"
"""In a member's directory: the realm as it will be."""
TRY_S: Final = 1.0
ANSWER_S: Final = 5.0
LACKS: Final = "lacks the client of NATS: dsmt node add HOST again, or pip install 'dsmt[nats-client]' there"


class Destination(RealmConfig, frozen=True, kw_only=True, omit_defaults=True):
    """The realm as it will be, by whose word, and what proves who said that."""

    word: bytes = b""
    proof: tuple[bytes, ...] = ()


class Follower:
    """A node, or a controller, of this directory, that is attached to the realm where it is now.

    `trust` is that of its bus.
    """

    def __init__(self, bus: Bus, identity: Identity, directory: Path, realm: RealmConfig, trust: TrustStore) -> None:
        self._bus, self._identity, self._realm, self._trust = bus, identity, realm, trust
        self._directory, self._file = directory, directory / DESTINATION
        self._heard = asyncio.Event()
        self._said: Following | None = None

    async def run(self) -> None:
        """Wait until the realm has moved, and write that down; who has called it is to end."""
        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(self._hear())
            realm = await self._moved()
            while not self._settled(realm):  # noqa: ASYNC110 - a disk tells nobody that it has room
                await asyncio.sleep(TRY_S)
            hearing.cancel()

    async def _moved(self) -> RealmConfig:
        while True:
            if self._destination() is None:
                self._heard.clear()
                await self._heard.wait()
            await asyncio.sleep(TRY_S)
            there = self._destination()
            if there is not None and not self._bus.attached and await _lets_in(self._identity, there):
                return there
            if there is not None and self._said is not None:  # what was lacking may have come
                self._say(self._said.word, there)

    async def _hear(self) -> None:
        ended = False
        while True:
            async with self._bus.subscribe(Interest((ENGINE,), conflate=True, signals=False)) as batches:
                stands = False
                async for batch in batches:
                    if any(isinstance(one, Notice) and one.type == KEY_ENDED for one in batch):
                        ended = True
                        break  # all that stands is read anew
                    for one in batch:
                        while isinstance(one, Arrived) and not self._keep(one.signed):  # noqa: ASYNC110 - a full disk
                            await asyncio.sleep(TRY_S)
                        stands = stands or isinstance(one, Arrived)
                        if _is_disowned(one) or (isinstance(one, Complete) and one.whole and ended and not stands):
                            self._forget()
                else:
                    return

    def _forget(self) -> None:
        """Go nowhere: who has said that the realm moves is believed no more (rule 4)."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            Logger(source=self._bus.source).warning("where the realm does not move after all is kept", reason=str(error))

    def _keep(self, signed: SignedEvent) -> bool:
        """Keep what is said of where the realm moves, and say so (rule 1); False on a full disk."""
        try:
            told = from_data(EngineWord, signed.event.data)
        except UnusableEventError:
            return True
        nats = NatsTerms(authority=told.authority, replicas=told.replicas) if told.authority else None
        there = replace(self._realm, brokers=told.brokers, nats=nats)
        try:
            if not told.brokers or there.engine == self._realm.engine:
                self._file.unlink(missing_ok=True)
                return True
            write_config(self._file, Destination(**asdict(there), word=signed.raw, proof=self._bus.proof(signed)))
        except OSError as error:  # who moves the realm is not told that it was heard
            Logger(source=self._bus.source).warning("where the realm moves is not kept", reason=str(error))
            return False
        self._say(str(signed.id), there)
        self._heard.set()
        return True

    def _say(self, word: str, there: RealmConfig) -> None:
        said = Following(word=word, lacks="" if there.nats is None or find_spec("nats") else LACKS)
        if said != self._said:
            self._said = said
            self._bus.emit(Draft(f"{self._bus.source}/following", to_data(said), subject=self._bus.source))

    def _destination(self) -> RealmConfig | None:
        """To what the realm moves, if it is not there."""
        with suppress(InputError, OSError):
            kept = read_config(self._file, Destination)
            there = replace(self._realm, brokers=kept.brokers, nats=kept.nats)
            if there.engine == self._realm.engine:
                return None
            if not self._disowns(kept):
                return there
            self._forget()
        return None

    def _disowns(self, kept: Destination) -> bool:
        """Whether who said so is believed no more (rule 4)."""
        with suppress(UnusableEventError):  # an earlier dsmt kept no word
            word = decode(kept.word)
            self._trust.add_all(kept.proof)
            return self._trust.disowns(word)
        return False

    def _settled(self, realm: RealmConfig) -> bool:
        """Write down where the realm is now (rule 3); False on a full disk."""
        home = self._directory.parent.parent / RealmConfig.FILE
        try:
            if home.exists():
                write_config(home, realm)
            set_realm(self._directory, realm)
        except (InputError, OSError) as error:
            Logger(source=self._bus.source).warning("where the realm has moved is not kept", reason=str(error))
            return False
        self._file.unlink(missing_ok=True)
        return True


async def written(bus: Bus, directory: Path, realm: RealmConfig) -> None:
    """Wait until the file of a node says that its realm has moved (rule 3); who has called it is to end."""
    while bus.attached or _realm_of(directory, realm) == realm:  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(TRY_S)


def _realm_of(directory: Path, known: RealmConfig) -> RealmConfig:
    with suppress(InputError):
        return NodeFile.read(directory).realm
    return known


def _is_disowned(one: Delivery) -> bool:
    """Whether what stands is the word of a key that has ended."""
    return isinstance(one, Notice) and one.fields.get("code") == "trust.revoked"


async def _lets_in(identity: Identity, realm: RealmConfig) -> bool:
    """Whether somebody carries the realm there."""
    try:
        with the_bus(identity, TrustStore(realm.realm), realm.addresses, reads=True, nats=realm.nats) as bus:
            async with running(bus), asyncio.timeout(ANSWER_S):
                await bus.wait_attached()
                return True
    except (DsmtError, TimeoutError):
        return False
