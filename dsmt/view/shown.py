"""Shown: the layers' words on an instance folded into the one word that operators see (docs/reference/statuses.md).

Rule 1: a slot with no node, or whose node has not said anything of it, is `waiting`; what is said of an older
    generation counts only while something still runs of it.
Rule 2: the application's word decides where there is one; else the agent's; else the container's.
Rule 3: on a node that is dead, or when whoever speaks has been silent for 3x its emit rate, what had not ended is `lost`.
Rule 4: a failure with a next try is `backoff`, one that waits for a cause `parked`, one that is left alone `failed`; what
    has ended with code 0, and is left alone, is `done`.
Rule 5: where the agent's word says that none can be begun, and is later than the application's, it decides: nobody has
    watched over the program since. An agent that has ended is begun anew, and says itself how its program is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from dsmt.event.kinds.instance import Status
from dsmt.event.status import Layer, Shown, State
from dsmt.view.entries import InstanceEntry, SlotEntry
from dsmt.view.held import Held

SILENT_RATES: Final = 3
"""A source that was silent for so many of its emit rates is not believed any more."""

_CONTAINER: Final[Mapping[State, Shown]] = {
    State.SELECTED: Shown.INSTALLING,
    State.INSTALLING: Shown.INSTALLING,
    State.INSTALLED: Shown.INSTALLING,
    State.DESELECTED: Shown.STOPPING,
    State.GONE: Shown.GONE,
}
_COMPONENT: Final[Mapping[State, Shown]] = {
    State.REQUESTED: Shown.INSTALLING,
    State.INITIATED: Shown.INSTALLING,
    State.INSTANTIATED: Shown.STARTING,
    State.RUNNING: Shown.RUNNING,
    State.TERMINATED: Shown.STOPPING,
    State.STOPPED: Shown.STOPPED,
    State.GONE: Shown.GONE,
    State.UNDEFINED: Shown.LOST,
}
_AGENT: Final[Mapping[State, Shown]] = {
    **_COMPONENT,
    State.INSTANTIATED: Shown.INSTALLING,
    State.RUNNING: Shown.INSTALLING,
}
"""An agent that runs has yet to bring its application so far."""
WORDS: Final[Mapping[Layer, Mapping[State, Shown]]] = {
    Layer.CONTAINER: _CONTAINER,
    Layer.AGENT: _AGENT,
    Layer.APPLICATION: _COMPONENT,
}
"""By the layer that decides, the word for each of its states but `failed` (rule 4)."""
ENDED: Final = frozenset({Shown.WAITING, Shown.STOPPED, Shown.GONE, Shown.DONE, Shown.FAILED})
"""What a node's death does not change."""
FAILED: Final = frozenset({Shown.BACKOFF, Shown.PARKED, Shown.FAILED})
"""What has failed, whatever comes of that (rule 4)."""


class ShownState(NamedTuple):
    """The word, since when (realm ms, if it is known), and the status that decided it."""

    state: Shown
    since_ms: int | None
    status: Held[Status] | None


def decisive(instance: InstanceEntry | None, generation: int) -> Held[Status] | None:
    """The status that decides (rules 1 and 2), for a slot of that generation."""
    if instance is None:
        return None
    container = instance.container
    if container is not None and container.record.state in (State.SELECTED, State.INSTALLING, State.FAILED):
        above = instance.application
        return above if above is not None and _newer(above, container) else container
    if container is not None and container.record.state is State.GONE:
        return container
    for held in (unwatched(instance), instance.application, instance.agent, container):
        if held is not None and not _is_over(held.record, generation):
            return held
    return instance.application or instance.agent or container


def bars(status: Status) -> bool:
    """Whether it says that no agent can be begun; one that has ended is begun anew."""
    failed = status.layer is Layer.AGENT and status.state is State.FAILED
    return failed and status.reason is not None and not status.reason.code.startswith("run.")


def unwatched(instance: InstanceEntry) -> Held[Status] | None:
    """The word that no agent can be begun, later than one of the application that had not ended (rule 5)."""
    agent, own = instance.agent, instance.application
    if agent is None or own is None or not bars(agent.record):
        return None
    later = agent.record.generation >= own.record.generation and agent.record.since_ms > own.time_ms
    ended = own.record.state in (State.STOPPED, State.GONE) or own.record.has_ended
    return agent if later and not ended else None


def _newer(above: Held[Status], below: Held[Status]) -> bool:
    return above.record.generation >= below.record.generation and above.record.state is not State.GONE


def _is_over(status: Status, generation: int) -> bool:
    """Whether a status tells of the end of an earlier generation."""
    return status.generation < generation and status.state in (State.STOPPED, State.GONE)


def shown(
    entry: SlotEntry,
    node: str | None,
    *,
    lost_since_ms: int | None = None,
    silent_since_ms: int | None = None,
    job: bool = False,
) -> ShownState:
    """The word for a slot's instance on a node.

    `lost_since_ms`: since when that node is dead. `silent_since_ms`: since when whoever speaks of it has been silent, if
    for longer than rule 3 allows. Realm ms; None when it is not so.
    """
    fact = entry.fact
    generation = 0 if fact is None else fact.version
    since = None if fact is None else fact.time_ms
    held = decisive(None if node is None else entry.instances.get(node), generation)
    wanted = fact is not None and fact.record.desired != "gone" and fact.record.node == node
    if held is None or (wanted and _is_over(held.record, generation)):
        state = Shown.WAITING if fact is None or fact.record.desired != "gone" else Shown.GONE
        if state is Shown.WAITING and node is not None and lost_since_ms is not None:
            return ShownState(Shown.LOST, lost_since_ms, held)
        return ShownState(state, since, None)
    state = _word(held.record, job=job)
    if state not in ENDED:
        lost = lost_since_ms if lost_since_ms is not None else silent_since_ms
        if lost is not None:
            return ShownState(Shown.LOST, lost, held)
    return ShownState(state, held.record.since_ms, held)


def _word(status: Status, *, job: bool) -> Shown:
    if status.state is State.FAILED:
        if status.parked:
            return Shown.PARKED
        if status.next_try_ms is not None:
            return Shown.BACKOFF
        return Shown.DONE if status.ended_well else Shown.FAILED
    if job and status.state is State.STOPPED and status.last_exit is not None and status.last_exit.code == 0:
        return Shown.DONE
    return WORDS[status.layer].get(status.state, Shown.WAITING)


def silent_for(status: Status, source_state: str | None, since_ms: int, now_ms: int) -> bool:
    """Whether a source whose session is not open (`silent`, `closed`, `unknown`) has been silent for too long (rule 3).

    `source_state` None is a source of whose session nobody knows: it is believed until its facts die.
    """
    if source_state in (None, "open"):
        return False
    return now_ms - since_ms >= SILENT_RATES * status.emit_rate_s * 1000
