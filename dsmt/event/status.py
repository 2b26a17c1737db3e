"""Statuses: the words on the wire and the two machines of an instance's layers.

Rule 1: every transition is in `CONTAINER` or `COMPONENT`; nothing else assigns a state.
Rule 2: the container layer is the container manager's word; agent and application are install monitors' words.
Rule 3: `undefined` is never emitted: a reader says it of a source that was silent for 3 x its emit rate.
Rule 4: `failed` may be left by a new try, `gone` only by a new generation, which begins at `selected` or `requested`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Layer(StrEnum):
    """Who is spoken about: each layer is installed and watched by the one before it."""

    CONTAINER = "container"
    AGENT = "agent"
    APPLICATION = "application"


class State(StrEnum):
    """The words on the wire."""

    UNDEFINED = "undefined"
    SELECTED = "selected"
    INSTALLING = "installing"
    INSTALLED = "installed"
    DESELECTED = "deselected"
    REQUESTED = "requested"
    INITIATED = "initiated"
    INSTANTIATED = "instantiated"
    RUNNING = "running"
    FAILED = "failed"
    TERMINATED = "terminated"
    STOPPED = "stopped"
    GONE = "gone"


class Shown(StrEnum):
    """The words that `ps` shows, folded from the layers' (docs/reference/statuses.md)."""

    WAITING = "waiting"
    INSTALLING = "installing"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    PARKED = "parked"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LOST = "lost"
    DONE = "done"
    FAILED = "failed"
    GONE = "gone"


_S = State

CONTAINER: Final[Mapping[State | None, frozenset[State]]] = {
    None: frozenset({_S.SELECTED}),
    _S.SELECTED: frozenset({_S.INSTALLING, _S.FAILED, _S.DESELECTED}),
    _S.INSTALLING: frozenset({_S.INSTALLED, _S.FAILED, _S.DESELECTED}),
    _S.INSTALLED: frozenset({_S.FAILED, _S.DESELECTED, _S.SELECTED}),
    _S.FAILED: frozenset({_S.INSTALLING, _S.DESELECTED, _S.SELECTED}),
    _S.DESELECTED: frozenset({_S.GONE, _S.FAILED, _S.SELECTED}),
    _S.GONE: frozenset({_S.SELECTED}),
}

COMPONENT: Final[Mapping[State | None, frozenset[State]]] = {
    None: frozenset({_S.REQUESTED}),
    _S.REQUESTED: frozenset({_S.INITIATED, _S.FAILED, _S.TERMINATED, _S.STOPPED}),
    _S.INITIATED: frozenset({_S.INSTANTIATED, _S.FAILED, _S.TERMINATED, _S.REQUESTED}),
    _S.INSTANTIATED: frozenset({_S.RUNNING, _S.FAILED, _S.TERMINATED, _S.REQUESTED}),
    _S.RUNNING: frozenset({_S.FAILED, _S.TERMINATED, _S.REQUESTED}),
    _S.FAILED: frozenset({_S.REQUESTED, _S.INITIATED, _S.INSTANTIATED, _S.TERMINATED, _S.STOPPED}),
    _S.TERMINATED: frozenset({_S.STOPPED, _S.FAILED}),
    _S.STOPPED: frozenset({_S.REQUESTED, _S.INITIATED, _S.INSTANTIATED, _S.GONE}),
    _S.GONE: frozenset({_S.REQUESTED}),
}


def transitions(layer: Layer) -> Mapping[State | None, frozenset[State]]:
    """The table of a layer."""
    return CONTAINER if layer is Layer.CONTAINER else COMPONENT


def allowed(layer: Layer, before: State | None, after: State) -> bool:
    """Whether a layer may go from one of its states to another; to stay is always allowed (a status is renewed)."""
    table = transitions(layer)
    return after in table and (before == after or after in table.get(before, frozenset()))
