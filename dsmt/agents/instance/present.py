"""Present: what is so now of one instance: what runs, what its agent was told to do, and the tasks that see to it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from dsmt.agents.rules.acts import Goal
from dsmt.agents.rules.launching import RunPlan, Site
from dsmt.agents.rules.life import Life, State
from dsmt.event.reason import Reason
from dsmt.monitors.rules.health import HealthMonitor
from dsmt.ports.driver import Instance, Launch

UNKNOWN_HEALTHY_AFTER_S: Final = 10.0


@dataclass(slots=True, eq=False)
class Run:
    """One life of the program. `plan`, `site`, `launch` are None when it was taken over and its spec is not known."""

    life: Life
    goal: Goal
    began: float
    health: HealthMonitor
    instance: Instance | None = None
    """None while it is being started."""
    plan: RunPlan | None = None
    site: Site | None = None
    launch: Launch | None = None
    check: str = ""
    """By what its health monitor checks it (`launching.check_key`); empty when that is not known."""
    condemned: Reason | None = None
    followed: bool = False
    """Readers have had the time to follow to it from the copy before."""
    waiting: asyncio.Task[None] | None = None
    """Who waits for its end."""
    checking: asyncio.Task[None] | None = None
    turning: asyncio.Task[None] | None = None
    """Who waits until it may be ended, for it is not live."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Its start is over."""

    @property
    def pid(self) -> int | None:
        """The number of its process, to be shown."""
        return None if self.instance is None else self.instance.pid

    def silence(self) -> None:
        """From now on its end is ours, and its checks say nothing."""
        if self.waiting is not None:
            self.waiting.cancel()
        self.unchecked()

    def unchecked(self) -> None:
        """It is checked no more."""
        if self.checking is not None:
            self.checking.cancel()
        self.turn_back()

    def turn_back(self) -> None:
        """It need not be ended any more."""
        if self.turning is not None:
            self.turning.cancel()


def monitor_of(plan: RunPlan | None, now: float, *, resumed: bool | None = None, anew: bool = False) -> HealthMonitor:
    """The health monitor of a run by its plan, if that is known; the rest as in `HealthMonitor`."""
    spec, after_s = None, UNKNOWN_HEALTHY_AFTER_S
    if plan is not None:
        spec, after_s = plan.component.health, plan.component.update.healthy_after_s
    return HealthMonitor(spec, healthy_after_s=after_s, now=now, resumed=resumed, anew=anew)


class Tasks:
    """The tasks of one agent, which end with it."""

    def __init__(self) -> None:
        self.group: asyncio.TaskGroup | None = None
        self._all: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that lives as long as the agent, or shorter."""
        if self.group is None:
            work.close()
            raise RuntimeError("the agent is not running")
        made = self.group.create_task(work)
        self._all = [one for one in self._all if not one.done()]
        self._all.append(made)
        return made

    def end(self) -> None:
        """Cancel all."""
        for one in self._all:
            one.cancel()


@dataclass(slots=True)
class Present:
    """What is so now. `awake` is set when an agent is to look again at what is due."""

    run: Run | None = None
    old: Run | None = None
    """The copy that hands over to what runs."""
    last: Instance | None = None
    """What ended last by itself: something of it may be left."""
    prepared: str = ""
    """The run key for which its driver has all ready."""
    restart_asked: bool = False
    closing: bool = False
    begins: float = 0.0
    """When this agent began to wait for a first word from a broker; 0 once that has come."""
    lost: bool = False
    """It has followed another agent, and found nothing that runs: what that one obeyed may be over."""
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: Tasks = field(default_factory=Tasks)

    def ended(self) -> None:
        """What ran was ended; so it is for who had asked to restart it."""
        self.run, self.restart_asked = None, False

    async def begun(self) -> None:
        """Wait until no start is under way."""
        while self.run is not None and self.run.life.state is State.STARTING:
            await self.run.begun.wait()
