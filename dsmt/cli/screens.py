"""Screens: what people read: problem first, then what helps, and in the last line how fresh it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dsmt.cli.printing import counted, one_line, page, table, word
from dsmt.event.phrases import another_certificate, quoted, stepped
from dsmt.event.reason import Reason
from dsmt.event.status import Shown
from dsmt.operations.read.instances import Hold, InstanceRow, is_problem
from dsmt.operations.read.members import Broker, Controller, Node, NodeShown, clock, withholding
from dsmt.operations.read.revisions import in_words, refused, running
from dsmt.operations.read.sight import Sight
from dsmt.operations.read.summaries import RealmStatus, Service
from dsmt.operations.words.times import local, milliseconds, off_by, span, zone

if TYPE_CHECKING:
    from dsmt.operations.local.migrating import Move
    from dsmt.operations.read.waiting import Applied  # the parser of YAML is slow to import

_NONE = "-"
_FIRST = "next: dsmt example > web.yaml; dsmt apply web.yaml --wait; dsmt status"


def age(text: str | None, now_ms: int) -> str:
    """How long ago an RFC 3339 time was."""
    return _NONE if text is None else span(now_ms - milliseconds(text))


def freshness(sight: Sight) -> str:
    """`view 0.2 s old, from broker b1, no gaps`."""
    gaps = counted(sight.passing.gaps, "gap") if sight.passing.gaps else "no gaps"
    whole = "" if sight.whole else "; the broker does not know yet whether it has everything"
    return f"view {sight.age_s:.1f} s old, from broker {sight.broker}, {gaps}{whole}"


def ps(rows: Sequence[InstanceRow], sight: Sight) -> str:
    """The screen of `dsmt ps`."""
    header = ("INSTANCE", "STATE", "HEALTH", "NODE", "PID", "PORTS", "RESTARTS", "SINCE")
    laid = [(cells(row, sight.now_ms), _below(row, sight)) for row in rows]
    counts = Counter(row.state.value for row in rows)
    summary = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    last = f"{counted(len(rows), 'instance')}{f': {summary}' if summary else ''}.   {freshness(sight)}"
    if not rows:
        return _first_step(sight, last)
    return "\n".join([table(header, laid), *_refused_among(rows, sight), last])


def _refused_among(rows: Sequence[InstanceRow], sight: Sight) -> list[str]:
    """Of each service that was rolled back: which revision runs, and which was refused and why."""
    lines = []
    for name in dict.fromkeys(row.service for row in rows):
        entry = sight.view.services.get(name)
        denied = None if entry is None else refused(entry)
        if entry is None or denied is None:
            continue
        why = "" if denied.reason is None else f": {one_line(denied.reason.message)}"
        runs = ", ".join(f"r{number}" for number in running(entry))
        lines.append(f"{name}: {runs} runs; r{denied.revision} was refused{why}")
    return lines


def _first_step(sight: Sight, last: str) -> str:
    """An empty list; on a realm with no service also what to do first."""
    if any(entry.spec is not None for entry in sight.view.services.values()):
        return last
    return f"no service is applied yet\n{_FIRST}\n{last}"


def cells(row: InstanceRow, now_ms: int) -> tuple[str, str, str, str, str, str, str, str]:
    """What `ps` shows of an instance, column by column."""
    ports = " ".join(f"{name}:{port}" for name, port in row.ports.items())
    health = row.health if row.health != "none" else _NONE
    return (
        row.instance,
        row.state.value,
        health,
        row.node or _NONE,
        str(row.pid or _NONE),
        ports or _NONE,
        str(row.restarts),
        age(row.since, now_ms),
    )


def held(hold: Hold, now_ms: int) -> str:
    """Who holds an instance, since when, and why."""
    said = f"held by {hold.by} {age(hold.at, now_ms)} ago{quoted(hold.reason)}"
    return said if hold.stands is None else f"{said}; r{hold.stands} was good nowhere yet, and waits for it"


def working(row: InstanceRow, now_ms: int) -> str:
    """What its agent is at that takes long, for how long, and until when; nothing where it is at nothing."""
    if (step := row.working) is None:
        return ""
    return f"{stepped(step.step)} has taken {age(step.since, now_ms)} so far, and is ended after {span(step.limit_s * 1000)}"


def logged(row: InstanceRow) -> str:
    """The command that shows what such a step has written."""
    step = "fetch" if row.working is None else row.working.step
    return "" if step == "fetch" else f"dsmt logs {row.instance} --step {step}"


def _below(row: InstanceRow, sight: Sight) -> list[str]:
    """Why it is not as it should be."""
    lines = []
    if row.held is not None:
        lines.append(f"{held(row.held, sight.now_ms)}; dsmt start {row.instance}")
    elif is_problem(sight, row) and row.reason is not None:
        lines.append(f"{row.reason.code}: {row.reason.message}{_next_try(row.next_try_at, sight.now_ms)}")
    if row.working is not None:
        lines.append("; ".join(one for one in (working(row, sight.now_ms), logged(row)) if one))
    if row.stale and row.state is not Shown.LOST:
        lines.append(f"its agent has been silent lately; last heard {age(row.observed_at, sight.now_ms)} ago")
    return lines


def _next_try(at: str | None, now_ms: int) -> str:
    if at is None:
        return ""
    left = milliseconds(at) - now_ms
    return f"; next try in {span(left)}" if left > 0 else "; tried again now"


def services(found: Sequence[Service], sight: Sight) -> str:
    """The screen of `dsmt services`."""
    header = ("SERVICE", "READY", "REVISION", "STATE", "APPLIED")
    laid = []
    for one in found:
        ready = f"{one.ready} of {one.wanted}" + (f" ({one.held} held)" if one.held else "")
        applied = f"{age(one.at, sight.now_ms)} ago by {one.by}{quoted(one.note)}"
        laid.append(
            (
                (one.service, ready, revisions(one), one.state, applied),
                [*_refusal(one), *_sick(one, sight.now_ms), *_owner(one)],
            )
        )
    last = f"{counted(len(found), 'service')}.   {freshness(sight)}"
    return f"{table(header, laid)}\n{last}" if found else _first_step(sight, last)


def applied(one: Applied) -> list[str]:
    """What became of a service that was applied, and why it is not ready."""
    ready = f"{one.ready} of {one.wanted} ready"
    if one.refused is not None:
        runs = ", ".join(f"r{number}" for number in one.running)
        lines = [f"{one.service}  r{one.refused} was refused, {runs} runs, {ready}"]
    elif one.outcome == "superseded":
        look = f"dsmt history {one.service} names what stands"
        lines = [f"{one.service}  r{one.revision} was replaced before it was ready: {look}"]
    else:
        lines = [f"{one.service}  r{one.revision}  {one.outcome}" + ("" if one.outcome == "applied" else f", {ready}")]
    return lines + [f"  {line}" for line in _acting(one.reason)]


def revisions(one: Service) -> str:
    """What runs of a service, and what was refused."""
    return in_words(one.running, one.refused, one.revision)


def _refusal(one: Service) -> list[str]:
    return [] if one.refused is None else _acting(one.refused.reason)


def _owner(one: Service) -> list[str]:
    """Whom to call of a service that is not well."""
    return [f"owner: {one.owner}"] if one.owner and one.state in ("degraded", "down") else []


def _sick(one: Service, now_ms: int) -> list[str]:
    return _acting(one.reason, _next_try(one.next_try_at, now_ms))


def _acting(reason: Reason | None, then: str = "") -> list[str]:
    """The reason, who acts and what to type."""
    if reason is None:
        return []
    told = [f"{reason.code}: {reason.message}{then}"]
    if reason.next:
        told.append(f"{_ACTS.get(reason.who, reason.who)}: {reason.next}")
    return told


_ACTS = {"dsmt": "dsmt acts; look"}
LEFT_MOST = 5
"""What is left on a node that is named one by one."""


def nodes(found: Sequence[Node], sight: Sight) -> str:
    """The screen of `dsmt nodes`."""
    header = ("NODE", "ALIVE", "MODE", "INST", "CPUS", "MEM", "DISK", "LOAD", "VERSION", "HEARD")
    laid = [(_node_cells(node, sight.now_ms), _node_below(node, sight.now_ms)) for node in found]
    counts = Counter(node.liveness for node in found)
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    last = f"{counted(len(found), 'node')}{f': {summary}' if summary else ''}.   {freshness(sight)}"
    return f"{table(header, laid, right=('INST', 'CPUS', 'MEM', 'DISK', 'LOAD'))}\n{last}" if found else last


def _node_cells(node: Node, now_ms: int) -> tuple[str, ...]:
    alive = {"alive": "yes", "dead": "DEAD"}.get(node.liveness, node.liveness)
    told = node.attributes
    figures: tuple[str, ...] = (_NONE,) * 4
    if told is not None and node.liveness == "alive":
        figures = (
            str(told["cpus"]),
            _used(told["memory_free_bytes"], told["memory_bytes"]),
            _used(told["disk_free_bytes"], told["disk_bytes"]),
            f"{told['load']:.1f}",
        )
    return (
        node.node,
        alive,
        node.mode,
        str(node.instances),
        *figures,
        node.version or _NONE,
        age(node.last_seen, now_ms),
    )


def _used(free: int, total: int) -> str:
    if total <= 0:
        return _NONE
    percent = 100 - 100 * free // total
    return f"{percent} %{'!' if percent >= 95 else ''}"


def _node_below(node: Node, now_ms: int) -> list[str]:
    lines = []
    if node.mode_by is not None:
        verb = {"excluded": "excluded"}.get(node.mode, "drain")
        going = [one for one in node.left if not one.stays]
        left = f"; {len(going)} to go" if node.mode == "draining" else ""
        lines.append(f"{verb} by {node.mode_by} {age(node.mode_since, now_ms)} ago{quoted(node.mode_reason)}{left}")
        lines += [f"  {one.instance}: {one.because}" for one in node.left[:LEFT_MOST]]
        more = len(node.left) - LEFT_MOST
        lines += [f"  and {more} more: dsmt ps -a"] if more > 0 else []
    if node.liveness != "alive" and node.evidence is not None:
        lines.append(node.evidence)
    why = clock(node)
    if why is not None:
        lines.append(f"{why.message}   {why.code}")
    return lines


def node_shown(node: NodeShown, sight: Sight) -> str:
    """The screen of `dsmt node show`."""
    lines = [f"{node.node}   {word(node.liveness)}, {node.mode}"]
    told = node.attributes or {}
    facts = {
        "address": node.address,
        "version": node.version,
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(node.labels.items())) or None,
        "cores": told.get("cpus"),
        "drivers": ", ".join(sorted(told.get("drivers", {}))) or None,
        "instances": node.instances,
        "heard": f"{age(node.last_seen, sight.now_ms)} ago" if node.last_seen else None,
        "evidence": node.evidence,
    }
    lines += [f"  {name:<10} {one_line(str(value))}" for name, value in facts.items() if value is not None]
    lines += [f"  {one_line(said)}" for said in _node_below(node, sight.now_ms) if said != node.evidence]
    if node.processes:
        laid = [((str(one.pid), one.role, one.instance or _NONE), ()) for one in node.processes]
        lines += ["", *table(("PID", "ROLE", "INSTANCE"), laid, right=("PID",)).split("\n")]
    return page([*lines, freshness(sight)])


def brokers(found: Sequence[Broker], sight: Sight) -> str:
    """The screen of `dsmt brokers`."""
    header = ("BROKER", "ALIVE", "ADDRESS", "PID", "SESS", "FACTS", "DISK", "LAG", "HISTORY", "VERSION")
    laid, withheld = [], withholding(sight)
    for one in found:
        disk = _NONE if one.disk_bytes is None else f"{one.disk_bytes / 2**20:.1f} MiB"
        lag = _NONE if one.lag_s is None else f"{one.lag_s * 1000:.0f} ms"
        below = [] if one.fault is None else [one.fault]
        if one.dropped:
            refused = f"it has refused {counted(one.dropped, 'event')} since it started"
            below.append(f"{refused}: its broker.log says which, and why")
        if one.leaf:
            below.append(f"it is a leaf, linked to {one.upstream or 'no other broker now: its uplink is down'}")
        if one.alive and one.whole is False:
            below.append("it is not whole yet: it reads what others have, and no controller acts on what it says")
        if one.broker in withheld:
            below.append(f"it does not give {', '.join(withheld[one.broker])} what it has said to hold: dsmt status")
        if one.clock_ahead_s is not None and one.clock_is_far:
            off = f"its machine's clock is {off_by(one.clock_ahead_s)}, so it is not followed"
            below.append(f"{off}: set it, or dsmt clock accept {one.broker}")
        laid.append(
            (
                (
                    one.broker or _NONE,
                    "yes" if one.alive else "no",
                    one.address,
                    str(one.pid or _NONE),
                    str(_NONE if one.sessions is None else one.sessions),
                    str(_NONE if one.facts is None else one.facts),
                    disk,
                    lag,
                    age(one.history_from, sight.now_ms),
                    one.version or _NONE,
                ),
                below,
            )
        )
    return f"{table(header, laid, right=('SESSIONS', 'FACTS'))}\n{freshness(sight)}"


def controllers(found: Sequence[Controller], sight: Sight) -> str:
    """The screen of `dsmt controllers`."""
    header = ("CONTROLLER", "ALIVE", "PID", "LAG", "DECISIONS", "VERSION")
    laid = []
    for one in found:
        lag = _NONE if one.lag_s is None else f"{one.lag_s * 1000:.0f} ms"
        below = [f"lag unknown: {one.lag_why}"] if one.lag_why is not None and one.alive else []
        cells = (
            one.controller,
            "yes" if one.alive else "no",
            str(one.pid or _NONE),
            lag,
            str(one.decisions),
            one.version,
        )
        laid.append((cells, below))
    return f"{table(header, laid, right=('DECISIONS',))}\n{freshness(sight)}"


def status(told: RealmStatus, sight: Sight, move: Move | None = None) -> str:
    """The screen of `dsmt status`."""
    head = f"realm {told.realm}   {word(told.state if told.state == 'ok' else told.state.upper())}"
    at = f"{local(sight.now_ms)} {zone(sight.now_ms)}"
    lines = [f"{head}{at:>{max(1, 72 - len(f'realm {told.realm}   {told.state}'))}}"]
    lines += [f"  {name:<9} {one_line(said)}" for name, said in (*_realm(told, sight.now_ms), *_moving(move))]
    if told.services:
        header = ("SERVICE", "READY", "REVISION", "STATE")
        laid = []
        for one in told.services:
            ready = f"{one.ready} of {one.wanted}" + (f" ({one.held} held)" if one.held else "")
            state = one.state if one.state in ("ok", "held", "removing", "starting") else one.state.upper()
            below = [*_refusal(one), *_sick(one, sight.now_ms), *_owner(one)]
            laid.append(((one.service, ready, revisions(one), state), below))
        lines += ["", *(f"  {line}" for line in table(header, laid).split("\n"))]
    else:
        lines += ["", "  no service is applied yet", f"  {_FIRST}"]
    rest = [alert for alert in told.alerts if alert.target.split("/")[0] not in {one.service for one in told.services}]
    if rest:
        lines.append("")
        for alert in rest:
            lines += [f"  {alert.target}: {alert.message}", f"    {_ACTS.get(alert.who, alert.who)}: {alert.next}"]
    view = told.view
    gaps = counted(view.gaps, "gap") if view.gaps else "no gaps"
    seen = f"{view.brokers_seen} of {counted(view.brokers_total, 'broker')}"
    whole = "" if view.whole else "; the broker does not know yet whether it has everything"
    lines.append(f"view: {view.age_s:.1f} s old, from broker {view.broker}, {seen}, {gaps}{whole}")
    return page(lines)


def _moving(move: Move | None) -> Iterable[tuple[str, str]]:
    if move is None:
        return
    done = f"to {move.engine}: {move.row} of {move.head} rows copied"
    if move.cut:
        yield "moving", f"to {move.engine}, and is being cut over: dsmt bus migrate --cut goes on with that"
    elif move.why is not None:
        yield "moving", f"{done}: {move.why}"
    else:
        yield "moving", f"{done}; next: dsmt bus migrate --cut, or --abort" if move.level else done


def _realm(told: RealmStatus, now_ms: int) -> Iterable[tuple[str, str]]:
    nodes_ = told.nodes
    notes = [f"{name} DEAD" for name in nodes_.dead] + [f"{name} suspect" for name in nodes_.suspect]
    notes += [f"{name} {'drained' if name in nodes_.drained else 'draining'}" for name in nodes_.draining]
    notes += [f"{name} excluded" for name in nodes_.excluded]
    yield "nodes", f"{nodes_.alive} of {nodes_.total} alive" + (f"    {', '.join(notes)}" if notes else "")
    leaves = "".join(f"; leaf {leaf} is linked to {above or 'none'}" for leaf, above in told.leaves.items())
    yield "brokers", f"{told.brokers.alive} of {told.brokers.total} alive{leaves}"
    yield "control", f"{told.controllers.alive} of {told.controllers.total} alive"
    certs = told.certs
    if certs.next is not None and certs.expires is not None:
        left_ms = milliseconds(certs.expires) - now_ms
        said = "SOON" if not certs.ok else "renew" if certs.renew else "ok"
        if left_ms < 0:
            yield "certs", f"ENDED    {certs.next}, {span(-left_ms)} ago: {another_certificate(certs.next)}"
        else:
            yield "certs", f"{said}    next to renew: {certs.next} in {span(left_ms)}"
    yield "brake", brake_line(told)


def brake_line(told: RealmStatus) -> str:
    """The brake in one line."""
    brake = told.brake
    if brake.held:
        return f"HELD by {brake.by}{quoted(brake.reason)}; dsmt brake release"
    if brake.on:
        return f"ON: {len(brake.silent)} of {brake.total} nodes went silent at once; dsmt nodes, then dsmt brake release"
    return f"off    {len(brake.silent)} silent nodes, comes on above {brake.acts_above}"
