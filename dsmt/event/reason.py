"""Reason codes: the closed list of why something is not as it should be (docs/reference/reasons.md).

Rule 1: a code is stable for ever; its template's fields are named in angle brackets.
Rule 2: `who` acts: `dsmt` repairs itself, `you` must do something, `world` waits for something outside.
Rule 3: a status carries no code that is not in `REASONS`; adding one is free, renaming is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from dsmt.errors import FailedError, InputError

Who = Literal["dsmt", "you", "world"]

MAX_FIELD: Final = 500
"""The characters that one field may add to a message: a reason is a sentence, and must fit into an event."""
WAITS_FOR_DISK: Final = frozenset({"fetch.no_space", "fetch.read_only"})
"""The reasons of what could not be written for now: it waits, and is tried again."""
_FIELD: Final = re.compile(r"<([a-z_]+)>")
_ANNOUNCED: Final = re.compile(r"; parked, [^;]* changes")
"""What `run.flapping` says of what follows."""
_BEFORE_START: Final = ("fetch.", "install.", "start.cannot_exec", "start.driver", "start.port_")


class Template(NamedTuple):
    """One row of the table."""

    message: str
    next: str
    who: Who


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a status is what it is, in a status record. `last_output` is at most 20 lines or 4 KiB."""

    code: str
    message: str
    next: str
    who: Who
    step: str | None = None
    command: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    last_output: str | None = None


REASONS: Final[Mapping[str, Template]] = {
    "place.no_match": Template(
        "no node fits: <n> of <total> pass every clause; <clause> alone removes <k>",
        "dsmt why-not <target>",
        "you",
    ),
    "place.no_room": Template(
        "needs <need>, the most that is free is <best> on <node>", "add a node, or lower `reserve`", "world"
    ),
    "place.port_taken": Template("port <port> is taken on all <n> nodes that fit", "ports: {<name>: auto}", "you"),
    "place.empty_set": Template("node set <set> selects no node now", "dsmt nodeset show <set>", "you"),
    "place.unenforceable": Template(
        "<limit> cannot be enforced on <nodes>: <why>",
        "limits: {enforce: best_effort}, or fix the node",
        "you",
    ),
    "wait.word": Template(
        "something later was said of <target>, or of nodes, that is not known here, or does not stand: "
        "nothing is decided before it comes, or <until>",
        "dsmt why <target>",
        "dsmt",
    ),
    "wait.copy": Template(
        "<node> has a copy of it, and two of it may not run at once: it waits until that one has ended",
        "dsmt node show <node>; if <node> only says so, dsmt cert revoke node/<node>",
        "dsmt",
    ),
    "wait.pinned": Template(
        "its data is on <node>, which <is_now>",
        "bring <node> back, or dsmt move <target> --accept-data-loss",
        "you",
    ),
    "wait.node": Template(
        "nothing is known of <node>, where it is to run; it has until <until> to come back",
        "bring <node> back, or dsmt node remove <node> --forget",
        "you",
    ),
    "wait.spec": Template(
        "<rev> is not to be had: its broker does not have it, or the key with which it was applied was revoked",
        "dsmt history <service>, then dsmt apply FILE",
        "you",
    ),
    "wait.brake": Template(
        "replacing is on hold: <k> of <n> nodes went silent at once",
        "dsmt nodes, then dsmt brake release",
        "you",
    ),
    "hold.operator": Template("stopped by <by> at <time>: <their>", "dsmt start <target>", "you"),
    "hold.local": Template("stopped on <node> by <by> at <time>, with --local: <their>", "dsmt start <target>", "you"),
    "node.lost": Template("<node> is dead since <time>: <evidence>", "dsmt why node/<node>", "dsmt"),
    "node.drained": Template("moved off <node>: drain by <by>: <their>", "dsmt node include <node>", "dsmt"),
    "node.rebooted": Template("<node> started anew at <time>", "", "dsmt"),
    "node.stale": Template("no report for <age>, 3x its <rate>: state unknown", "dsmt node show <node>", "world"),
    "node.clock": Template("<node>'s wall clock is <offset> off; realm time is used", "fix time there", "you"),
    "node.files": Template(
        "<path> cannot be <done>: <error>",
        "see to it on <node>",
        "you",
    ),
    "fetch.unreachable": Template("cannot reach <host>: <error>", "", "world"),
    "fetch.not_found": Template("<url> does not exist (<status>)", "correct `artifact.url`", "you"),
    "fetch.denied": Template("<url> refused us (<status>)", "check credentials", "you"),
    "fetch.mismatch": Template("<url> has sha256 <got>, declared <want>; not used", "find out who changed it", "you"),
    "fetch.no_space": Template("<need> needed, <free> free on <node> <path>", "free space there", "you"),
    "fetch.read_only": Template(
        "<path> on <node> cannot be written: its disk is read-only",
        "see what is wrong with it, and mount it writable",
        "you",
    ),
    "install.unpack": Template("<file> cannot be unpacked: <error>", "check the archive", "you"),
    "install.command": Template("<step> command ended with <code> after <time>", "dsmt logs <target> --step <step>", "you"),
    "install.cut": Template(
        "<step> is cut off again and again, each time by the end of the agent that does it",
        "dsmt logs <target> --step <step>",
        "you",
    ),
    "install.user": Template("cannot become <user>: <error>", "run <node> as root, or leave `user` out", "you"),
    "start.cannot_exec": Template("<program> in <dir>: <error>", "correct `run` or `directory`, or `chmod +x`", "you"),
    "start.port_in_use": Template("port <port> is held by <holder>", "stop it, or write `auto` for this port", "world"),
    "start.port_denied": Template(
        "only root may listen at port <port> on <node>",
        "write `auto`, or a port from 1024 on; or run <node> as root",
        "you",
    ),
    "start.timeout": Template("not ready <time> after start; last check: <result>", "dsmt logs <target> --previous", "dsmt"),
    "start.exited": Template(
        "exited with <code> <time> after start, before it was ready", "dsmt logs <target> --previous", "dsmt"
    ),
    "start.unheard": Template(
        "its agent, process <pid> on <node>, has said nothing since it began <time> ago; it reaches no broker, or hangs",
        "on <node>: kill -9 <pid>, if ps -p <pid> names dsmt there; another agent is then started",
        "you",
    ),
    "start.driver": Template("the driver <driver> cannot start it: <error>", "dsmt node show <node>", "you"),
    "run.exited": Template("exited with code <code> after <time>", "dsmt logs <target> --previous", "dsmt"),
    "run.signal": Template("killed by <signal> after <time>, not by dsmt", "dsmt logs <target> --previous", "dsmt"),
    "run.vanished": Template(
        "its process was gone when the agent came back; nobody saw how", "kernel log on <node>", "dsmt"
    ),
    "run.unseen": Template("ended after <time>; nobody saw how", "kernel log on <node>", "dsmt"),
    "run.watchdog": Template(
        "not heard for <time> while its node was; ended and started again", "dsmt why <target>", "dsmt"
    ),
    "run.unheard": Template(
        "its agent has been silent for <time> while its node was heard: how it is now is not known",
        "dsmt node show <node>",
        "dsmt",
    ),
    "run.flapping": Template(
        "failed <n> times in <time>, the last time: <last>; parked, tried again after <pause> or when <cause> changes",
        "dsmt why <target>, then dsmt retry <target>",
        "you",
    ),
    "health.not_ready": Template("<check> failed <n> times: <result>", "dsmt logs <target>", "dsmt"),
    "health.not_live": Template(
        "<check> failed <n> times: <result>; being restarted", "dsmt logs <target> --previous", "dsmt"
    ),
    "health.braked": Template("<k> of <n> fail the same check; restarting one at a time", "look at what they share", "you"),
    "health.check_broken": Template("the check itself cannot run: <error>", "correct `health`", "you"),
    "stop.killed": Template("did not stop in <grace>; killed", "raise `stop.grace`", "dsmt"),
    "stop.stuck": Template("pid <pid> does not die (state <state>)", "look at <node>'s storage", "you"),
    "stop.leftover": Template("`uninstall` failed: <error>; <path> remains", "remove it by hand", "you"),
    "rollout.rolled_back": Template("<rev> failed (<its>); back on <good>", "dsmt diff FILE", "you"),
    "rollout.failed": Template(
        "<rev> was tried in <instance>, and was not good there: it goes no further until it is, or another one is applied",
        "dsmt why <instance>",
        "you",
    ),
    "rollout.held": Template(
        "<rev> was being tried in <instance>, which was stopped by hand: it goes no further until it is good there",
        "dsmt start <instance>",
        "you",
    ),
    "trust.denied": Template("<name> may not publish <topic>", "dsmt trust export", "you"),
    "dsmt.bug": Template("internal error <id> in <module>; the part restarts", "report it with <id>", "dsmt"),
}


def reason(
    code: str,
    /,
    *,
    step: str | None = None,
    command: str | None = None,
    exit_code: int | None = None,
    signal: str | None = None,
    last_output: str | None = None,
    **fields: object,
) -> Reason:
    """A reason of the list, its template filled with `fields`; `<code>` is the exit code or else the signal.

    Raises `InputError` for a code that is not in it.
    """
    template = REASONS.get(code)
    if template is None:
        raise InputError("reason.code", f"{code} is no reason code", next="add it to dsmt/event/reason.py")
    known = {"code": signal if exit_code is None else exit_code, "signal": signal, "step": step, **fields}
    return Reason(
        code=code,
        message=filled(template.message, known),
        next=filled(template.next, known),
        who=template.who,
        step=step,
        command=command,
        exit_code=exit_code,
        signal=signal,
        last_output=None if last_output is None else _tail(last_output),
    )


def failed(code: str, *, advice: str = "", **fields: Any) -> FailedError:
    """The error of a reason code, its sentence filled with `fields`, which the error carries as well.

    `advice` stands in the place of what the list says to do, where more is known.
    """
    told = reason(code, **fields)
    return FailedError(code, told.message, next=advice or told.next, **fields)


def filled(text: str, fields: Mapping[str, object]) -> str:
    """A text in which each `<name>` that `fields` knows is replaced."""

    def value_of(found: re.Match[str]) -> str:
        value = fields.get(found[1])
        return found[0] if value is None else str(value)[:MAX_FIELD]

    return _FIELD.sub(value_of, text)


def is_before_start(code: str) -> bool:
    """Whether what has failed for this reason has begun no program: there is no run of it, and nothing that it wrote."""
    return code.startswith(_BEFORE_START)


def happened(why: Reason) -> str:
    """What a reason says has happened, without the next try that it announces: for where there is none any more."""
    return _ANNOUNCED.sub("", why.message, count=1)


def _tail(output: str) -> str:
    lines = "\n".join(output.splitlines()[-20:])
    return lines.encode(errors="replace")[-4096:].decode(errors="ignore")
