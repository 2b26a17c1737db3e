"""The trimmer: how far each class of a store's history was trimmed, and the next step of it (rules B6, H3).

Rule 1: a class is trimmed by age, and when it is over its budget by what each payer has above the common share (`shares`).
    What goes among the rows it looks at says `trimming`; retained facts stay.
Rule 2: each class, and each payer in it, has a place up to which it was trimmed, so that a step reads only what is behind
    it; an index for this would cost every append a page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dsmt.bus.rules.shares import owed
from dsmt.bus.store.bursts import SqliteBursts
from dsmt.bus.store.database import Database
from dsmt.bus.store.named import Named
from dsmt.bus.store.tables import BUDGETS, CLASSES
from dsmt.bus.store.trimming import Candidate, Chosen, Trimmings, oldest_first
from dsmt.event.rowtree import RowTree

PASS_MS: Final = 3600 * 1000
"""How often trimming begins at the first row again, for what has ceased to be a retained fact since it passed."""


class Trimmer:
    """Trims one store. `row_at` gives the last row that arrived before a time."""

    def __init__(
        self,
        db: Database,
        trimmings: Trimmings,
        tree: RowTree,
        row_at: Callable[[int], int],
        *,
        bursts: SqliteBursts,
        named: Named,
        limit_bytes: int,
    ) -> None:
        self._db, self._trimmings, self._tree, self._row_at = db, trimmings, tree, row_at
        self._limit_bytes = limit_bytes
        self._bursts, self._named = bursts, named
        trimmed, horizons = db.get("trimmed"), db.get("horizons")
        self.trimmed = 0 if trimmed is None else int(trimmed)
        """The greatest row number that was trimmed."""
        self._horizons = dict(enumerate([0] * len(CLASSES) if horizons is None else [int(one) for one in horizons.split()]))
        self._places = dict.fromkeys(CLASSES.values(), 0)
        """Up to which row the old were trimmed of each class."""
        self._given: dict[tuple[int, str], int] = {}
        """Up to which row a class was trimmed of a payer's rows."""
        self._passed_ms = dict.fromkeys(CLASSES.values(), 0)

    def trim(self, now_ms: int, limit: int) -> bool:
        """Keep each class within its share of the size and its age; whether there is more to do at once."""
        more = False
        for budget, (share, age_ms) in BUDGETS.items():
            number = CLASSES[budget]
            aged = self._trim_old(number, self._row_at(now_ms - age_ms), limit)
            given = self._trim_owed(number, int(self._limit_bytes * share), limit)
            if aged or given:
                more = True
            elif now_ms - self._passed_ms[number] > PASS_MS:
                self._passed_ms[number], self._places[number] = now_ms, 0
                self._given = {place: row for place, row in self._given.items() if place[0] != number}
        self._db.put("tree", self._tree.dump())
        return more

    def _trim_old(self, number: int, old: int, limit: int) -> bool:
        """Trim one class of what is old, reading `limit` rows; whether there are more to read."""
        if old <= self._places[number]:
            return False
        rows = self._candidates(self._places[number], limit)
        chosen = self._chosen(number, rows, old=old, due={})
        self._places[number] = max(self._places[number], chosen.place)
        return len(rows) == limit and not chosen.stopped

    def _trim_owed(self, number: int, budget: int, limit: int) -> bool:
        """Trim the oldest rows of those payers who are over their share of a class that is over its budget."""
        accounts = self._db.do("SELECT payer, bytes - live_bytes, live_bytes FROM accounts WHERE class = ?", (number,))
        live = sum(one[2] for one in accounts)
        due = owed({payer: size for payer, size, _ in accounts}, budget - live)
        if not due:
            return False
        rows = self._candidates(min(self._given.get((number, payer), 0) for payer in due), limit)
        chosen = self._chosen(number, rows, old=0, due=due)
        for payer in due:
            self._given[number, payer] = max(self._given.get((number, payer), 0), chosen.paid.get(payer, chosen.place))
        return len(rows) == limit and not chosen.stopped

    def _candidates(self, place: int, limit: int) -> list[Candidate]:
        found = self._db.do(
            "SELECT row, class, ended, size, arrived, leaf, payer, topic FROM events WHERE row > ? ORDER BY row LIMIT ?",
            (place, limit),
        )
        return [Candidate(*one) for one in found]

    def _chosen(self, number: int, rows: Sequence[Candidate], *, old: int, due: dict[str, int]) -> Chosen:
        """Choose which of these rows go, and delete them; what was chosen."""
        chosen = oldest_first(rows, number, due=due, old=old, horizon=self._horizons[number], stays=self._stays)
        self._horizons[number] = max(self._horizons[number], chosen.place)
        if chosen.taken:
            self._delete(number, chosen.taken)
        return chosen

    def _stays(self, one: Candidate) -> bool:
        return one.row in self._trimmings.pins or self._named.holds(one.topic, one.row)

    def _delete(self, number: int, taken: Sequence[Candidate]) -> None:
        last = max(self.trimmed, *(one.row for one in taken))
        with self._db.transaction():
            self._db.connection.executemany("DELETE FROM events WHERE row = ?", [(one.row,) for one in taken])
            self._bursts.trimmed(min(one.row for one in taken), max(one.row for one in taken))
            self._trimmings.went(number, taken)
            self._db.put("trimmed", str(last).encode())
            self._db.put("horizons", " ".join(map(str, self._horizons.values())).encode())
            self._db.put("tree", self._tree.dump())
        self.trimmed = last
