"""Failing: what is written down and said when a run, a start or a step has failed, by what supervision has decided."""

from __future__ import annotations

from math import inf
from typing import Any

from dsmt.agents.instance.context import Context
from dsmt.agents.instance.handover import HandOver
from dsmt.agents.instance.present import Run
from dsmt.agents.instance.serving import Serving
from dsmt.agents.rules import after, endings
from dsmt.agents.rules.launching import RunPlan
from dsmt.agents.rules.supervision import JITTER, Finished, TryAgain, Verdict, leaves
from dsmt.errors import FailedError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Ended, Good
from dsmt.event.reason import Reason
from dsmt.event.status import State
from dsmt.ports.processes import UNSEEN, Exit


class Failing:
    """The failures of one instance, and what of its runs was good."""

    def __init__(self, context: Context, serving: Serving, handover: HandOver) -> None:
        self._deps = context.deps
        self._memory = context.memory
        self._reporter = context.reporter
        self._present = context.present
        self._supervision = context.supervision
        self._output = context.output
        self._serving = serving
        self._handover = handover
        self._last_words = ""
        """What the run wrote last of whose end is to be told, where the copy before runs beside it."""

    def answer_by(self, plan: RunPlan | None) -> None:
        """Have what fails from now on be answered as what is wanted says, if that is known."""
        if plan is not None:
            self._supervision.policy = plan.component.restart

    def jitter(self) -> float:
        """By how much a delay is moved."""
        return self._deps.entropy.uniform(-JITTER, JITTER)

    def forget(self) -> None:
        """The cause of what has failed may have changed: it is tried now."""
        self._supervision.cause_changed()
        self._memory.save(**after.forgotten(self._supervision.history))

    def stay(self, plan: RunPlan) -> None:
        """What has ended by itself stays so in a new generation, which asks for nothing new of it."""
        self._memory.save(**after.stayed(self._memory.record, plan.wanted, Good(spec=plan.spec, revision=plan.revision)))
        last = self._memory.record.last_exit
        if last is not None and last.reason is not None:
            self.tell(last.reason, Finished(), last)

    def come_ended(self, plan: RunPlan, ended: Ended) -> None:
        """What has ended well on another node, or here before another was tried, is here from now on, and stays ended."""
        told = self._reporter.why("run.exited", exit_code=0, code=0, time=endings.words(ended.ran_s))
        why, restart = self._reporter.left_alone(told), plan.wanted.restart
        last = LastExit(code=0, signal=None, at_ms=ended.at_ms, ran_s=ended.ran_s, reason=why, restart=restart)
        good = Good(spec=plan.spec, revision=plan.revision)
        self._memory.note(**after.came_ended(plan.wanted, good, last))
        self.tell(told, Finished(), last)  # which writes both: a record without what was said of it would stay unsaid

    def failed(self, error: FailedError, *, counts: bool = True) -> None:
        """An installation or a start has failed; supervision says when it is tried again.

        What fails before a start does not count as a restart.
        """
        now = self._deps.clock.boottime()
        if self._present.run is not None:
            self.note_good(self._present.run)
        verdict = self._supervision.failed(now, jitter=self.jitter())
        self.note(verdict, now, counts=counts)
        why = self._reporter.why_failed(error)
        self.tell(why, verdict, endings.last_exit(UNSEEN, 0.0, why, self._deps.bus.now_ms()))

    def rebooted(self) -> None:
        """What ran has ended with its machine; that is no failure of its own."""
        record, now_ms = self._memory.record, self._deps.bus.now_ms()
        why = self._reporter.why("node.rebooted", time=f"boot {self._deps.boot[:8]}")
        told = endings.last_exit(UNSEEN, 0.0, why, now_ms)
        self._absent()
        verdict = TryAgain("restart", 0.0, 0, self._supervision.tries)
        self.note(verdict, self._deps.clock.boottime(), counts=False)
        self._memory.note(process=None, generation=record.generation)
        self.tell(why, verdict, told)

    def gone(self, ended: Exit, plan: RunPlan | None) -> None:
        """What ran has ended while no agent was there; `plan` is what it was started by, if that is known."""
        now, record = self._deps.clock.boottime(), self._memory.record
        ran = max(0.0, now - record.began_s)
        self._absent()
        if record.asked:
            self._ended_as_asked(self.last(ended, ran, record.reason))
            return
        self.note_end(plan, ended, ready=record.ready)
        why = self.why(ended, ran, started=record.started, turned=False, watched=False)
        if record.ready:
            self._supervision.healthy(record.began_s)  # as of what is taken over, though it may have died a while ago
        verdict = self._supervision.failed(now, jitter=self.jitter(), clean=ended.code == 0)
        self.note(verdict, now)
        self._memory.note(process=None)
        self.tell(why, verdict, self.last(ended, ran, why))

    def _absent(self) -> None:
        """Withdraw what an earlier agent has said is served, and is no more."""
        if self._memory.record.ready and self._present.old is None:
            self._serving.absent("it has ended, and so had its agent")

    def _ended_as_asked(self, last: LastExit) -> None:
        """What an earlier agent has told to end has ended: that was told already where it had failed."""
        self._memory.save(**after.stopped(last))
        if self._reporter.state is State.FAILED:
            self._reporter.again()
            return
        self._reporter.tell(State.STOPPED, generation=self._memory.record.generation, pid=None, last_exit=last)

    def last(self, ended: Exit, ran_s: float, why: Reason | None, at_ms: int | None = None) -> LastExit:
        """How a program has ended, with the number of the restart after which it was begun."""
        at_ms = self._deps.bus.now_ms() if at_ms is None else at_ms
        return endings.last_exit(ended, ran_s, why, at_ms, restart=self._memory.record.run_restart)

    def why(self, ended: Exit, ran_s: float, *, started: bool, turned: bool, watched: bool = True) -> Reason:
        """Why a program has ended; `turned` says that the next one writes already."""
        code, fields = endings.ending(ended, ran_s, started=started, watched=watched)
        self._last_words = self._output.all_last_words(turned=turned) if self._present.old is not None else ""
        return self._reporter.why(code, last_output=self._output.last_words(turned=turned), **fields)

    def note(self, verdict: Verdict, now: float, *, counts: bool = True) -> None:
        """Have the record say what supervision has decided; what is tried again counts as a restart."""
        history = self._supervision.history
        self._memory.note(**after.failed(self._memory.record, verdict, history, now, counts=counts))

    def tell(self, why: Reason, verdict: Verdict, last: LastExit | None, generation: int | None = None) -> None:
        """Say that it failed and what comes next, and write that down; what runs on is not withdrawn, and named.

        `generation` is that of the run that failed, if it was a run.
        """
        step, delay_s, parked = endings.follows(verdict)
        background, why = endings.in_the_background(why, verdict, last), self._as_flapping(why, verdict)
        if background:
            why = endings.foreground(why)
        elif self._present.old is not None:
            why = endings.beside(why, self._last_words or self._output.all_last_words(turned=False))
        else:
            why = endings.has_an_end(why)
        self._last_words = ""
        record, run = self._memory.record, self._present.run
        there = run or self._present.old
        runs_on = run is not None and run.condemned is None and run.health.serves
        if not runs_on:
            self._serving.withdraw("it has failed")
            self._handover.serve_again()
        self._reporter.tell(
            State.FAILED,
            why=endings.with_step(why, step),
            **self.about(
                record.generation if generation is None else generation,
                None if there is None else there.pid,
                last,
                next_try_ms=None if delay_s is None else self._deps.bus.now_ms() + int(delay_s * 1000),
                parked=parked,
            ),
        )
        self._memory.save_soon(last_exit=last, ready=record.ready and runs_on, trigger=self._reporter.trigger_ids())

    def about(
        self,
        generation: int,
        pid: int | None,
        last: LastExit | None,
        *,
        next_try_ms: int | None = None,
        parked: bool = False,
    ) -> dict[str, Any]:
        """What a status says of what runs, or has failed, besides its state and its reason."""
        record = self._memory.record
        return {
            "generation": generation,
            "revision": record.revision,
            "pid": pid,
            "restarts": record.restarts,
            "restarts_recent": self._supervision.recent(self._deps.clock.boottime()),
            "failures": self._supervision.history.failures,
            "next_try_ms": next_try_ms,
            "parked": parked,
            "last_exit": last,
            "last_command": record.last_command,
            "good": record.good,
        }

    def about_run(self, run: Run) -> dict[str, Any]:
        """The same of a run, with its revision where that is known."""
        about = self.about(run.goal.generation, run.pid, self._memory.record.last_exit)
        return about if run.plan is None else about | {"revision": run.plan.revision}

    def _as_flapping(self, why: Reason, verdict: Verdict) -> Reason:
        """The reason as it is told once nothing more is tried soon."""
        if isinstance(verdict, Finished):
            return self._reporter.left_alone(why)
        if isinstance(verdict, TryAgain) or not endings.is_flapping(why):
            return why
        return self._reporter.why(
            "run.flapping",
            n=verdict.failures,
            time=endings.words(verdict.span_s),
            last=why.message,
            pause=endings.words(verdict.retry_s),
            cause="its spec or its node",
            last_output=why.last_output,
            exit_code=why.exit_code,
            signal=why.signal,
        )

    def good_in_s(self) -> float:
        """Write down the present revision as soon as it is good; in how many seconds it may be."""
        return inf if self._present.run is None else self.note_good(self._present.run)

    def note_good(self, run: Run) -> float:
        """Write down and say that a run has been ready for long enough; in how many seconds it may be.

        It is said before anything is that may speak against it, for who hears that and not this refuses what was good.
        """
        since, plan = self._supervision.healthy_since, run.plan
        if since is None or plan is None:
            return inf
        began = since if plan.component.health is not None else run.began
        due = began + plan.component.update.healthy_after_s - self._deps.clock.boottime()
        if due <= 0:
            self._is_good(plan)
        return inf if due <= 0 else due

    def note_end(self, plan: RunPlan | None, ended: Exit, *, ready: bool) -> None:
        """Remember the revision of a program that was to end, and has ended well, however soon (A20)."""
        if plan is None or ended.code != 0 or not leaves(plan.component.restart, clean=True):
            return
        if ready or plan.component.health is None:
            self._is_good(plan)

    def _is_good(self, plan: RunPlan) -> None:
        good = Good(spec=plan.spec, revision=plan.revision)
        key, record = plan.wanted.run_key, self._memory.record
        if (record.good, record.good_key) != (good, key):
            self._memory.save_soon(good=good, good_key=key)
            self._reporter.note(good=good)
