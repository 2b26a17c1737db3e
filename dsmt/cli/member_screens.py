"""Screens of members: nodes, brokers and controllers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from dsmt.cli.printing import one_line, page, table, word
from dsmt.cli.screens import NONE, age, freshness
from dsmt.event.phrases import another_certificate, counted, quoted
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.broker_rows import BrokerRow, withholding
from dsmt.operations.read.rows.controller_rows import UNDECIDED, Controller
from dsmt.operations.read.rows.node_rows import NodeRow, NodeShown, ProcessRow, clock
from dsmt.operations.read.screens.node_alerts import away
from dsmt.operations.words.times import off_by

LEFT_MOST = 5
"""What is left on a node that is named one by one."""


def nodes(found: Sequence[NodeRow], sight: Sight) -> str:
    """The screen of `dsmt nodes`."""
    header = ("NODE", "ALIVE", "MODE", "INST", "CPUS", "MEM", "DISK", "LOAD", "VERSION", "HEARD")
    laid = [(_node_cells(node, sight.now_ms), _node_below(node, sight)) for node in found]
    counts = Counter(node.liveness for node in found)
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    last = f"{counted(len(found), 'node')}{f': {summary}' if summary else ''}.   {freshness(sight)}"
    return f"{table(header, laid, right=('INST', 'CPUS', 'MEM', 'DISK', 'LOAD'))}\n{last}" if found else last


def _node_cells(node: NodeRow, now_ms: int) -> tuple[str, ...]:
    alive = {"alive": "yes", "dead": "DEAD"}.get(node.liveness, node.liveness)
    told = node.attributes
    figures: tuple[str, ...] = (NONE,) * 4
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
        node.mode or NONE,
        str(node.instances),
        *figures,
        node.version or NONE,
        age(node.last_seen, now_ms),
    )


def _used(free: int, total: int) -> str:
    if total <= 0:
        return NONE
    percent = 100 - 100 * free // total
    return f"{percent} %{'!' if percent >= 95 else ''}"


def _node_below(node: NodeRow, sight: Sight) -> list[str]:
    lines = []
    if node.mode_by is not None:
        verb = "excluded" if node.mode == "excluded" else "drain"
        going = [one for one in node.left if not one.stays]
        left = f"; {len(going)} to go" if node.mode == "draining" else ""
        lines.append(f"{verb} by {node.mode_by} {age(node.mode_since, sight.now_ms)} ago{quoted(node.mode_reason)}{left}")
        lines += [f"  {one.instance}: {one.because}" for one in node.left[:LEFT_MOST]]
        more = len(node.left) - LEFT_MOST
        lines += [f"  and {more} more: dsmt ps -a"] if more > 0 else []
    told = away(sight, node)
    if told is not None:
        lines += [told.message, f"next: {told.next}"]
    elif node.evidence is not None:
        lines.append(node.evidence)
    why = clock(node)
    if why is not None:
        lines.append(f"{why.message}   {why.code}")
    return lines


def node_shown(node: NodeShown, sight: Sight) -> str:
    """The screen of `dsmt node show`."""
    lines = [f"{node.node}   {', '.join(filter(None, (word(node.liveness), node.mode)))}"]
    told = node.attributes or {}
    facts = {
        "address": node.address,
        "version": node.version,
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(node.labels.items())) or None,
        "cores": told.get("cpus"),
        "drivers": ", ".join(sorted(told.get("drivers", {}))) or None,
        "instances": node.instances,
        "heard": f"{age(node.last_seen, sight.now_ms)} ago" if node.last_seen else None,
    }
    lines += [f"  {name:<10} {one_line(str(value))}" for name, value in facts.items() if value is not None]
    lines += [f"  {one_line(said)}" for said in _node_below(node, sight)]
    if node.processes:
        laid = [((str(one.pid), one.role, one.instance or NONE), _unknown(one)) for one in node.processes]
        lines += ["", *table(("PID", "ROLE", "INSTANCE"), laid, right=("PID",)).split("\n")]
    return page([*lines, freshness(sight)])


def _unknown(process: ProcessRow) -> tuple[str, ...]:
    return () if process.known else ("no agent is there: whether it runs is not known",)


def brokers(found: Sequence[BrokerRow], sight: Sight) -> str:
    """The screen of `dsmt brokers`."""
    header = ("BROKER", "ALIVE", "ADDRESS", "PID", "SESS", "FACTS", "DISK", "LAG", "HISTORY", "VERSION")
    laid, withheld = [], withholding(sight)
    for one in found:
        disk = NONE if one.disk_bytes is None else f"{one.disk_bytes / 2**20:.1f}M"  # as df -h says it
        lag = NONE if one.lag_s is None else f"{one.lag_s * 1000:.0f} ms"
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
                    one.broker or NONE,
                    "yes" if one.alive else "no",
                    one.address,
                    str(one.pid or NONE),
                    str(NONE if one.sessions is None else one.sessions),
                    str(NONE if one.facts is None else one.facts),
                    disk,
                    lag,
                    age(one.history_from, sight.now_ms),
                    one.version or NONE,
                ),
                below,
            )
        )
    return f"{table(header, laid, right=('SESS', 'FACTS'))}\n{freshness(sight)}"


def controllers(found: Sequence[Controller], sight: Sight, ended: Collection[str] = ()) -> str:
    """The screen of `dsmt controllers`; `ended` are the sources whose certificates have ended."""
    header = ("CONTROLLER", "ALIVE", "PID", "LAG", "DECISIONS", "VERSION")
    laid = []
    for one in found:
        lag = NONE if one.lag_s is None else f"{one.lag_s * 1000:.0f} ms"
        below = [f"lag unknown: {one.lag_why}"] if one.lag_why is not None and one.alive else []
        if one.watches is not None:
            below.append(f"only watches: {one.watches}")
        if one.in_doubt:
            below = [UNDECIDED]
        elif not one.alive and (name := f"controller/{one.controller}") in ended:
            below = [f"its certificate has ended; next: {another_certificate(name)}"]
        elif not one.alive:
            below = [f"next: dsmt up where it was; or dsmt controller remove {one.controller}"]
        cells = (
            one.controller,
            "yes" if one.alive else "?" if one.in_doubt else "no",
            str(one.pid or NONE),
            lag,
            str(one.decisions),
            one.version,
        )
        laid.append((cells, below))
    return f"{table(header, laid, right=('DECISIONS',))}\n{freshness(sight)}"
