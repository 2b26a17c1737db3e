"""What one authenticated party may cost NATS servers, which bound nobody: its gates judge it by what was counted (rule D2).

Rule 1: who pays is the ancestor, as with a broker (`quota`); of what is stored it is found by the name (`paid_by`).
Rule 2: work is what a server has counted of a connection: a message is a unit, and so is each `UNIT_BYTES`. Who does more
    than `BURST` beyond `RATE` a second is sent away with all that it has certified, and stays away until that is made up
    for, but for no less than `AWAY_S`, and twice as long each time within a day. A source that minds the rules hardly
    comes to that, for it signs what it says.
Rule 3: a source minds by itself how many retained facts its certificate allows (`nats.door`). Who has `LENIENCE` times as
    much, in number or in bytes, has not, and is sent away for as long as that is held; so is, for the sum, its ancestor.
Rule 4: what stands under a name need not be its own words: a server answers on whatever subject was named by who asked. So
    by the subjects one is only suspected, and what one has said is what its key has signed, copies for addressees too,
    whether anybody still believes it or not.
Rule 5: what a revoked key has said stays, as with a broker, up to what a broker would have taken of it: what came later goes
    (`beyond`). So who follows under its name has room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from dsmt.bus.rules.nats_sessions import ServerConnection
from dsmt.bus.rules.quota import FACT_BYTES, LEAST_LIVE_BYTES, FactTotals
from dsmt.trust.grants import DEFAULT_QUOTA, QUOTAS

RATE: Final = 5_000.0
BURST: Final = 50_000.0
UNIT_BYTES: Final = 1024
"""Units of work of one ancestor, in a second and beyond that; bytes that are one."""
AWAY_S: Final = (10.0, 3600.0)
"""For how long an ancestor stays away the first time, and at most."""
FORGOTTEN_S: Final = 86_400.0
LENIENCE: Final = 2


class Counted(NamedTuple):
    """What one connection has sent since it was made, and who pays for it."""

    payer: str
    messages: int
    bytes: int


class Work:
    """Who has done how much (rule 2). `now` is boot-time seconds."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._known: dict[ServerConnection, float] = {}
        """Units of each connection that were counted before."""
        self._owed: dict[str, tuple[float, float]] = {}
        """By payer: units beyond the rate, and when they were last counted."""
        self._away: dict[str, tuple[float, int]] = {}
        """By payer: until when it stays away, or did, and how often that was."""
        self._at: float | None = None
        """When all were. What was sent before the first time is on nobody's account."""

    def counted(self, connections: Mapping[ServerConnection, Counted], now: float) -> None:
        """These connections are all that there are, and have sent so much."""
        units = {at: _units(one) for at, one in connections.items()}
        done: defaultdict[str, float] = defaultdict(float)
        for at, one in connections.items():
            done[one.payer] += units[at] - self._known.get(at, 0.0)
        for payer, worked in done.items():
            self._take(payer, worked, now)
        self._known, self._at = units, now
        self._owed = {payer: owed for payer, owed in self._owed.items() if self._owes(payer, now)}
        self._away = {payer: away for payer, away in self._away.items() if now < away[0] + FORGOTTEN_S}

    def ended(self, at: ServerConnection, last: Counted, now: float) -> None:
        """A connection has ended, and had sent so much."""
        self._take(last.payer, _units(last) - self._known.pop(at, 0.0), now)

    def _take(self, payer: str, worked: float, now: float) -> None:
        if self._at is None:
            return
        owed, since = self._owed.get(payer, (0.0, self._at))
        owed = max(0.0, owed + worked - (now - since) * self._rate)
        self._owed[payer] = owed, now
        until, times = self._away.get(payer, (0.0, 0))
        if owed > self._burst and now >= until:
            least_s, most_s = AWAY_S
            away_s = max((owed - self._burst) / self._rate, min(most_s, least_s * 2**times))
            self._away[payer] = now + away_s, times + 1

    def _owes(self, payer: str, now: float) -> float:
        owed, since = self._owed[payer]
        return max(0.0, owed - (now - since) * self._rate)

    def waits_s(self, payer: str, now: float) -> float:
        """For how long a party stays away; 0 for one that may come."""
        until, _ = self._away.get(payer, (0.0, 0))
        return max(0.0, until - now)


def _units(sent: Counted) -> float:
    return sent.messages + sent.bytes / UNIT_BYTES


def paid_by(name: str) -> str:
    """Who pays for what was said under a name, as far as the name says so (rule 1)."""
    role, _, rest = name.partition("/")
    if role in ("agent", "monitor"):
        return f"node/{rest.partition('/')[0]}"
    return f"operator/{rest.partition('.')[0]}" if role == "operator" else name


def summed(held: Iterable[tuple[str, int]]) -> dict[str, FactTotals]:
    """Of all that is retained, each with who has said it and its bytes: what each source has, and with it who pays."""
    found: dict[str, FactTotals] = {}
    for name, size in held:
        for account in dict.fromkeys((name, paid_by(name))):
            facts, total = found.get(account, (0, 0))
            found[account] = FactTotals(facts + 1, total + size)
    return found


def suspected(held: Mapping[str, FactTotals]) -> set[str]:
    """Who has so much under its name that it is to be looked at whether it has said that (rule 4)."""
    return {name for name, live in held.items() if _over(quota_of(name), live, LENIENCE)}


def beyond(ended: Iterable[tuple[str, int]]) -> list[int]:
    """Of what revoked keys have said, each with its source and its bytes, in its order: the places of what goes (rule 5)."""
    found, goes = defaultdict[str, FactTotals](lambda: FactTotals(0, 0)), list[int]()
    for place, (name, size) in enumerate(ended):
        more = {
            account: FactTotals(found[account].facts + 1, found[account].bytes + size) for account in (name, paid_by(name))
        }
        if any(_over(quota_of(account), live, 1) for account, live in more.items()):
            goes.append(place)
        else:
            found.update(more)
    return goes


def quota_of(name: str) -> int:
    """How many facts the role of a name may have."""
    return QUOTAS.get(name.partition("/")[0], DEFAULT_QUOTA)


def _over(quota: int, live: FactTotals, times: int) -> bool:
    return live.facts > times * quota or live.bytes > times * max(quota * FACT_BYTES, LEAST_LIVE_BYTES)


def over_held(name: str, quota: int, live: FactTotals) -> str:
    """Why who has so much of what is retained stays away; empty for who may come (rule 3)."""
    most = LENIENCE * max(quota * FACT_BYTES, LEAST_LIVE_BYTES)
    if live.facts > LENIENCE * quota:
        return f"{name} has {live.facts} retained facts, and its certificate allows {quota}"
    if live.bytes > most:
        return f"{name} has {live.bytes} bytes of retained facts, {most} are the limit"
    return ""
