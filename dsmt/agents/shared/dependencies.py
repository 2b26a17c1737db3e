"""Dependencies: the ports that a deployment agent and a container manager are given, real ones or the simulator's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from dsmt.agents.rules.container import AgentConfig
from dsmt.agents.rules.launching import RunPlan, Site, environment, launch_of, refused, values_of
from dsmt.ports.artifacts import Artifacts
from dsmt.ports.bus import Bus
from dsmt.ports.check import Checks
from dsmt.ports.clock import Clock
from dsmt.ports.driver import Driver, Launch
from dsmt.ports.entropy import Entropy
from dsmt.ports.files import Files
from dsmt.ports.logs import Logs
from dsmt.ports.processes import Exit, Processes, ProcessIdentity
from dsmt.ports.sockets import Sockets
from dsmt.trust.identity import Identity as Source
from dsmt.trust.keys import Key


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """Everything an agent touches.

    `files` is its container's directory; `quick` the same place, without the cost of surviving a power cut; `data` the
    node's data root; `host` the whole machine, of which only files named by `env` are read. `inherited` is the environment
    from which `inherit_env` picks.
    """

    bus: Bus
    drivers: Mapping[str, Driver]
    checks: Checks
    artifacts: Artifacts
    sockets: Sockets
    logs: Logs
    files: Files
    quick: Files
    data: Files
    host: Files
    clock: Clock
    entropy: Entropy
    boot: str
    inherited: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class NodeSurroundings:
    """Everything a container manager touches.

    `files` is the node's directory. `make_key` makes a key of 32 secret bytes. `drivers` makes those of the container in a
    directory; they are used only to end what an agent that was killed has left running. `clear` ends at once all that bears
    the marks of the containers in some directories, their agents too, whether these are there or not. `ended` tells how a
    process ended that is not this one's child.
    """

    bus: Bus
    identity: Source
    make_key: Callable[[bytes], Key]
    processes: Processes
    drivers: Callable[[str], Mapping[str, Driver]]
    clear: Callable[[Collection[str]], Awaitable[object]]
    files: Files
    clock: Clock
    entropy: Entropy
    ended: Callable[[ProcessIdentity], Awaitable[Exit]]
    boot: str


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


def site_of(plan: RunPlan, config: AgentConfig, deps: Dependencies, ports: Mapping[str, int]) -> Site:
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
