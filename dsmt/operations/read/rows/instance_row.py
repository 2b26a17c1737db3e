"""The row of an instance: all that `ps` says of one slot on one node, with the reason where it is not as it should be."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.agents.rules.supervision import step_after, tries_of
from dsmt.controllers.rollout import standing
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.instance import HeldHere, LastExit, Status
from dsmt.event.phrases import whose
from dsmt.event.reason import Reason
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.advice import advised
from dsmt.operations.read.rows.hearing import UNHEARD
from dsmt.operations.read.rows.instance_reason import STUCK, reason_of, startup_of
from dsmt.operations.read.rows.seen_instance import SeenInstance
from dsmt.operations.read.rows.serving import ServedBefore, serving
from dsmt.operations.words.times import time_or_null
from dsmt.view import InstanceEntry, SlotEntry, SlotKey
from dsmt.view.held import Held

ON_ITS_WAY: Final = frozenset({Shown.INSTALLING, Shown.STARTING, Shown.STOPPING, Shown.RUNNING})
"""What an instance passes through before it is ready, or gone."""
_COMING: Final = frozenset({Shown.WAITING, Shown.INSTALLING, Shown.STARTING, Shown.RUNNING})
_UNKNOWN: Final = frozenset({UNHEARD, "node.stale"})


class ExitRow(msgspec.Struct, frozen=True, kw_only=True):
    """How the run before ended."""

    code: int | None
    signal: str | None
    at: str | None
    ran_s: float
    reason: Reason | None


class Working(msgspec.Struct, frozen=True, kw_only=True):
    """What its agent is at that takes long: `fetch`, or the key of a command; since when, and after how long it is ended."""

    step: str
    since: str | None
    limit_s: float


class HoldRow(msgspec.Struct, frozen=True, kw_only=True):
    """Who stopped it by hand, when and why."""

    by: str
    at: str | None
    reason: str
    stands: int | None = None
    """The revision that goes no further until it is started: it is tried here, and was not good yet."""


class InstanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. Times are RFC 3339; what is not known is null.

    `failures` in a row were answered; of the next one, try `failures + 1` of `tries`, `next_step` says how it is made.
    """

    instance: str
    service: str
    component: str
    index: int
    node: str | None
    state: Shown
    health: str
    pid: int | None
    ports: dict[str, int]
    address: str | None
    restarts: int
    restarts_recent: int
    failures: int
    tries: int | None
    last_exit: ExitRow | None
    next_try_at: str | None
    next_step: str | None
    held: HoldRow | None
    since: str | None
    generation: int
    revision: int
    reason: Reason | None
    working: Working | None
    startup: str | None
    """What its start-up check sees, where it has failed for some time, and its start goes on."""
    layers: dict[str, str | None]
    observed_at: str | None
    stale: bool
    agentless: bool = False
    """Whether no agent can be begun for it on its node: nobody watches over its program, if that runs."""
    serving: ServedBefore | None = None
    """The copy before, where that is served until this one is ready: all else here is of this one."""

    @property
    def is_unheard(self) -> bool:
        """Whether the silence of its agent is why nobody knows how it is."""
        return self.reason is not None and self.reason.code == UNHEARD

    @property
    def is_apart(self) -> bool:
        """Whether that is so for its agent is at a broker that is not heard: nobody of dsmt's ends such an agent."""
        return self.is_unheard and self.reason is not None and self.reason.who == "world"

    @property
    def is_quiet(self) -> bool:
        """Whether nothing that is wrong is told, for an operator has stopped it; that it was killed and does not die is."""
        return self.held is not None and (self.reason is None or self.reason.code != STUCK)

    @property
    def is_unknown(self) -> bool:
        """Whether it may run or not: its agent, or all of its node, is silent, and not known to be dead."""
        return self.health == "unknown" or (self.reason is not None and self.reason.code in _UNKNOWN)

    @property
    def startup_news(self) -> str:
        """What its start-up check sees, where its reason does not say the same; empty where nothing."""
        told = "" if self.reason is None else self.reason.message
        return "" if self.startup is None or self.startup.partition(": ")[2] in told else self.startup

    @property
    def rests(self) -> bool:
        """Whether it is not to run: it is held, or has ended well and is not run again."""
        return self.held is not None or self.state is Shown.DONE

    @property
    def key(self) -> SlotKey:
        """Its slot."""
        return SlotKey(self.service, self.component, self.index)


def row(sight: Sight, key: SlotKey, node: str | None) -> InstanceRow:
    """One slot's instance on a node."""
    one = SeenInstance(sight, key, node)
    entry, instance, fact = one.entry, one.instance, one.entry.fact
    application = None if one.application is None else one.application.record
    endpoint = None if instance is None or instance.endpoint is None else instance.endpoint.record
    policy = None if one.spec is None else one.spec.restart
    failures = 0 if application is None else application.failures
    alive = one.state in (Shown.RUNNING, Shown.STARTING, Shown.STOPPING) or one.serves_on
    status, how = None if one.status is None else one.status.record, one.health
    before = serving(one) if one.state in _COMING and how != "ready" else None
    if endpoint is not None and before is not None and before.node == node:
        endpoint = None  # the pid is that of the next program
    return InstanceRow(
        instance=str(key),
        service=key.service,
        component=key.component,
        index=key.index,
        node=node,
        state=one.state,
        health=how,
        pid=application.pid if application is not None and alive else None,
        ports={} if endpoint is None or not alive else endpoint.ports,
        address=None if endpoint is None or not alive else endpoint.address,
        restarts=0 if application is None else application.restarts,
        restarts_recent=0 if application is None else application.restarts_recent,
        failures=failures,
        tries=None if policy is None else tries_of(policy),
        last_exit=exit_of(None if application is None else application.last_exit),
        next_try_at=None if status is None or one.state is Shown.LOST else time_or_null(status.next_try_ms),
        next_step=None if policy is None or not failures else step_after(policy, failures),
        held=_held(sight, key, entry),
        since=time_or_null(one.since_ms),
        generation=0 if fact is None else fact.version,
        revision=0 if fact is None else fact.record.revision,
        reason=advised(sight, key, reason_of(one)),
        working=_working(application, one.state),
        startup=startup_of(one),
        layers=_layers(instance),
        observed_at=None if one.status is None else rfc3339(one.status.time_ms),
        stale=one.is_unheard or one.silent_since_ms is not None,
        agentless=one.is_agentless,
        serving=before,
    )


def _held(sight: Sight, key: SlotKey, entry: SlotEntry) -> HoldRow | None:
    hold = entry.hold
    if hold is None:
        here = on_its_node(entry)
        return None if here is None else msgspec.structs.replace(here, stands=_tried_here(sight, key, entry))
    component = standing(sight.fleet, key) if entry.fact is not None and entry.fact.record.tried else None
    stands = None if component is None or component.held_in is None else component.stands.revision
    control = entry.control
    source = control.id.source if control is not None and control.record.hold == hold else ""
    return HoldRow(by=whose(hold.by, source), at=rfc3339(hold.at_ms), reason=hold.reason, stands=stands)


def _tried_here(sight: Sight, key: SlotKey, entry: SlotEntry) -> int | None:
    """The revision that stands, where an instance that is stopped on its node has it, and it was not good there yet."""
    component, told = standing(sight.fleet, key), entry.record
    if component is None or component.refusal is not None or told is None or told.desired != "running":
        return None
    is_tried = component.entry.says_again(told.spec) and not component.is_good(entry)
    return component.stands.revision if is_tried else None


def on_its_node(entry: SlotEntry) -> HoldRow | None:
    """Who has stopped an instance on its node, as its agent says."""
    said, here = entry.status, entry.held_here
    return None if said is None or here is None else hold_on(said.record.node, here)


def hold_on(node: str, here: HeldHere) -> HoldRow:
    """A stop by hand on a node."""
    return HoldRow(by=f"{here.by} on {node} with --local", at=rfc3339(here.at_ms), reason=here.reason)


def _working(application: Status | None, state: Shown) -> Working | None:
    step = None if application is None or state is Shown.LOST else application.step
    return None if step is None else Working(step=step.name, since=rfc3339(step.since_ms), limit_s=step.limit_s)


def exit_of(last: LastExit | None) -> ExitRow | None:
    """How it ended last, as it is shown."""
    if last is None:
        return None
    return ExitRow(code=last.code, signal=last.signal, at=rfc3339(last.at_ms), ran_s=last.ran_s, reason=last.reason)


def _layers(instance: InstanceEntry | None) -> dict[str, str | None]:
    def said(held: Held[Status] | None) -> str | None:
        return None if held is None else held.record.state.value

    if instance is None:
        return {"container": None, "agent": None, "application": None}
    return {
        "container": said(instance.container),
        "agent": said(instance.agent),
        "application": said(instance.application),
    }
