"""Context: what every part of one agent stands on."""

from __future__ import annotations

import msgspec

from dsmt.agents.instance.held_here import HoldHere
from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.output import Output
from dsmt.agents.instance.present import Present
from dsmt.agents.instance.reporting import Reporter
from dsmt.agents.rules.container import AgentConfig
from dsmt.agents.rules.supervision import Supervision
from dsmt.agents.shared.surroundings import InstanceSurroundings


class Context(msgspec.Struct, frozen=True):
    """What it is told, what it touches, what it remembers, how it speaks, what is so now, and who has stopped it here.

    And what decides when it tries again, and where what it runs writes.
    """

    config: AgentConfig
    deps: InstanceSurroundings
    memory: Memory
    reporter: Reporter
    present: Present
    hold: HoldHere
    supervision: Supervision
    output: Output
