"""Answers: the one sentence that answers "why": how a target is now, and the nearest event that made it so. Pure.

Rule 1: how it is, is what `ps`, `nodes` and `controllers` show of it.
Rule 2: what made it so is the nearest cause that somebody or something from outside brought about: a failure, a verdict,
    an operator's word; not what followed from it by itself. Where its node was started anew since, and its run began after
    that, it is the node's start; and where an operator took the node down before, that word.
    What is not ready for a check that fails now is so for that, whoever brought it about that it runs.
Rule 3: what has caused something and is so no more is told in the past. What was said since a run began is told beside it:
    it is not why that run began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dsmt.event.envelope import Event, EventId, SignedEvent
from dsmt.event.kinds.slot import SlotControl
from dsmt.event.phrases import in_retrospect, quoted, stepped, whose
from dsmt.event.reason import is_before_start
from dsmt.event.records import readable
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances, is_problem, serves
from dsmt.operations.read.rows.node_rows import find_node, manager_away, node_row
from dsmt.operations.read.rows.outside import Used
from dsmt.operations.read.rows.revisions import by_component, refused, refused_and_runs, running
from dsmt.operations.words.sentences import predicate, sentence, subject
from dsmt.operations.words.targets import Target, member_of
from dsmt.operations.words.times import local, milliseconds, span

Found = Mapping[EventId, SignedEvent]

_BROUGHT: Final = frozenset(
    {
        "dsmt.tombstone",
        "dsmt.node.verdict",
        "dsmt.node.control",
        "dsmt.slot.control",
        "dsmt.service.spec",
        "dsmt.command",
        "dsmt.config.brake",
    }
)

_UNREADY: Final = frozenset({"health.not_ready", "health.braked", "health.check_broken"})
"""The reasons of one that runs and is not ready."""


def of_target(sight: Sight, target: str, begin: Sequence[SignedEvent], found: Found, used: Used) -> str:
    """The sentence for a target, whose explanation begins at `begin` and stands on `found`."""
    kind, name = member_of(target)
    if kind == "node":
        return f"{_of_node(sight, name, used)}{_down(target, begin)}"
    if kind:
        return f"{_of_source(sight, target, begin)}{_down(target, begin)}"
    parsed = Target.parse(target)
    rows = instances(sight, parsed, everything=parsed.index is not None)
    if parsed.index is not None and rows:
        return _of_row(sight, rows[0], begin, found)
    news = [row for row in rows if row.startup_news or row.serving is not None]
    sick = [row for row in rows if is_problem(sight, row)] or news
    if not rows:
        return sentence(begin[0].event)
    count = f"{sum(serves(sight, row) for row in rows)} of {len(rows)}"
    if sick:
        return f"{target}: {count} ready; {_of_row(sight, sick[0], begin, found)}"
    cause = _brought(begin, found)
    if cause is None:
        return f"{target}: {count} ready"
    back = _gone_back_in(sight, parsed, rows, cause)
    if back or cause.type == "dsmt.status":
        failed = next((row for row in rows if row.instance == subject(cause)), None)  # and is well again
        now = sentence(cause) if failed is None else _of_row(sight, failed, begin, found)
        return f"{target}: {count} ready; {back or now}"
    return f"{target}: {count} ready, because {_started_anew(sight, rows[0], cause, begin) or _cause(sight, cause)}"


def first_row(sight: Sight, target: Target) -> InstanceRow | None:
    """The instance that answers for a target: a sick one before any other."""
    rows = instances(sight, target, everything=target.index is not None)
    return next((row for row in rows if is_problem(sight, row)), rows[0] if rows else None)


def _down(source: str, begin: Sequence[SignedEvent]) -> str:
    """Which operator took a source down, and when; empty where nobody did."""
    said = [signed.event for signed in begin if signed.event.topic == f"{source}/down"]
    if not said:
        return ""
    by, reason = whose(said[0].data.get("by", ""), said[0].source), said[0].data.get("reason", "")
    return f"; {by} took it down at {local(said[0].time_ms)}{quoted(reason)}"


def _since(sight: Sight, ms: int | None) -> str:
    return "" if ms is None else f" since {local(ms)} ({span(sight.now_ms - ms)})"


def _of_row(sight: Sight, row: InstanceRow, begin: Sequence[SignedEvent], found: Found) -> str:
    of_it = (row.instance, f"service/{row.service}")  # the latter: a removal
    own = [signed for signed in begin if subject(signed.event) in of_it] or begin
    cause = _brought(own, found)
    since = _since(sight, None if row.since is None else milliseconds(row.since))
    where = f" on {row.node}" if row.node is not None else ""
    again = cause is not None and _has_run(cause) and not _gone_back(sight, row, cause)
    ready = {"ready": " and is ready", "unready": " and is not ready"}.get(row.health, "")
    is_ = "has been" if since else "is"
    match row.state:
        case Shown.RUNNING:
            how = f"{'has been running' if since else 'runs'}{where}{' again' if again else ''}{since}{ready}"
        case Shown.BACKOFF:
            how = f"failed{where}{since.replace(' since ', ' at ')}, and dsmt tries again"
        case Shown.FAILED:
            how = f"failed{where}{since.replace(' since ', ' at ')}"
        case Shown.WAITING if row.node is None:
            how = f"{'has had' if since else 'has'} no node{since}"
        case Shown.WAITING:
            how = f"{'has been waiting' if since else 'waits'} for {row.node}{since}"
        case Shown.LOST:
            how = f"{is_} lost with {row.node}{since}"
        case _:
            how = f"{is_} {row.state.value}{where}{since}"
    return f"{row.instance} {how}{_because(sight, row, cause, begin)}{_at_work(sight, row)}{_unheard(row)}{_served(row)}"


def _has_run(cause: Event) -> bool:
    """Whether a cause is the failure of something that had run, and not of what was to start it."""
    return cause.type == "dsmt.status" and not is_before_start((cause.data.get("reason") or {}).get("code", ""))


def _at_work(sight: Sight, row: InstanceRow) -> str:
    if row.startup_news:
        return f"; {row.startup_news}"
    if row.working is None or row.working.since is None:
        return ""
    return f"; {stepped(row.working.step)} has been running{_since(sight, milliseconds(row.working.since))}"


def _served(row: InstanceRow) -> str:
    return "" if row.serving is None else f"; {row.serving.told(row.node)}"


def _unheard(row: InstanceRow) -> str:
    if row.reason is None or not row.is_unheard or row.state is not Shown.RUNNING:
        return ""
    return f"; {row.reason.message}"


def _because(sight: Sight, row: InstanceRow, cause: Event | None, begin: Sequence[SignedEvent]) -> str:
    if row.reason is not None and (row.state is not Shown.RUNNING or row.reason.code in _UNREADY):
        return f": {row.reason.message}{_down(f'node/{row.node}', begin)}"
    if cause is None:
        return ""
    if back := _gone_back(sight, row, cause):
        return f": {back}"
    if cause.type == "dsmt.status":
        why = (cause.data.get("reason") or {}).get("message")
        return f": {why}; dsmt {'restarted it' if _has_run(cause) else 'tried again'}" if why else ""
    if anew := _started_anew(sight, row, cause, begin):
        return f", because {anew}"
    ran_before = row.state is Shown.RUNNING and row.since is not None and milliseconds(row.since) < cause.time_ms
    because = "; " if ran_before else ", because "
    if subject(cause) != row.instance:
        return f"{because}{_cause(sight, cause)}"
    return f"{because}{_asked(cause, 'it') or f'it {predicate(cause)}'}"


def _asked(cause: Event, it: str) -> str:
    """Which move or start an operator asked for by a word: the later of both. Empty for all else."""
    will = readable(SlotControl, cause.data) if cause.type == "dsmt.slot.control" else None
    if will is None or will.hold is not None or not (will.moves_last or will.restart):
        return ""
    moves = f"to move{f' to {will.move}' if will.move else ''}"
    what = moves if will.moves_last else "to be started anew"
    return f"{whose(will.by, cause.source)} asked for {it} {what}{quoted(will.reason)}"


def _cause(sight: Sight, cause: Event) -> str:
    """What a cause says (rule 3)."""
    said = _asked(cause, subject(cause)) or sentence(cause)
    node = cause.topic.split("/")[1]
    if cause.type == "dsmt.node.verdict":
        verdict, said = sight.fleet.verdict(node), in_retrospect(said)
        return said if verdict is not None and verdict.id == cause.id else said.replace(" is dead: ", " was dead: ", 1)
    if cause.type == "dsmt.node.control":
        entry = sight.view.nodes.get(node)
        stands = entry is not None and entry.control is not None and entry.control.id == cause.id
        return said if stands else said.replace(" drains, says", " was drained by", 1)
    return said


def _started_anew(sight: Sight, row: InstanceRow, cause: Event, begin: Sequence[SignedEvent]) -> str:
    """That its node was started anew since the cause, and its run began then; empty where not (rule 2).

    Where the run before has ended since its node was, that start has begun another one, as `start --local` does.
    """
    newest = sight.newest_session(f"node/{row.node}")
    if newest is None or row.since is None or row.state is Shown.GONE or cause.type in ("dsmt.status", "dsmt.command"):
        return ""
    began_ms = newest.record.incarnation
    if row.last_exit is not None and row.last_exit.at is not None and milliseconds(row.last_exit.at) >= began_ms:
        return ""
    anew = f"{row.node} has been started anew{_down(f'node/{row.node}', begin)}"
    return anew if cause.time_ms < began_ms <= milliseconds(row.since) else ""


def _gone_back(sight: Sight, row: InstanceRow, cause: Event) -> str:
    """That another revision runs, where the cause is of the one that was refused, its failure or its word; else empty."""
    entry = sight.view.services.get(row.service)
    denied = None if entry is None else refused(entry)
    if entry is None or denied is None or row.revision == denied.revision or entry.refusal(row.component) is None:
        return ""
    said, instead = f"r{denied.revision} was refused", f"and r{row.revision} runs instead"
    if cause.type == "dsmt.service.spec" and cause.version != row.revision:
        return f"{said}, {instead}{'' if denied.reason is None else f': {denied.reason.message}'}"
    if cause.type != "dsmt.status" or cause.data.get("generation", 0) >= row.generation:
        return ""
    why = (cause.data.get("reason") or {}).get("message")
    return f"{said}{f' ({why})' if why else ''}, {instead}"


def _gone_back_in(sight: Sight, target: Target, rows: Sequence[InstanceRow], cause: Event) -> str:
    """The same for all of a target; of a service also what those components run that have not refused it."""
    found = next((said for row in rows if (said := _gone_back(sight, row, cause))), "")
    entry = sight.view.services.get(target.service)
    denied = None if entry is None else refused(entry)
    if entry is None or denied is None or not found or not denied.by or target.component is not None:
        return found
    said, others = refused_and_runs(denied, running(entry), by_component(entry))
    return f"{others}; {said}{'' if denied.reason is None else f': {denied.reason.message}'}"


def _brought(begin: Sequence[SignedEvent], found: Found) -> Event | None:
    """The nearest cause from outside (rule 2)."""
    level, seen = [signed.event for signed in begin], set[EventId]()
    while level:
        for event in level:
            if event.type in _BROUGHT or (event.type == "dsmt.status" and event.data.get("state") == "failed"):
                return event
        seen.update(event.id for event in level)
        ids = dict.fromkeys(cause for event in level for cause in event.cause if cause in found and cause not in seen)
        level = [found[one].event for one in ids]
    return None


def _of_node(sight: Sight, name: str, used: Used) -> str:
    entry = find_node(sight, name)
    row = node_row(sight, entry, used)
    verdict = sight.fleet.verdict(name)
    words = sight.fleet.words(name)
    since_ms = verdict.record.since_ms if verdict is not None else words[0].since_ms if words else None
    since = _since(sight, since_ms)
    if row.out is not None:
        in_or_out = "there twice" if row.out.why == "twice" else "let in no more"
        how = f"node/{name} is {row.liveness}, and {in_or_out}: {row.evidence}"
    elif row.evidence is None and words:
        is_ = f", connected to {words[0].broker}" if words[0].state == "open" else f", though {manager_away(words[0])}"
        how = f"node/{name} is {row.liveness}{is_}{since}"
    else:
        how = f"node/{name} {'has been' if since else 'is'} {row.liveness}{since}" + (
            f": {row.evidence}" * bool(row.evidence)
        )
    last = entry.verdict
    if verdict is None and last is not None and last.record.state == "dead":
        how = f"{how}; it was dead from {local(last.record.since_ms)}: {in_retrospect(last.record.message)}"
    return how if row.mode_by is None else f"{how}; it is {row.mode} by {row.mode_by}{quoted(row.mode_reason)}"


def _of_source(sight: Sight, source: str, begin: Sequence[SignedEvent]) -> str:
    """A broker or a controller: whether it is there, since when, and as which process.

    Of a broker those that are linked with it tell; what one that is gone has said of it last is nothing.
    """
    kind, _, name = source.partition("/")
    said = sight.fleet.word_of(source)
    if kind == "broker":
        lost_ms = sight.fleet.lost_brokers.get(name)
        if lost_ms is not None:
            away = f"has not been alive{_since(sight, lost_ms)}, as {sight.broker} sees it"
            return f"{source} {away}; dsmt brokers asks it why"
        said = None if said is not None and said.state == "unknown" else said
    started = next((signed.event for signed in begin if signed.event.type == "dsmt.source.started"), None)
    again = "" if started is None or started.data.get("previous_incarnation") is None else "; it had run before"
    version = "" if started is None else f", version {started.data.get('version')}"
    since_ms = said.since_ms if said is not None and said.state != "open" else None if started is None else started.time_ms
    since = _since(sight, since_ms)
    is_ = "has been" if since else "is"
    if said is not None and said.state != "open":
        return f"{source} {is_} {said.state}{since}: {predicate(said.held.signed.event)}"
    return f"{source} {is_} up{since}{version}{again}"
