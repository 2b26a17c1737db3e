"""Choosing ports: the number of each port of an instance, which nobody else holds (`ports` of a service file)."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from dsmt.agents.rules.container import AgentConfig
from dsmt.agents.rules.launching import RunPlan, refused
from dsmt.event.reason import failed
from dsmt.ports.sockets import FOR_ROOT, Sockets
from dsmt.spec.records import Port

FIRST_PORT: Final = 20000
PORTS: Final = 10000
"""`auto` is FIRST_PORT .. FIRST_PORT + PORTS - 1."""


def choose_ports(
    plan: RunPlan, config: AgentConfig, kept: Mapping[str, int], sockets: Sockets, *, occupied: bool
) -> dict[str, int]:
    """The number of each port: as the spec says, else the one it had, else a free one.

    `occupied` says that the instance itself may hold its ports now: then those are taken as they are.
    Raises `FailedError`: `start.port_in_use`, which names the holder, or `start.port_denied` for a port that is root's.
    """
    chosen: dict[str, int] = {}
    for port in plan.component.ports:
        bind = port.bind or config.address
        before = kept.get(port.name)
        if port.port is not None:
            holder = None if occupied else sockets.holder(port.port, bind, port.protocol)
            if holder == FOR_ROOT:
                raise failed("start.port_denied", port=port.port, node=config.node)
            if holder is not None:
                raise failed("start.port_in_use", port=port.port, holder=holder)
            chosen[port.name] = port.port
        elif before is not None and FIRST_PORT <= before < FIRST_PORT + PORTS and before not in chosen.values():
            held = not occupied and sockets.holder(before, bind, port.protocol) is not None
            chosen[port.name] = _free_port(config, port, bind, chosen, sockets) if held else before
        else:
            chosen[port.name] = _free_port(config, port, bind, chosen, sockets)
    return chosen


def _free_port(config: AgentConfig, port: Port, bind: str, chosen: Mapping[str, int], sockets: Sockets) -> int:
    """The first free automatic port, looking from a place that differs from instance to instance.

    Of realms and nodes that share a machine too: two that begin at one place both find a port free, and the check
    of the one is answered by the program of the other.
    """
    name = b"".join(config.roots) + f"/{config.node}/{config.slot}/{port.name}".encode()
    begin = int.from_bytes(sha256(name).digest()[:4], "big") % PORTS
    for step in range(PORTS):
        number = FIRST_PORT + (begin + step) % PORTS
        if number not in chosen.values() and sockets.holder(number, bind, port.protocol) is None:
            return number
    raise refused("process", f"every port of {FIRST_PORT}..{FIRST_PORT + PORTS - 1} is taken")
