"""Steps: the acts of a deployment agent that are more than starting and stopping: install, configure, launch, leave."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from dsmt.agents.instance.choosing_ports import choose_ports
from dsmt.agents.instance.context import Context
from dsmt.agents.instance.facts import SlotFacts
from dsmt.agents.instance.failing import Failing
from dsmt.agents.instance.installing import Installer
from dsmt.agents.instance.running import Runner
from dsmt.agents.instance.under_way import under_way
from dsmt.agents.rules import after
from dsmt.agents.rules.container import FILES, SPEC
from dsmt.agents.rules.launching import RunPlan, Site, configured_key, place_of
from dsmt.agents.shared.launching import site_of
from dsmt.agents.shared.unforeseen import as_failed
from dsmt.errors import FailedError
from dsmt.event.reason import Reason
from dsmt.event.status import State


class Steps:
    """The steps of one instance. Each may be cut off at any await, and is then done again from its beginning."""

    def __init__(self, context: Context, installer: Installer, failing: Failing, runner: Runner, facts: SlotFacts) -> None:
        self._config = context.config
        self._context = context
        self._deps = context.deps
        self._memory = context.memory
        self._reporter = context.reporter
        self._present = context.present
        self._installer = installer
        self._failing = failing
        self._runner = runner
        self._facts = facts

    async def install(self, plan: RunPlan) -> None:
        """Install into a directory of its own; what runs is not touched. A failure is told and supervised."""
        self._reporter.tell(State.INITIATED, generation=plan.wanted.generation, revision=plan.revision)
        key = plan.wanted.install_key
        with self._supervised():
            ports = self._choose_ports(plan, occupied=self._present.run is not None)
            if self._present.run is None:  # else the record's are those of what runs
                self._settle_ports(ports)
            self._present.prepared = ""
            with under_way(self._context, "install", plan.wanted, after.installing(self._memory.record, key)):
                await self._installer.install(plan, self._site(plan, ports))
            self._memory.save(**after.installed(self._memory.record, key))

    async def configure(self, plan: RunPlan) -> None:
        """Write the files and configure, with the ports it will have. A failure is told and supervised."""
        self._reporter.tell(State.INITIATED, generation=plan.wanted.generation, revision=plan.revision)
        with self._supervised():
            self._settle_ports(ports := self._choose_ports(plan, occupied=False))
            self._present.prepared = ""
            neither = {"configured": ""}  # from the first file on
            with under_way(self._context, "configure", plan.wanted, neither):
                await self._installer.configure(plan, self._site(plan, ports))
            self._memory.save(configured=plan.wanted.run_key, filled=configured_key(plan, self._config))

    async def take_back(self, plan: RunPlan) -> None:
        """Give the copy before its small files again, which one that was to follow it may have written over; it goes on."""
        kept = self._memory.record.outgoing
        if kept is not None and self._memory.record.configured != plan.wanted.run_key:
            try:
                with under_way(self._context, "configure", plan.wanted):
                    await self._installer.configure(plan, self._site(plan, kept.ports))
            except Exception as error:  # noqa: BLE001 - it runs whatever comes of that; its next start configures anew
                as_failed(error)
        self._runner.take_back()

    async def prepare(self, plan: RunPlan) -> None:
        """Have its driver make ready what it needs. A failure is told and supervised."""
        with self._supervised():
            await self._runner.prepare(plan)

    async def launch(self, plan: RunPlan) -> None:
        """Start it, unless it must be configured anew first; other installations are then not needed any more."""
        with self._supervised(counts=True):
            moved = self._memory.record.filled not in ("", configured_key(plan, self._config))
            if self._settle_ports(self._choose_ports(plan, occupied=False)) or moved:
                self._memory.save(configured="")
                return
            with under_way(self._context, "start", plan.wanted):
                await self._runner.start(plan)
            if self._present.old is None:
                self.tidy()

    @contextlib.contextmanager
    def _supervised(self, *, counts: bool = False) -> Iterator[None]:
        """A block whose failure is told and supervised; also one that nobody foresaw."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this step's
            self._failing.failed(as_failed(error), counts=counts)

    def tidy(self) -> None:
        """Remove the installations but that of what runs. What cannot be removed is tried again at the next start."""
        run = self._present.run
        if run is None:
            return
        if self._memory.record.installed != (run.goal.install_key,):
            self._memory.save(installed=(run.goal.install_key,))
        with contextlib.suppress(FailedError):
            for name in self._deps.files.names(FILES):
                if f"{FILES}/{name}" != place_of(run.goal.install_key):
                    self._deps.files.remove(f"{FILES}/{name}")

    async def leave(self) -> None:
        """Stop, uninstall, remove, and say that it is gone. `{data}` stays."""
        await self._runner.stop(generation=self._facts.generation)
        await self._runner.sweep()
        why = await self._uninstall() or self._clear()
        self._facts.forget_spec()
        last = self._memory.record.last_exit
        self._memory.save(**after.left())
        about = {"pid": None, "next_try_ms": None, "parked": False, "last_exit": last}
        self._reporter.tell(State.GONE, why=why, generation=self._facts.generation, **about)

    async def _uninstall(self) -> Reason | None:
        """Run `uninstall`; its failure is told and blocks nothing."""
        plan = self._facts.kept_plan()
        if plan is None or plan.component.uninstall is None or plan.wanted.install_key not in self._memory.record.installed:
            return None
        try:
            site = self._site(plan, self._choose_ports(plan, occupied=True))
            with under_way(self._context, "uninstall", plan.wanted):
                await self._installer.uninstall(plan.component.uninstall, plan, site)
        except Exception as error:  # noqa: BLE001 - what is to be gone ends gone whatever fails
            told, remains = as_failed(error), "what it holds outside its directory"
            code = told.fields.get("exit_code")
            return self._reporter.why("stop.leftover", error=told.message, path=remains, exit_code=code)
        return None

    def _clear(self) -> Reason | None:
        """Remove what is installed, and the spec; why something of it remains, if it does."""
        why = None
        for path in (FILES, SPEC):
            try:
                self._deps.files.remove(path)
            except FailedError as error:
                why = why or self._reporter.why_failed(error)
        return why

    def _site(self, plan: RunPlan, ports: Mapping[str, int]) -> Site:
        return site_of(plan, self._config, self._deps, ports)

    def _choose_ports(self, plan: RunPlan, *, occupied: bool) -> dict[str, int]:
        before, sockets = self._memory.record.ports, self._deps.sockets
        return choose_ports(plan, self._config, before, sockets, occupied=occupied)

    def _settle_ports(self, chosen: dict[str, int]) -> bool:
        """Have the ports from now on; whether one differs from what it was configured with."""
        before = self._memory.record.ports
        if chosen != before:
            self._memory.save(ports=chosen)
        return any(chosen.get(name) != number for name, number in before.items())
