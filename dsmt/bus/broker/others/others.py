"""Others: the other brokers of a realm, as one of them knows them: where they are, and what becomes of what they have.

Rule 1: who they are is an operator's word (`config/broker/<broker>`), and what this broker was given at its start. Whom an
    operator has removed, or whose key was revoked, is none: it is not read, and what it holds is no second copy. Who is none
    itself, and knows another one, sends all away to it: nobody would have what is said here. So does who is
    believed by nobody, for its certificate has ended, while another one whose own has not reads it (J3); and who cannot
    store anything, for its disk is full, while it is linked to another one that can (`room`): what is here is from before.
Rule 2: clients are told these words, with what proves them, when they attach and when they change (R8). Another broker is
    not: who reads one broker goes to no other one for it.
Rule 3: what another brings is stored with its signer's certificates, in one commit for what came at once (E1). Where the
    disk has no room for either it waits.
Rule 4: a broker that knows others is whole when it has read one that is whole, or all of them, to the end (A4).
    So it is when it stood still itself for longer than others wait for it, or was cut off from all of them: what was said
    meanwhile is with them.
Rule 5: what is missed here is called lost when all others were read beyond the time at which it was missed, or after
    `MOST_MS` where one cannot be (`readings`; B1, B2).
Rule 6: a leaf is read while it is attached here, and reads one other at a time itself (E5).
Rule 7: one that does not give what it has said to hold is named (`withheld`, E4).
Rule 8: words by which one that is read is a broker no more are obeyed after `TOGETHER_S`, and by that one itself at once:
    what it took in until then comes (`copied`, rule 5). Of several that an operator has said at once the first alone may say
    so, and the others come by that broker alone (R8).
Rule 9: one that is linked with no other one tells its clients so (`isolation`, R8).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.depot import Depot
from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.introductions import Send
from dsmt.bus.broker.keyring import Keyring, Proofs
from dsmt.bus.broker.others.attached import AttachedBrokers
from dsmt.bus.broker.others.copying import Copying, Reach
from dsmt.bus.broker.others.filling import Filling
from dsmt.bus.broker.others.former import Former
from dsmt.bus.broker.others.holders import Holders
from dsmt.bus.broker.others.isolation import Isolation
from dsmt.bus.broker.others.room import Room
from dsmt.bus.broker.others.salvage import Salvage
from dsmt.bus.broker.others.trimmed import Trimmed
from dsmt.bus.broker.recorder import Recorder
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.broker.withheld import Withholding
from dsmt.bus.rules.brokers import known, leaves, words_of
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.handshake import has_ended
from dsmt.errors import RefusedError
from dsmt.event.envelope import SignedEvent
from dsmt.logs import Logger
from dsmt.ports.bus import Arrived, BusReader
from dsmt.ports.clock import Clock
from dsmt.ports.realm import BrokerAddress, address_of
from dsmt.ports.store import Row, Store, StoreFullError
from dsmt.trust.identity import Identity
from dsmt.trust.keys import key_id_of
from dsmt.trust.store import TrustStore

TOGETHER_S: Final = 0.5
AGAIN_MS: Final = 1000
"""After how long what could not be stored is tried again."""


class Others:
    """Of the broker of this identity. `commit` stores what is pending, and says whether that could be."""

    def __init__(
        self,
        config: BrokerConfig,
        identity: Identity,
        store: Store,
        clock: Clock,
        reach: Reach,
        *,
        trust: TrustStore,
        holders: Holders,
        recorder: Recorder,
        keyring: Keyring,
        fan_out: FanOut,
        sessions: Sessions,
        send: Send,
        depot: Depot,
        commit: Callable[[], bool],
    ) -> None:
        self._sessions = sessions
        self.attached = AttachedBrokers(sessions, recorder, holders, fan_out)
        self._clock, self._recorder, self._keyring, self._fan_out = clock, recorder, keyring, fan_out
        self._store, self._trust, self._own = store, trust, identity
        self.holders, self.readings, self._words = holders, holders.readings, holders.words
        self._obeys_at, self._isolation = math.inf, Isolation(clock.boottime())
        self.left = False
        """Whether this broker is one no more (rule 1)."""
        self._send, self._commit, self._seeds = send, commit, config.brokers
        self._withholding = Withholding(
            identity.name,
            store,
            recorder.words,
            now_ms=recorder.time.now_ms,
            stored=self.attached.stored_by,
            gave=self.holders.gave,
            disowns=trust.disowns,
        )
        self._log = Logger(broker=identity.name)
        self.copying = self._made_copying(BrokerAddress(config.address, identity.key.public), reach)
        self._former = Former(reach, self._take)
        self.filling = Filling(depot, lambda: self.readings.readers, clock, self._log)
        self._room = Room(lambda: self.readings.readers)
        words, now_ms = recorder.words, recorder.time.now_ms
        self._salvage = Salvage(
            config.remains, identity.name, trust, store.blobs, words=words, take=self.take, now_ms=now_ms
        )

    def _made_copying(self, own: BrokerAddress, reach: Reach) -> Copying:
        return Copying(
            own,
            reach,
            holders=self.holders,
            is_attached=self.attached.is_attached,
            seeds=self._seeds,
            meta=self._store.meta,
            clock=self._clock,
            now_ms=self._recorder.time.now_ms,
            take=self._take,
            whole=self._recorder.wholeness.filled,
            withholding=self._withholding,
            trimmed=Trimmed(self._store, self._recorder.reporter.trimmed),
            log=self._log,
        )

    async def run(self) -> None:
        """Take over what is left of damaged stores, read all others, and fill the depot, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._salvage.run())
            group.create_task(self.copying.run())
            group.create_task(self._former.run())
            group.create_task(self.filling.run())
            group.create_task(self._room.run())

    # --- who they are --------------------------------------------------------------------------------------------

    def begin(self, rows: Sequence[Row]) -> None:
        """These are retained facts at the start."""
        self._words.note(rows)
        self._withholding.restore(rows)

    def started(self) -> None:
        """All retained facts were seen: whoever is known is read from now on."""
        self._stands_again()
        self._words.recall()
        self._know()
        if not self.readings.alone:
            self._recorder.wholeness.awaits_others(self._clock.boottime())

    def stored(self, rows: Sequence[Row], *, ended: bool) -> None:
        """Obey the words on brokers among rows that are stored now, or that a key was ended by them (rules 1, 2, 8)."""
        if not self.readings.alone:
            self._withholding.published(rows)
            self._withholding.restore(row for row in rows if row.brought)
        if ended:
            self._stands_again()
            self._words.recall()
        noted = self._words.note(rows)
        if noted and not ended and self._removes_linked():
            self._obeys_at = min(self._obeys_at, self._clock.boottime() + TOGETHER_S)
        elif noted or ended:
            self._obey()

    def _stands_again(self) -> bool:
        """Tell readers what stands again, for it was displaced by what is void (J3); whether anything does."""
        elected = self._recorder.ingest.elected()
        if elected:
            self._fan_out.elected(elected)
        return bool(elected)

    def _obey(self) -> None:
        self._obeys_at = math.inf
        self._know()
        self._tell()

    def _tell(self) -> None:
        for session in self._sessions.all():
            if session.attached and not session.refused:
                self.greet(session)

    def greet(self, session: Session) -> None:
        """Tell who has attached which brokers there are, also that nothing is known of them: who knows more brings it."""
        rows = list(self._words.rows.values())
        if not session.by_broker and self._fan_out.introductions.introduce(session, rows):
            self._send(session, f.Brokers(isolated=self.isolated), tuple(row.raw for row in rows))

    def _removes_linked(self) -> bool:
        """Whether a broker was removed that is linked and read."""
        linked = {reader.broker for reader in self.readings.readers}
        return any(word.removed and f"broker/{name}" in linked for name, word in words_of(self._words.signed).items())

    def _know(self) -> None:
        own = BrokerAddress("", self._own.key.public)
        said = self._words.signed
        every = known([own, *self._seeds], said, self._trust)
        gone = [address_of(word) for word in words_of(said).values() if word.removed and not word.route]
        self.copying.know(every, gone)
        self.holders.leaves = leaves(said)
        self.left = not self.readings.alone and all(one.public != own.public for one in every)
        self._former.know(one for one in gone if not self.left and self._is_former(one, every))

    def _is_former(self, one: BrokerAddress, every: Iterable[BrokerAddress]) -> bool:
        """Whether one that was removed may have another word on brokers (R8)."""
        present = {self._own.key.public, *(other.public for other in every)}
        return one.public not in present and not self._trust.is_revoked(key_id_of(one.public))

    @property
    def refusal(self) -> RefusedError | None:
        """Why nobody may be attached here any more (rule 1); None while this is a broker of the realm."""
        own = self._own.name
        if self.left:
            code, said, mend = "broker.left", f"{own} is a broker of this realm no more", ""
        elif has_ended(self._own.certificate, self._recorder.time.now_ms()) and self.attached.any_believed:
            said = f"the certificate of {own} has ended: nobody believes what it says"
            code, mend = "broker.expired", f"dsmt cert rotate {own}; "
        elif self._room.elsewhere and not self.copying.leaf:
            said = f"the store of {own} is full, and others have what comes"
            code, mend = "store.full", "free space on its disk; "
        else:
            return None
        return RefusedError(code, said, next=f"{mend}use {', '.join(one.address for one in self.readings.known)}")

    @property
    def isolated(self) -> bool:
        """Whether this broker is linked with no other one (rule 9)."""
        return self._isolation.stands

    def check_here(self, name: str) -> None:
        """Check that a name may attach here: where this is a broker no more others may read it. Raises `RefusedError`."""
        if self.refusal is not None and not name.startswith("broker/"):
            raise self.refusal

    # --- what they have ------------------------------------------------------------------------------------------

    def _take(self, broker: str, arrived: Sequence[Arrived], bus: BusReader) -> int:
        """Store what another broker has; in how many ms it is to be tried again, 0 when it is stored (rule 3)."""
        return self.take(broker, [each.signed for each in arrived], bus.proof)

    def take(self, broker: str, events: Sequence[SignedEvent], proofs: Proofs) -> int:
        """Store events with their proofs; in how many ms it is to be tried again, 0 when they are stored."""
        ahead_ms = 0
        try:
            self._keyring.brought(events, proofs)
        except StoreFullError as error:
            self._recorder.has_no_room(error)
            return AGAIN_MS
        for each in events:
            ahead_ms = max(ahead_ms, self._recorder.ingest.brought(broker, each))
        if not self._commit():
            return AGAIN_MS
        return ahead_ms

    def tick(self, now: float) -> None:
        """Look at how far they were read (rule 4), and what was said of them (rule 8). `now` is boot-time seconds."""
        if self._stands_again():
            self._words.recall()
            self._obey()
        if now >= self._obeys_at:
            self._obey()
        if self._isolation.look(now, linked=self.attached.is_meshed(leaf=self.copying.leaf)):
            self._tell()
        wholeness, full = self._recorder.wholeness, self._recorder.full is not None
        self._room.tick(full=full)
        if wholeness.look(now, alone=self.readings.alone, full=full):
            self.copying.again()
        if self.readings.reads or self._salvage.reads:
            wholeness.reading(now)
        elif self.copying.complete:
            wholeness.all_read()
