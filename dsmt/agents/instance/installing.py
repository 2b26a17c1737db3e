"""Installing: fetch, unpack, `install`, `configure`, `uninstall` of one instance, over ports.

Rule 1: every step may be cut off at any await and is done again from its beginning: what it does is repeatable.
Rule 2: a step's command runs as the program would, its output in a log of its own, and leaves no process behind.
Rule 3: an installation has a directory of its own, named by its key: what runs is never written over. It is whole when it
    would be after a power cut: what is recorded as installed is never installed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from dsmt.agents.instance.reporting import Reporter
from dsmt.agents.rules.endings import words
from dsmt.agents.rules.launching import RunPlan, Site, mounts_of, working_directory
from dsmt.agents.shared.launching import prepared
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.errors import DsmtError, FailedError
from dsmt.event.reason import REASONS, failed, reason
from dsmt.ports.driver import KILL_S, Launch
from dsmt.ports.processes import Exit
from dsmt.spec.placeholders import expand

_LAST_OUTPUT: Final = 4096
_STEP_LOG_BYTES: Final = 1024 * 1024
_STEP_LOGS_KEPT: Final = 1


class Installer:
    """The steps before and after a program runs."""

    def __init__(self, deps: InstanceSurroundings, reporter: Reporter) -> None:
        self._files = deps.files
        self._artifacts = deps.artifacts
        self._drivers = deps.drivers
        self._logs = deps.logs
        self._clock = deps.clock
        self._reporter = reporter

    async def install(self, plan: RunPlan, site: Site) -> None:
        """Fetch and unpack all artifacts into a fresh directory, then run `install`. Raises `FailedError`."""
        component = plan.component
        self._files.remove(plan.place)
        self._files.below(plan.place)
        url = ""
        try:
            with self._reporter.at("fetch", limit := component.install_timeout_s):
                async with asyncio.timeout(limit):
                    for artifact in component.artifacts:
                        url = artifact.url
                        await self._artifacts.install(artifact, site.directory, self._reporter.progress)
        except TimeoutError as error:
            raise failed("fetch.unreachable", host=url, error=f"not here in {words(component.install_timeout_s)}") from error
        except DsmtError as error:
            if error.code in REASONS:
                raise
            raise failed("fetch.unreachable", host=url, error=error.message) from error
        if component.user is not None:
            self._files.give(plan.place, component.user)
        if component.install is not None:
            await self._step("install", component.install, plan, site)
        if component.artifacts or component.install is not None:
            await self._files.synced(plan.place)

    async def configure(self, plan: RunPlan, site: Site) -> None:
        """Write the small files, then run `configure`. Raises `FailedError`."""
        for file in plan.component.files:
            content = file.content or ""
            if file.template:
                content = expand(content, site.values)
            self._write(plan, file.to, content.encode(), int(file.mode, 8) & 0o777)
        if plan.component.configure is not None:
            await self._step("configure", plan.component.configure, plan, site)

    def _write(self, plan: RunPlan, to: str, content: bytes, mode: int) -> None:
        """Write a small file into the instance's directory, where the service's own user may have been before."""
        if plan.component.user is None:
            self._files.write(f"{plan.place}/{to}", content, mode=mode)
        else:
            self._files.write_given(plan.place, to, content, user=plan.component.user, mode=mode)

    async def uninstall(self, command: Sequence[str], plan: RunPlan, site: Site) -> None:
        """Run `uninstall`. Raises `FailedError`."""
        await self._step("uninstall", command, plan, site)

    async def _step(self, step: str, command: Sequence[str], plan: RunPlan, site: Site) -> None:
        """Run a command of the spec. Raises `FailedError`: `install.command`, or why it did not start."""
        argv = tuple(expand(word, site.values) for word in command)
        began = self._clock.boottime()
        offset = self.begin_log(step)
        limit = plan.component.install_timeout_s
        ended = await self.command(argv, plan, site, log=step, timeout_s=limit)
        if ended is not None and ended.code == 0:
            return
        took = words(self._clock.boottime() - began)
        how = f"a kill by dsmt, at its limit of {words(limit)}," if ended is None else f"code {ended.code}"
        if ended is not None and ended.code is None:
            how = f"signal {ended.signal}"
        output = self._logs.read(step, offset, None, most=_LAST_OUTPUT).decode(errors="replace")
        told = reason("install.command", step=step, exit_code=None, last_output=output, time=took, code=how)
        raise FailedError(
            told.code,
            told.message,
            step=step,
            command=" ".join(argv),
            exit_code=None if ended is None else ended.code,
            last_output=output,
        )

    def begin_log(self, step: str) -> int:
        """A step's command is about to run: put its log aside when it is over its size; where what it writes begins."""
        return self._logs.begin(step, size_bytes=_STEP_LOG_BYTES, keep=_STEP_LOGS_KEPT).offset

    async def command(self, argv: tuple[str, ...], plan: RunPlan, site: Site, *, log: str, timeout_s: float) -> Exit | None:
        """Run a command to its end, and end what it left; None when it took too long. Raises `FailedError`."""
        place = working_directory(plan.component, site.directory) if log != "install" else site.directory
        path = self._logs.path(log)
        user, image, mounts = plan.component.user or "", plan.component.image or "", mounts_of(site.directory, site.values)
        launch = Launch(argv, place, site.env, path, path, user=user, image=image, mounts=mounts)
        instance = None
        try:
            with self._reporter.at(log, timeout_s):
                async with asyncio.timeout(timeout_s):
                    driver = await prepared(self._drivers, plan.component.driver, launch)
                    instance = await driver.start(launch)
                    return await instance.wait()
        except TimeoutError:
            return None
        finally:
            if instance is not None:
                await instance.kill(deadline=KILL_S)
            self._logs.trim(log, size_bytes=_STEP_LOG_BYTES, keep=_STEP_LOGS_KEPT)
