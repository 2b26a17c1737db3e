"""Void: what a revoked key said, and nobody says again, stands no more, and what it had displaced stands again (rule J3).

Rule 1: what controllers may write they say again themselves, by what stands; so that stays for `LEFT_MS` after the end was
    heard. By then it is void, too: no controller was there to read it, and no other broker takes it. What an operator's key
    said was signed anew, or dropped, before its end; what it said elsewhere meanwhile, or on the other side of a partition,
    is void at once. So is an issuer's word on a token.
Rule 2: of the facts that are stored the greatest one stands then that is believed, and that no believed tombstone hides.
    Where there is none nothing else is known, and the void one stays: nobody who comes later believes it. Who was there may
    replace it, in either case.
Rule 3: it does so in the turn in which all are told that the key has ended. A broker that has heard of that, and cannot
    store it yet for its time is to come, holds nothing void against anybody, and displaces nothing: who reads later would
    decide by what stands again, and who has read before, and was not told, by what is void.
Rule 4: a tombstone that is void hides nothing. So it is with an operator's of a service, though controllers may write one:
    where no controller was nobody would say it again, and no other broker takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dsmt.event.envelope import TOMBSTONE, Event, SignedEvent, thing_of
from dsmt.event.fold import Fold
from dsmt.event.order import newer
from dsmt.ports.store import Events, Row, StoreFullError
from dsmt.trust.revocations import is_disowned, is_void
from dsmt.trust.store import TrustStore

LEFT_MS: Final = 10_000
"""Longer than controllers take to say again what they have read; so long `dsmt cert revoke` waits for them."""


class Void:
    """What is void in a store, by what is trusted."""

    def __init__(self, store: Events, trust: TrustStore) -> None:
        self._store, self._trust = store, trust
        self._seen: set[int] = set()
        """The rows that are void, of which it was seen to that: what comes for their places since then stands at once."""
        self.waits = False
        """Whether something is to be displaced as soon as the disk has room for that."""
        self._controllers = set(store.elections.signers("controller"))
        """The keys by which controllers have said what is stored. Agents' keys end often: no slot is looked at for that."""
        self._heard_ms: dict[bytes, int] = {}
        """By those of them that have ended, when that was heard here first."""
        self._left: set[bytes] = set()
        """Those of which everything is void by now that nobody has said again (rule 1)."""
        self._let_go: set[bytes] = set()
        """Those of which it was seen to that."""

    def note(self, fact: SignedEvent) -> None:
        """A shared fact is to be stored."""
        if fact.event.source.startswith("controller/"):
            self._controllers.add(fact.key_id)

    def standing(self, row: Row | None) -> SignedEvent | None:
        """The fact of a row that stands; None for no row, and for one that is void."""
        held = None if row is None else row.read()
        return None if held is None or self._is_void(held) else held

    def followed(self, event: Event, held: SignedEvent | None) -> SignedEvent | None:
        """What a fact follows: what is held, or the void one that it names, if that is greater: its source believed it."""
        if event.replaces is None or (held is not None and held.id == event.replaces):
            return held
        row = self._store.event(*event.replaces)
        named = None if row is None or row.topic != event.topic else row.read()
        if named is None or not self._is_void(named) or (held is not None and newer(held.event, named.event)):
            return held
        return named

    def _is_void(self, signed: SignedEvent) -> bool:
        disowns = self._trust.disowns
        return is_void(signed, disowns) or (signed.key_id in self._left and is_disowned(signed, disowns))

    def is_late(self, now_ms: int) -> bool:
        """Whether the time is over in which somebody might say again what an ended key has said (rule 1)."""
        return any(now_ms >= at_ms + LEFT_MS for key_id, at_ms in self._heard_ms.items() if key_id not in self._left)

    def _note_ended(self, now_ms: int) -> None:
        for key_id in filter(self._has_ended, self._controllers):
            self._heard_ms.setdefault(key_id, now_ms)
        self._left = {key_id for key_id, at_ms in self._heard_ms.items() if now_ms >= at_ms + LEFT_MS}

    def _has_ended(self, key_id: bytes) -> bool:
        """Whether a key has ended, under any of its names: else nothing that it has signed is void, or is read."""
        return any(self._trust.is_revoked(key_id, name) for name in (None, *self._trust.names(key_id)))

    def numbers(self, topic: str) -> tuple[int, int]:
        """The greatest epoch and version of what is void on a topic; the history is looked through for that."""
        rows = [*self._store.elections.beaten(frozenset({topic})), *filter(None, [self._store.winner(topic)])]
        void = [signed.event for row in rows if row.topic == topic and self._is_void(signed := row.read())]
        return max((one.epoch or 0 for one in void), default=0), max((one.version or 0 for one in void), default=0)

    def displace(self, now_ms: int) -> list[Row]:
        """Keys have ended: let what they had displaced stand again (rules 2 and 3); what that is."""
        self._note_ended(now_ms)
        elections, left = self._store.elections, self._left
        rows = [row for role in ("operator", "issuer") for row in elections.standing(role, self._has_ended)]
        rows += elections.standing("controller", left.__contains__) if left != self._let_go else []
        standing = [row for row in rows if row.row not in self._seen]
        void = {row.row: signed.event for row in standing if self._is_void(signed := row.read())}
        elected = self._rivals(void, now_ms) if void else []
        try:
            elections.elect(elected)
        except StoreFullError:
            self.waits = True
            return []
        self._seen.update(void)
        self.waits, self._let_go = False, left
        return elected

    def _rivals(self, void: Mapping[int, Event], now_ms: int) -> list[Row]:
        """What is to stand in the place of these."""
        topics = frozenset(topic for event in void.values() for topic in _topics(event))
        rivals = {row.row: row for row in self._store.elections.beaten(topics)}
        beside = {of for row in rivals.values() for of in (row.topic, TOMBSTONE + thing_of(row.topic))}
        stand = [row for topic in sorted(beside) if (row := self._store.winner(topic)) is not None]
        return [row for row in self._greatest([*stand, *rivals.values()], now_ms) if row.row in rivals]

    def _greatest(self, rows: Iterable[Row], now_ms: int) -> list[Row]:
        """Of each topic the greatest that is believed, where that one lives: what a dead one had displaced is over."""
        fold, of = Fold(), {}
        for row in rows:
            signed = row.read()
            if not (self._is_void(signed) if signed.event.ends else self._trust.disowns(signed)):
                of[signed.id] = row
                fold.take(signed)
        return [of[signed.id] for signed in fold if not signed.event.is_dead(now_ms)]


def _topics(void: Event) -> list[str]:
    """Where a fact that is void had displaced, or hidden, something."""
    return [void.topic, void.ends] if void.ends else [void.topic]
