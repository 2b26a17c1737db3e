"""Screens of services and the realm: problem first, then what helps, and in the last line how fresh it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from dsmt.cli.printing import one_line, page, table, word
from dsmt.event.phrases import another_certificate, counted, cut, quoted, some, stepped
from dsmt.event.reason import Reason
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instance_row import HoldRow, InstanceRow
from dsmt.operations.read.rows.instances import is_problem
from dsmt.operations.read.rows.overruled import OverruledWord
from dsmt.operations.read.rows.revisions import (
    RefusedRevision,
    by_component,
    in_words,
    instead,
    refused,
    refused_and_runs,
    running,
)
from dsmt.operations.read.screens.alert import Alert
from dsmt.operations.read.screens.summaries import BrakeSummary, RealmStatus, Service
from dsmt.operations.words.times import local, milliseconds, span, zone

if TYPE_CHECKING:
    from dsmt.operations.local.moving.migrating import Move
    from dsmt.operations.read.waits.settling import Applied  # the parser of YAML is slow to import

NONE = "-"
"""What stands in a cell of which nothing is known."""
WELL_MOST = 20
"""Services that are well, up to which `status` lists them."""
SICK_MOST = 50
"""Of services that are not well, and of what else is wrong, so many are shown."""
NODES_MOST = 5
REASON_MOST = 240
"""Characters of a reason in a list of services."""
_FIRST = "next: dsmt example > web.yaml; dsmt apply web.yaml --wait; dsmt status"


def age(text: str | None, now_ms: int) -> str:
    """How long ago an RFC 3339 time was."""
    return NONE if text is None else span(now_ms - milliseconds(text))


def freshness(sight: Sight) -> str:
    """`view 0.2 s old, from broker b1, no gaps`."""
    return f"view {sight.age_s:.1f} s old, from broker {sight.broker}, {_hidden(sight.passing.gaps, whole=sight.whole)}"


def _hidden(gaps: int, *, whole: bool) -> str:
    """What a view may lack."""
    lacks = "" if whole else "; the broker does not know yet whether it has everything"
    return (counted(gaps, "gap") if gaps else "no gaps") + lacks


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
        said, runs = refused_and_runs(denied, running(entry), by_component(entry))
        lines.append(f"{name}: {runs}; {said}{why}")
    return lines


def _first_step(sight: Sight, last: str) -> str:
    """An empty list; on a realm with no service also what to do first."""
    if any(entry.spec is not None for entry in sight.view.services.values()):
        return last
    return f"no service is applied yet\n{_FIRST}\n{last}"


def cells(row: InstanceRow, now_ms: int) -> tuple[str, str, str, str, str, str, str, str]:
    """What `ps` shows of an instance, column by column."""
    ports = " ".join(f"{name}:{port}" for name, port in row.ports.items())
    health = row.health if row.health != "none" else NONE
    return (
        row.instance,
        row.state.value,
        health,
        row.node or NONE,
        str(row.pid or NONE),
        ports or NONE,
        str(row.restarts),
        age(row.since, now_ms),
    )


def held(hold: HoldRow, now_ms: int) -> str:
    """Who holds an instance, since when, and why."""
    said = f"held by {hold.by} {age(hold.at, now_ms)} ago{quoted(hold.reason)}"
    return said if hold.stands is None else f"{said}; r{hold.stands} goes no further until this is started"


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
    if not row.is_quiet and is_problem(sight, row) and row.reason is not None:
        lines.append(f"{row.reason.code}: {row.reason.message}{_next_try(row.next_try_at, sight.now_ms)}")
    if row.working is not None:
        lines.append("; ".join(one for one in (working(row, sight.now_ms), logged(row)) if one))
    if row.startup_news:
        lines.append(f"{row.startup_news}; dsmt logs {row.instance}")
    if row.serving is not None:
        lines.append(row.serving.told(row.node))
    if row.stale and not row.is_unheard and not row.agentless and row.state not in (Shown.LOST, Shown.GONE):
        lines.append("its agent has been silent lately")
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
        applied = f"{age(one.at, sight.now_ms)} ago by {one.by}{quoted(one.note)}"
        row = (one.service, _ready(one), revisions(one), one.state, applied)
        laid.append((row, _service_below(one, sight.now_ms)))
    summary = _summed(Counter(one.state for one in found))
    last = f"{counted(len(found), 'service')}{f': {summary}' if summary else ''}.   {freshness(sight)}"
    return f"{table(header, laid)}\n{last}" if found else _first_step(sight, last)


def applied(one: Applied) -> list[str]:
    """What became of a service that was applied, and why it is not ready."""
    ready = f"{one.ready} of {one.wanted} ready"
    denied = None if one.refused is None else RefusedRevision(revision=one.refused, reason=one.reason, by=one.refused_by)
    if denied is not None and one.outcome == "rolled_back":
        said, between = refused_and_runs(denied, one.running, one.parts), "; " if denied.by else ", "
        lines = [f"{one.service}  {between.join((*said, ready))}"]
    elif one.outcome == "superseded":
        look = f"dsmt history {one.service} names what stands"
        lines = [f"{one.service}  r{one.revision} was replaced before it was ready: {look}"]
    elif one.outcome == "held":
        lines = [f"{one.service}  r{one.revision}  held: all of it is stopped by hand; dsmt start {one.service} runs it"]
    else:
        back = "" if denied is None else f", {instead(denied, one.running, one.parts)}"
        so_far = "" if one.outcome == "applied" else f", {ready}{back}"
        again = "" if one.again is None else f" (r{one.again} again)"
        lines = [f"{one.service}  r{one.revision}{again}  {one.outcome}{so_far}"]
    return lines + [f"  {line}" for line in _acting(one.reason)]


def revisions(one: Service) -> str:
    """What runs of a service, and what was refused."""
    return in_words(one.running, one.refused, one.revision, one.parts)


def loud(state: str) -> str:
    """The state of a service or of the realm: in capitals what something has gone wrong with."""
    return state if state in ("ok", "held", "removing", "starting") else state.upper()


def _ready(one: Service) -> str:
    return f"{one.ready} of {one.wanted}" + (f" ({one.held} held)" if one.held else "")


def _service_below(one: Service, now_ms: int) -> list[str]:
    """Why it is not as it should be, and, of one that is not well, whom to call."""
    whole = f"dsmt why {one.service}"
    refusal = [] if one.refused is None else _acting(one.refused.reason, whole=whole)
    owner = [f"owner: {one.owner}"] if one.owner and one.state in ("degraded", "down") else []
    more = some([f"{name} ({code})" for name, code in one.also.items()])
    others = [f"also: {more}: dsmt status {one.service}"] if one.also else []
    return [*refusal, *_acting(one.reason, _next_try(one.next_try_at, now_ms), whole=whole), *others, *owner]


def _acting(reason: Reason | None, then: str = "", *, whole: str = "") -> list[str]:
    """The reason, who acts and what to type; a long one in short, where a command tells the `whole`."""
    if reason is None:
        return []
    said = reason.message
    if whole and len(said) > REASON_MOST:
        said = f"{cut(said, REASON_MOST)} ({whole} tells all of it)"
    told = [f"{reason.code}: {said}{then}"]
    if reason.next:
        told.append(f"{_ACTS.get(reason.who, reason.who)}: {reason.next}")
    return told


_ACTS = {"dsmt": "dsmt acts; look", "nobody": "nothing is left to do; look"}


def status(told: RealmStatus, sight: Sight, move: Move | None = None) -> str:
    """The screen of `dsmt status`."""
    head = f"realm {told.realm}   {word(loud(told.state))}"
    at = f"{local(sight.now_ms)} {zone(sight.now_ms)}"
    lines = [f"{head}{at:>{max(1, 72 - len(f'realm {told.realm}   {told.state}'))}}"]
    lines += [f"  {name:<9} {one_line(said)}" for name, said in (*_realm(told, sight.now_ms), *_moving(move))]
    if told.services:
        lines += ["", *(f"  {line}" for line in _services(told.services, sight.now_ms))]
    else:
        lines += ["", "  no service is applied yet", f"  {_FIRST}"]
    shown = {one.service for one in told.services}
    rest = [alert for alert in told.alerts if not _is_of(alert, shown)]
    if rest:
        lines.append("")
        for alert in rest[:SICK_MOST]:
            lines += [f"  {alert.target}: {alert.message}", f"    {_ACTS.get(alert.who, alert.who)}: {alert.next}"]
    if len(rest) > SICK_MOST:
        lines.append(f"  and {len(rest) - SICK_MOST} more that are wrong: dsmt status --json tells all")
    view = told.view
    seen = f"{view.brokers_seen} of {counted(view.brokers_total, 'broker')}"
    hidden = _hidden(view.gaps, whole=view.whole)
    lines.append(f"view: {view.age_s:.1f} s old, from broker {view.broker}, {seen}, {hidden}")
    return page(lines)


def _is_of(alert: Alert, services: Collection[str]) -> bool:
    """Whether an alert is of one of these services, or of an instance of it; one may be called `node` or `controllers`."""
    service, *rest = alert.target.split("/")
    whole = not rest and alert.code != "controllers.none"
    return service in services and (whole or (len(rest) == 2 and rest[1].isdigit()))


def _services(found: Sequence[Service], now_ms: int) -> list[str]:
    """The services of `status`: what is wrong first; where many are well these are counted."""
    laid = []
    for one in found:
        row = (one.service, _ready(one), revisions(one), loud(one.state))
        laid.append((one, (row, _service_below(one, now_ms))))
    wrong = sorted((at for at in laid if _is_loud(at[0])), key=lambda at: _urgency(at[0]))
    news = [at for at in laid if not _is_loud(at[0]) and (at[1][1] or at[0].state not in ("ok", "held"))]
    known = {one.service for one, _ in (*wrong, *news)}
    well = [at for at in laid if at[0].service not in known]
    shown = [*wrong, *news][:SICK_MOST] + (well if len(well) <= WELL_MOST else [])
    named = {one.service for one, _ in shown}
    left = Counter(loud(one.state) for one in found if one.service not in named)
    lines = table(("SERVICE", "READY", "REVISION", "STATE"), [cells for _, cells in shown]).split("\n") if shown else []
    if left:
        more = "more " if shown else ""
        lines.append(f"{counted(left.total(), f'{more}service')}: {_summed(left)}; dsmt services lists all")
    return lines


def _summed(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def _urgency(one: Service) -> tuple[bool, bool]:
    """What waits for a person stands first, and what is down before what is degraded."""
    return one.reason is None or one.reason.who != "you", one.state != "down"


def _is_loud(one: Service) -> bool:
    return loud(one.state) != one.state


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
    drained = set(nodes_.drained)
    noted = {
        "DEAD": nodes_.dead,
        "suspect": nodes_.suspect,
        "OUT": nodes_.out,
        "draining": [name for name in nodes_.draining if name not in drained],
        "drained": nodes_.drained,
        "excluded": nodes_.excluded,
    }
    notes = [note for state, names in noted.items() for note in _noted(names, state)]
    yield "nodes", f"{nodes_.alive} of {nodes_.total} alive" + (f"    {', '.join(notes)}" if notes else "")
    leaves = "".join(f"; leaf {leaf} is linked to {above or 'none'}" for leaf, above in told.leaves.items())
    yield "brokers", f"{told.brokers.alive} of {told.brokers.total} alive{leaves}"
    of_controllers = told.controllers
    doubt = f", {of_controllers.in_doubt} not known yet: a broker was lost a moment ago" if of_controllers.in_doubt else ""
    yield "control", f"{of_controllers.alive} of {of_controllers.total} alive{doubt}"
    certs = told.certs
    if certs.next is not None and certs.expires is not None:
        left_ms = milliseconds(certs.expires) - now_ms
        said = "SOON" if not certs.ok else "renew" if certs.renew else "ok"
        if left_ms < 0:
            yield "certs", f"ENDED    {certs.next}, {span(-left_ms)} ago: {another_certificate(certs.next)}"
        else:
            yield "certs", f"{said}    next to renew: {certs.next} in {span(left_ms)}"
    yield "brake", brake_line(told)


def _noted(names: Sequence[str], state: str) -> list[str]:
    """Each node that is in a state; of many the first, and how many more."""
    return [f"{name} {state}" for name in names] if len(names) <= NODES_MOST else [f"{len(names)} {state} ({some(names)})"]


def brake_line(told: RealmStatus) -> str:
    """The brake in one line."""
    brake = told.brake
    if brake.held:
        return f"HELD by {brake.by}{quoted(brake.reason)}; dsmt brake release"
    if brake.on:
        return f"ON: {len(brake.silent)} of {brake.total} nodes went silent at once; dsmt nodes, then dsmt brake release"
    return f"off    {counted(len(brake.silent), 'silent node')}{idle(brake)}, comes on above {brake.acts_above}"


def idle(brake: BrakeSummary) -> str:
    """That only some of the nodes that are dead count, where not all do."""
    dead = len(brake.dead)
    if dead <= len(brake.silent):
        return ""
    return f" with something to replace ({dead} {'is' if dead == 1 else 'are'} dead)"


def overruled(word: OverruledWord) -> str:
    """A line on what somebody has said, of which another word stands in the place."""
    said = f"  overruled: {word.said}, by {word.by}{quoted(word.reason)}"
    return one_line(
        f"{said}; another change came first, on the other side of a partition; repeat this one if you still want it"
    )
