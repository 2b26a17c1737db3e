"""Surroundings: the ports that a deployment agent and a container manager are given, real ones or the simulator's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from dsmt.event.envelope import SignedEvent
from dsmt.ports.artifacts import Artifacts
from dsmt.ports.bus import Bus
from dsmt.ports.check import Checks
from dsmt.ports.clock import Clock
from dsmt.ports.driver import Driver
from dsmt.ports.entropy import Entropy
from dsmt.ports.files import Files
from dsmt.ports.logs import Logs
from dsmt.ports.processes import Exit, Processes, ProcessIdentity
from dsmt.ports.sockets import Sockets
from dsmt.trust.identity import Identity as Source
from dsmt.trust.keys import Key


@dataclass(frozen=True, kw_only=True)
class InstanceSurroundings:
    """Everything a deployment agent touches.

    `files` is its container's directory; `quick` the same place, without the cost of surviving a power cut; `data` the
    node's data root; `host` the whole machine, of which only files named by `env` are read. `inherited` is the environment
    from which `inherit_env` picks. `is_disowned` says whether nobody believes a fact: its key has ended (J3).
    """

    bus: Bus
    drivers: Mapping[str, Driver]
    checks: Checks
    artifacts: Artifacts
    sockets: Sockets
    logs: Logs
    files: Files
    quick: Files
    data: Files
    host: Files
    clock: Clock
    entropy: Entropy
    boot: str
    inherited: Mapping[str, str]
    is_disowned: Callable[[SignedEvent], bool]


@dataclass(frozen=True, kw_only=True)
class NodeSurroundings:
    """Everything a container manager touches.

    `files` is the node's directory, `data` its data root.

    `make_key` makes a key of 32 secret bytes. `drivers` makes those of the container in a
    directory; they are used only to end what an agent that was killed has left running. `clear` ends at once all that bears
    the marks of the containers in some directories, their agents too, whether these are there or not. `ended` tells how a
    process ended that is not this one's child. `is_disowned` says whether nobody believes a fact: its key has ended (J3).
    """

    bus: Bus
    identity: Source
    make_key: Callable[[bytes], Key]
    processes: Processes
    drivers: Callable[[str], Mapping[str, Driver]]
    clear: Callable[[Collection[str]], Awaitable[object]]
    files: Files
    data: Files
    clock: Clock
    entropy: Entropy
    ended: Callable[[ProcessIdentity], Awaitable[Exit]]
    boot: str
    is_disowned: Callable[[SignedEvent], bool]
