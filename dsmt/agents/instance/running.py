"""Running: one instance's program: start, watch, restart at once, take over, stop.

Rule 1: a death is answered in the handler that hears of it: the next program is started and written down, then the word
    of the death is sent, and only then anything else is done.
Rule 2: what runs is on disk before anything is told or awaited, so a killed agent's successor takes it over; what was
    started and not yet written down, the successor kills.
Rule 3: what is condemned (not live, not ready in time) fails like what died by itself.
Rule 4: nothing here decides whether to run: the agent does, and is asked through `again`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Final

from dsmt.agents.instance import stopping
from dsmt.agents.instance.handover import HandOver
from dsmt.agents.instance.installing import Installer
from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.output import Output
from dsmt.agents.instance.reporting import Reporter
from dsmt.agents.instance.run import Run
from dsmt.agents.instance.serving import Serving
from dsmt.agents.rules import endings
from dsmt.agents.rules.container import AgentConfig, Outgoing
from dsmt.agents.rules.launching import Plan, Site, check_key, refused
from dsmt.agents.rules.reconcile import Wanted
from dsmt.agents.rules.supervision import JITTER, UNKNOWN_POLICY, Again, Finished, Supervision, Verdict
from dsmt.agents.shared.dependencies import Dependencies, launch_at, site_of
from dsmt.errors import FailedError
from dsmt.event.reason import Reason
from dsmt.event.records import Good, LastExit
from dsmt.event.status import State
from dsmt.monitors.rules.health import Broken, Effect, HealthMonitor, NotLive, Ready, Started, TimedOut, Unready
from dsmt.ports.driver import Driver, Handle, Instance, Launch
from dsmt.ports.processes import Exit

UNKNOWN_HEALTHY_AFTER_S: Final = 10.0


class Runner:
    """Starts, watches and ends the program of one instance.

    `again` answers with the plan to start now, or None; `wake` has the agent look again; `watch` sees to the tasks of a
    new run.
    """

    def __init__(
        self,
        config: AgentConfig,
        deps: Dependencies,
        memory: Memory,
        reporter: Reporter,
        installer: Installer,
        *,
        again: Callable[[], Plan | None],
        wake: Callable[[], None],
        watch: Callable[[Run], None],
    ) -> None:
        self.run: Run | None = None
        self.prepared = ""
        """The run key for which all is ready."""
        self._last: Instance | None = None
        self.supervision = Supervision(UNKNOWN_POLICY, memory.record.history)
        self.output = Output(deps.logs, memory)
        self.serving = Serving(config.address, deps.bus, memory, reporter)
        self.handover = HandOver(memory, self.serving, installer, reporter)
        self._config = config
        self._deps = deps
        self._memory = memory
        self._reporter = reporter
        self._installer = installer
        self._again = again
        self._wake = wake
        self._watch = watch

    # -- starting

    async def prepare(self, plan: Plan) -> None:
        """Have the driver make ready what a start needs. Raises `FailedError` also when it can run nothing here."""
        driver = self._driver(plan)
        why = driver.available()
        if why:
            raise refused(plan.component.driver, why)
        await driver.prepare(launch_at(plan, self._site(plan), self._deps.logs))
        self.prepared = plan.wanted.run_key

    def _driver(self, plan: Plan) -> Driver:
        driver = self._deps.drivers.get(plan.component.driver)
        if driver is None:
            raise refused(plan.component.driver, "this node has no such driver")
        return driver

    async def start(self, plan: Plan) -> None:
        """Start the program and tell. Raises `FailedError` with a `start.` code, or why no record can be kept of it."""
        if self._memory.fresh and self._memory.unwritten is not None:
            raise self._memory.unwritten
        site = self._site(plan)
        run = await self._spawn(plan, site, launch_at(plan, site, self._deps.logs))
        self._note_start(run, plan)
        self._tell_start(run)

    def _site(self, plan: Plan) -> Site:
        return site_of(plan, self._config, self._deps, self._memory.record.ports)

    async def _spawn(self, plan: Plan, site: Site, launch: Launch) -> Run:
        """Start the program."""
        component = plan.component
        driver = self._driver(plan)
        self.output.turn(component.logs)
        instance = await driver.start(launch)
        now = self._deps.clock.boottime()
        self.supervision.policy = component.restart
        self.supervision.started()
        health = HealthMonitor(component.health, healthy_after_s=component.update.healthy_after_s, now=now)
        self.run = Run(instance, plan.wanted, now, health, plan, site, launch, check_key(component.health, site.values))
        return self.run

    def _note_start(self, run: Run, plan: Plan) -> None:
        """Write down what runs (rule 2)."""
        self._memory.save(
            process=run.instance.handle,
            driver=plan.component.driver,
            run_key=plan.wanted.run_key,
            install_key=plan.wanted.install_key,
            run_generation=plan.wanted.generation,
            run_restart=plan.wanted.restart,
            started=False,
            ready=False,
            check="",
            began_s=run.began,
            step="",
            not_before_s=0.0,
            finished=False,
            history=self.supervision.history,
        )

    def _tell_start(self, run: Run) -> None:
        self._reporter.tell(State.INSTANTIATED, **self._about(run))
        self.serving.begin()
        self._watch(run)
        self.apply(run, run.health.timer(run.began))

    def _about(self, run: Run) -> dict[str, Any]:
        """What a status says of a run besides its state."""
        record = self._memory.record
        return {
            "generation": run.wanted.generation,
            "revision": record.revision if run.plan is None else run.plan.revision,
            "pid": run.instance.pid,
            "restarts": record.restarts,
            "restarts_recent": self.supervision.recent(self._deps.clock.boottime()),
            "failures": self.supervision.history.failures,
            "next_try_ms": None,
            "parked": False,
            "last_exit": record.last_exit,
            "last_command": record.last_command,
            "good": record.good,
        }

    # -- taking over

    async def resume(self, plan: Plan | None) -> None:
        """Take over what an earlier agent left running, end what no record names, and tell what is gone."""
        record = self._memory.record
        before = record.process
        if plan is not None and before is not None:
            self.supervision.policy = plan.component.restart
        if self._memory.rebooted:
            self._memory.note(outgoing=None)
            if before is not None:
                self._tell_rebooted()
            return
        handed_over = record.outgoing is not None
        if record.outgoing is not None:
            await self._resume_old(record.outgoing)
        instance = await self._found(before, record.driver)
        if instance is not None:
            self._adopt(instance, plan)
        elif not self._memory.fresh:
            await self.sweep()
            if before is not None:
                self._tell_gone(await self._ended(before, record.driver))
        if handed_over and (self.run is None or not self.run.health.is_ready):
            if self.handover.run is None:
                self.serving.absent("the copy before has ended")
            self.handover.serve_again()

    async def _found(self, handle: Handle | None, driver: str) -> Instance | None:
        """What an earlier agent started, if it lives."""
        known = self._deps.drivers.get(driver)
        return None if known is None or handle is None else await known.adopt(handle)

    async def _ended(self, handle: Handle, driver: str) -> Exit:
        """How what an earlier agent started has ended."""
        known = self._deps.drivers.get(driver)
        return Exit(None, None) if known is None else await known.ended(handle)

    async def _resume_old(self, old: Outgoing) -> None:
        """Take over the copy that an earlier agent has let go, if it lives."""
        instance = await self._found(old.process, old.driver)
        if instance is None:
            self._memory.save(outgoing=None)
            return
        wanted = Wanted(old.install_key, old.run_key, old.run_generation, old.run_restart)
        run = Run(instance, wanted, old.began_s, self._monitor(None, self._deps.clock.boottime(), resumed=True))
        self._watch(run)
        self.handover.resume(run)

    def _adopt(self, instance: Instance, plan: Plan | None) -> None:
        record, now = self._memory.record, self._deps.clock.boottime()
        wanted = Wanted(record.install_key, record.run_key, record.run_generation, record.run_restart)
        same = plan if plan is not None and plan.wanted.run_key == record.run_key else None
        run = self.run = Run(instance, wanted, record.began_s, self._monitor(None, now, resumed=record.ready))
        if same is not None:
            self._give_plan(run, same)
            self.prepared = same.wanted.run_key
        anew = run.check != "" and record.check not in ("", run.check)
        run.health = self._monitor(same, now, resumed=record.ready if record.started else None, anew=anew)
        self._reporter.again(pid=instance.pid)
        if run.health.is_ready:
            self.supervision.healthy(record.began_s)
            self.serving.ready(check="none", evidence="it was ready when its agent ended")
        elif run.health.serves:
            self.serving.go_on()
        self._watch(run)
        self.apply(run, run.health.timer(now))

    @staticmethod
    def _monitor(plan: Plan | None, now: float, *, resumed: bool | None, anew: bool = False) -> HealthMonitor:
        component = None if plan is None else plan.component
        after = UNKNOWN_HEALTHY_AFTER_S if component is None else component.update.healthy_after_s
        spec = None if component is None else component.health
        return HealthMonitor(spec, healthy_after_s=after, now=now, resumed=resumed, anew=anew)

    def _give_plan(self, run: Run, plan: Plan) -> None:
        """Let a run be checked and restarted by a plan, if all that it needs can still be read."""
        try:
            site = self._site(plan)
        except (FailedError, KeyError):
            return
        run.plan, run.site, run.launch = plan, site, launch_at(plan, site, self._deps.logs)
        run.check = check_key(plan.component.health, site.values)

    def _tell_rebooted(self) -> None:
        """What ran has ended with its machine; that is no failure of its own."""
        record, now_ms = self._memory.record, self._deps.bus.now_ms()
        why = self._reporter.why("node.rebooted", time=f"boot {self._deps.boot[:8]}")
        told = endings.last_exit(Exit(None, None), 0.0, why, now_ms)
        verdict = Again("restart", 0.0, 0, self.supervision.tries)
        self._note(verdict, self._deps.clock.boottime(), counts=False)
        self._memory.note(process=None, generation=record.generation)
        self._tell_failed(why, verdict, told)

    def _tell_gone(self, ended: Exit) -> None:
        """What ran has ended while no agent was there."""
        now, record = self._deps.clock.boottime(), self._memory.record
        ran = max(0.0, now - record.began_s)
        why = self._why(ended, ran, started=record.started, turned=False, watched=False)
        verdict = self.supervision.failed(now, jitter=self._jitter(), clean=ended.code == 0)
        self._note(verdict, now)
        self._memory.note(process=None)
        self._tell_failed(why, verdict, endings.last_exit(ended, ran, why, self._deps.bus.now_ms()))

    def take_over(self, plan: Plan) -> None:
        """A new generation asks for nothing new of what runs: only its policies may differ.

        One that is checked by something else goes on as it is, and is ready in that generation when this has passed.
        """
        run = self.run
        if run is None:
            return
        self._note_good(run)
        self.supervision.policy = plan.component.restart
        self._memory.save(run_generation=plan.wanted.generation, run_restart=plan.wanted.restart)
        before, run.wanted = run.check, plan.wanted
        self._give_plan(run, plan)
        if before != run.check:
            now, served = self._deps.clock.boottime(), run.health.serves
            run.health = self._monitor(plan, now, resumed=served if run.health.started else None, anew=True)
            self.supervision.unhealthy()
            self._watch(run)
        self._reporter.tell(State.RUNNING if run.health.started else State.INSTANTIATED, **self._about(run))
        if not run.health.is_ready and run.health.serves:
            self.serving.go_on()
        elif run.health.is_ready:
            checked = plan.component.health is not None
            self.serving.ready(check="none", evidence="nothing of it has changed since it was ready", checked=checked)

    def hand_over(self) -> None:
        """Let what runs go on beside its successor, which is not started yet."""
        run, self.run = self.run, None
        if run is not None:
            self._note_good(run)
            self.handover.begin(run)

    async def take_back(self) -> None:
        """What was let go is wanted again: end its successor."""
        new = self.run
        if new is not None:
            new.silence()
            await self._end(new)
        self.run = run = self.handover.take_back()
        if run is not None:
            self.supervision.started()
            self.supervision.healthy(self._deps.clock.boottime())
            self._watch(run)

    # -- failing

    async def died(self, run: Run, ended: Exit) -> None:
        """The program has ended by itself (rule 1)."""
        if run.stopping or run is not self.run:
            if not run.stopping and self.handover.died(run):
                self._wake()
            return
        self._last = run.instance
        now = self._deps.clock.boottime()
        self._note_good(run)
        self.run = None
        verdict = self.supervision.failed(now, jitter=self._jitter(), clean=ended.code == 0)
        self._note(verdict, now)
        self._memory.note(process=None)
        plan = self._again()
        new, failure = None, None
        if plan is not None and run.launch is not None and run.site is not None and plan.wanted == run.wanted:
            try:
                new = await self._spawn(plan, run.site, run.launch)
                self._note_start(new, plan)
            except FailedError as error:
                failure = error
        ran = now - run.began
        why = self._why(ended, ran, started=run.health.started, turned=new is not None or failure is not None)
        last = endings.last_exit(ended, ran, why, self._deps.bus.now_ms())
        self._tell_failed(why, verdict, last, run.wanted.generation)
        await asyncio.sleep(0)
        if new is not None and self.run is new and not new.stopping:
            self._tell_start(new)
        elif failure is not None:
            self.failed(failure)
        self._wake()

    def failed(self, error: FailedError) -> None:
        """An installation or a start has failed; supervision says when it is tried again."""
        now = self._deps.clock.boottime()
        if self.run is not None:
            self._note_good(self.run)
        verdict = self.supervision.failed(now, jitter=self._jitter())
        self._note(verdict, now)
        why = self._reporter.why_failed(error)
        last = endings.last_exit(Exit(None, None), 0.0, why, self._deps.bus.now_ms())
        self._tell_failed(why, verdict, last)

    def _note(self, verdict: Verdict, now: float, *, counts: bool = True) -> None:
        """Have the record say what supervision has decided; what is tried again counts as a restart."""
        step, delay_s, _ = endings.follows(verdict)
        self._memory.note(
            history=self.supervision.history,
            finished=isinstance(verdict, Finished),
            step=step if step in ("reinstall", "recreate") else "",
            not_before_s=now + (delay_s or 0.0),
            restarts=self._memory.record.restarts + (1 if counts and delay_s is not None else 0),
        )

    def _tell_failed(self, why: Reason, verdict: Verdict, last: LastExit | None, generation: int | None = None) -> None:
        """Say that it failed and what comes next, and write that down; what runs on is not withdrawn.

        `generation` is that of the run that failed, if it was a run.
        """
        step, delay_s, parked = endings.follows(verdict)
        if not isinstance(verdict, Again | Finished) and endings.is_flapping(why):
            why = self._reporter.why(
                "run.flapping",
                n=verdict.failures,
                time=endings.words(verdict.span_s),
                when=f"in {endings.words(verdict.retry_s)}",
                cause="its spec or its node",
                last_output=why.last_output,
                exit_code=why.exit_code,
                signal=why.signal,
            )
        if isinstance(verdict, Finished):
            why = self._reporter.left_alone(why)
        record, run = self._memory.record, self.run
        runs_on = run is not None and run.condemned is None and run.health.serves
        if not runs_on:
            self.serving.withdraw("it has failed")
            self.handover.serve_again()
        self._reporter.tell(
            State.FAILED,
            why=endings.with_step(why, step),
            generation=record.generation if generation is None else generation,
            revision=record.revision,
            pid=run.instance.pid if run is not None and (runs_on or run.condemned is not None) else None,
            restarts=record.restarts,
            restarts_recent=self.supervision.recent(self._deps.clock.boottime()),
            failures=self.supervision.history.failures,
            next_try_ms=None if delay_s is None else self._deps.bus.now_ms() + int(delay_s * 1000),
            parked=parked,
            last_exit=last,
            last_command=record.last_command,
            good=record.good,
        )
        self._memory.save_soon(last_exit=last, ready=record.ready and runs_on, trigger=self._reporter.trigger_ids())

    def note_good(self) -> float:
        """Write down the present revision as soon as it is good; in how many seconds it may be."""
        return inf if self.run is None else self._note_good(self.run)

    def _note_good(self, run: Run) -> float:
        """Remember the revision of a run that has been ready for long enough; in how many seconds it may be."""
        since, plan = self.supervision.healthy_since, run.plan
        if since is None or plan is None:
            return inf
        began = since if plan.component.health is not None else run.began
        due = began + plan.component.update.healthy_after_s - self._deps.clock.boottime()
        good = Good(spec=plan.spec, revision=plan.revision)
        if due <= 0 and self._memory.record.good != good:
            self._memory.save_soon(good=good)
        return inf if due <= 0 else due

    def _why(self, ended: Exit, ran_s: float, *, started: bool, turned: bool, watched: bool = True) -> Reason:
        code, fields = endings.ending(ended, ran_s, started=started, watched=watched)
        return self._reporter.why(code, last_output=self.output.last_words(turned=turned), **fields)

    def _jitter(self) -> float:
        return self._deps.entropy.uniform(-JITTER, JITTER)

    # -- health

    def apply(self, run: Run, effects: list[Effect]) -> None:
        """Do what the health monitor of a run wants."""
        if run is not self.run or run.stopping:
            return
        for effect in effects:
            match effect:
                case Started():
                    self._memory.save_soon(started=True)
                    self._reporter.tell(State.RUNNING, **self._about(run))
                case Ready(check, evidence, checked):
                    self.supervision.healthy(self._deps.clock.boottime())
                    self._memory.save_soon(check=run.check)
                    self.serving.ready(check=check, evidence=evidence, checked=checked)
                    self._wake()
                case Unready(check, evidence, failures):
                    self._note_good(run)
                    self.supervision.unhealthy()
                    self._reporter.note(good=self._memory.record.good)
                    self.serving.unready(check=check, evidence=evidence, failures=failures)
                    self.handover.serve_again()
                case Broken(check, error):
                    self.serving.broken(check=check, error=error)
                case NotLive(check, evidence, failures):
                    run.condemned = self._reporter.why("health.not_live", check=check, n=failures, result=evidence)
                    self._wake()
                case TimedOut(evidence, after_s):
                    time = endings.words(after_s)
                    run.condemned = self._reporter.why("start.timeout", time=time, result=evidence)
                    self._wake()

    # -- stopping

    async def fail(self) -> None:
        """End what is condemned, as failed (rule 3)."""
        run = self.run
        if run is None or run.condemned is None:
            return
        run.silence()
        now = self._deps.clock.boottime()
        self._note_good(run)
        verdict = self.supervision.failed(now, jitter=self._jitter())
        self._note(verdict, now)
        self._tell_failed(run.condemned, verdict, self._memory.record.last_exit, run.wanted.generation)
        ended, _ = await self._end(run)
        last = endings.last_exit(ended, now - run.began, run.condemned, self._deps.bus.now_ms())
        self._memory.save(process=None, last_exit=last)

    async def stop(self, *, generation: int, before: bool = True) -> None:
        """Stop what runs, if anything does, and say so; with `before` also the copy that hands over."""
        if before:
            await self.handover.end()
        run = self.run
        about: dict[str, Any] = {"generation": generation, "pid": None, "next_try_ms": None, "parked": False}
        about["last_command"] = self._memory.record.last_command
        if run is None:
            if self._last is not None:
                await self._last.kill(deadline=stopping.KILL_S)
            if self._reporter.state is State.STOPPED:
                self._reporter.note(**about)  # it is so under a new generation, too
            elif self._reporter.state is not State.GONE:
                self._reporter.tell(State.STOPPED, **about)
            self._memory.save()
            return
        run.silence()
        self._note_good(run)
        about["good"] = self._memory.record.good
        self._reporter.tell(State.TERMINATED, generation=generation)
        self.serving.withdraw("it is being stopped")
        ended, why = await self._end(run)
        ran = self._deps.clock.boottime() - run.began
        last = endings.last_exit(ended, ran, why, self._deps.bus.now_ms())
        self._memory.save(process=None, ready=False, last_exit=last)
        self._reporter.tell(State.STOPPED, why=why, last_exit=last, **about)
        self._memory.save()

    async def sweep(self) -> None:
        """End whatever of this container runs and is not known; of what is known only the copy that is let go may run."""
        old = self.handover.run
        spared = () if old is None else (old.instance.handle,)
        await stopping.sweep(self._deps.drivers, self._reporter, spared)

    async def _end(self, run: Run) -> tuple[Exit, Reason | None]:
        ended, why = await stopping.end(run.instance, run.plan, run.site, installer=self._installer, reporter=self._reporter)
        self.run = None
        return ended, why
