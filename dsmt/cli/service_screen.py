"""The screen of `dsmt status SERVICE`: what is wrong with it, what dsmt does next, what you can do, what happened last."""

from __future__ import annotations

from collections.abc import Sequence

from dsmt.cli import screens
from dsmt.cli.printing import columns, fitted, one_line, page, table, word
from dsmt.event.envelope import Event
from dsmt.event.phrases import counted, quoted, speaker
from dsmt.event.reason import is_before_start
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.controller_rows import is_undecided
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import is_problem
from dsmt.operations.read.screens.summaries import Service
from dsmt.operations.words.sentences import predicate, subject
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import local, milliseconds, span, zone

LAST_EVENTS = 8
_OUTPUT_LINES = 5
_ROOM = 66
_SAID = 48
_LEAST = 16
"""What is left of a sentence however narrow the terminal is."""
_STEPS = {"restart": "restarts it", "reinstall": "reinstalls it", "recreate": "makes a new container for it"}


def screen(
    found: Service,
    rows: Sequence[InstanceRow],
    events: Sequence[Event],
    *,
    sight: Sight,
    realm: str,
    part: Target | None = None,
) -> str:
    """One service, or a part of it, in one screen."""
    target = part or Target(found.service)
    state = word(screens.loud(found.state))
    ready = f"{found.ready} of {found.wanted} ready" + (f", {found.held} held" if found.held else "")
    lines = [f"{target}   {state}   {ready}      realm {realm}   {local(sight.now_ms)} {zone(sight.now_ms)}"]
    applied = f"applied {screens.age(found.at, sight.now_ms)} ago by {found.by}{quoted(found.note)}"
    lines.append(f"  revision  {screens.revisions(found)}, {applied}")
    if found.refused is not None and found.refused.reason is not None:
        lines.append(f"  refused   {found.refused.reason.message}")
    lines += [f"  restart   {_to_restart(found)}"] if found.to_restart else []
    lines += [f"  owner     {found.owner}"] if found.owner else []
    lines += [f"  about     {found.description}"] if found.description else []
    lines += [f"  limits    {said}" for said in found.limits]
    decided = not is_undecided(sight)
    undecided = "no controller is alive: nothing is placed or repaired elsewhere; dsmt controllers"
    lines += [] if decided else [f"  control   {undecided}"]
    header = ("INSTANCE", "STATE", "HEALTH", "NODE", "PORTS", "RESTARTS", "SINCE")
    laid = [(_cells(row, sight.now_ms), ()) for row in rows]
    lines += ["", *(f"  {one}" for one in table(header, laid).splitlines())]
    if not rows and found.reason is not None:
        lines += ["", f"  {found.reason.message}   {found.reason.code}", *_you([found.reason.next])]
    for row in rows:
        if is_problem(sight, row) or row.held is not None:
            lines += ["", *sick(row, sight.now_ms, decided=decided)]
        if row.working is not None:
            lines += ["", f"  {row.component}/{row.index}: {screens.working(row, sight.now_ms)}"]
            lines += _you([one for one in (screens.logged(row),) if one])
        if row.serving is not None:
            lines += ["", f"  {row.component}/{row.index}: {row.serving.told(row.node)}"]
        if row.startup_news:
            lines += ["", f"  {row.component}/{row.index}: {row.startup_news}"]
            lines += [] if is_problem(sight, row) else _you([f"dsmt logs {row.instance}"])
    lines += ["", f"  {'LAST EVENTS':<40} dsmt tail {' '.join(target.patterns)}", *_events(found.service, events)]
    return page([*lines, screens.freshness(sight)])


def _to_restart(found: Service) -> str:
    """Which restarts are to come, and when."""
    first = found.to_restart[0].partition("/")[2]
    more = f" and {len(found.to_restart) - 1} more" if len(found.to_restart) > 1 else ""
    return f"to come: {first}{more}, once what was restarted before is ready"


def _cells(row: InstanceRow, now_ms: int) -> tuple[str, ...]:
    _, state, health, node, _, ports, restarts, since = screens.cells(row, now_ms)
    return f"{row.component}/{row.index}", state, health, node, ports, restarts, since


def sick(row: InstanceRow, now_ms: int, *, decided: bool = True) -> list[str]:
    """What is wrong with an instance, what dsmt does about it, if any controller decides, and what you can."""
    name = f"{row.component}/{row.index}"
    if row.held is not None:
        return [f"  {name}: {screens.held(row.held, now_ms)}", f"    you    | dsmt start {row.instance}"]
    why, then = row.reason, f"    dsmt   | {next_act(row, now_ms, decided=decided)}"
    previous = "" if row.state is Shown.RUNNING else " --previous"
    commands = [f"dsmt why {row.instance}"]
    nowhere = row.node is None or (why is not None and is_before_start(why.code))  # without a node nobody is asked
    commands += [] if nowhere else [f"dsmt logs {row.instance}{previous}"]
    if why is None:
        return [f"  {name}: {row.state}", then, f"    you    | {commands[0]}"]
    recent = f", {counted(row.restarts_recent, 'failure')} lately" if row.restarts_recent else ""
    lines = [f"  {name}: {why.message}{recent}   {why.code}"]
    ended = None if row.last_exit is None or row.state is Shown.RUNNING else row.last_exit.reason  # not of what runs
    output = why.last_output or (None if ended is None else ended.last_output)
    lines += [f"    stderr | {line}" for line in (output or "").splitlines()[-_OUTPUT_LINES:]]
    lines.append(then)
    told = [one for one in commands if one not in why.next]
    return [*lines, *_you([one_line(one) for one in (why.next, *told) if one])]


def _you(commands: Sequence[str]) -> list[str]:
    """What you can type: on one line where there is room, else on one each."""
    line = "      ".join(commands)
    lines = [line] if len(line) <= _ROOM else commands
    return [f"    {'you' if place == 0 else '':<6} | {one}" for place, one in enumerate(lines)]


_UNHEARD = "starts its agent again if that stays silent; the program is left alone"
_APART = "waits until that broker is heard again, or its agent comes to another one"


def next_act(row: InstanceRow, now_ms: int, *, decided: bool = True) -> str:
    """What dsmt does next about an instance that is not as it should be."""
    left = 0 if row.next_try_at is None else milliseconds(row.next_try_at) - now_ms
    soon = f"in {span(left)}" if left > 0 else "now"
    number = f" (try {row.failures + 1} of {row.tries})" if row.tries is not None and row.failures < row.tries else ""
    match row.state:
        case Shown.BACKOFF:
            again = f"{_STEPS.get(row.next_step or '', 'tries again')} {soon}{number}"
            return f"tries {soon} to begin its agent" if row.agentless else again
        case Shown.PARKED:
            return f"tries it again {soon}; at once: dsmt retry {row.instance}"
        case Shown.FAILED:
            return "does nothing more: `restart` allows no further try"
        case Shown.INSTALLING | Shown.STARTING if row.failures:
            return f"is trying it again{number}"
        case Shown.RUNNING | Shown.STARTING if row.state is Shown.RUNNING or row.startup is not None:
            until = "" if row.health == "ready" else "; nothing is sent to it until it is ready"
            return (_APART if row.is_apart else _UNHEARD) if row.is_unheard else f"goes on checking{until}"
    if row.reason is not None and row.reason.code == "wait.brake":
        return "waits until the brake is off"
    if not decided and (row.node is None or row.state is Shown.LOST):
        return "waits until a controller is alive"
    own = {"you": "does nothing until you act", "world": "waits, and goes on by itself"}
    return own.get("" if row.reason is None else row.reason.who, "goes on by itself")


def _what(event: Event, said: str) -> tuple[object, object]:
    """What an event says that may be news: a state with its beginning or, of what has none, the sentence."""
    since = event.data.get("since_ms")
    return (said, None) if since is None else (event.data.get("state", event.data.get("health")), since)


def _events(service: str, events: Sequence[Event]) -> list[str]:
    """The last events in the order in which they were said; what says the same again is left out."""
    before: dict[str, tuple[object, object]] = {}
    lines = []
    for event in sorted(events, key=lambda event: event.time):
        said = predicate(event)
        now = _what(event, said)
        if before.get(event.topic) == now:
            continue
        before[event.topic] = now
        about = subject(event).removeprefix(f"{service}/")
        who = speaker(event.source)
        head = f"  {local(event.time_ms, milli=True)}  {about:<8} "
        width = columns()
        room = None if width is None else max(_LEAST, width - len(head) - len(who) - 2)
        text = fitted(one_line(said), room)
        lines.append(f"{head}{text:<{_SAID if room is None else min(_SAID, room)}}  {who}")
    return lines[-LAST_EVENTS:]
