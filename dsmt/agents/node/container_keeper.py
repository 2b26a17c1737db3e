"""Container keeper: one container of a node: its directory, its agent's identity, its agent's process.

Rule 1: a container is made only for a fact that names this node, and removed only when its agent says that it is gone.
Rule 2: its agent is kept alive, whatever the slot's fact says: the agent knows how to leave, nobody else does.
Rule 3: an agent that lives is taken over, never started a second time. One whose identity is not below the node's present
    one, which was rotated meanwhile, is killed and followed by one whose is: what it runs goes on, and nobody else obeys.
    So is one that was told another bus: the realm has moved.
Rule 4: what the agent was told counts here too: it follows its slot's topic, the manager only its node's inbox (A1). What
    the manager was told is told to the agent (`telling`).
Rule 5: it may be killed at any await; the next keeper sees from the directory where it stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any, Final

import msgspec

from dsmt.agents.node.clearing import clear, clear_place
from dsmt.agents.node.delegation import delegated, is_below
from dsmt.agents.node.ended_agents import why_ended
from dsmt.agents.node.excusing import end_excused, heeded
from dsmt.agents.node.hearing import HUNG_AFTER_MS
from dsmt.agents.node.status_publisher import StatusPublisher
from dsmt.agents.node.telling import Telling
from dsmt.agents.rules import container as c
from dsmt.agents.rules import endings
from dsmt.agents.rules.reconcile import is_to_be_made
from dsmt.agents.rules.record import carried, dump_record, load_record
from dsmt.agents.rules.register import Register
from dsmt.agents.rules.supervision import JITTER, Supervision, TryAgain
from dsmt.agents.shared.kept import keep, kept, own
from dsmt.agents.shared.surroundings import NodeSurroundings
from dsmt.agents.shared.unforeseen import as_failed
from dsmt.backoff import Backoff
from dsmt.errors import UNDECODABLE, FailedError, InputError, TransportError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.slot import Slot
from dsmt.event.order import newer
from dsmt.event.reason import Reason, reason
from dsmt.event.records import readable
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer, State
from dsmt.ports.driver import KILL_S
from dsmt.ports.processes import UNSEEN, Exit, Process, ProcessIdentity
from dsmt.spec.records import EscalationStep, Park, RestartPolicy

AGENT_POLICY: Final = RestartPolicy(
    when="always",
    first_s=None,
    factor=2,
    cap_s=5,
    reset_s=30,
    escalate=(EscalationStep(action="restart", times=1_000_000),),
    park=Park(after=1_000_000, retry_s=60),
)
HEALTHY_S: Final = 1.0
"""An agent that lived so long had started well: the next one is started at once."""
SPAWNER_AGAIN_S: Final = (0.05, 2.0)
"""The spawner is being restarted: how soon it is asked again, first and at most."""


class ContainerKeeper:
    """Keeps one container. `run` returns when the container is gone, or the manager closes."""

    def __init__(self, slot: SlotKey, greatest: Register, config: c.NodeConfig, deps: NodeSurroundings) -> None:
        self.slot = slot
        self._greatest = greatest
        self._fact: Slot | None = None
        self._config = config
        self._deps = deps
        self._files = deps.files.below(slot.directory, made=False)  # there may be no room for it
        self._container_status = StatusPublisher(deps.bus, slot, config, Layer.CONTAINER, self._about)
        self._agent_status = StatusPublisher(deps.bus, slot, config, Layer.AGENT, self._about)
        self._supervision = Supervision(AGENT_POLICY)
        self._telling = Telling(config.node, greatest, self._files, deps.bus)
        self._process: Process | None = None
        self._closing = False
        self._hung = False
        """Its agent was ended because it hung."""
        self._begun = False
        """Whether an agent was found or started here since this manager began."""
        self._orphan = False
        self._take_kept()
        self._read()

    def __repr__(self) -> str:
        return f"<ContainerKeeper {self.slot}: {self._agent_status.monitor.state}>"

    @property
    def signed(self) -> SignedEvent | None:
        """The greatest slot fact known."""
        return self._greatest.held

    @property
    def acts_on(self) -> SignedEvent | None:
        """The slot fact that says what is to be here; None for an orphan."""
        return None if self._greatest.buried else self._greatest.held

    @property
    def generation(self) -> int:
        """The generation of the greatest fact known, else what the agent's record says."""
        if self.signed is not None:
            return self.signed.event.version or 0
        with contextlib.suppress(FailedError):
            if (record := load_record(own(self._files, c.RECORD))) is not None:
                return record.generation
        return 0

    def _about(self) -> dict[str, Any]:
        """What each status tells."""
        return {"generation": self.generation, "orphan": self._orphan}

    # -- what it is told

    def take(self, signed: SignedEvent) -> bool:
        """Take in a slot fact; the greatest counts. Whether it is that."""
        if wins := self._greatest.take(signed):
            self._obey()
        return wins

    def buried(self) -> None:
        """A tombstone came, or its key has ended: what one hides orders nothing any more, and stops nothing (A5)."""
        if self._greatest.buried and self._fact is not None:
            self._fact = None
            self.orphaned()
        elif self._orphan and self.acts_on is not None:
            self._obey()

    def _obey(self) -> None:
        """Another fact is the greatest."""
        self._read()
        self._telling.soon()
        self._orphan = False
        if self._agent_status.monitor.status is not None:
            self._container_status.note(**self._about())
            self._agent_status.note(**self._about())

    def _read(self) -> None:
        signed = self.acts_on
        self._fact = None if signed is None else readable(Slot, signed.event.data)

    def _take_kept(self) -> None:
        """Take in the fact that the agent obeyed last, and what an earlier manager has told it (rule 4)."""
        for path in (c.SLOT, c.TOLD):
            if (fact := kept(self._files, path, self._deps.bus)) is not None:
                self.take(fact)

    def orphaned(self) -> None:
        """No fact asks for this container: say so, and change nothing (A5)."""
        self._orphan = True
        self._container_status.note(orphan=True)
        self._agent_status.note(orphan=True)

    def again(self) -> None:
        """Say both statuses once more."""
        self._container_status.again()
        self._agent_status.again()

    def renew(self) -> None:
        """Renew both statuses when half of their time has passed."""
        self._container_status.renew()
        self._agent_status.renew()

    # -- its life

    async def run(self) -> None:
        """Make the container if it is not there, and keep its agent alive until it is gone."""
        with contextlib.suppress(FailedError):
            if own(self._files, c.CONFIG) is not None:
                self._container_status.resume(State.INSTALLED)
        while not self._closing:
            try:
                if self._tidy():
                    return
                await self._follow(*await self._one_agent())
            except Exception as error:  # noqa: BLE001 - one container's failure keeps no other one waiting
                was_begun = self._begun or self._record() is not None
                await self._failed(self._why(as_failed(error)), UNSEEN if was_begun else None, 0.0)

    async def _follow(self, ended: Exit, lived: float) -> None:
        """Say how an agent has ended, and wait as long as the next one is to wait."""
        if self._closing:
            self._agent_status.tell(State.STOPPED, pid=None)
        elif self._outcome() == "":
            if lived >= HEALTHY_S:
                self._supervision.healthy(self._deps.clock.boottime() - lived)
            await self._failed(self._why_ended(ended, lived), ended, lived)

    def _tidy(self) -> bool:
        """Make of the directory what the last agent's outcome asks for; True when nothing is left to keep."""
        clear_place(self._deps.files, self.slot)
        outcome = self._outcome()
        if outcome == c.AgentOutcome.GONE:
            self._take_kept()
            self._remove()
            if not is_to_be_made(self._config.node, self._fact, data_key=self._config.data_key):
                return True
        elif outcome == c.AgentOutcome.RECREATE:
            self._recreate()
        elif outcome:
            heeded(self._files, outcome)
        if own(self._files, c.CONFIG) is None:
            self._create()
        return False

    def _outcome(self) -> str:
        told = (own(self._files, c.OUTCOME) or b"").decode(errors="replace")
        return "" if told == c.AgentOutcome.EXCUSED else told

    def _create(self) -> None:
        """Make the container. Raises `FailedError` (`fetch.no_space`)."""
        cause = () if self.signed is None else (self.signed.id,)
        about: dict[str, Any] = {"cause": cause, "revision": 0 if self._fact is None else self._fact.revision}
        self._container_status.tell(State.SELECTED, **about)
        self._container_status.tell(State.INSTALLING, **about)
        self._files = self._deps.files.below(self.slot.directory)
        if self.signed is not None:
            keep(self._files, c.SLOT, self.signed, self._deps.bus)
        self._files.write(c.CONFIG, c.dump_config(self._config.for_agent(self.slot)))
        self._container_status.tell(State.INSTALLED, **about)

    def _recreate(self) -> None:
        """A new container in the place of the old one: escalation asked for it."""
        cause = () if self._agent_status.last is None else (self._agent_status.last,)
        self._container_status.tell(State.SELECTED, cause=cause)
        record, stays = load_record(own(self._files, c.RECORD)), {*c.KEPT_BY_RECREATION, c.OUTCOME}
        if record is not None:  # first: who dies on the way is followed by one that counts on
            self._files.write(c.RECORD, dump_record(carried(record)))
            stays.add(c.RECORD)
        for name in self._files.names(""):
            if name not in stays:
                with contextlib.suppress(FailedError):  # the next installation meets it, and says so
                    self._files.remove(name)
        self._files.remove(c.OUTCOME)
        self._container_status.tell(State.INSTALLED, cause=cause)

    def _remove(self) -> None:
        """The agent has left: the container goes, and then it is said. `{data}` is elsewhere, and stays."""
        generation, left = self.generation, clear(self._deps.files, self.slot)
        self._agent_status.tell(State.GONE, generation=generation, pid=None)
        self._container_status.tell(State.GONE, generation=generation)
        if left is not None:
            self._container_status.note(reason=self._why(left))

    # -- its agent

    async def _one_agent(self) -> tuple[Exit, float]:
        """Take over or start an agent, and wait for its end; how it ended, and how long it lived here."""
        began, found = self._deps.clock.boottime(), self._find()
        if found is not None and not self._is_current():  # its successor takes over (rule 3)
            self._agent_status.resume(State.RUNNING, said=False, pid=found.identity.pid)
            await end_excused(found, self._files)
            found = None
        if found is None:
            await self._tell_unseen()
            found = await self._start()
            self._agent_status.tell(State.RUNNING, pid=found.identity.pid, next_try_ms=None)
        else:
            self._agent_status.resume(State.RUNNING, pid=found.identity.pid)
        self._supervision.started()
        self._process, self._hung, self._begun = found, False, True
        self._telling.begin(found)
        try:
            ended = await found.wait()
        finally:
            self._process = None
            self._telling.end()
        return ended, self._deps.clock.boottime() - began

    def _is_current(self) -> bool:
        """Whether the agent that is found is below the node's key, and of the bus that carries the realm now."""
        with contextlib.suppress(InputError):
            told = c.load_config(own(self._files, c.CONFIG), where=f"{self._files.root}/{c.CONFIG}")
            return told.nats == self._config.nats and is_below(own(self._files, c.IDENTITY), self._deps.identity)
        return False

    async def _tell_unseen(self) -> None:
        """An agent that an earlier manager started has ended, and no manager saw it."""
        told = self._record()
        if told is None or self._agent_status.monitor.status is not None:
            return
        self._agent_status.resume(State.RUNNING, said=False, pid=told.pid)
        if told.boot != self._deps.boot:
            ended, why = UNSEEN, reason("node.rebooted", node=self._config.node, time=f"boot {self._deps.boot[:8]}")
        else:
            ended = await self._deps.ended(told)
            why = self._why_ended(ended, 0.0, watched=False)
        last = endings.last_exit(ended, 0.0, why, self._deps.bus.now_ms())
        self._agent_status.tell(State.FAILED, why=why, pid=None, last_exit=last)

    def _record(self) -> ProcessIdentity | None:
        """Which process the last agent was."""
        with contextlib.suppress(FailedError, *UNDECODABLE):
            raw = own(self._files, c.PROCESS)
            return None if raw is None else msgspec.json.decode(raw, type=ProcessIdentity)
        return None

    def _find(self) -> Process | None:
        """The agent that an earlier manager started, if it lives."""
        told = self._record()
        return None if told is None else self._deps.processes.find(told)

    async def _start(self) -> Process:
        """Start an agent. Raises `FailedError` when it cannot be."""
        cause = () if self.signed is None or self._agent_status.last is not None else (self.signed.id,)
        self._agent_status.tell(State.INITIATED, cause=cause, pid=None)
        self._prepare()
        backoff = Backoff(*SPAWNER_AGAIN_S)
        while True:
            try:
                process = await self._deps.processes.start_agent(self._files.root)
                break
            except TransportError:
                await asyncio.sleep(backoff.failed())
        try:
            self._files.write(c.PROCESS, msgspec.json.encode(process.identity))
        except FailedError:  # the disk is full: it runs all the same, and the spawner knows it
            self._files.remove(c.PROCESS)
        return process

    def _prepare(self) -> None:
        """See that the agent finds the greatest fact, what it is told, and an identity that is good."""
        before = kept(self._files, c.SLOT, self._deps.bus)
        if self.signed is not None and (before is None or newer(self.signed.event, before.event)):
            keep(self._files, c.SLOT, self.signed, self._deps.bus)
        told = c.dump_config(self._config.for_agent(self.slot))
        if own(self._files, c.CONFIG) != told:
            self._files.write(c.CONFIG, told)
        kept_identity = own(self._files, c.IDENTITY)
        raw = delegated(
            kept_identity,
            self.slot.agent(self._config.node),
            self._deps.identity,
            now_s=self._deps.bus.now_ms() // 1000,
            make_key=self._deps.make_key,
            entropy=self._deps.entropy,
        )
        if raw != kept_identity:
            self._files.write(c.IDENTITY, raw)

    async def _failed(self, why: Reason, ended: Exit | None, lived_s: float) -> None:
        """Say that it failed, and wait as long as supervision wants; `ended` None: no agent was begun here yet."""
        jitter = self._deps.entropy.uniform(-JITTER, JITTER)
        verdict = self._supervision.failed(self._deps.clock.boottime(), jitter=jitter)
        delay = verdict.delay_s if isinstance(verdict, TryAgain) else AGENT_POLICY.cap_s
        voice = self._agent_status if self._container_status.monitor.state is State.INSTALLED else self._container_status
        cause, now_ms = () if voice.last is None else (voice.last,), self._deps.bus.now_ms()
        about: dict[str, Any] = {"next_try_ms": now_ms + int(delay * 1000), "pid": None}
        last = None if ended is None else endings.last_exit(ended, lived_s, why, now_ms)
        voice.tell(State.FAILED, why=why, cause=cause, last_exit=last, **about)
        await asyncio.sleep(delay)

    @property
    def is_mute(self) -> bool:
        """Whether its agent has not begun its work: it does not take what it would be told."""
        return self._process is not None and not self._process.handles(c.POKE)

    def _why(self, error: FailedError) -> Reason:
        return endings.of_error(error, "the container manager", target=str(self.slot), node=self._config.node)

    def end_hung(self) -> None:
        """End an agent that hangs; its successor takes over what runs."""
        if self._process is not None and not self._closing:
            self._hung = True
            self._process.signal(signal.SIGKILL)

    def _why_ended(self, ended: Exit, lived_s: float, *, watched: bool = True) -> Reason:
        about: dict[str, Any] = {"target": str(self.slot), "node": self._config.node}
        if self._hung and (ended.signal == signal.SIGKILL or not ended.seen):  # another spawner's child
            return reason("run.watchdog", time=endings.words(HUNG_AFTER_MS / 1000), **about)
        return why_ended(ended, lived_s, self._files, watched=watched, **about)

    # -- the end of the node

    def close(self) -> bool:
        """Ask the agent to stop its instance and end; False when there is no agent to ask."""
        self._closing = True
        if self._process is None:
            return False
        self._agent_status.tell(State.TERMINATED)
        self._process.signal(signal.SIGTERM)
        return True

    async def kill(self) -> None:
        """End the agent and all that its instance is, now."""
        process = self._process or self._find()
        if process is not None:
            await end_excused(process, self._files)
        drivers, record = self._deps.drivers(self._files.root), load_record(own(self._files, c.RECORD))
        if record is not None and record.process is not None and record.driver in drivers:
            instance = await drivers[record.driver].adopt(record.process)
            if instance is not None:
                await instance.kill(deadline=KILL_S)
        for driver in drivers.values():
            await driver.clear(deadline=KILL_S)
