"""Resuming: what an agent does first: take over what an earlier one left running, and end what no record names."""

from __future__ import annotations

from dsmt.agents.instance.context import Context
from dsmt.agents.instance.failing import Failing
from dsmt.agents.instance.handover import HandOver
from dsmt.agents.instance.present import Run, monitor_of
from dsmt.agents.instance.running import Runner
from dsmt.agents.instance.serving import Serving
from dsmt.agents.rules import after
from dsmt.agents.rules.acts import Goal
from dsmt.agents.rules.launching import RunPlan
from dsmt.agents.rules.life import Life, State
from dsmt.agents.rules.record import OutgoingCopy
from dsmt.agents.rules.resuming import FIRST, First, Left
from dsmt.event.status import State as Told
from dsmt.monitors.rules.health import HealthMonitor
from dsmt.ports.driver import Handle, Instance
from dsmt.ports.processes import UNSEEN, Exit


class Resuming:
    """What was left of one instance, and what becomes of it."""

    def __init__(self, context: Context, serving: Serving, handover: HandOver, failing: Failing, runner: Runner) -> None:
        self._deps = context.deps
        self._memory = context.memory
        self._reporter = context.reporter
        self._present = context.present
        self._supervision = context.supervision
        self._serving = serving
        self._handover = handover
        self._failing = failing
        self._runner = runner

    async def resume(self, plan: RunPlan | None) -> None:
        """Take over what lives, and tell what is gone. `plan` is what was obeyed last."""
        record = self._memory.record
        handle, outgoing = record.process, record.outgoing
        same = plan if plan is not None and plan.wanted.run_key == record.run_key else None
        self._failing.answer_by(plan)
        before = instance = None
        if not self._memory.rebooted:
            before = None if outgoing is None else await self._found(outgoing.process, outgoing.driver)
            instance = await self._found(handle, record.driver)
        self._present.lost = not self._memory.fresh and instance is None
        said = self._reporter.monitor.status
        for row in FIRST:
            run = self._present.run
            left = Left(
                rebooted=self._memory.rebooted,
                named=handle is not None,
                found=instance is not None,
                before_named=outgoing is not None,
                before_found=before is not None,
                before_runs=self._present.old is not None,
                ready=run is not None and run.health.is_ready,
                stays=said is not None and (said.is_left_alone or said.state is Told.STOPPED),
            )
            if row.holds(left):
                await self._do(row.do, same, before, instance)

    async def _do(  # noqa: C901 - an act a line
        self, do: First, same: RunPlan | None, before: Instance | None, instance: Instance | None
    ) -> None:
        record = self._memory.record
        match do:
            case First.FORGET_BEFORE:
                self._memory.note(**after.before_ended(record))
            case First.TELL_REBOOTED:
                self._failing.rebooted()
            case First.TAKE_BEFORE if before is not None and record.outgoing is not None:
                self._adopt_before(before, record.outgoing)
            case First.LOSE_BEFORE:
                self._memory.save(**after.before_ended(record))
            case First.TAKE if instance is not None and record.asked:
                self._adopt_ending(instance, same)
            case First.TAKE if instance is not None:
                self._adopt(instance, same)
            case First.SWEEP:
                await self._runner.sweep()
            case First.TELL_ENDED if record.process is not None:
                self._failing.gone(await self._ended(record.process, record.driver), same)
            case First.TELL_AGAIN:
                self._reporter.again()
            case First.SERVE_NONE:
                self._serving.absent("the copy before has ended")
            case First.SERVE_BEFORE:
                self._handover.serve_again()

    async def _found(self, handle: Handle | None, driver: str) -> Instance | None:
        """What an earlier agent started, if it lives."""
        known = self._deps.drivers.get(driver)
        return None if known is None or handle is None else await known.adopt(handle)

    async def _ended(self, handle: Handle, driver: str) -> Exit:
        """How what an earlier agent started has ended."""
        known = self._deps.drivers.get(driver)
        return UNSEEN if known is None else await known.ended(handle)

    def _adopt_before(self, instance: Instance, old: OutgoingCopy) -> None:
        """Take over the copy that an earlier agent has let go."""
        run = self._run(instance, old.goal, old.began_s, ready=True)
        self._runner.watch(run)
        self._handover.resume(run)

    def _adopt(self, instance: Instance, same: RunPlan | None) -> None:
        """Take over what runs; `same` is its plan, if that is what was obeyed last."""
        record = self._memory.record
        run = self._run(instance, record.goal, record.began_s, ready=record.ready)
        self._present.run = run
        if same is not None:
            self._runner.give_plan(run, same)
            self._present.prepared = same.wanted.run_key
        anew = run.check != "" and record.check not in ("", run.check)
        resumed, now = record.ready if record.started else None, self._deps.clock.boottime()
        run.health = monitor_of(same, now, resumed=resumed, anew=anew)
        run.life = self._life(run.health)
        self._reporter.again(pid=instance.pid)
        if run.health.is_ready:
            run.life.ready(record.began_s)
            checked = same is None or same.component.health is not None
            self._serving.ready(check="none", evidence="it was ready when its agent ended", checked=checked)
        elif run.health.serves:
            self._serving.go_on()
        self._runner.begin_checks(run)

    def _adopt_ending(self, instance: Instance, same: RunPlan | None) -> None:
        """Take over what an earlier agent has told to end: it is told once more, and its end waits for that."""
        record = self._memory.record
        self._present.run = run = self._run(instance, record.goal, record.began_s, ready=False)
        if same is not None:
            self._runner.give_plan(run, same)
        if record.state is Told.FAILED:
            run.condemned = record.reason
        if record.ready:
            self._serving.absent("it is being stopped")
        self._present.restart_asked = run.condemned is None
        self._reporter.again(pid=instance.pid)

    def _run(self, instance: Instance, goal: Goal, began: float, *, ready: bool) -> Run:
        health = monitor_of(None, self._deps.clock.boottime(), resumed=ready)
        run = Run(self._life(health), goal, began, health, instance)
        run.begun.set()
        return run

    def _life(self, health: HealthMonitor) -> Life:
        """The life of what runs already."""
        running = State.READY if health.is_ready else State.RUNNING
        return Life(self._supervision, running if health.started else State.STARTED)
