"""The brokers that a client knows: those it was configured with, and those that operators have named since (rule R8).

Rule 1: those of its configuration are never forgotten, but for one that an operator has removed, or whose key was revoked,
    while another is known. Where a word says another address both are tried: either may be the older one.
Rule 2: the words on brokers are an operator's, checked as every event; they are kept on the disk, for the next process.
Rule 3: after a lost link it tries another one first; which is random, so that many that lose one do not all take the same.
Rule 4: as long as there is one that it has not tried yet it waits `FIRST_S` for an answer, and not `ATTACH_S`: one that
    hangs keeps nobody from the others, and under load all are given time.
Rule 5: a leaf is for those that were configured with it (E5). They try it first, and others while it does not answer; who
    is attached to another one meanwhile looks now and then whether it is there again, and goes back (`homing`). So does
    who is attached to one that is linked with no other one: it goes to one that is (R8).
Rule 6: a command, which asks once, leaves a broker that lacks what others have while there is one that it has not tried. So
    it does one that is isolated, while there is one that it was given: others may be beyond the same cut.
Rule 7: a broker that lacks a word is brought it (R5): where all have lost their disks nobody else tells one of another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from dsmt.bus.rules.brokers import BROKERS_FILE, BrokerWords
from dsmt.errors import FailedError, TransportError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.logs import Logger
from dsmt.ports.entropy import Entropy
from dsmt.ports.files import Files
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.store import TrustStore

ATTACH_S: Final = 5.0
FIRST_S: Final = 1.5


class KnownBrokers:
    """Of one client. `files` keep what it learns; without them nothing is kept."""

    def __init__(
        self, seeds: Sequence[BrokerAddress], trust: TrustStore, entropy: Entropy, files: Files | None, log: Logger
    ) -> None:
        self._trust, self._entropy, self._files, self._log = trust, entropy, files, log
        self._words = BrokerWords(seeds, trust)
        self._last: bytes | None = None
        self._preferred: BrokerAddress | None = None
        """Which is to be tried next, for it has just answered."""
        self.isolated = False
        """Whether the one that is attached says that it is linked with no other one."""
        self._tried: set[str] = set()
        """Those that were tried since the last attachment."""
        try:
            kept = None if files is None else files.read(BROKERS_FILE)
            for one in () if kept is None else self._opened(self._words.restore(kept)):
                self._words.take(one)
        except (FailedError, UnusableEventError) as error:  # what cannot be read is told again
            self._log.warning("kept brokers not used", reason=str(error))

    @property
    def all(self) -> tuple[BrokerAddress, ...]:
        """Every one that may be tried."""
        own = {seed.public for seed in self._words.seeds}
        return tuple(one for one in self._words.all if not one.leaf or one.public in own) or self._words.seeds

    @property
    def leaves(self) -> tuple[BrokerAddress, ...]:
        """The leaves that it was configured with (rule 5)."""
        return tuple(one for one in self.all if one.leaf)

    @property
    def better(self) -> BrokerAddress | None:
        """Where to look whether it is better there (`homing`); at random, for one that hangs keeps it from no other."""
        if any(one.public == self._last for one in self.leaves):
            return None
        found = [one for one in self.all if one.public != self._last and (one.leaf or self.isolated)]
        return found[int(self._entropy.uniform(0, len(found)))] if found else None

    def prefer(self, broker: BrokerAddress) -> None:
        """Have one tried next."""
        self._preferred = broker

    def told(self, raws: Sequence[bytes], *, isolated: bool = False) -> list[SignedEvent]:
        """A broker tells all that it has of what operators have said; what it lacks of what is known here (rule 7)."""
        self.isolated = isolated
        said = self._opened(raws)
        if sum(self._words.take(one) for one in said) and self._files is not None:
            with suppress(FailedError):  # a disk that is full: they are told again
                self._files.write(BROKERS_FILE, self._words.kept())
        return self._words.beyond(said)

    def _opened(self, raws: Sequence[bytes]) -> list[SignedEvent]:
        found = []
        for raw in raws:
            try:
                found.append(self._trust.open(raw))
            except UnusableEventError as error:
                self._log.warning("word on a broker not believed", code=error.code, reason=error.message)
        return found

    def next(self) -> BrokerAddress:
        """The one to be tried now."""
        others = [one for one in self.all if one.public != self._last] or self.all
        leaves = [one for one in self.leaves if one.address not in self._tried]
        fresh = leaves or [one for one in others if one.address not in self._tried] or others
        chosen = self._preferred or fresh[int(self._entropy.uniform(0, len(fresh)))]
        self._preferred = None
        self._last = chosen.public
        self._tried.add(chosen.address)
        return chosen

    @property
    def all_tried(self) -> bool:
        """Whether each was tried since the last attachment."""
        return all(one.address in self._tried for one in self.all)

    @property
    def given_tried(self) -> bool:
        """Whether each of those was tried that it was given at the start: of a command, those that take a connection."""
        return all(one.address in self._tried for one in self._words.seeds)

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Wait for an answer of the one that is tried now, and no longer than it has (rule 4). Raises `TransportError`."""
        patience_s = ATTACH_S if self.all_tried else FIRST_S
        try:
            async with asyncio.timeout(patience_s):
                yield
        except TimeoutError as error:
            raise TransportError("link.silent", f"no broker answered within {patience_s:g} s") from error

    def attached(self) -> None:
        """The one that was tried last has answered."""
        self._tried.clear()
        self.isolated = False
