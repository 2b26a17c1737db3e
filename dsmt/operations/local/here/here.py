"""Here: what runs on this machine, by the files of its home and its own processes, with no bus (`--local`).

Rule 1: nothing here asks a broker, or anybody else: it answers as long as the home can be read, whoever of dsmt is dead.
Rule 2: what only others know is not known here: it is null, and the screen says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from dsmt.agents.drivers import roots_of
from dsmt.agents.rules.container import CONFIG, HELD, SLOT, TOLD, AgentConfig, load_config
from dsmt.agents.rules.held_here import load_held
from dsmt.agents.rules.record import InstanceRecord
from dsmt.agents.shared.kept import fact_in
from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.event.kinds.instance import HeldHere
from dsmt.event.kinds.slot import Slot
from dsmt.event.order import newer
from dsmt.event.phrases import some
from dsmt.event.records import readable
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.processes.parts import NODE_PROGRAMS
from dsmt.operations.local.processes.patience import spec_in
from dsmt.operations.words.targets import Target
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import RealmConfig
from dsmt.programs.containers import agents_in, containers_in, record_in
from dsmt.spec.records import ComponentSpec, ServiceSpec
from dsmt.system.procfs import began_s, is_alive
from dsmt.system.reading import read_what_is_there
from dsmt.system.records import process_of
from dsmt.system.users import name_of
from dsmt.view import SlotKey

LISTS: Final = "dsmt ps --local lists what this machine has"


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """One instance on this machine: what was decided of it, as far as that was heard here, and what is so."""

    node: str
    key: SlotKey
    directory: Path
    address: str
    generation: int
    slot: Slot | None
    spec: ServiceSpec | None
    record: InstanceRecord | None
    held: HeldHere | None
    agents: tuple[ProcessIdentity, ...]
    program: ProcessIdentity | None
    """What runs of it, the newer of two."""
    ran_ms: int = 0
    """How long that runs, by the boot-time clock."""

    @property
    def component(self) -> ComponentSpec | None:
        """What its agent obeys, if that is here."""
        return None if self.spec is None else self.spec.components.get(self.key.component)


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """What the home of this machine tells: its nodes with the pids of their own programs, null for one that is dead."""

    realm: str
    root: Path
    read_ms: int
    up: bool
    """Whether a keeper lives that keeps all of this home (`dsmt up`)."""
    nodes: Mapping[str, Mapping[str, int | None]]
    instances: tuple[Here, ...]


def look_here(home: Home, target: Target | None = None) -> MachineState:
    """What there is on this machine, of a target if one is named.

    Raises `NotFoundError` where no node is here, or nothing of the target, and `RefusedError` for another user's home.
    """
    for place in (home.root, home.root / RealmConfig.FILE):
        if place.exists() and not os.access(place, os.R_OK):
            raise not_ours(home.root, "read")
    realm = home.realm().name
    try:
        nodes = home.parts("nodes")
        found = [one for name, place in nodes.items() for one in _instances(name, place)]
    except PermissionError as error:
        raise not_ours(home.root, "read") from error
    if not nodes:
        advice = "type it on the machine of a node, with --home if its home is elsewhere"
        raise NotFoundError("local.no_node", f"no node has its home in {home.root}: nothing runs from here", next=advice)
    wanted = [one for one in found if target is None or target.takes(one.key)]
    if target is not None and not wanted:
        raise NotFoundError("target.unknown", f"there is nothing of {target} on {some(list(nodes))}", next=LISTS)
    return MachineState(
        realm=realm,
        root=home.root,
        read_ms=time.time_ns() // 1_000_000,
        up=process_of(keeper_directory(home), "spawner") is not None,
        nodes={name: {program: _pid(place, program) for program in NODE_PROGRAMS} for name, place in nodes.items()},
        instances=tuple(wanted),
    )


def _pid(place: Path, program: str) -> int | None:
    found = process_of(place, program)
    return None if found is None else found.pid


def not_ours(place: Path, done: str) -> RefusedError:
    """That something in a home can be neither read nor changed by who types this."""
    try:
        owner = name_of(place.stat().st_uid)
    except OSError:
        owner = "another user"
    said = f"{place} cannot be {done} by {name_of(os.geteuid())}: it belongs to {owner}"
    return RefusedError(
        "local.owner", said, next="type it as root" if owner == "root" else f"type it as {owner}, or as root"
    )


def _instances(node: str, place: Path) -> list[Here]:
    if not os.access(place, os.R_OK | os.X_OK):
        raise PermissionError(place)
    return [one for container in containers_in(place) if (one := instance_in(node, container)) is not None]


def instance_in(node: str, directory: Path) -> Here | None:
    """What is in a container now; None where there is none (any more)."""
    config = _config(directory)
    if config is None:
        return None
    facts = [signed for name in (SLOT, TOLD) if (signed := fact_in(_content(directory, name))) is not None]
    facts = [signed for signed in facts if signed.event.topic == config.slot.topic]
    last = facts[-1] if facts and (len(facts) == 1 or newer(facts[1].event, facts[0].event)) else next(iter(facts), None)
    record = record_in(directory)
    alive = [] if record is None else [root for root in roots_of(record) if is_alive(root)]
    program = next(iter(alive), None)
    return Here(
        node=node,
        key=config.slot,
        directory=directory,
        address=config.address,
        generation=0 if last is None else last.event.version or 0,
        slot=None if last is None else readable(Slot, last.event.data),
        spec=spec_in(directory),
        record=record,
        held=load_held(_content(directory, HELD)),
        agents=tuple(agents_in(directory)),
        program=program,
        ran_ms=0 if program is None else round((time.clock_gettime(time.CLOCK_BOOTTIME) - began_s(program)) * 1000),
    )


def _content(directory: Path, name: str) -> bytes | None:
    return read_what_is_there(str(directory / name))


def _config(directory: Path) -> AgentConfig | None:
    try:
        return load_config(_content(directory, CONFIG), where=str(directory))
    except InputError:
        return None
