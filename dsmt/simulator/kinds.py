"""Kinds of faults, and how often each is drawn: what happens to machines, and what an operator says meanwhile.

Rule 1: a kind does one thing, and says to whom; None when nobody can suffer it now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dsmt.operations.write.node_control import Mode
from dsmt.simulator.faults import FaultInjector, Kind
from dsmt.simulator.programs import SimInstance
from dsmt.simulator.will import slots_of

STALL_S: Final = (4.0, 30.0)

# --- processes -----------------------------------------------------------------------------------------------------


def crash(faults: FaultInjector) -> str | None:
    """A program crashes."""
    programs = [one for node in faults.up() for one in node.host.programs.values() if isinstance(one, SimInstance)]
    if not programs:
        return None
    victim = faults.stream.choice(programs)
    victim.crash()
    return f"{victim.slot} on {victim.host.name}"


def kill_agent(faults: FaultInjector) -> str | None:
    """SIGKILL to an agent."""
    agent = faults.agent()
    if agent is None:
        return None
    agent.sim.kill()
    return agent.sim.name


def kill_manager(faults: FaultInjector) -> str | None:
    """SIGKILL to a container manager."""
    return faults.kill(faults.node().manager)


def kill_monitor(faults: FaultInjector) -> str | None:
    """SIGKILL to a node monitor."""
    return faults.kill(faults.node().monitor)


def pause_manager(faults: FaultInjector) -> str | None:
    """SIGSTOP to a container manager."""
    return faults.pause(faults.node().manager.process, 8.0)


def pause_agent(faults: FaultInjector) -> str | None:
    """SIGSTOP to an agent."""
    return faults.pause(faults.agent(), 8.0)


def spawner(faults: FaultInjector) -> str:
    """A spawner does not answer."""
    node = faults.node()
    faults.lose_spawner(node, faults.stream.uniform(0.2, 3.0))
    return node.name


def kill_controller(faults: FaultInjector) -> str | None:
    """SIGKILL to a controller."""
    return faults.kill(faults.controller().kept)


def pause_controller(faults: FaultInjector) -> str | None:
    """SIGSTOP to a controller."""
    return faults.pause(faults.controller().kept.process, 20.0)


def kill_broker(faults: FaultInjector) -> str | None:
    """SIGKILL to the broker."""
    return faults.kill(faults.fleet.broker.kept)


def pause_broker(faults: FaultInjector) -> str | None:
    """SIGSTOP to the broker."""
    return faults.pause(faults.fleet.broker.kept.process, 4.0)


# --- machines and the network --------------------------------------------------------------------------------------


def stall_node(faults: FaultInjector) -> str | None:
    """All of dsmt's processes of a node stand still for a while."""
    if not faults.may_lose_one():
        return None
    node, seconds = faults.node(), faults.stream.uniform(*STALL_S)
    faults.stall_node(node, seconds)
    return f"{node.name} for {seconds:.1f} s"


def stall_some(faults: FaultInjector) -> str:
    """Any set of processes of one node, of controllers and the broker stands still together."""
    fleet, stream = faults.fleet, faults.stream
    kept = [controller.kept for controller in fleet.controllers.values()] + [fleet.broker.kept]
    processes = [*faults.node().running, *(one.process for one in kept)]
    seconds = stream.uniform(*STALL_S)
    stopped = faults.stall([process for process in processes if stream.chance(0.5)], seconds)
    return f"{', '.join(process.sim.name for process in stopped)} for {seconds:.1f} s"


def kill_node(faults: FaultInjector) -> str | None:
    """All processes of a node die."""
    if not faults.may_lose_one():
        return None
    node, seconds = faults.node(), faults.stream.uniform(3.0, 40.0)
    faults.kill_node(node)
    faults.later(seconds, node.start)
    return f"{node.name} for {seconds:.1f} s"


def power_off(faults: FaultInjector) -> str | None:
    """A node loses its power."""
    if not faults.may_lose_one():
        return None
    node, seconds = faults.node(), faults.stream.uniform(3.0, 40.0)
    node.host.power_off()
    faults.later(seconds, node.boot)
    return f"{node.name} for {seconds:.1f} s"


def cut_node(faults: FaultInjector) -> str | None:
    """A node is cut off."""
    if not faults.may_lose_one():
        return None
    node, seconds = faults.node(), faults.stream.uniform(0.5, 25.0)
    faults.cut(node.host, seconds)
    return f"{node.name} for {seconds:.1f} s"


def cut_controller(faults: FaultInjector) -> str:
    """A controller is cut off."""
    controller, seconds = faults.controller(), faults.stream.uniform(0.5, 25.0)
    faults.cut(controller.host, seconds)
    return f"{controller.name} for {seconds:.1f} s"


def reset_some(faults: FaultInjector) -> str:
    """A middlebox ends the links of half of the nodes; they can attach again at once."""
    nodes = [node for node in faults.up() if faults.stream.chance(0.5)]
    for node in nodes:
        faults.world.reset(node.host)
    return ", ".join(node.name for node in nodes)


def clock(faults: FaultInjector) -> str:
    """A node's wall clock is wrong."""
    host = faults.node().host
    host.clock.offset_s = faults.stream.uniform(-9.0, 9.0)
    return f"{host.name} by {host.clock.offset_s:.1f} s"


# --- what the operator says ----------------------------------------------------------------------------------------


def scale(faults: FaultInjector) -> str | None:
    """More or fewer instances."""
    service = _service(faults)
    if service is None:
        return None
    low, high = faults.fleet.scale.instances
    instances = low + faults.stream.below(high - low + 1)
    faults.fleet.apply(service, instances=instances, revision=faults.revisions.get(service, 1))
    return f"{service} to {instances}"


def update(faults: FaultInjector) -> str | None:
    """A new revision."""
    service = _service(faults)
    if service is None:
        return None
    faults.revisions[service] = revision = faults.revisions.get(service, 1) + 1
    instances = faults.fleet.specs[service]["components"]["app"]["instances"]
    faults.fleet.apply(service, instances=instances, revision=revision)
    return f"{service} to revision {revision}"


def restart(faults: FaultInjector) -> str | None:
    """All instances of a service anew."""
    service = _service(faults)
    if service is not None:
        faults.fleet.operator.restart(service)
    return service


def hold(faults: FaultInjector) -> str | None:
    """A slot is held."""
    slot = _slot(faults)
    if slot is not None:
        faults.fleet.operator.hold(slot)
    return slot


def unhold(faults: FaultInjector) -> str | None:
    """A slot is held no more."""
    held = sorted(faults.fleet.will.held)
    if not held:
        return None
    slot = faults.stream.choice(held)
    faults.fleet.operator.unhold(slot)
    return slot


def move(faults: FaultInjector) -> str | None:
    """A slot is to be elsewhere: on one node, whether that takes it now or not, or on any other."""
    slot = _slot(faults)
    if slot is None:
        return None
    node = faults.stream.choice(list(faults.fleet.nodes)) if faults.stream.chance(0.5) else None
    faults.fleet.operator.move(slot, node)
    return f"{slot} to {node or 'another node'}"


def drain(faults: FaultInjector) -> str | None:
    """A node is drained."""
    return _use(faults, "draining")


def exclude(faults: FaultInjector) -> str | None:
    """A node is to get nothing more."""
    return _use(faults, "excluded")


def include(faults: FaultInjector) -> str | None:
    """A node is to be used again."""
    out = sorted(node for node, mode in faults.fleet.will.modes.items() if mode != "active")
    if not out:
        return None
    node = faults.stream.choice(out)
    faults.fleet.operator.use(node, "active")
    return node


def make_anew(faults: FaultInjector) -> str | None:
    """A service is removed and made again: at once, or when nothing is left of it."""
    service = _service(faults)
    if service is None:
        return None
    instances = faults.fleet.specs[service]["components"]["app"]["instances"]
    waits = faults.stream.chance(0.7)
    faults.fleet.remove(service)
    if waits:
        faults.fleet.operator.await_end(service)
    faults.fleet.apply(service, instances=instances, revision=faults.revisions.get(service, 1))
    return f"{service}, {'when it has ended' if waits else 'at once'}"


def hold_brake(faults: FaultInjector) -> str:
    """Nothing is replaced for some seconds."""
    seconds = faults.stream.uniform(1.0, 15.0)
    faults.fleet.operator.brake(held=True)
    faults.later(seconds, lambda: faults.fleet.operator.brake(held=False))
    return f"for {seconds:.1f} s"


def _service(faults: FaultInjector) -> str | None:
    return faults.stream.choice(list(faults.fleet.specs)) if faults.fleet.specs else None


def _slot(faults: FaultInjector) -> str | None:
    slots = [slot for service, spec in faults.fleet.specs.items() for slot in slots_of(service, spec)]
    return faults.stream.choice(slots) if slots else None


def _use(faults: FaultInjector, mode: Mode) -> str | None:
    will = faults.fleet.will
    out = [node for node, used in will.modes.items() if used != "active"]
    if len(out) >= max(1, len(faults.fleet.nodes) // 5):
        return None
    node = faults.stream.choice([name for name in faults.fleet.nodes if name not in out])
    faults.fleet.operator.use(node, mode)
    return node


SMALL: Final[Mapping[Kind, int]] = {crash: 6, kill_agent: 3, kill_manager: 2, kill_monitor: 1}
"""What changes nothing but processes of one node."""
WORDS: Final[Mapping[Kind, int]] = {
    hold: 3,
    unhold: 3,
    move: 3,
    drain: 2,
    exclude: 2,
    include: 3,
    make_anew: 3,
    hold_brake: 1,
    restart: 1,
    scale: 2,
    update: 2,
}
"""What an operator says."""
STORM: Final[Mapping[Kind, int]] = {
    **SMALL,
    **WORDS,
    pause_manager: 2,
    pause_agent: 1,
    spawner: 1,
    stall_node: 2,
    stall_some: 2,
    kill_node: 2,
    power_off: 2,
    cut_node: 3,
    cut_controller: 2,
    reset_some: 1,
    kill_controller: 2,
    pause_controller: 2,
    kill_broker: 1,
    pause_broker: 1,
    clock: 2,
}
"""Everything."""
