"""Stopping: how a run is ended on purpose (docs/reference/service-file.md, `stop`).

Rule 1: wait `delay` with the endpoint withdrawn, ask by command, signal, wait `grace`, kill the whole tree.
Rule 2: what no record names is swept up by its mark alone, and at once: nobody knows how it wants to be asked.
Rule 3: both return when nothing is left; what does not die is told, and tried again each `STUCK_S`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from dsmt.agents.instance.installing import Installer
from dsmt.agents.instance.reporting import Reporter
from dsmt.agents.rules.endings import words
from dsmt.agents.rules.launching import Plan, Site
from dsmt.errors import FailedError
from dsmt.event.reason import Reason
from dsmt.ports.driver import Driver, Handle, Instance
from dsmt.ports.processes import Exit
from dsmt.spec.placeholders import expand

KILL_S: Final = 5.0
STUCK_S: Final = 10.0
UNKNOWN_GRACE_S: Final = 10.0
"""The grace of what runs while its spec is not known."""


async def end(
    instance: Instance, plan: Plan | None, site: Site | None, *, installer: Installer, reporter: Reporter
) -> tuple[Exit, Reason | None]:
    """End a run; how its program ended, and a reason when it had to be killed."""
    grace = UNKNOWN_GRACE_S if plan is None else plan.component.stop.grace_s
    number = signal.SIGTERM if plan is None else signal.Signals[plan.component.stop.signal]
    if plan is not None and plan.component.stop.delay_s:
        await asyncio.sleep(plan.component.stop.delay_s)
    if plan is not None and site is not None:
        await _ask(plan, site, installer, reporter)
    instance.signal(number)
    why = None
    try:
        async with asyncio.timeout(grace):
            await instance.wait()
    except TimeoutError:
        why = reporter.why("stop.killed", grace=words(grace))
    await _until_dead(instance.kill, reporter)
    return await instance.wait(), why


async def sweep(drivers: Mapping[str, Driver], reporter: Reporter, spared: Sequence[Handle] = ()) -> None:
    """Kill all that earlier agents have left running and no record names (rule 2); the `spared` programs live on."""
    for driver in drivers.values():
        await _until_dead(partial(driver.clear, spared=spared), reporter)


class _Kill(Protocol):
    async def __call__(self, *, deadline: float) -> tuple[int, ...]: ...


async def _until_dead(kill: _Kill, reporter: Reporter) -> None:
    while stuck := await kill(deadline=KILL_S):
        reporter.note(reason=reporter.why("stop.stuck", pid=stuck[0], state="D"))
        await asyncio.sleep(STUCK_S)


async def _ask(plan: Plan, site: Site, installer: Installer, reporter: Reporter) -> None:
    """Run the stop command, if there is one; the signal follows whatever it does."""
    policy = plan.component.stop
    if policy.command is None:
        return
    argv = tuple(expand(word, site.values) for word in policy.command)
    try:
        await installer.command(argv, plan, site, log="stop", timeout_s=policy.grace_s)
    except FailedError as error:
        reporter.note(reason=reporter.why_failed(error))
