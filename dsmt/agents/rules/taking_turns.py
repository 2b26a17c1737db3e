"""Liveness in turn: of several instances that fail the same check one is restarted at a time (`health.braked`).

Rule 1 (A22): who fails says so, by being unready, and then looks at what its siblings say. Before it come those of a lower
    index that fail the same check, and whoever has just been ended or started.
Rule 2: when nobody was before it for a moment, in which it hears of whoever has turned just now, its turn has come; at the
    latest when as many as were before it at first could have been ended and started, one after the other. Who cannot look
    is before nobody: it is restarted at once, as if it were alone.
Rule 3: whose check passes meanwhile is not restarted; who had to wait is tried once more when its turn has come, for what
    they share may be there again; then it looks again, and waits on where somebody is before it, no longer than rule 2 says.
Rule 4: a word that nothing fails and nothing is up is the last one of who is stopped or is gone, once it is older than a
    restart takes: that one is none of those that are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dsmt.event.kinds.instance import Health
from dsmt.spec.records import ComponentSpec


class Turn(NamedTuple):
    """How many of all known instances fail the same check, and how many of them come before this one."""

    failing: int
    known: int
    ahead: int


def turn(own: str, check: str, siblings: Mapping[str, Health], *, now_ms: int, start_s: float) -> Turn:
    """The turn of an instance that fails a check, by what its siblings have said, by index.

    `start_s` is how long a restart may take: who has said nothing of itself for longer is waited for no more.
    """
    others = {index: health for index, health in siblings.items() if index != own and health.health == "unready"}
    failing = [index for index, health in others.items() if health.failures and health.check == check and not health.live]
    idle = [health for health in others.values() if not health.failures]
    begins = [health for health in idle if now_ms - health.since_ms <= start_s * 1000]
    ahead = sum(_order(index) < _order(own) for index in failing) + len(begins)
    return Turn(1 + len(failing) + len(begins), len({own, *siblings}) - len(idle) + len(begins), ahead)


def start_s_of(component: ComponentSpec) -> float:
    """How long a restart of it may take, in seconds: what is not live may take all of its time to end."""
    startup = None if component.health is None else component.health.startup
    limit_s = None if startup is None else startup.deadline_s
    return component.stop.most_s + (component.update.healthy_after_s if limit_s is None else limit_s)


def try_s_of(component: ComponentSpec) -> float:
    """How long it may take until liveness was tried once more, in seconds."""
    live = None if component.health is None else component.health.liveness
    return 0.0 if live is None else live.interval_s + live.timeout_s


def _order(index: str) -> tuple[int, str]:
    return len(index), index
