"""The deployment agent: one container's process; makes of a slot's facts a running instance.

Rule 1: it acts on what is in its directory before, and without, any word from the bus; it never waits for a broker.
Rule 2: it obeys the greatest fact of its slot (A1) and implements exactly the spec that fact names (A12).
Rule 3: one loop acts, one act at a time, always the one that `reconcile.next_act` names for what is so now.
Rule 4: it may be killed at any await; what it must know afterwards was written before.
Rule 5: it ends by itself only with nothing left running: gone, to be recreated, or told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

from dsmt.agents.instance import commanding
from dsmt.agents.instance.facts import Facts
from dsmt.agents.instance.installing import Installer
from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.reporting import EMIT_RATE_S, SETTLE_S, Reporter
from dsmt.agents.instance.run import Run
from dsmt.agents.instance.running import Runner
from dsmt.agents.instance.steps import Steps
from dsmt.agents.instance.watching import Watching
from dsmt.agents.rules.container import (
    EXIT_GONE,
    EXIT_RECREATE,
    EXIT_STOPPED,
    OUTCOME,
    AgentConfig,
)
from dsmt.agents.rules.launching import Plan
from dsmt.agents.rules.reconcile import (
    OFFLINE_START_AFTER_S,
    Do,
    Duty,
    Situation,
    next_act,
)
from dsmt.agents.shared.dependencies import Dependencies
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.status import State
from dsmt.ports.bus import Arrived, Complete, Delivery, Interest, Start
from dsmt.ports.listening import listen

FOREVER: Final = float("inf")


class DeploymentAgent:
    """One agent. `run` returns its exit code; `shutdown` makes it stop its instance and end."""

    def __init__(self, config: AgentConfig, deps: Dependencies) -> None:
        self._config = config
        self._deps = deps
        self._slot = config.slot
        self._memory = Memory(deps.quick, deps.boot)
        self._wake = asyncio.Event()
        before = self._memory.last_status(config.node, EMIT_RATE_S)
        self._reporter = Reporter(deps.bus, self._slot, config.node, before, self._memory.note_status)
        self._reporter.trigger = tuple(EventId.parse(one) for one in self._memory.record.trigger)
        installer = Installer(
            files=deps.files,
            artifacts=deps.artifacts,
            drivers=deps.drivers,
            logs=deps.logs,
            clock=deps.clock,
            reporter=self._reporter,
        )
        self._tasks = Watching(deps, config.address)
        self._runner = Runner(
            config,
            deps,
            self._memory,
            self._reporter,
            installer,
            again=self._plan_to_start,
            wake=self._wake.set,
            watch=self._watch,
        )
        self._facts = Facts(config, deps, self._memory, wake=self._wake.set)
        self._answers = commanding.LogAnswers(deps.bus, deps.clock, self._slot, config.node, self._runner.output)
        self._steps = Steps(
            config=config,
            deps=deps,
            memory=self._memory,
            reporter=self._reporter,
            installer=installer,
            runner=self._runner,
            facts=self._facts,
        )
        self._seeking: tuple[EventId, asyncio.Task[None]] | None = None
        self._closing = False
        self._store = ""
        """The store that was read last: another one may know nothing of what was said."""
        self._restart_asked = False
        self._hears = False
        """Whether commands are listened to: from the first attachment on, which tells realm time."""
        self._begins = deps.clock.boottime()
        self._background: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<DeploymentAgent {self._slot} on {self._config.node}: {self._reporter.state}>"

    def shutdown(self) -> None:
        """Stop the instance, say so, and end with `EXIT_STOPPED`."""
        self._closing = True
        self._wake.set()

    async def run(self) -> int:
        """Be the agent of this container until it ends by itself (rule 5); the exit code."""
        self._deps.files.remove(OUTCOME)
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._runner.resume(self._facts.plan(Duty.KEEP))
            self._deps.bus.on_attached(self._attached)
            self._attached()
            interest = Interest(self._facts.patterns, conflate=True)
            self._start(listen(self._deps.bus, interest, self._take))
            self._start(self._beat())
            code = await self._converge()
            for one in self._background:
                one.cancel()
            if self._runner.run is not None:
                for one in self._runner.run.tasks:
                    one.cancel()
        return code

    # -- tasks

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that lives as long as the agent, or shorter."""
        if self._group is None:
            work.close()
            raise RuntimeError("the agent is not running")
        made = self._group.create_task(work)
        self._background = [one for one in self._background if not one.done()]
        self._background.append(made)
        return made

    def _watch(self, run: Run) -> None:
        """See to a new run, or to one with a new health monitor."""
        if not run.tasks:
            run.tasks.append(self._start(self._tasks.until_death(run, self._runner.died)))
        for one in run.tasks[1:]:
            one.cancel()
        run.tasks[1:] = [self._start(self._tasks.check(run, self._runner.apply))]

    async def _beat(self) -> None:
        """Vouch, note how far the output is, renew and trim, each `EMIT_RATE_S`; the first two also after what was said."""
        await asyncio.sleep(self._deps.entropy.uniform(0.0, SETTLE_S))
        while True:
            self._reporter.beat()
            self._runner.output.mark(self._deps.bus.now_ms())
            try:
                async with asyncio.timeout(EMIT_RATE_S):
                    await self._reporter.said.wait()
                await asyncio.sleep(SETTLE_S)
                self._reporter.renew_facts()
            except TimeoutError:
                self._reporter.renew()
                run = self._runner.run
                if run is not None and run.plan is not None:
                    self._runner.output.trim(run.plan.component.logs)

    def _take(self, delivery: Delivery) -> None:
        match delivery:
            case Arrived(signed):
                if self._facts.take(signed):
                    self._wake.set()
            case Complete(cursor, whole):
                self._begins = 0.0
                self._wake.set()
                if not whole or self._store not in ("", cursor.store):
                    self._reporter.again()
                self._store = cursor.store
            case _:
                pass

    # -- commands

    def _attached(self) -> None:
        """There is a broker: it may lack what this agent acts on, and have commands that came while nobody was here."""
        self._facts.offer()
        self._reporter.renew_facts()
        if self._deps.bus.attached and not self._hears:
            self._hears = True
            since = self._deps.bus.now_ms() - commanding.LONGEST_TTL_MS
            interest = Interest((self._slot.command_topic,), start=Start.HISTORY, since=since)
            self._start(listen(self._deps.bus, interest, self._take_command))

    def _take_command(self, delivery: Delivery) -> None:
        if isinstance(delivery, Arrived):
            self._command(delivery.signed)

    def _command(self, signed: SignedEvent) -> None:
        """Execute a command, once."""
        node, cause = self._config.node, signed.id
        command = commanding.read_command(signed, (f"node/{node}", self._slot.agent(node)))
        if command is None:
            return
        record = self._memory.record
        if not commanding.is_due(record, command, self._facts.generation):
            return
        if commanding.is_late(signed, self._deps.bus.now_ms()):
            self._memory.save(commands=commanding.remembered(record, command))
            self._reporter.note(expired_command=command.id)
            return
        if command.verb == "LOGS":
            self._memory.save(commands=commanding.remembered(record, command))
            self._start(self._answers.answer(command, cause))
            return
        self._memory.save(commands=commanding.remembered(record, command), last_command=command.id)
        self._reporter.trigger = (cause,)
        match command.verb:
            case "STOP":
                self._memory.save(held=self._facts.generation)
            case "START" | "RETRY" | "UPDATE":
                self._forget_failures()
            case "RESTART":
                self._forget_failures()
                self._restart_asked = self._runner.run is not None
            case "APPCONFIG":
                self._forget_failures()
                self._memory.save(step="reinstall")
                self._restart_asked = self._runner.run is not None
            case "UNINSTALL":
                self._memory.save(held=self._facts.generation, installed=(), configured="")
        self._reporter.note(last_command=command.id)
        self._wake.set()

    def _forget_failures(self) -> None:
        """Its cause may have changed: try now."""
        self._runner.supervision.cause_changed()
        self._memory.save(held=0, finished=False, step="", not_before_s=0.0, history=self._runner.supervision.history)

    # -- deciding

    def _situation(self) -> Situation:
        record, run = self._memory.record, self._runner.run
        owed = self._facts.owed()
        plan = self._facts.plan(owed.duty)
        not_before = record.not_before_s
        if self._memory.rebooted and run is None and self._begins:
            not_before = max(not_before, self._begins + OFFLINE_START_AFTER_S)
        return Situation(
            duty=owed.duty,
            wanted=None if plan is None else plan.wanted,
            running=None if run is None else run.wanted,
            installed=record.installed,
            configured=record.configured,
            prepared=self._runner.prepared,
            condemned=run is not None and run.condemned is not None,
            restart_asked=self._restart_asked,
            outgoing=self._runner.handover.wanted,
            ready=run is not None and run.health.serves,
            overlaps=plan is not None and plan.component.overlaps,
            held=record.held != 0 and record.held == self._facts.generation,
            finished=record.finished,
            reinstall=record.step == "reinstall",
            recreate=record.step == "recreate",
            not_before=not_before,
            now=self._deps.clock.boottime(),
        )

    def _plan_to_start(self) -> Plan | None:
        """The plan to start now, if a start is what is due; for the handler of a death."""
        at = self._situation()
        return self._facts.plan(at.duty) if next_act(at) is Do.START and not self._closing else None

    def _due(self, at: Situation) -> float:
        """Seconds until something is due by itself."""
        waits = [FOREVER]
        if at.running is None or at.not_before > at.now:
            waits.append(at.not_before - at.now if at.not_before > at.now else FOREVER)
        until_ms = self._facts.owed().until_ms
        if until_ms is not None:
            waits.append((until_ms - self._deps.bus.now_ms()) / 1000)
        return min(waits)

    # -- acting

    async def _converge(self) -> int:  # noqa: C901, PLR0912 - an act a line
        """Do the next act until one of them ends the agent (rule 3)."""
        while True:
            self._wake.clear()
            if self._closing:
                await self._runner.stop(generation=self._facts.generation)
                await self._settle(2.0)
                return EXIT_STOPPED
            self._obey()
            self._seek_spec()
            at = self._situation()
            plan = self._facts.plan(at.duty)
            match next_act(at):
                case Do.LEAVE:
                    if await self._leave():
                        return EXIT_GONE
                case Do.RECREATE:
                    await self._runner.handover.end()
                    self._end_with("recreate")
                    return EXIT_RECREATE
                case Do.STOP:
                    await self._runner.stop(generation=self._facts.generation)
                    await self._rest(at)
                case Do.FAIL:
                    await self._runner.fail()
                case Do.RESTART:
                    self._restart_asked = False
                    await self._runner.stop(generation=self._facts.generation, before=False)
                case Do.HAND_OVER:
                    self._runner.hand_over()
                case Do.RETIRE if plan is not None:
                    if await self._runner.handover.retire(lambda: self._situation().ready):
                        self._steps.tidy(plan)
                case Do.TAKE_BACK:
                    await self._runner.take_back()
                case Do.TAKE_OVER if plan is not None:
                    self._runner.take_over(plan)
                case Do.INSTALL if plan is not None:
                    await self._guarded(Do.INSTALL, plan, self._steps.install(plan))
                case Do.CONFIGURE if plan is not None:
                    await self._guarded(Do.CONFIGURE, plan, self._steps.configure(plan))
                case Do.PREPARE if plan is not None:
                    await self._guarded(Do.PREPARE, plan, self._steps.prepare(plan))
                case Do.START if plan is not None:
                    await self._steps.launch(plan)
                case Do.AWAIT_SPEC:
                    self._reporter.tell(State.REQUESTED, generation=self._facts.generation, pid=None)
                    await self._rest(at)
                case _:
                    await self._rest(at)

    def _obey(self) -> None:
        """Take note of a generation that is new: its fact is the trigger, and earlier failures are forgotten.

        Its number is not always greater: after a service was removed its slots begin anew, in another epoch.
        """
        epoch, generation, record = self._facts.epoch, self._facts.generation, self._memory.record
        if (epoch, generation) == (record.epoch, record.generation) or self._facts.cause is None:
            return
        if self._facts.owed().duty is Duty.KEEP:
            return
        self._reporter.trigger = (self._facts.cause,)
        self._forget_failures()
        revision, trigger = self._facts.revision, self._reporter.trigger_ids()
        self._memory.save(epoch=epoch, generation=generation, revision=revision, trigger=trigger)

    def _seek_spec(self) -> None:
        """Have somebody ask for the spec that the slot names, if it has not come by itself."""
        wanted = self._facts.awaits
        if self._seeking is not None and (self._seeking[0] != wanted or self._seeking[1].done()):
            self._seeking[1].cancel()
            self._seeking = None
        if wanted is None or self._seeking is not None:
            return
        self._seeking = (wanted, self._start(self._facts.find_spec(wanted)))

    async def _rest(self, at: Situation) -> None:
        """Wait until something changes or is due."""
        due = min(self._due(at), self._runner.note_good())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due == FOREVER else max(0.0, due)):
                await self._wake.wait()

    async def _guarded(self, act: Do, plan: Plan, work: Coroutine[Any, Any, None]) -> None:
        """Do something long, and let go of it when it is not what is due any more."""
        task = self._start(work)
        while not task.done():
            self._wake.clear()
            waiting = self._start(self._until_awake())
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            at = self._situation()
            if self._closing or next_act(at) is not act or self._facts.plan(at.duty) != plan:
                break
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))

    async def _until_awake(self) -> None:
        await self._wake.wait()

    async def _leave(self) -> bool:
        """Leave, and have that acknowledged; False when a newer fact wants it here again."""
        await self._steps.leave()
        self._end_with("gone")
        if await self._settle(None) and self._facts.owed().duty is Duty.LEAVE:
            return True
        self._deps.files.remove(OUTCOME)
        return False

    def _end_with(self, outcome: str) -> None:
        self._deps.files.write(OUTCOME, outcome.encode())

    async def _settle(self, patience_s: float | None) -> bool:
        """Wait until what was said last is acknowledged; False when something else is due, or patience ends."""
        settled = self._start(self._reporter.settled())
        self._wake.clear()
        waiting = self._start(self._until_awake())
        waits = (settled,) if patience_s is not None else (settled, waiting)
        await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        done = settled.done()
        settled.cancel()
        waiting.cancel()
        return done
