"""Launching: what a plan becomes here: the driver, the site, and what is run there, by the ports of an agent."""

from __future__ import annotations

from collections.abc import Mapping

from dsmt.agents.rules.container import AgentConfig
from dsmt.agents.rules.launching import RunPlan, Site, environment, launch_of, refused, values_of
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.ports.driver import Driver, Launch
from dsmt.ports.logs import Logs


def driver_of(drivers: Mapping[str, Driver], word: str) -> Driver:
    """The driver of this name. Raises `FailedError` (`start.driver`) when there is none here."""
    driver = drivers.get(word)
    if driver is None:
        raise refused(word, "this node has no such driver")
    return driver


async def prepared(drivers: Mapping[str, Driver], word: str, launch: Launch) -> Driver:
    """The driver of this name, with all that a launch needs. Raises `FailedError`, also when it can run nothing here."""
    driver = driver_of(drivers, word)
    why = driver.available()
    if why:
        raise refused(word, why)
    await driver.prepare(launch)
    return driver


def site_of(plan: RunPlan, config: AgentConfig, deps: InstanceSurroundings, ports: Mapping[str, int]) -> Site:
    """Where and how a plan's steps and program run; `ports` has a number for each of its ports.

    Raises `FailedError` (`start.driver`) when a file that its `env` names is missing.
    """
    directory = f"{deps.files.root}/{plan.place}"
    data = deps.data.below(str(config.slot)).root if plan.component.data else ""
    if plan.component.data and plan.component.user is not None:
        deps.data.give(str(config.slot), plan.component.user)
    numbers = {port.name: ports[port.name] for port in plan.component.ports}
    values = values_of(plan, config, ports=numbers, directory=directory, data=data)

    def read(path: str) -> bytes | None:
        return deps.host.read(path.lstrip("/"))

    env = environment(plan, values, ports=numbers, inherited=deps.inherited, read=read)
    return Site(directory, values, env)


def launch_at(plan: RunPlan, site: Site, logs: Logs) -> Launch:
    """The program to run there."""
    return launch_of(
        plan,
        site.values,
        site.env,
        directory=site.directory,
        stdout=logs.path("stdout"),
        stderr=logs.path("stderr"),
    )
