"""Running: one instance's program: start, watch, restart at once, take over, stop.

Rule 1: a death is answered in the handler that hears of it: the next program is started and written down, then the word
    of the death is sent, and only then anything else is done.
Rule 2: what runs is on disk before anything is told or awaited, so a killed agent's successor takes it over; what was
    started and not yet written down, the successor kills.
Rule 3: where a run is, and what is done about it, its machine says (`dsmt.agents.rules.life`).
Rule 4: nothing here decides whether to run: `deciding` does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from dsmt.agents.instance.checking import Checking
from dsmt.agents.instance.context import Context
from dsmt.agents.instance.deciding import Deciding
from dsmt.agents.instance.failing import Failing
from dsmt.agents.instance.handover import HandOver
from dsmt.agents.instance.present import Run, monitor_of
from dsmt.agents.instance.serving import Serving
from dsmt.agents.instance.stopping import Stopper, way_of
from dsmt.agents.rules import after, life
from dsmt.agents.rules.launching import RunPlan, Site, check_key
from dsmt.agents.rules.supervision import Verdict
from dsmt.agents.shared.launching import driver_of, launch_at, prepared, site_of
from dsmt.agents.shared.unforeseen import as_failed
from dsmt.errors import FailedError
from dsmt.event.status import State
from dsmt.ports.driver import KILL_S, Launch
from dsmt.ports.processes import Exit


class Runner:
    """Starts, watches and ends the program of one instance."""

    def __init__(
        self,
        context: Context,
        *,
        deciding: Deciding,
        serving: Serving,
        handover: HandOver,
        stopper: Stopper,
        failing: Failing,
    ) -> None:
        self._config = context.config
        self._deps = context.deps
        self._memory = context.memory
        self._reporter = context.reporter
        self._present = context.present
        self._hold = context.hold
        self._deciding = deciding
        self._serving = serving
        self._handover = handover
        self._stopper = stopper
        self._failing = failing
        self._supervision = context.supervision
        self._output = context.output
        self._checking = Checking(context, serving, handover, failing)

    # -- starting

    async def prepare(self, plan: RunPlan) -> None:
        """Have the driver make ready what a start needs. Raises `FailedError` also when it can run nothing here."""
        await prepared(self._deps.drivers, plan.component.driver, launch_at(plan, self._site(plan), self._deps.logs))
        self._present.prepared = plan.wanted.run_key

    async def start(self, plan: RunPlan) -> None:
        """Start the program and tell. Raises `FailedError` with a `start.` code, or why no record can be kept of it."""
        unwritable = self._memory.unwritable
        if unwritable is not None:
            raise unwritable
        site = self._site(plan)
        run = await self._spawn(plan, site, launch_at(plan, site, self._deps.logs))
        self._note_start(run, plan)
        self._tell_start(run)

    def _site(self, plan: RunPlan) -> Site:
        return site_of(plan, self._config, self._deps, self._memory.record.ports)

    async def _spawn(self, plan: RunPlan, site: Site, launch: Launch) -> Run:
        """Start the program; meanwhile it is there, as starting."""
        component, clock = plan.component, self._deps.clock
        driver = driver_of(self._deps.drivers, component.driver)
        launch = self._output.turn(component.logs, plan.revision, launch)
        now = clock.boottime()
        run = Run(life.Life(self._supervision), plan.wanted, now, monitor_of(plan, now), None, plan, site, launch)
        self._present.run = run
        try:
            run.instance = await driver.start(launch)
        except BaseException:
            run.life.not_started()
            self._present.run = None
            self._output.not_begun()
            raise
        finally:
            run.begun.set()
        run.began = clock.boottime()
        run.life.started()
        run.health = monitor_of(plan, run.began)
        run.check = check_key(component.health, site.values)
        return run

    def _note_start(self, run: Run, plan: RunPlan) -> None:
        """Write down what runs (rule 2)."""
        handle, history = None if run.instance is None else run.instance.handle, self._supervision.history
        record, driver, now_ms = self._memory.record, plan.component.driver, self._deps.bus.now_ms()
        changes = after.started(
            record, plan.wanted, handle=handle, driver=driver, began=run.began, history=history, now_ms=now_ms
        )
        self._memory.save(**changes)

    def _tell_start(self, run: Run) -> None:
        self._reporter.tell(State.INSTANTIATED, **self._failing.about_run(run))
        self._serving.begin()
        self.begin_checks(run, now=run.began)

    def begin_checks(self, run: Run, *, now: float | None = None) -> None:
        """Watch a run that is there now, and do what its health monitor wants first."""
        self.watch(run)
        self._checking.apply(run, run.health.timer(self._deps.clock.boottime() if now is None else now))

    # -- another plan for what runs

    def give_plan(self, run: Run, plan: RunPlan) -> None:
        """Let a run be checked and restarted by a plan, if all that it needs can still be read."""
        try:
            site = self._site(plan)
        except (FailedError, KeyError):
            return
        run.plan, run.site, run.launch = plan, site, launch_at(plan, site, self._deps.logs)
        run.check = check_key(plan.component.health, site.values)

    def take_over(self, plan: RunPlan) -> None:
        """A new generation asks for nothing new of what runs: only its policies may differ.

        One that is checked by something else goes on as it is, and is ready in that generation when this has passed.
        """
        run = self._present.run
        if run is None:
            return
        self._failing.note_good(run)
        self._memory.save(**after.taken_over(plan.wanted), **after.writes_on(self._memory.record, plan.revision))
        before, run.goal = run.check, plan.wanted
        self.give_plan(run, plan)
        if before != run.check:
            now, served = self._deps.clock.boottime(), run.health.serves
            run.health = monitor_of(plan, now, resumed=served if run.health.started else None, anew=True)
            run.life.unready()
            self.watch(run)
        self._reporter.tell(State.RUNNING if run.health.started else State.INSTANTIATED, **self._failing.about_run(run))
        if not run.health.is_ready and run.health.serves:
            self._serving.go_on()
        elif run.health.is_ready:
            checked = plan.component.health is not None
            self._serving.ready(check="none", evidence="nothing of it has changed since it was ready", checked=checked)

    def hand_over(self) -> None:
        """Let what runs go on beside its successor, which is not started yet."""
        run, self._present.run = self._present.run, None
        if run is not None:
            self._failing.note_good(run)
            self._handover.begin(run)

    async def end_successor(self) -> None:
        """What was let go is wanted again: end what was to follow it."""
        new = self._present.run
        if new is not None:
            new.silence()
            self._memory.save(asked=True)
            await self._stopper.stop(new)
            self._present.ended()
            self._memory.save(process=None)

    def take_back(self) -> None:
        """What was let go is the instance again."""
        self._present.run = run = self._handover.take_back()
        if run is not None:
            self._supervision.taken_back(self._memory.record.history)
            run.life.ready(self._deps.clock.boottime())
            self.watch(run)

    # -- watching

    def watch(self, run: Run) -> None:
        """See to a new run, or to one with a new health monitor."""
        if run.waiting is None:
            run.waiting = self._present.tasks.start(self._until_death(run))
        self._checking.begin(run)

    async def _until_death(self, run: Run) -> None:
        """Wait for the end of the program, answer it, and sweep up what it left."""
        if run.instance is None:
            return
        ended = await run.instance.wait()
        if run is self._present.old:
            self._handover.died()
            self._present.awake.set()
            await run.instance.kill(deadline=KILL_S)
        elif run is self._present.run and run.life.alive:
            now = self._deps.clock.boottime()
            self._failing.note_good(run)  # before supervision forgets since when it was healthy
            self._failing.note_end(run.plan, ended, ready=run.health.is_ready)
            for effect in run.life.exit(now, jitter=self._failing.jitter(), clean=ended.code == 0):
                match effect:
                    case life.Failed(verdict):
                        await self._died(run, ended, verdict, now)
                    case life.Kill():
                        await run.instance.kill(deadline=KILL_S)

    async def _died(self, run: Run, ended: Exit, verdict: Verdict, now: float) -> None:
        """The program has ended by itself (rule 1)."""
        self._present.last, self._present.run = run.instance, None
        self._failing.note(verdict, now)
        ran, at_ms = now - run.began, self._deps.bus.now_ms()
        self._memory.note(process=None, last_exit=self._failing.last(ended, ran, None, at_ms))  # what follows depends on it
        plan = self._deciding.plan_to_start()
        new, failure = None, None
        if plan is not None and run.launch is not None and run.site is not None and plan.wanted == run.goal:
            try:
                new = await self._spawn(plan, run.site, run.launch)
                self._note_start(new, plan)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this start's
                failure = as_failed(error)
        turned = new is not None or failure is not None
        why = self._failing.why(ended, ran, started=run.health.started, turned=turned)
        last = self._failing.last(ended, ran, why, at_ms)
        self._failing.tell(why, verdict, last, run.goal.generation)
        await asyncio.sleep(0)
        if new is not None and self._present.run is new and new.life.alive:
            self._tell_start(new)
        elif failure is not None:
            self._failing.failed(failure)
        self._present.awake.set()

    # -- stopping

    async def fail(self) -> None:
        """End what is condemned, as failed."""
        run = self._present.run
        if run is None or run.condemned is None:
            return
        run.silence()
        now = self._deps.clock.boottime()
        self._failing.note_good(run)
        if self._memory.record.asked:  # by an earlier agent, who has told it
            effects = run.life.stop(way_of(run), now)
        else:
            effects = run.life.fail(way_of(run), now, jitter=self._failing.jitter())
        for effect in effects:
            if isinstance(effect, life.Failed):
                self._failing.note(effect.verdict, now)
                told = self._memory.record.last_exit
                self._failing.tell(run.condemned, effect.verdict, told, run.goal.generation)
        self._memory.save(asked=True)
        ended, _ = await self._stopper.end(run, effects)
        self._present.ended()
        self._memory.save(**after.stopped(self._failing.last(ended, now - run.began, run.condemned)))

    async def stop(self, *, generation: int, before: bool = True, stays: bool = False) -> None:
        """Stop what runs, if anything does, and say so; with `before` also the copy that hands over.

        With `stays` it is to be here, stopped, also where it was said to be gone just before. Without, what is left alone
        stays what it is (A20): nothing of it is stopped, and who follows an agent that ends has nothing else to say of it.
        """
        if before:
            await self._handover.end()
            await self._present.begun()
        run = self._present.run
        about: dict[str, Any] = {"generation": generation, "pid": None, "next_try_ms": None, "parked": False}
        about |= {"last_command": self._memory.record.last_command, **({"held_here": self._hold.held} if stays else {})}
        held = self._hold.why if stays else None
        if run is None:
            if self._present.last is not None:
                await self._present.last.kill(deadline=KILL_S)
            if self._reporter.state is State.STOPPED:
                self._reporter.note(**about, **({} if held is None else {"reason": held}))
            elif stays or not (self._reporter.state is State.GONE or self._reporter.is_left_alone):
                self._reporter.tell(State.STOPPED, why=held, **about)
            self._memory.save()
            return
        run.silence()
        self._failing.note_good(run)
        self._reporter.tell(State.TERMINATED, generation=generation)
        self._serving.withdraw("it is being stopped")
        self._memory.save(asked=True)
        ended, why = await self._stopper.stop(run)
        self._present.ended()
        last = self._failing.last(ended, self._deps.clock.boottime() - run.began, why)
        self._memory.save(**after.stopped(last))
        self._reporter.tell(State.STOPPED, why=held or why, last_exit=last, **about)
        self._memory.save()

    async def sweep(self) -> None:
        """End whatever of this container runs and is not known; of what is known only the copy that is let go may run."""
        old = self._present.old
        spared = () if old is None or old.instance is None else (old.instance.handle,)
        await self._stopper.sweep(spared)
