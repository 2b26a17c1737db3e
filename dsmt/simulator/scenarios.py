"""Scenarios: what happens to a fleet in one run, by name; each ends whole, and every invariant is asked of it.

Asked of each run: 12.2 (all is as the operator was told), 12.3 (replicas agree), 12.10 (decisions replay), nothing that was
acknowledged is lost, nothing untrue is signed of programs, nothing goes back to a revision that never ran. Of each run in
which no store lost what it held: 12.13 (its history verifies).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

from dsmt.simulator.contention import contention
from dsmt.simulator.engine.forks import each_way
from dsmt.simulator.engine.run import run
from dsmt.simulator.engine.trace import Trace
from dsmt.simulator.fleet import Scale
from dsmt.simulator.invariants import ViewWatch, proven, replayed, replicas
from dsmt.simulator.play import Play, Report
from dsmt.simulator.scenes import both, brokers, clocks, controllers, nodes, services, stolen, stores, usurped
from dsmt.simulator.truth import all_true

Act = Callable[[Play], Awaitable[None]]

REST_S: Final = 31.0
"""How long a run goes on after its scenario: what is said each half minute is said once more, and looked at (`Watch`)."""
ROUND_S: Final = 62.0
"""How long it lasts at least: all that is done each minute is done once."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of them: what happens, what it holds the fleet to, how long at most (simulated s), and among how many.

    `contention`: the share of seeds in which controllers prefer different nodes. `placed`: it begins when the services of
    the start run. `loses`: a store loses what only it held, so that its history rightly does not verify (12.13).
    """

    act: Act
    holds: str
    seconds: float = 60.0
    nodes: int = 10
    services: int = 3
    contention: float = 0.0
    placed: bool = True
    brokers: int = 1
    site: int = 0
    loses: bool = False


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "storm": Scenario(nodes.storm, "12.2 after everything goes wrong at random", 90.0, 12, 4, 0.3, placed=False),
    "silent": Scenario(nodes.silent, "12.8: many nodes silent at once, and the brake holds"),
    "killed": Scenario(nodes.killed, "12.8: many nodes killed at once, and no brake"),
    "stalled": Scenario(nodes.stalled, "O1: who stood still is alive within 5 s", 110.0),
    "middlebox": Scenario(nodes.middlebox, "F2: many closed sessions are no evidence"),
    "stopped": Scenario(controllers.stopped, "12.6: stopped at any await, no slot moves back", 60.0, contention=0.7),
    "contended": Scenario(controllers.contended, "12.6: cut off while it speaks, no slot moves back", 75.0, contention=1.0),
    "buried": Scenario(controllers.buried, "A6: what was made anew does not end"),
    "anew": Scenario(controllers.anew, "A6: an end and a beginning in one batch"),
    "rulesets": Scenario(controllers.rulesets, "12.9: two rulesets, and nothing moves", contention=1.0, placed=False),
    "empty": Scenario(stores.empty, "12.4: an empty broker stops nothing, and the operator's will stands"),
    "blank": Scenario(stores.blank, "12.4: a blank store beside a birth record likewise"),
    "old": Scenario(stores.old, "12.5: an old store comes back, and nothing resurrects", 80.0, loses=True),
    "power": Scenario(stores.power, "A4: rows numbered again after a power cut are read by everybody", 80.0, loses=True),
    "words": Scenario(services.words, "12.2: what an operator says is so", 60.0),
    "parked": Scenario(services.parked, "O2: a fix is tried"),
    "commands": Scenario(services.commands, "A7: a command is executed once, in time or not at all", 130.0, 4, 1),
    "survivors": Scenario(
        brokers.survivors, "12.7: brokers die for good, and nothing that was safe is lost", 100.0, brokers=3, loses=True
    ),
    "parted": Scenario(brokers.parted, "12.3: brokers that were parted have the same 5 s later", 100.0, 7, 2, brokers=3),
    "line": Scenario(
        brokers.line, "F1: two of three brokers do not reach each other, and no node dies", 100.0, 7, 2, brokers=3
    ),
    "site": Scenario(brokers.site, "E5: a site repairs itself while its uplink is down", 130.0, 9, 3, brokers=3, site=4),
    "returned": Scenario(brokers.returned, "12.5: a broker that was away is whole by itself", 100.0, 7, 2, brokers=3),
    "stolen": Scenario(stolen.stolen, "J3: what a stolen key said where nobody heard of its end", 240.0, 4, 2, brokers=2),
    "usurped": Scenario(
        usurped.usurped, "J3: what a stolen controller's key said where nobody heard of its end", 240.0, 4, 2, brokers=2
    ),
    "both": Scenario(both.both, "E2: what two operators say on both sides of a partition", 240.0, 6, 3, brokers=2),
    "clock": Scenario(clocks.clock, "J4: a broker's clock steps, and realm time does not"),
}


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a run of a seed is until its scenario begins: those that begin alike are one run up to there."""

    scale: Scale
    contends: bool
    placed: bool


def play(
    seed: int, *, scenario: str, scale: Scale | None = None, seconds: float | None = None, traced: bool = False
) -> Report:
    """Run one seed of a scenario and ask every invariant. Scale and seconds are the scenario's own where none are given."""
    return _run(seed, [scenario], lambda: scenario, _beginning(seed, scenario, scale), seconds, traced=traced)


def play_each(
    seed: int, scenarios: Sequence[str], *, scale: Scale | None = None, seconds: float | None = None, traced: bool = False
) -> list[Report]:
    """Run one seed of each of these scenarios, as `play` does: what begins alike begins once, and goes on in forks."""
    alike: dict[Beginning, list[str]] = {}
    for scenario in scenarios:
        alike.setdefault(_beginning(seed, scenario, scale), []).append(scenario)
    reports: dict[str, Report] = {}
    for beginning, names in alike.items():
        if len(names) == 1:
            reports[names[0]] = play(seed, scenario=names[0], scale=scale, seconds=seconds, traced=traced)
        else:
            run_one = partial(_run, seed, names, beginning=beginning, seconds=seconds, traced=traced)
            reports.update((report.scenario, report) for report in each_way(names, run_one))
    return [reports[scenario] for scenario in scenarios]


def _beginning(seed: int, scenario: str, scale: Scale | None) -> Beginning:
    played = SCENARIOS[scenario]
    scale = scale or Scale(nodes=played.nodes, services=played.services, brokers=played.brokers, site=played.site)
    return Beginning(scale, seed % 10 < played.contention * 10, played.placed)


def _run(
    seed: int,
    names: Sequence[str],
    which: Callable[[], str],
    beginning: Beginning,
    seconds: float | None,
    *,
    traced: bool,
) -> Report:
    """Run the beginning that these scenarios share, ask which of them it is, and run that."""
    report, trace = Report(seed), Trace() if traced else None

    def chosen() -> str:
        report.cpu_s = (time.process_time() - began) / len(names)
        report.scenario = which()
        report.cpu_s -= time.process_time()
        return report.scenario

    began = time.process_time()
    with contention() if beginning.contends else nullcontext():
        run(_play(report, beginning, chosen, seconds), trace=trace)
    report.cpu_s += time.process_time()
    report.trace = trace.hexdigest() if trace is not None else ""
    return report


async def _play(report: Report, beginning: Beginning, chosen: Callable[[], str], seconds: float | None) -> None:
    played = Play(report.seed, beginning.scale)
    fleet = played.fleet
    await fleet.start()
    watch = ViewWatch(fleet)
    watching = played.world.background(watch.run(), "watch")
    if beginning.placed:
        await played.first()
    scenario = SCENARIOS[chosen()]
    played.seconds = seconds or scenario.seconds
    await scenario.act(played)
    await played.until(seconds or min(played.seconds, max(played.now + REST_S, ROUND_S)))
    watching.cancel()
    report.seconds = played.now
    unproven = [] if scenario.loses else await proven(fleet)
    report.wrong = unproven + played.wrong + watch.wrong + played.world.crashes + fleet.complaints
    report.wrong += replicas(fleet, played.stream.stream("replicas")) + replayed(fleet) + all_true(fleet)
    report.rows = sum(store.head for store in fleet.stores)
    report.slots, report.faults = len(list(fleet.wanted())), len(played.faults.log)
    report.decisions = sum(controller.runner.decisions for controller in fleet.controllers.values() if controller.runner)
    report.digest, report.log = fleet.digest(), played.faults.log
    played.world.power_off()
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
