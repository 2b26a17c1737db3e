"""Run: one life of an instance's program."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dsmt.agents.rules.launching import Plan, Site
from dsmt.agents.rules.reconcile import Wanted
from dsmt.event.reason import Reason
from dsmt.monitors.rules.health import HealthMonitor
from dsmt.ports.driver import Instance, Launch


@dataclass(slots=True, eq=False)
class Run:
    """One life of the program. `plan`, `site`, `launch` are None when it was taken over and its spec is not known."""

    instance: Instance
    wanted: Wanted
    began: float
    health: HealthMonitor
    plan: Plan | None = None
    site: Site | None = None
    launch: Launch | None = None
    check: str = ""
    """By what its health monitor checks it (`launching.check_key`); empty when that is not known."""
    condemned: Reason | None = None
    stopping: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def silence(self) -> None:
        """From now on its end is ours, and its checks say nothing."""
        self.stopping = True
        for one in self.tasks:
            one.cancel()
