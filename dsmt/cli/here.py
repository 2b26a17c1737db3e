"""`--local` of `ps`, `status`, `logs`, `stop`, `start`: this machine alone, with no bus; and its screens."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from dsmt.cli import screens
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document, one_line, page, show, table
from dsmt.event.addresses import host_of, is_number
from dsmt.event.phrases import counted, some
from dsmt.operations.connection import listens
from dsmt.operations.local.here.acts import start_here, stop_here
from dsmt.operations.local.here.here import Here, MachineState, look_here
from dsmt.operations.local.here.logs import logs_here
from dsmt.operations.local.here.rows import is_problem_here, row_here, service_here
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.screens.summaries import RealmStatus, Service
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import local, zone
from dsmt.operations.write.asking_logs import LogQuery
from dsmt.operations.write.controlling import Done

_HEADER = ("INSTANCE", "STATE", "HEALTH", "NODE", "PID", "PORTS", "RESTARTS", "SINCE")
_PARTS = {"spawner": "spawner", "container_manager": "manager", "node_monitor": "monitor"}


def ps(ctx: CliContext, target: Target | None, labels: Mapping[str, str], *, problems: bool) -> None:
    """The instances on this machine."""
    machine = look_here(ctx.home(), target)
    found = [one for one in machine.instances if not labels or _has(one, labels)]
    rows = [row for row in _rows(machine, found) if not problems or is_problem_here(row)]
    if ctx.json:
        document(rows)
    else:
        show(page([*_table(rows, machine), *_dead(machine), _last(rows, machine)]))


def status(ctx: CliContext, target: Target | None) -> None:
    """What there is on this machine, or of one service on it."""
    home = ctx.home()
    machine = look_here(home, target)
    rows = _rows(machine, machine.instances)
    names = list(dict.fromkeys(row.service for row in rows))
    services = [
        service_here(name, [row for row in rows if row.service == name], Service.__struct_fields__) for name in names
    ]
    if not ctx.json:
        show(page(_screen(machine, rows, _reached([address for address, _ in home.realm().brokers]))))
    elif target is None:
        whole = dict.fromkeys((*RealmStatus.__struct_fields__, "move"))
        document({**whole, "realm": machine.realm, "services": services})
    else:
        document({**services[0], "target": str(target), "instances": rows, "events": [], "realm": machine.realm})


def logs(ctx: CliContext, target: Target, wanted: LogQuery, written: Callable[..., None]) -> None:
    """What the instances on this machine have written."""
    for batch in logs_here(look_here(ctx.home(), target).instances, wanted):
        for one in batch:
            written(ctx, one, many=target.index is None)
        sys.stdout.flush()


def stop(ctx: CliContext, target: Target, *, reason: str, limit_s: float | None) -> None:
    """Stop what is here of a target."""
    machine = look_here(ctx.home(), target)
    done = _done(ctx, f"the stop of {target}", target, partial(stop_here, machine, target, reason=reason, limit_s=limit_s))
    _told(ctx, done, f"stopped on {_nodes(machine)} until dsmt start {target}, or dsmt start {target} --local here")


def start(ctx: CliContext, target: Target, *, waits: bool, limit_s: float | None) -> None:
    """Let what was stopped here run again."""
    machine = look_here(ctx.home(), target)
    done = _done(ctx, f"the start of {target}", target, partial(start_here, machine, target, waits=waits, limit_s=limit_s))
    _told(ctx, done, "is ready" if waits else "runs again")


def _done(ctx: CliContext, what: str, target: Target, act: Callable[..., Awaitable[Done]]) -> Done:
    """What an act comes to, which tells meanwhile what it waits for; who is interrupted is told where to look."""
    ctx.asked = f"{what} on this machine", f"dsmt ps {target} --local"

    async def work() -> Done:
        with ctx.progress() as tell:
            return await act(tell=tell)

    return asyncio.run(work())


def _told(ctx: CliContext, done: Done, said: str) -> None:
    if ctx.json:
        document(done)
        return
    if done.instances:
        print(f"{', '.join(done.instances)}: {said}")
    for instance in done.unchanged:
        print(f"{instance}: nothing to do: {one_line(done.because[instance])}")


def _reached(addresses: Sequence[str]) -> dict[str, bool]:
    """Which brokers take a connection now: that says of none that it lets anybody in. A name is looked up by nobody."""
    known = [address for address in addresses if is_number(host_of(address))]

    async def tried() -> list[bool]:
        return await asyncio.gather(*map(listens, known))

    return dict(zip(known, asyncio.run(tried()), strict=True))


def _nodes(machine: MachineState) -> str:
    return some(list(dict.fromkeys(one.node for one in machine.instances)))


def _has(one: Here, labels: Mapping[str, str]) -> bool:
    known = {} if one.spec is None else one.spec.labels
    return all(known.get(key) == value for key, value in labels.items())


def _rows(machine: MachineState, those: Iterable[Here]) -> list[InstanceRow]:
    return sorted((row_here(one, machine.read_ms) for one in those), key=lambda row: (row.service, row.component, row.index))


def _table(rows: Sequence[InstanceRow], machine: MachineState) -> list[str]:
    laid = [(screens.cells(row, machine.read_ms), _below(row, machine)) for row in rows]
    return table(_HEADER, laid).splitlines() if laid else []


def _below(row: InstanceRow, machine: MachineState) -> list[str]:
    """Why it is not as it should be."""
    lines = []
    if row.held is not None:
        again = f"dsmt start {row.instance}{' --local' if row.held.at is not None else ', where a broker answers'}"
        lines.append(f"{screens.held(row.held, machine.read_ms) if row.held.at else row.held.reason}; {again}")
    elif row.reason is not None:
        lines.append(f"{row.reason.code}: {one_line(row.reason.message)}")
    if row.agentless:
        lines.append("no agent of it lives: what it does is not checked, and it is not started again; dsmt status --local")
    return lines


def _dead(machine: MachineState) -> list[str]:
    """Which of dsmt's own programs live on no node of this home."""
    dead = {node: [_PARTS[one] for one, pid in own.items() if pid is None] for node, own in machine.nodes.items()}
    lines = [f"{node}: no {' and no '.join(those)} lives" for node, those in dead.items() if those]
    advice = "nothing here starts them again: dsmt up, or systemctl start what keeps this node"
    return [*lines, *([] if machine.up or not lines else [advice])]


def _last(rows: Sequence[InstanceRow], machine: MachineState) -> str:
    """How much of the truth this is."""
    counts = ", ".join(f"{count} {state}" for state, count in Counter(row.state.value for row in rows).most_common())
    when = f"{local(machine.read_ms)} {zone(machine.read_ms)}"
    seen = f"this machine alone, by {machine.root} at {when}; nothing is known here of others, and of what they decide"
    return f"{counted(len(rows), 'instance')}{f': {counts}' if counts else ''}.   {seen}"


def _screen(machine: MachineState, rows: Sequence[InstanceRow], reached: Mapping[str, bool]) -> list[str]:
    lines = [f"realm {machine.realm}, this machine alone"]
    for node, own in machine.nodes.items():
        parts = ", ".join(f"{_PARTS[one]} {f'pid {pid}' if pid else 'DEAD'}" for one, pid in own.items())
        lines.append(f"  {node:<9} {parts}")
    lines.append(f"  {'keeper':<9} {'runs' if machine.up else 'none of dsmt up: systemd keeps this node, or nobody does'}")
    silent = [address for address, took in reached.items() if not took]
    said = f"{len(reached) - len(silent)} of {len(reached)} that are known here take a connection"
    lines.append(f"  {'brokers':<9} {said}{f'; not {some(silent)}' if silent else ''}")
    return [*lines, "", *_table(rows, machine), *([] if machine.up else _dead(machine)[-1:]), _last(rows, machine)]
