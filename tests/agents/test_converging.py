"""One agent, act by act: what is decided and what is written after it, with any facts, ends and failures in between."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dsmt.agents.rules import after
from dsmt.agents.rules.acts import Do, Goal, Situation, next_act, rest_s
from dsmt.agents.rules.reconcile import Duty
from dsmt.agents.rules.record import InstanceRecord, carried
from dsmt.agents.rules.resuming import FIRST, First, Left
from dsmt.agents.rules.supervision import Supervision
from dsmt.event.kinds.instance import LastExit
from dsmt.spec.records import EscalationStep, Park, RestartPolicy

POLICY = RestartPolicy(
    when="always", first_s=None, factor=2, cap_s=60, reset_s=60,
    escalate=(
        EscalationStep(action="restart", times=2), EscalationStep(action="reinstall", times=2),
        EscalationStep(action="recreate", times=1),
    ),
    park=Park(after=8, retry_s=600),
)  # fmt: skip
OVERLAPPING = ("r3", "r4")
"""Run keys of specs that may be started beside what runs."""
SPECS = (("i1", "r1"), ("i1", "r2"), ("i1", "r3"), ("i2", "r4"), ("i3", "r5"))
LAST = LastExit(code=0, signal=None, at_ms=0, ran_s=1.0, reason=None)
MOST = 12
"""More acts than any way from one rest to the next takes."""


class Run:
    """A program that runs."""

    def __init__(self, wanted: Goal, pid: int) -> None:
        self.wanted = wanted
        self.pid = pid
        self.ready = self.condemned = self.followed = False


class Agent:
    """The shell as it would be if all it does were done at once: it decides nothing."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.record = InstanceRecord(boot="b")
        self.begin()
        self.disk: set[str] = set()
        self.fact: tuple[Duty, int, int, Goal | None] | None = None
        self.spec: tuple[str, str] | None = None
        """The spec that is kept."""
        self.pids = 0
        self.exit = ""

    def begin(self) -> None:
        """A new agent, in a new container when this one was recreated."""
        self.run: Run | None = None
        self.old: Run | None = None
        self.prepared = ""
        self.closing = self.restart_asked = False
        self.supervision = Supervision(POLICY, self.record.history)

    def write(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)

    @property
    def wanted(self) -> Goal | None:
        if self.fact is None or self.fact[0] is Duty.KEEP:
            generation = self.record.run_generation or self.record.generation
            return None if self.spec is None else Goal(*self.spec, generation, self.record.run_restart)
        return self.fact[3]

    @property
    def duty(self) -> Duty:
        return Duty.KEEP if self.fact is None else self.fact[0]

    def situation(self) -> Situation:
        record, run, old, wanted = self.record, self.run, self.old, self.wanted
        of = None if self.fact is None else self.fact[1]
        return Situation(
            duty=self.duty,
            wanted=wanted,
            running=None if run is None else run.wanted,
            installed=record.installed,
            configured=record.configured,
            prepared=self.prepared,
            closing=self.closing,
            unheeded=of is not None and of != record.generation,
            condemned=run is not None and run.condemned,
            restart_asked=self.restart_asked,
            outgoing=None if old is None else old.wanted,
            ready=run is not None and run.ready,
            followed=run is not None and run.followed,
            overlaps=wanted is not None and wanted.run_key in OVERLAPPING,
            held=record.held != 0 and of is not None and record.held == of,
            ended=after.ended(record, wanted, None),
            reinstall=record.step == "reinstall",
            recreate=record.step == "recreate",
            not_before=record.not_before_s,
            now=self.now,
        )

    def failed(self) -> None:
        verdict = self.supervision.failed(self.now, jitter=0.0)
        self.write(**after.failed(self.record, verdict, self.supervision.history, self.now))

    def stop(self, *, before: bool = True) -> None:
        if before:
            self.end_old()
        if self.run is not None:
            self.run = None
            self.write(**after.stopped(LAST))

    def end_old(self) -> None:
        self.old = None
        self.write(outgoing=None)

    def tidy(self, key: str) -> None:
        self.write(installed=(key,))
        self.disk &= {key}

    def act(self, *, works: bool = True) -> Do:
        """Do the next act; one that can fail does unless it `works`."""
        at = self.situation()
        do, wanted = next_act(at), at.wanted
        match do:
            case Do.OBEY:
                assert self.fact is not None
                self.supervision.cause_changed()
                about = {"epoch": 1, "generation": self.fact[1], "revision": 1, "trigger": ()}
                self.write(**after.obeyed(self.record, self.supervision.history, runs=self.duty is Duty.RUN, **about))
            case Do.END:
                self.stop()
                self.begin()
            case Do.RECREATE:
                assert self.run is self.old is None
                self.record, self.disk = carried(self.record), set()
                self.begin()
            case Do.LEAVE:
                self.stop()
                self.disk = set()
                self.write(**after.left())
                self.spec = None
                self.exit = "gone"
            case Do.STOP:
                self.stop()
            case Do.FAIL:
                self.failed()
                self.run = None
                self.write(process=None)
            case Do.RESTART:
                self.restart_asked = False
                self.stop(before=False)
            case Do.HAND_OVER:
                assert self.run is not None
                assert self.old is None, "a third copy"
                self.write(**after.handed_over(self.record, self.run.wanted, handle={"pid": self.run.pid}, began=0.0))
                self.old, self.run = self.run, None
            case Do.FOLLOW:
                assert self.run is not None
                self.run.followed = self.run.ready
            case Do.RETIRE:
                self.end_old()
                if self.run is not None:
                    self.tidy(self.run.wanted.install_key)
            case Do.TAKE_BACK:
                assert self.record.outgoing is not None
                self.run, self.old = self.old, None
                self.write(**after.taken_back(self.record, self.record.outgoing, check=""))
            case Do.TAKE_OVER:
                assert self.run is not None
                assert wanted is not None
                self.run.wanted = wanted
                self.write(**after.taken_over(wanted))
            case Do.INSTALL | Do.CONFIGURE | Do.PREPARE | Do.START:
                assert wanted is not None
                self.step(do, wanted, works=works)
        return do

    def step(self, do: Do, wanted: Goal, *, works: bool) -> None:
        if do is Do.INSTALL:
            assert not any(one is not None and one.wanted.install_key == wanted.install_key for one in (self.run, self.old))
            self.write(**after.installing(self.record, wanted.install_key))
            self.disk -= {wanted.install_key}
        if not works:
            self.failed()
        elif do is Do.INSTALL:
            self.disk |= {wanted.install_key}
            self.write(**after.installed(self.record, wanted.install_key))
        elif do is Do.CONFIGURE:
            self.write(configured=wanted.run_key)
        elif do is Do.PREPARE:
            self.prepared = wanted.run_key
        else:
            self.start(wanted)

    def start(self, wanted: Goal) -> None:
        assert self.run is None, "two programs at once"
        assert self.old is None or wanted.run_key in OVERLAPPING, "beside one that may not have another beside it"
        assert wanted.install_key in self.disk, "nothing is installed there"
        self.pids += 1
        self.run = Run(wanted, self.pids)
        about = {"handle": {"pid": self.pids}, "driver": "process", "began": self.now, "now_ms": round(self.now * 1000)}
        self.write(**after.started(self.record, wanted, history=self.supervision.history, **about))
        self.supervision.started()
        if self.old is None:
            self.tidy(wanted.install_key)

    def settle(self, *, works: bool = True) -> list[Do]:
        """Act until there is nothing to do but to wait; what was done."""
        done: list[Do] = []
        while not done or done[-1] not in (Do.REST, Do.AWAIT_SPEC, Do.STOP, Do.LEAVE):
            done.append(self.act(works=works))
            assert len(done) <= MOST, f"a busy loop: {done}"
            self.lives_in_what_is_there()
        return done

    def lives_in_what_is_there(self) -> None:
        for one in (self.run, self.old):
            assert one is None or one.wanted.install_key in self.disk, "its installation was taken from under it"
        assert set(self.record.installed) <= self.disk, "an installation that is not there"

    # what happens to it

    def killed(self) -> None:
        """The agent is killed, and the next one takes over what it left."""
        lives = {one.pid: one for one in (self.run, self.old) if one is not None}
        record, found = self.record, None if self.record.process is None else lives.get(self.record.process["pid"])
        before = None if record.outgoing is None else lives.get(record.outgoing.process["pid"])
        self.begin()
        for row in FIRST:
            left = Left(
                rebooted=False,
                named=record.process is not None,
                found=found is not None,
                before_named=record.outgoing is not None,
                before_found=before is not None,
                before_runs=self.old is not None,
                ready=self.run is not None and self.run.ready,
            )
            if row.holds(left):
                self.resume(row.do, found, before, lives)
        assert lives == {one.pid: one for one in (self.run, self.old) if one is not None}, "nobody knows of it"

    def resume(self, do: First, found: Run | None, before: Run | None, lives: dict[int, Run]) -> None:
        match do:
            case First.TAKE_BEFORE:
                self.old = before
            case First.LOSE_BEFORE:
                self.write(outgoing=None)
            case First.TAKE:
                assert found is not None
                record = self.record
                wanted = Goal(record.install_key, record.run_key, record.run_generation, record.run_restart)
                assert found.wanted == wanted, "the record tells of another"
                self.run = found
                found.condemned = found.followed = False
            case First.SWEEP:
                for pid in [pid for pid, one in lives.items() if one is not self.old]:
                    del lives[pid]
            case First.TELL_ENDED:
                self.failed()
                self.write(process=None)

    def exits(self) -> None:
        if self.run is not None:
            self.run = None
            self.failed()
            self.write(process=None)

    def becomes(self, *, ready: bool) -> None:
        if self.run is not None and not self.run.condemned:
            self.run.ready = ready
            self.run.followed = self.run.followed and ready
            (self.supervision.healthy(self.now) if ready else self.supervision.unhealthy())

    def hears(self, duty: Duty, spec: tuple[str, str] | None, restart: int) -> None:
        generation = 1 if self.fact is None else self.fact[1] + 1
        wanted = None if spec is None else Goal(*spec, generation, restart)
        self.fact = (duty, generation, restart, wanted)
        if duty in (Duty.RUN, Duty.STOP) and spec is not None:
            self.spec = spec


EVENTS: list[st.SearchStrategy[tuple[Any, ...]]] = [
    st.tuples(st.just("hears"), st.sampled_from(Duty), st.none() | st.sampled_from(SPECS), st.integers(0, 1)),
    st.tuples(st.just("hears"), st.just(Duty.RUN), st.sampled_from(SPECS), st.just(0)),
    st.tuples(st.just("updates"), st.sampled_from(SPECS), st.just(0)),
    st.tuples(st.just("act"), st.booleans()),
    st.tuples(st.just("settle"), st.booleans()),
    st.tuples(st.just("exits")),
    st.tuples(st.just("becomes"), st.booleans()),
    st.tuples(st.just("condemn")),
    st.tuples(st.just("old exits")),
    st.tuples(st.just("killed")),
    st.tuples(st.just("passes"), st.floats(0.0, 700.0)),
    st.tuples(st.sampled_from(["hold", "retry", "restart", "reinstall", "close"])),
]
LIVES = st.lists(st.one_of(EVENTS), max_size=40)


def live(agent: Agent, events: list[tuple[Any, ...]]) -> None:
    for what, *about in events:
        match what:
            case "hears":
                agent.hears(*about)
            case "updates":
                agent.hears(Duty.RUN, *about)
                agent.settle()
                agent.becomes(ready=True)
            case "act":
                agent.act(works=about[0])
            case "settle":
                agent.settle(works=about[0])
            case "exits":
                agent.exits()
            case "becomes":
                agent.becomes(ready=about[0])
            case "condemn" if agent.run is not None:
                agent.run.condemned = True
            case "old exits" if agent.old is not None:
                agent.end_old()
            case "killed":
                agent.killed()
            case "passes":
                agent.now += about[0]
            case "hold" if agent.fact is not None:
                agent.write(held=agent.fact[1])
            case "retry" | "restart" | "reinstall":
                agent.supervision.cause_changed()
                agent.write(**after.forgotten(agent.supervision.history))
                agent.restart_asked = what != "retry" and agent.run is not None
                agent.write(step="reinstall" if what == "reinstall" else "")
            case "close":
                agent.closing = True
        agent.lives_in_what_is_there()


def rested(agent: Agent) -> None:
    """All goes well from now on: what runs gets ready, and what is due in time comes."""
    for _ in range(MOST):
        agent.settle()
        agent.becomes(ready=True)
        left = rest_s(agent.situation())
        if agent.situation().not_before > agent.now:
            agent.now += left


@settings(max_examples=400)
@given(LIVES)
def test_there_are_two_programs_at_once_only_while_one_hands_over(events: list[tuple[Any, ...]]) -> None:
    live(Agent(), events)


@settings(max_examples=400)
@given(LIVES, st.sampled_from(SPECS))
@example([("updates", ("i1", "r1"), 0), ("updates", ("i1", "r3"), 0), ("exits",)], ("i1", "r1"))  # the first is taken back
def test_what_is_to_run_runs_when_every_step_succeeds(events: list[tuple[Any, ...]], spec: tuple[str, str]) -> None:
    agent = Agent()
    live(agent, events)
    agent.hears(Duty.RUN, spec, 0)
    rested(agent)
    assert agent.run is not None
    assert (agent.run.wanted, agent.run.ready, agent.old) == (agent.wanted, True, None)


@settings(max_examples=200)
@given(LIVES, st.sampled_from([Duty.STOP, Duty.LEAVE]), st.booleans())
def test_what_is_to_be_stopped_or_gone_ends_so_whatever_fails(
    events: list[tuple[Any, ...]], duty: Duty, works: bool
) -> None:
    agent = Agent()
    live(agent, events)
    agent.hears(duty, None, 0)
    agent.settle(works=works)
    assert agent.run is agent.old is None
    assert (agent.exit == "gone" and not agent.disk) or duty is Duty.STOP


@settings(max_examples=200)
@given(LIVES, st.sampled_from(SPECS))
def test_a_step_that_fails_leads_to_a_wait_that_ends(events: list[tuple[Any, ...]], spec: tuple[str, str]) -> None:
    agent = Agent()
    live(agent, events)
    agent.hears(Duty.RUN, spec, 0)
    for _ in range(20):
        agent.settle(works=False)  # asserts that it is no busy loop
        assume(agent.run is None)
        left = rest_s(agent.situation())
        assert 0 < left <= POLICY.park.retry_s + 0.1
        agent.now += left
    rested(agent)
    assert agent.run is not None
