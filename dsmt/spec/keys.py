"""The one table of keys of a service file: type, default and one line for each.

Parsing, validation, JSON Schema, `dsmt explain` and the documentation are all made from it.
"""
# ruff: noqa: E501 - a row of a table stays one line

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dsmt.spec.drivers import BUILT, DRIVERS
from dsmt.spec.shapes import (
    CEL,
    COMMAND,
    DURATION,
    FLAG,
    LONGEST_DURATION_S,
    NAME,
    PATH,
    PORT_NAME,
    SHARE,
    SIZE,
    TEXT,
    Health,
    ListOf,
    MapOf,
    Nested,
    Shape,
    Single,
    Step,
    WholeOr,
    Word,
    suffix,
)

MOST_INSTANCES: Final = 100_000
ESCALATION: Final = ("restart", "reinstall", "recreate", "move")


class SpecKey(msgspec.Struct, frozen=True):
    """One key: where it stands, what it may hold, what it means.

    `default` is written as in a file; None means that it has none, or that `note` tells how it is computed.
    `named` replaces the record's field name, which is else `name` with its unit; `alias` is accepted as well.
    """

    group: str
    name: str
    shape: Shape
    default: Any
    text: str
    required: bool = False
    note: str = ""
    named: str = ""
    alias: str = ""

    @property
    def field(self) -> str:
        """The record's field: the key with its unit (`grace_s`, `memory_bytes`)."""
        return self.named or self.name + suffix(self.shape)


def _whole(low: float, high: float = 1_000_000) -> Single:
    return Single("whole", low, high)


def _duration(low: float, high: float = LONGEST_DURATION_S) -> Single:
    return Single("duration", low, high)


_REAL: Final = Single("real", 0, 1_000_000)
_EXIT: Final = _whole(0, 255)
_ARTIFACTS: Final = ListOf(Nested("artifact", "url"), lone=True)
_AFTER: Final = ListOf(Nested("after", "component"), lone=True)

# fmt: off
_SERVICE: Final = (
    SpecKey("service", "service", NAME, None, "name of the service; unique in the realm; never changes", required=True),
    SpecKey("service", "description", TEXT, "", "one line shown in `status`"),
    SpecKey("service", "owner", TEXT, "", "whom to call; goes into every alert of this service"),
    SpecKey("service", "labels", MapOf(TEXT, "label"), {}, "any you like; `ps -l` filters by them, and `{label.KEY}` is one of them; no effect on placement"),
    SpecKey("service", "kind", Word(("service", "job"), ("service",)), "service", "keep it running, or run it to its end (per component: `kind`)"),
    SpecKey("service", "defaults", Nested("component"), None, "put under every component of this file; the component's own value wins", note="{}"),
    SpecKey("service", "components", MapOf(Nested("component"), "name"), None, "at least one", required=True),
    SpecKey("service", "barriers", MapOf(Nested("barrier"), "name"), {}, "named meeting points"),
    SpecKey("service", "expires", _duration(1), None, "term after which all is torn down unless `dsmt renew` extends it", alias="lease"),
    SpecKey("service", "keep_revisions", _whole(1, 100), 10, "revisions kept for `history`, `rollback`, `get`"),
)
_WHAT: Final = (
    SpecKey("component", "kind", Word(("service", "job"), ("service",)), None, "keep it running, or run it to its end", note="the service's"),
    SpecKey("component", "run", COMMAND, None, "the long-running program, in the foreground", note="required unless `image` has one"),
    SpecKey("component", "driver", Word(tuple(DRIVERS), BUILT), None, "how it is contained", note="`process`; `podman` when `image` is given"),
    SpecKey("component", "image", Single("image"), None, "for `podman`; a tag is resolved to its digest at `apply` and shown in `plan`"),
    SpecKey("component", "artifact", _ARTIFACTS, [], "what is fetched before `install`; a string is its `url`", named="artifacts"),
    SpecKey("artifact", "url", Single("url"), None, "a path is relative to this file and is put into the depot by `apply`; or `https:`, `depot:`", required=True),
    SpecKey("artifact", "sha256", Single("sha256"), None, "what is fetched must have it", note="computed for a path, else required"),
    SpecKey("artifact", "signature", TEXT, None, "path or `https:` of a minisign or COSE signature that must verify too, by a key of the realm"),
    SpecKey("artifact", "unpack", Word(("auto", "no", "tar", "zip")), "auto", "by content, not by name: a wheel or a jar is a zip, which `no` keeps whole; `..`, absolute paths and devices are refused"),
    SpecKey("artifact", "strip", _whole(0, 100), 0, "leading path parts to drop"),
    SpecKey("artifact", "to", PATH, ".", "a directory inside the instance's own; a plain file keeps its name there"),
    SpecKey("artifact", "mode", Single("octal"), "0755", "of one plain file, as quoted octal"),
    SpecKey("component", "install", COMMAND, None, "once for each revision on a node, after unpacking; must be safe to repeat"),
    SpecKey("component", "configure", COMMAND, None, "after `install` and whenever `files`, `env` or `secrets` change"),
    SpecKey("component", "uninstall", COMMAND, None, "when the slot leaves the node; its failure is reported but blocks nothing"),
    SpecKey("component", "install_timeout", _duration(0.1), "10m", "for fetch + unpack, and for each of install, configure and uninstall; what takes longer is ended, and has failed"),
    SpecKey("component", "directory", Single("directory"), ".", "working directory, relative to the instance's own"),
    SpecKey("component", "data", Single("flag_or_size"), False, "`{data}`: a directory that survives restart, update and reinstall on this node, which the instance then never leaves of its own accord; a size is a quota where it can be enforced"),
    SpecKey("component", "env", MapOf(Single("env"), "variable"), {}, "string, number or `{file: PATH}` read on the node at start; `null` removes an inherited one"),
    SpecKey("component", "inherit_env", ListOf(Single("variable")), ["PATH", "LANG", "TZ", "HOME"], "nothing else leaks in from the container manager"),
    SpecKey("component", "secrets", MapOf(Nested("secret"), "variable"), {}, "into the environment, or into a file; sealed to the node; never shown, never in history in clear"),
    SpecKey("secret", "secret", NAME, None, "name of a secret of the realm"),
    SpecKey("secret", "file", TEXT, None, "a file on the node, read at start"),
    SpecKey("secret", "to", PATH, None, "write it into this file (0400) instead of the environment"),
    SpecKey("component", "files", ListOf(Nested("file")), [], "small text files written by `configure`"),
    SpecKey("file", "to", PATH, None, "inside the instance's directory", required=True),
    SpecKey("file", "content", TEXT, None, "the text"),
    SpecKey("file", "from", TEXT, None, "a path relative to this file, read by `apply`", named="source"),
    SpecKey("file", "mode", Single("octal"), "0644", "quoted octal"),
    SpecKey("file", "template", FLAG, False, "fill in placeholders"),
    SpecKey("component", "user", Single("user"), None, "name, or uid[:gid], that the program, its commands and its exec checks run as; any but the node's own needs root there; files that another user has left in `{data}` stay that one's. A program that changes its user itself, as nginx does for its workers, can read its directory only as this one", note="the manager's own"),
    SpecKey("component", "logs", Nested("logs"), {}, "rotation on the node"),
    SpecKey("logs", "size", SIZE, "10MiB", "a log file is rotated at this size"),
    SpecKey("logs", "keep", _whole(0, 1000), 5, "rotated files kept"),
    SpecKey("logs", "rate", SIZE, "1MiB", "per second; the excess is dropped and counted"),
)
_WHERE: Final = (
    SpecKey("component", "instances", WholeOr("each_node", 0, MOST_INSTANCES), 1, "N of them, or one on every node that fits"),
    SpecKey("component", "nodes", Single("node_set"), "all_nodes", "candidates: a node set's name or expression, as in `limit(minus(all_nodes, failed), 10)`", alias="plan"),
    SpecKey("component", "requires", ListOf(CEL, lone=True), [], "CEL over `node` and `self` that a node must satisfy; of a list all must hold"),
    SpecKey("component", "rank", CEL, None, "CEL giving a number; higher is better among nodes that fit", note="free memory share"),
    SpecKey("component", "spread", Nested("spread", "by"), {}, "spread own instances as evenly as can be"),
    SpecKey("spread", "by", Single("spread"), "node", "`node`, `label:KEY` or `none`"),
    SpecKey("spread", "strict", FLAG, False, "a rule instead of a wish"),
    SpecKey("component", "apart", ListOf(TEXT, lone=True), [], "never on one node with these (`service/component` for others)"),
    SpecKey("component", "near", ListOf(Nested("near"), lone=True), [], "latency to another component's instances"),
    SpecKey("near", "to", TEXT, None, "a component (`service/component` for others)", required=True),
    SpecKey("near", "within", DURATION, None, "absolute bound"),
    SpecKey("near", "ideal", DURATION, None, "what is wished for"),
    SpecKey("near", "penalty", _REAL, 1, "price for each ms above `ideal`"),
    SpecKey("component", "reserve", Nested("reserve"), {}, "what placement counts as taken"),
    SpecKey("reserve", "memory", SIZE, None, "bytes of memory", note="`limits.memory`, or 128MiB"),
    SpecKey("reserve", "cpu", _REAL, None, "cores", note="`limits.cpu`, or 0.1"),
    SpecKey("reserve", "disk", SIZE, None, "bytes of disk", note="`limits.disk`, or 0"),
    SpecKey("component", "limits", Nested("limits"), {}, "what is enforced; a node that cannot is not chosen"),
    SpecKey("limits", "memory", SIZE, None, "bytes of memory; so far of the address space of each process, with `enforce: best_effort`: programs in Go or Java reserve far more of it than they use"),
    SpecKey("limits", "cpu", Single("real", 0.01, 100_000), None, "cores"),
    SpecKey("limits", "pids", _whole(1, 4_194_304), 4096, "processes and threads of its user on the node, whichever runs them; none for root"),
    SpecKey("limits", "files", _whole(16, 1_073_741_816), 65536, "open files of each process; no more than dsmt itself may have on the node"),
    SpecKey("limits", "disk", SIZE, None, "bytes of disk"),
    SpecKey("limits", "enforce", Word(("required", "best_effort")), "required", "`best_effort` also takes nodes that cannot, and `status` says so"),
    SpecKey("component", "on_partition", Word(("at_least_one", "at_most_one", "pinned"), ("at_least_one", "pinned")), None, "rather two than none; never two; never elsewhere, without a word of an operator", note="`pinned` with `data`, else `at_least_one`"),
    SpecKey("component", "lost_after", _duration(5), None, "silence of its node after which another takes over", note="5s, grows with fleet size; closed sessions then count at once"),
    SpecKey("component", "term", _duration(10, 300), "15s", "`at_most_one` only: length of the exclusive grant; the holder stops itself at 60 %"),
    SpecKey("component", "fence", Word(("kernel", "best_effort")), "kernel", "`at_most_one` only: `kernel` takes only drivers and nodes whose kernel ends the instance; `best_effort` takes the others too"),
    SpecKey("component", "ports", MapOf(Nested("port", "port"), "port_name"), {}, "given to the program as `{port.NAME}`, `$PORT_NAME`, and `$PORT` for the first"),
    SpecKey("component", "sockets", ListOf(PORT_NAME, lone=True), [], "short form of `held: true` for these ports"),
    SpecKey("port", "port", WholeOr("auto", 1, 65535), "auto", "`auto` is 20000..29999, kept through restarts on the same node"),
    SpecKey("port", "bind", Single("address"), None, "where it listens", note="127.0.0.1 on a realm of one machine, else the node's address"),
    SpecKey("port", "protocol", Word(("tcp", "udp")), "tcp", "`tcp` or `udp`"),
    SpecKey("port", "held", FLAG, False, "the agent opens the socket and keeps it across restarts (LISTEN_FDS)"),
)
_HEALTH: Final = (
    SpecKey("component", "health", Health(), None, "one check, or `startup`, `readiness`, `liveness` by name", note="ready when the process has lived `update.healthy_after`"),
    SpecKey("check", "http", Nested("http"), None, "an HTTP request; redirects are not followed"),
    SpecKey("check", "tcp", Nested("tcp"), None, "connect is enough"),
    SpecKey("check", "exec", COMMAND, None, "exit 0 passes; runs as the service, inside its container; what it leaves running is ended with it"),
    SpecKey("check", "notify", Nested("notify"), None, "sd_notify `READY=1`; with `watchdog`, `WATCHDOG=1` must keep coming"),
    SpecKey("check", "interval", _duration(0.05), None, "between the end of one try and the next", note="5s; start-up 1s"),
    SpecKey("check", "timeout", _duration(0.05), "2s", "of one try"),
    SpecKey("check", "passes", _whole(1, 1000), 1, "in a row until it counts as good"),
    SpecKey("check", "failures", _whole(1, 1000), None, "in a row until it counts as bad", note="readiness 3, liveness 6"),
    SpecKey("check", "deadline", _duration(0.1), None, "start-up only: not passed by then = failed start", note="60s"),
    SpecKey("http", "port", PORT_NAME, None, "name of one of `ports`", note="the first"),
    SpecKey("http", "path", Single("request_path"), "/", "path and query"),
    SpecKey("http", "scheme", Word(("http", "https")), "http", "`http` or `https`"),
    SpecKey("http", "method", Word(("GET", "HEAD", "POST", "PUT", "OPTIONS")), "GET", "of the request"),
    SpecKey("http", "status", Single("status"), "200-399", "what passes: codes and ranges, separated by commas"),
    SpecKey("http", "headers", MapOf(Single("header_value"), "header"), {}, "sent with the request"),
    SpecKey("http", "contains", TEXT, None, "text that must be in the answer"),
    SpecKey("tcp", "port", PORT_NAME, None, "name of one of `ports`", note="the first"),
    SpecKey("notify", "watchdog", _duration(0.1), None, "longest silence of `WATCHDOG=1`", note="no watchdog"),
    SpecKey("health", "startup", Nested("check"), None, "until it passes the others do not run", note="same check"),
    SpecKey("health", "readiness", Nested("check"), None, "bad = endpoint withdrawn, nothing is restarted", note="same check"),
    SpecKey("health", "liveness", Nested("check"), None, "bad = restart; of several instances that fail the same check one at a time", note="same check; none for the `exec` short form"),
)
_LIFE: Final = (
    SpecKey("component", "restart", Nested("restart", "when"), {}, "when and how fast it is started again"),
    SpecKey("restart", "when", Word(("always", "on_failure", "never")), None, "the word that `restart: WORD` is short for", note="`always`; a job: `on_failure`"),
    SpecKey("restart", "first", DURATION, None, "first delay", note="0s after a healthy run, else 100ms"),
    SpecKey("restart", "factor", Single("real", 1, 10), 2, "growth"),
    SpecKey("restart", "cap", _duration(0.1), "60s", "longest delay; jitter +-20 %"),
    SpecKey("restart", "reset", _duration(0.1), "60s", "healthy that long (or 10x the last delay) = forgotten"),
    SpecKey("restart", "escalate", ListOf(Step(ESCALATION)), None, "steps before parking; `move` never for `pinned`", note="[restart: 5, reinstall: 2, recreate: 2, move: 1]"),
    SpecKey("restart", "park", Nested("park"), {}, "never silent, never for good"),
    SpecKey("park", "after", _whole(1), 10, "so many failures are answered with another try; the next one parks it"),
    SpecKey("park", "retry", _duration(1), "10m", "tried again when a cause changes, and each time this has passed"),
    SpecKey("component", "stop", Nested("stop"), {}, "how it is ended; after `grace` KILL to the whole group"),
    SpecKey("stop", "signal", Single("signal"), "TERM", "sent to the whole group"),
    SpecKey("stop", "grace", DURATION, None, "from the signal to KILL", note="10s; `at_most_one`: the lesser of 10s and 30 % of `term`"),
    SpecKey("stop", "delay", DURATION, "0s", "the endpoint is withdrawn this long before the signal"),
    SpecKey("stop", "command", COMMAND, None, "asks it to stop, before the signal; it has `grace`, too"),
    SpecKey("component", "reload", Single("reload"), None, "signal or command used for changed `files` instead of a restart"),
    SpecKey("component", "after", _AFTER, [], "start order"),
    SpecKey("after", "component", NAME, None, "another component of this service"),
    SpecKey("after", "state", Word(("running", "ready", "done")), "ready", "what is waited for"),
    SpecKey("after", "barrier", NAME, None, "one of `barriers`, waited at before the start"),
    SpecKey("after", "restart_with", FLAG, False, "restarted when that one was"),
    SpecKey("component", "update", Nested("update"), {}, "how a new revision replaces the old one"),
    SpecKey("update", "order", Word(("start_first", "stop_first")), None, "new one first, or old one first, as what may run once only needs it", note="start_first; stop_first when `at_most_one`, `pinned` or a fixed port forbids two"),
    SpecKey("update", "max_parallel", SHARE, 1, "also the floor for drain, rebalance, rolling restart"),
    SpecKey("update", "healthy_after", DURATION, "10s", "ready that long before the next one goes"),
    SpecKey("update", "deadline", _duration(1), "5m", "for each instance to be ready; where the one before ends first, what that may take is added"),
    SpecKey("update", "rollback", FLAG, True, "back to the last good revision when one misses its deadline or parks"),
    SpecKey("update", "canary", Single("share", 0, 1_000_000), 0, "stop after this many until `dsmt rollout promote`"),
)
_JOB: Final = (
    SpecKey("component", "retries", _whole(0), 3, "job: failed runs of an index before it counts as failed"),
    SpecKey("component", "abort_on", ListOf(Single("exit_or_signal"), lone=True), [], "job: exit codes or `signal:NAME` that fail it at once, no retry, whole job"),
    SpecKey("component", "success_on", ListOf(_EXIT, lone=True), [0], "job: exit codes that are success"),
    SpecKey("component", "checkpoint_exit_code", _EXIT, None, 'job: "I saved, start me again": costs no retry'),
    SpecKey("component", "timeout", _duration(0.1), None, "job: of one run"),
    SpecKey("component", "pre", COMMAND, None, "job: before each run, on the same node"),
    SpecKey("component", "post", COMMAND, None, "job: after each run, whatever happened; sees `$DSMT_RESULT`"),
    SpecKey("component", "parallel", _whole(1, MOST_INSTANCES), None, "job: at most this many indexes at once", note="`instances`"),
    SpecKey("component", "keep", DURATION, "1h", "job: before a finished instance's directory goes"),
    SpecKey("barrier", "min", _whole(1), 1, "never opens below it"),
    SpecKey("barrier", "max", _whole(1), None, "opens at once when this many are there", note="all"),
    SpecKey("barrier", "percent", Single("percent"), "100%", "opens at this share (never below `min`)"),
    SpecKey("barrier", "timeout", _duration(0.1), "5m", "then opens if at least `min` are there; else fails and says who is missing"),
    SpecKey("barrier", "knee", FLAG, False, "opens when arrivals have slowed down markedly"),
    SpecKey("barrier", "late", Word(("admit", "refuse", "next_round")), "admit", "what one that comes late is told"),
    SpecKey("barrier", "throttle", _whole(1), None, "at most this many are released per second"),
)
# fmt: on

KEYS: Final[tuple[SpecKey, ...]] = _SERVICE + _WHAT + _WHERE + _HEALTH + _LIFE + _JOB
JOB_KEYS: Final = tuple(key for key in _JOB if key.group == "component")
GROUPS: Final[Mapping[str, Mapping[str, SpecKey]]] = {
    group: {key.name: key for key in KEYS if key.group == group} for group in dict.fromkeys(k.group for k in KEYS)
}

# The neighbours' words (compose, systemd, Nomad, Kubernetes), written with `_`, and ours; `PLACE.WORD`: it is one there alone.
NEIGHBOURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("replicas", "count", "scale"), "instances"),
    **dict.fromkeys(("command", "cmd", "entrypoint", "exec_start", "args"), "run"),
    **dict.fromkeys(("environment", "environ", "env_vars"), "env"),
    **dict.fromkeys(("depends_on", "requires_after", "wants", "needs", "depends", "dependencies"), "after"),
    **dict.fromkeys(("healthcheck", "health_check", "probes", "check", "checks"), "health"),
    "resources": "limits` and `reserve",
    "restart_policy": "restart",
    **dict.fromkeys(("stop_grace_period", "kill_timeout", "timeout_stop_sec", "grace_period", "stop.timeout"), "stop.grace"),
    **dict.fromkeys(("stop_signal", "kill_signal"), "stop.signal"),
    **dict.fromkeys(("update_config", "rollout", "strategy"), "update"),
    **dict.fromkeys(("parallelism", "max_surge", "max_parallel"), "update.max_parallel"),
    **dict.fromkeys(("min_healthy_time", "monitor"), "update.healthy_after"),
    **dict.fromkeys(("auto_revert", "failure_action"), "update.rollback"),
    **dict.fromkeys(("constraints", "node_selector"), "requires"),
    **dict.fromkeys(("affinity", "preferences"), "rank"),
    **dict.fromkeys(("working_dir", "workdir", "working_directory", "cwd"), "directory"),
    **dict.fromkeys(("artifact.path", "artifact.file", "artifact.source", "artifact.src"), "artifact.url"),
    "volumes": "data",
    "services": "components",
    "name": "service",
    "readiness_probe": "health.readiness",
    "liveness_probe": "health.liveness",
    "startup_probe": "health.startup",
    "initial_delay_seconds": "health.startup",
    "period_seconds": "health.interval",
    "failure_threshold": "health.failures",
    "success_threshold": "health.passes",
    "logging": "logs",
}
