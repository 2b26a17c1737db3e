"""Checking: one try of a health check, with all that its placeholders stand for."""

from __future__ import annotations

from dsmt.agents.instance.present import Run
from dsmt.agents.rules.launching import working_directory
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.errors import InputError
from dsmt.monitors.rules.health import Try
from dsmt.ports.check import Result
from dsmt.spec.health import filled, port_of
from dsmt.spec.placeholders import expand


class Checking:
    """Makes the tries of an instance's runs."""

    def __init__(self, deps: InstanceSurroundings, address: str) -> None:
        self._deps = deps
        self._address = address

    async def make(self, run: Run, tried: Try) -> Result:
        """Make a try; what cannot be made is broken."""
        plan, site = run.plan, run.site
        if plan is None or site is None:
            return Result(False, "what is needed for the check is not known", 0.0, broken=True)
        try:
            check = filled(tried.check, lambda word: expand(word, site.values))
        except InputError as error:
            return Result(False, str(error), 0.0, broken=True)
        port = port_of(check.how)
        address = (plan.component.port(port).bind if port is not None else None) or self._address
        ports = {port.name: int(site.values[f"port.{port.name}"]) for port in plan.component.ports}
        directory = working_directory(plan.component, site.directory)
        user = plan.component.user or ""
        return await self._deps.checks.run(check, address=address, ports=ports, env=site.env, directory=directory, user=user)
