"""The deployment agent: one container's process; makes of a slot's facts a running instance.

Rule 1: it acts on what is in its directory before, and without, any word from the bus; it never waits for a broker.
Rule 2: it obeys the greatest fact of its slot (A1) and implements exactly the spec that fact names (A12).
Rule 3: one loop acts, one act at a time, always the one that `acts.next_act` names for what is so now.
Rule 4: it may be killed at any await; what it must know afterwards was written before.
Rule 5: what its node's manager has heard counts too: it looks for that at its start, and when it is poked (A1).
Rule 6: it ends by itself only with nothing left running: gone, to be recreated, or told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from dsmt.agents.instance.context import Context
from dsmt.agents.instance.deciding import Deciding
from dsmt.agents.instance.facts import SlotFacts
from dsmt.agents.instance.failing import Failing
from dsmt.agents.instance.handover import FOLLOW_S, HandOver
from dsmt.agents.instance.held_here import HoldHere
from dsmt.agents.instance.installing import Installer
from dsmt.agents.instance.log_answers import LogAnswers
from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.output import Output
from dsmt.agents.instance.present import Present
from dsmt.agents.instance.reporting import EMIT_RATE_S, SETTLE_S, Reporter
from dsmt.agents.instance.resuming import Resuming
from dsmt.agents.instance.running import Runner
from dsmt.agents.instance.serving import Serving
from dsmt.agents.instance.steps import Steps
from dsmt.agents.instance.stopping import Stopper
from dsmt.agents.rules import after, commands
from dsmt.agents.rules.acts import FOREVER, Do, Situation, next_act, rest_s
from dsmt.agents.rules.commands import Ask
from dsmt.agents.rules.container import EXIT_GONE, EXIT_RECREATE, EXIT_STOPPED, OUTCOME, POKE, AgentConfig, AgentOutcome
from dsmt.agents.rules.launching import RunPlan
from dsmt.agents.rules.reconcile import Duty
from dsmt.agents.rules.supervision import UNKNOWN_POLICY, Supervision
from dsmt.agents.shared.patient import PatientWriter
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.instance import Command
from dsmt.event.status import State
from dsmt.ports.bus import Arrived, Complete, Delivery, Interest, Notice, Start
from dsmt.ports.listening import listen
from dsmt.ports.realm import KEY_ENDED


class DeploymentAgent:
    """One agent. `run` returns its exit code; `shutdown` makes it stop its instance and end."""

    def __init__(self, config: AgentConfig, deps: InstanceSurroundings) -> None:
        self._config = config
        self._deps = deps
        self._slot = config.slot
        self._memory = Memory(deps.quick, deps.boot)
        self._hold = HoldHere(deps.files, self._slot, config.node)
        before = self._hold.said(self._memory.last_status(config.node, EMIT_RATE_S))
        self._reporter = Reporter(deps.bus, self._slot, config.node, before, self._memory.note_status)
        self._reporter.trigger = tuple(EventId.parse(one) for one in self._memory.record.trigger)
        self._present = Present(begins=deps.clock.boottime())
        self._output = Output(deps.logs, self._memory, self._present)
        self._supervision = supervision = Supervision(UNKNOWN_POLICY, self._memory.record.history)
        context = Context(config, deps, self._memory, self._reporter, self._present, self._hold, supervision, self._output)
        installer = Installer(deps, self._reporter)
        stopper = Stopper(context, installer)
        serving = Serving(config.address, deps.bus, self._memory, self._reporter)
        self._writer = PatientWriter(deps.files)
        self._facts = SlotFacts(config, deps, self._memory, self._writer, wake=self._present.awake.set)
        self._deciding = Deciding(deps, self._memory, self._facts, self._present, self._hold)
        self._handover = HandOver(self._present, self._memory, serving, stopper)
        self._failing = Failing(context, serving, self._handover)
        self._runner = Runner(
            context,
            deciding=self._deciding,
            serving=serving,
            handover=self._handover,
            stopper=stopper,
            failing=self._failing,
        )
        self._resuming = Resuming(context, serving, self._handover, self._failing, self._runner)
        self._steps = Steps(context, installer, self._failing, self._runner, self._facts)
        self._answers = LogAnswers(deps.bus, deps.clock, self._slot, config.node, self._output)
        self._seeking: tuple[EventId, asyncio.Task[None]] | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._store = ""
        """The store that was read last: another one may know nothing of what was said."""
        self._ahead: deque[SignedEvent] = deque(maxlen=commands.REMEMBERED)
        """Commands of generations of which no slot fact has come yet."""
        self._hears = False
        """Whether commands are listened to: from the first attachment on, which tells realm time."""
        deps.bus.on_time_known.append(self._put_right)

    def __repr__(self) -> str:
        return f"<DeploymentAgent {self._slot} on {self._config.node}: {self._reporter.state}>"

    def shutdown(self) -> None:
        """Stop the instance, say so, and end with `EXIT_STOPPED`."""
        self._present.closing = True
        self._present.awake.set()

    async def run(self) -> int:
        """Be the agent of this container until it ends by itself (rule 6); the exit code."""
        if self._memory.excused:  # written down before what says so goes
            self._memory.save()
        self._deps.files.remove(OUTCOME)
        asyncio.get_running_loop().add_signal_handler(POKE, self._look)
        self._look()
        async with asyncio.TaskGroup() as group:
            self._present.tasks.group = group
            await self._resuming.resume(self._facts.plan(Duty.KEEP))
            self._deps.bus.on_attached(self._attached)
            self._attached()
            interest = Interest(self._facts.patterns, conflate=True)
            self._present.tasks.start(listen(self._deps.bus, interest, self._take))
            self._present.tasks.start(self._beat())
            code = await self._converge()
            self._present.tasks.end()
        return code

    # -- what comes

    async def _beat(self) -> None:
        """Vouch, look at the output and renew what is due: each `EMIT_RATE_S`, and sooner after what was said."""
        await asyncio.sleep(self._deps.entropy.uniform(0.0, SETTLE_S))
        while True:
            self._reporter.beat()
            self._output.mark(self._deps.bus.now_ms())
            if self._trimming is None or self._trimming.done():
                self._trimming = self._present.tasks.start(self._trim())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EMIT_RATE_S):
                    await self._reporter.said.wait()
                await asyncio.sleep(SETTLE_S)
            self._reporter.renew()

    async def _trim(self) -> None:
        """Hold the output to its bounds, as often as what is written asks for, until nothing is."""
        while (run := self._present.run or self._present.old) is not None and run.plan is not None:
            rest_s = self._output.trim(run.plan.component.logs, self._deps.clock.boottime())
            if rest_s is None:
                return
            await asyncio.sleep(rest_s)

    def _look(self) -> None:
        """Take in what the manager has heard (rule 5), and whether it is stopped here (A24)."""
        if any((self._facts.take_told(), self._hold.look(self._reporter))):
            self._heard()

    def _heard(self) -> None:
        """Something new is to be obeyed; what commands wait for may have come."""
        self._present.awake.set()
        for one in [self._ahead.popleft() for _ in range(len(self._ahead))]:
            self._command(one)

    def _take(self, delivery: Delivery) -> None:
        match delivery:
            case Arrived(signed):
                if self._facts.take(signed) or self._hold.take(signed, self._reporter):
                    self._heard()
            case Complete(cursor, whole):
                self._present.begins = 0.0
                self._present.awake.set()
                if not whole or self._store not in ("", cursor.store):
                    self._reporter.again()
                self._store = cursor.store
            case Notice(type="dsmt.notice.namesake"):
                self._reporter.again()
            case Notice(type=kind) if kind == KEY_ENDED and self._facts.exhume():
                self._heard()
            case _:
                pass

    # -- commands

    def _attached(self) -> None:
        """There is a broker: it may lack what this agent acts on, and have commands that came while nobody was here."""
        self._facts.offer()
        self._reporter.renew_facts()
        if self._deps.bus.attached and not self._hears:
            self._hears = True
            since = self._deps.bus.now_ms() - commands.LONGEST_TTL_MS
            interest = Interest((self._slot.command_topic,), start=Start.HISTORY, since=since)
            self._present.tasks.start(listen(self._deps.bus, interest, self._take_command))

    def _put_right(self, by_ms: int) -> None:
        """Realm time is known: what was said by the machine's own clock is put right, and so is the record (J4)."""
        self._reporter.put_right(by_ms)
        status = self._reporter.monitor.status
        self._memory.save_soon(**({} if status is None else {"last_exit": status.last_exit}))

    def _take_command(self, delivery: Delivery) -> None:
        if isinstance(delivery, Arrived):
            self._command(delivery.signed)

    def _command(self, signed: SignedEvent) -> None:
        """Do what a command asks, once."""
        node, record = self._config.node, self._memory.record
        command = commands.read_command(signed, (f"node/{node}", self._slot.agent(node)))
        if command is None:
            return
        generation, now_ms = self._facts.generation, self._deps.bus.now_ms()
        if commands.is_ahead(signed, command, generation=generation, now_ms=now_ms):
            self._ahead.append(signed)
        for ask in commands.asked(record, signed, command, generation=generation, now_ms=now_ms):
            changes = commands.changes(record, ask, command)
            if changes:
                self._memory.save(**changes)
            self._heed(ask, command, signed.id)

    def _heed(self, ask: Ask, command: Command, cause: EventId) -> None:
        """Do what of a command is more than a change of the record."""
        match ask:
            case Ask.EXECUTE:
                self._reporter.trigger = (cause,)
            case Ask.ANSWER:
                self._present.tasks.start(self._answers.answer(command, cause))
            case Ask.TELL_EXPIRED:
                self._reporter.note(expired_command=command.id)
            case Ask.FORGET:
                self._failing.forget()
            case Ask.RESTART:
                self._present.restart_asked = self._present.run is not None
            case Ask.TELL:
                self._reporter.note(last_command=command.id)
                self._present.awake.set()
            case _:
                pass  # the change of the record is all

    # -- acting

    async def _converge(self) -> int:
        """Do the next act until one of them ends the agent (rule 3)."""
        while True:
            self._present.awake.clear()
            await self._present.begun()
            if not self._present.closing:
                self._seek_spec()
            at = self._deciding.situation()
            self._failing.answer_by(plan := self._facts.plan(at.duty))
            match next_act(at):
                case Do.END | Do.LEAVE | Do.RECREATE as act:
                    code = await self._end(act)
                    if code is not None:
                        return code
                case act:
                    await self._do(act, at, plan)

    async def _end(self, act: Do) -> int | None:
        """Do an act that ends the agent; its exit code, None when it is wanted here again."""
        if act is Do.LEAVE:
            return EXIT_GONE if await self._leave() else None
        if act is Do.RECREATE:
            await self._handover.end()
            await self._end_with(AgentOutcome.RECREATE)
            return EXIT_RECREATE
        await self._runner.stop(generation=self._facts.generation)
        await self._settle(2.0)
        return EXIT_STOPPED

    async def _do(self, act: Do, at: Situation, plan: RunPlan | None) -> None:  # noqa: C901, PLR0912 - an act a line
        """Do one act; `plan` is what is to run, as far as it is known."""
        match act:
            case Do.OBEY:
                self._obey()
            case Do.STOP:
                await self._runner.stop(generation=self._facts.generation, stays=True)
                await self._rest(at)
            case Do.FAIL:
                await self._runner.fail()
            case Do.RESTART:
                await self._runner.stop(generation=self._facts.generation, before=False)
            case Do.HAND_OVER:
                self._runner.hand_over()
            case Do.FOLLOW:
                await self._follow()
            case Do.RETIRE:
                await self._handover.end()
                self._steps.tidy()
            case Do.TAKE_BACK if plan is not None:
                await self._runner.end_successor()
                await self._guarded(act, plan, self._steps.take_back(plan))
            case Do.STAY if plan is not None:
                self._failing.stay(plan)
            case Do.COME_ENDED if plan is not None and at.came_ended is not None:
                self._failing.come_ended(plan, at.came_ended)
            case Do.TAKE_OVER if plan is not None:
                self._runner.take_over(plan)
            case Do.INSTALL if plan is not None:
                await self._guarded(act, plan, self._steps.install(plan))
            case Do.CONFIGURE if plan is not None:
                await self._guarded(act, plan, self._steps.configure(plan))
            case Do.PREPARE if plan is not None:
                await self._guarded(act, plan, self._steps.prepare(plan))
            case Do.START if plan is not None:
                await self._steps.launch(plan)
            case Do.AWAIT_SPEC:
                facts, good = self._facts, self._memory.record.good  # also of a container before: the first word says it
                self._reporter.tell(State.REQUESTED, why=facts.unfound, generation=facts.generation, pid=None, good=good)
                await self._rest(at)
            case _:
                await self._rest(at)

    def _obey(self) -> None:
        """Take note of a generation that is new: its fact is the trigger, and earlier failures are forgotten.

        Its number is not always greater: after a service was removed its slots begin anew, in another epoch.
        """
        if self._facts.cause is not None:
            self._reporter.trigger = (self._facts.cause,)
        facts, supervision = self._facts, self._supervision
        supervision.cause_changed()
        changes = after.obeyed(
            self._memory.record,
            supervision.history,
            epoch=facts.epoch,
            generation=facts.generation,
            revision=facts.revision,
            trigger=self._reporter.trigger_ids(),
            runs=facts.owed().duty is Duty.RUN,
        )
        self._memory.save(**changes)

    def _seek_spec(self) -> None:
        """Have somebody ask for the spec that the slot names, if it has not come by itself."""
        wanted = self._facts.awaits
        if self._seeking is not None and (self._seeking[0] != wanted or self._seeking[1].done()):
            self._seeking[1].cancel()
            self._seeking = None
        if wanted is None or self._seeking is not None:
            return
        self._seeking = (wanted, self._present.tasks.start(self._facts.find_spec(wanted)))

    async def _rest(self, at: Situation) -> None:
        """Wait until something changes or is due."""
        due = min(rest_s(at), self._failing.good_in_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due == FOREVER else max(0.0, due)):
                await self._present.awake.wait()

    async def _guarded(self, act: Do, plan: RunPlan, work: Coroutine[Any, Any, None]) -> None:
        """Do something long, and let go of it when it is not what is due any more."""
        await self._while_due(work, lambda: self._deciding.is_due(act, plan))

    async def _while_due(self, work: Coroutine[Any, Any, None], is_due: Callable[[], bool]) -> bool:
        """Do something long for as long as it is due; whether it was done."""
        task = self._present.tasks.start(work)
        while not task.done():
            self._present.awake.clear()
            if not is_due():
                task.cancel()
                await asyncio.wait((task,))
                return False
            waiting = self._present.tasks.start(self._until_awake())
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        return True

    async def _follow(self) -> None:
        """Let readers follow once they can know of it; they have if what runs is still ready then."""
        if not await self._while_due(self._handover.heard(), lambda: next_act(self._deciding.situation()) is Do.FOLLOW):
            return
        await asyncio.sleep(FOLLOW_S)
        run = self._present.run
        if run is not None:
            run.followed = run.health.serves

    async def _until_awake(self) -> None:
        await self._present.awake.wait()

    async def _leave(self) -> bool:
        """Leave, and have that acknowledged; False when a newer fact wants it here again."""
        await self._steps.leave()
        written = await self._while_due(self._end_with(AgentOutcome.GONE), lambda: self._facts.owed().duty is Duty.LEAVE)
        if written and await self._settle(None) and self._facts.owed().duty is Duty.LEAVE:
            return True
        self._writer.forget(OUTCOME)
        self._deps.files.remove(OUTCOME)
        return False

    async def _end_with(self, outcome: AgentOutcome) -> None:
        """Write down for the manager with what this ends; on a full disk as soon as there is room."""
        self._writer.write(OUTCOME, outcome.encode())
        await self._writer.written()

    async def _settle(self, patience_s: float | None) -> bool:
        """Wait until what was said last is acknowledged; False when something else is due, or patience ends."""
        settled = self._present.tasks.start(self._reporter.settled())
        self._present.awake.clear()
        waiting = self._present.tasks.start(self._until_awake())
        waits = (settled,) if patience_s is not None else (settled, waiting)
        await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        done = settled.done()
        settled.cancel()
        waiting.cancel()
        return done
