"""Invariants: what must hold of every run (docs/rules/invariants.md); each answers with sentences that say what does not.

Rule 1: 12.2 is `SimFleet.amiss`; 12.3 `replicas` and `ViewWatch`; 12.4 `stopped`; 12.6 and 12.8 `moved`; 12.10 `replayed`;
    12.12 `ViewWatch`; 12.13 `proven`; what was acknowledged is kept (`kept`), and what is signed of programs is so
    (`truth`).
Rule 2: nothing here holds a rule of the code under test: it folds, decides and compares with the real functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dsmt.controllers.replay import RevokedAt, fold_and_decide
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.controller import Decision
from dsmt.event.records import from_data
from dsmt.event.registry import is_fact
from dsmt.operations.offline.proving import verify as verify_history
from dsmt.operations.offline.replaying import revoked_at
from dsmt.simulator.contention import speaking_for
from dsmt.simulator.engine.keys import verify
from dsmt.simulator.engine.rng import Stream
from dsmt.simulator.fleet import SimFleet
from dsmt.view import View

SHUFFLES: Final = 2
TWICE: Final = 0.2
"""The share of facts that a replica gets twice."""
LOOK_S: Final = 1.0
EVERYTHING: Final = 5
"""In each so many looks, all that there is is looked at."""
LAG_S: Final = 15.0
"""How long a controller may take to attach and to read everything, or lag behind."""
EXPORT_S: Final = 20.0
"""How long an operator may take to export a history."""
NAMED_MOST: Final = 3
"""Gaps that one sentence names."""


def replicas(fleet: SimFleet, stream: Stream) -> list[str]:
    """12.3: all replicas are one state: the store folded in any order, with duplicates; its winners; controllers' views."""
    store, now_ms = fleet.broker.store, fleet.broker.now_ms
    facts = [one for _, one in fleet.rows(store) if is_fact(one.event) and not fleet.is_void(store, one)]
    view = folded(facts, now_ms)
    wrong = []
    doubled = [signed for signed in facts for _ in range(2 if stream.chance(TWICE) else 1)]
    digests = [folded(stream.shuffled(doubled), now_ms).digest for _ in range(SHUFFLES)]
    if digests != [view.digest] * SHUFFLES:
        wrong.append("12.3: a replica that got all facts in another order differs")
    if folded(fleet.winners(store), now_ms).digest != view.digest:
        wrong.append("12.3: the retained facts of the store are not the winners of its history")
    if view.digest != fleet.view().digest:
        wrong.append("12.3: a replica that got all facts as they came differs from one that got them at the end")
    return wrong


class ViewWatch:
    """12.3, all the time: what a controller sees is, at some time in any `LAG_S`, what its broker's store held lately."""

    def __init__(self, fleet: SimFleet) -> None:
        self.wrong: list[str] = []
        self._fleet = fleet
        self._seen: dict[str, float] = {}
        self._looks = 0

    async def run(self) -> None:
        """Look each `LOOK_S`, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
            self._looks += 1
            if self._looks % EVERYTHING == 0:
                self.look_at_everything()

    def look_at_everything(self) -> None:
        """12.12: hold what controllers have looked at against all that there is."""
        now = self._fleet.world.loop.time()
        for name, controller in self._fleet.controllers.items():
            process, runner = controller.kept.process, controller.runner
            if process is None or runner is None or process.sim.state != "running":
                continue
            with speaking_for(name):
                left_out = runner.overlooked()
            self.wrong += [f"12.12: controller {name} overlooks, at {now:.0f} s, {one}" for one in left_out[:3]]

    def look(self) -> None:
        """Look now."""
        fleet, now = self._fleet, self._fleet.world.loop.time()
        fleet.view()
        broker = fleet.broker.kept.process
        for name, controller in fleet.controllers.items():
            process, runner = controller.kept.process, controller.runner
            runs = process is not None and broker is not None and process.sim.state == broker.sim.state == "running"
            runs = runs and controller.bus is not None and controller.bus.broker == fleet.broker.identity.name
            if not runs or runner is None or runner.view.digest in fleet.recent:
                self._seen[name] = now
            elif now > self._seen.setdefault(name, now) + LAG_S:
                self._seen[name] = now
                self.wrong.append(f"12.3: the view of controller {name} is not what the store held, at {now:.0f} s")


def folded(events: Iterable[SignedEvent], now_ms: int) -> View:
    """A replica that gets these events, and is there at this realm time."""
    view = View()
    for signed in events:
        view.apply(signed)
    view.expire(now_ms)
    return view


def moved(before: Mapping[str, str | None], after: Mapping[str, str | None], slots: Iterable[str], why: str) -> list[str]:
    """12.6, 12.8: no slot is named for another node than before."""
    return [
        f"{why}: {slot} was to run on {before.get(slot)}, and now on {after.get(slot)}"
        for slot in slots
        if before.get(slot) != after.get(slot)
    ]


def stopped(orders: Sequence[str]) -> list[str]:
    """12.4: nothing was told to stop."""
    return [f"12.4: an empty broker came, and an instance was stopped: {order}" for order in orders]


def verdicts(fleet: SimFleet, since_ms: int) -> list[str]:
    """The verdicts on nodes that came since then."""
    told = [signed.event for _, signed in fleet.rows() if signed.event.type == "dsmt.node.verdict"]
    late = [event for event in told if event.time_ms > since_ms]
    return [f"{event.subject} was called dead: {event.data['message']}" for event in late]


def replayed(fleet: SimFleet) -> list[str]:
    """12.10: folded and decided again, each decision has the same inputs and says the same."""
    wrong: list[str] = []
    stores: dict[str, list[tuple[int, SignedEvent]]] = {}
    for store in fleet.stores:  # nobody has decided on a copy that was put back under the id of one that is here
        stores.setdefault(store.identity, list(fleet.rows(store)))
    decisions = [signed for store in fleet.stores for _, signed in fleet.rows(store) if _is_decision(signed)]
    for identity, rows in stores.items():
        there, ended = frozenset(str(signed.id) for _, signed in rows), revoked_at(rows, fleet.world.trust_in_all())
        of_this = [signed for signed in decisions if _is_whole(signed, identity, there)]
        for speaker in sorted({signed.event.source for signed in of_this}):
            with speaking_for(speaker.removeprefix("controller/")):
                of_one = [signed for signed in of_this if signed.event.source == speaker]
                wrong += _replayed(rows, of_one, identity, ended)
    return wrong


def _replayed(rows: list[tuple[int, SignedEvent]], decisions: list[SignedEvent], store: str, ended: RevokedAt) -> list[str]:
    return [
        f"12.10: {finding.decision.id} is {finding.outcome}: {'; '.join(finding.details)[:300]}"
        for finding in fold_and_decide(rows, decisions, store=store, check=verify, ended=ended).findings
        if finding.outcome not in ("same", "other ruleset")  # what another one decided is not ours to decide again
    ]


async def proven(fleet: SimFleet) -> list[str]:
    """12.13: the history that the operator exports, of the broker that it is attached to, verifies as a file."""
    operator, until = fleet.operator, fleet.world.loop.time() + EXPORT_S
    operator.export()
    while operator.exported is None:
        if fleet.world.loop.time() > until:
            return [f"12.13: the history was not exported: {operator.refused}"]
        await asyncio.sleep(0.1)
    verdict = verify_history(operator.exported, fleet.world.trust())
    missing = [f"{gap.source} {gap.first}..{gap.last} on {gap.topic}" for gap in verdict.gaps[:NAMED_MOST]]
    wrong = [f"12.13: {fault.code}: {fault.message}" for fault in verdict.faults]
    return wrong + [f"12.13: {len(verdict.gaps)} gaps: {'; '.join(missing)}"] * bool(missing)


def _is_decision(signed: SignedEvent) -> bool:
    return signed.event.type == "dsmt.decision"


def _is_whole(signed: SignedEvent, store: str, there: frozenset[str]) -> bool:
    """Whether a decision was made over this store, and what it produced came there, not to an emptier one."""
    record = from_data(Decision, signed.event.data)
    return record.store == store and there.issuperset(record.produced)
