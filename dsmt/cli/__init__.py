"""The command line: parse, call an operation, print, exit code (floor 10).

Rule 1: every command stands in `COMMANDS`, as `module:attribute` beside its one line of help; its module is imported only
    when it is called, so that `dsmt --help` is quick.
Rule 2: a verb that is not in the table is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Entry(NamedTuple):
    """A command: where it is, and its line of help."""

    place: str
    help: str


class Group(NamedTuple):
    """Commands below a word, as `dsmt node drain`."""

    help: str
    commands: Mapping[str, Entry]


_NODESET: Final = Group(
    "named sets of nodes",
    {
        "list": Entry("dsmt.cli.nodeset:list_sets", "every named set and how many nodes it selects"),
        "show": Entry("dsmt.cli.nodeset:show", "one set and the nodes that it selects now"),
        "set": Entry("dsmt.cli.nodeset:set_one", "name an expression: dsmt nodeset set good 'minus(all_nodes, failed)'"),
        "use": Entry("dsmt.cli.nodeset:use", "have a component's instances on a set"),
        "remove": Entry("dsmt.cli.nodeset:remove", "forget a named set"),
    },
)

COMMANDS: Final[dict[str, Entry | Group]] = {
    "up": Entry("dsmt.cli.machine:up", "a realm on this machine: broker, controllers, nodes"),
    "down": Entry("dsmt.cli.machine:down", "end what this home started, services and all"),
    "demo": Entry("dsmt.cli.machine:demo", "see it repair a real service, in half a minute"),
    "init": Entry("dsmt.cli.setting_up:init", "make a realm in this home: keys, one broker, an operator"),
    "status": Entry("dsmt.cli.status:status", "the realm in one screen, or one service"),
    "ps": Entry("dsmt.cli.listing:ps", "every instance: where it runs and how it is"),
    "endpoints": Entry("dsmt.cli.listing:endpoints", "where a service's instances can be reached now"),
    "services": Entry("dsmt.cli.listing:services", "every service and how many of its instances are ready"),
    "nodes": Entry("dsmt.cli.node:nodes", "every node: alive or not, what it has, what it runs"),
    "brokers": Entry("dsmt.cli.listing:brokers", "the brokers"),
    "controllers": Entry("dsmt.cli.listing:controllers", "the controllers"),
    "broker": Group("one broker", {"run": Entry("dsmt.cli.machine:broker_run", "run a broker in the foreground")}),
    "controller": Group(
        "one controller", {"run": Entry("dsmt.cli.machine:controller_run", "run a controller in the foreground")}
    ),
    "node": Group(
        "one node",
        {
            "run": Entry("dsmt.cli.machine:node_run", "run a node in the foreground"),
            "show": Entry("dsmt.cli.node:show", "one node and every process of ours on it"),
            "drain": Entry("dsmt.cli.node:drain", "move everything off a node and keep it free"),
            "exclude": Entry("dsmt.cli.node:exclude", "place nothing more on a node"),
            "include": Entry("dsmt.cli.node:include", "use a node again"),
            "remove": Entry("dsmt.cli.node:remove", "forget a node that is no more"),
        },
    ),
    "apply": Entry("dsmt.cli.spec:apply", "make services what their files say"),
    "plan": Entry("dsmt.cli.spec:plan", "what apply would do, step by step"),
    "diff": Entry("dsmt.cli.spec:diff", "what differs between a file and what is applied"),
    "get": Entry("dsmt.cli.spec:get", "a service's file, as it was applied last"),
    "history": Entry("dsmt.cli.past:history", "a service's revisions, and what became of each"),
    "rollback": Entry("dsmt.cli.past:rollback", "go back to an earlier revision"),
    "example": Entry("dsmt.cli.setting_up:example", "a service file to begin with"),
    "schema": Entry("dsmt.cli.setting_up:schema", "the JSON Schema of service files"),
    "explain": Entry("dsmt.cli.setting_up:explain", "what a key of the service file means"),
    "start": Entry("dsmt.cli.control:start", "lift a stop"),
    "stop": Entry("dsmt.cli.control:stop", "hold instances stopped until they are started by hand"),
    "restart": Entry("dsmt.cli.control:restart", "restart instances, a few at a time"),
    "retry": Entry("dsmt.cli.control:retry", "try now what is parked or waits"),
    "scale": Entry("dsmt.cli.control:scale", "change how many instances a component has"),
    "move": Entry("dsmt.cli.control:move", "have an instance on another node"),
    "remove": Entry("dsmt.cli.control:remove", "end a service"),
    "wait": Entry("dsmt.cli.control:wait", "wait until instances are in a state"),
    "nodeset": _NODESET,
    "setplan": _NODESET,
    "plan-set": _NODESET,
    "brake": Group(
        "the brake on replacing",
        {
            "show": Entry("dsmt.cli.brake:show", "whether replacing is held, and why"),
            "hold": Entry("dsmt.cli.brake:hold", "replace nothing until it is released"),
            "release": Entry("dsmt.cli.brake:release", "go on, and replace what is silent now"),
        },
    ),
    "clock": Group(
        "realm time, by hand",
        {"accept": Entry("dsmt.cli.clock:accept", "take the clock of a broker's machine for realm time")},
    ),
    "tail": Entry("dsmt.cli.stream:tail", "the stream of events, verified"),
    "publish": Entry("dsmt.cli.stream:publish", "say something on a topic of one's own"),
    "logs": Entry("dsmt.cli.logs:logs", "what instances have written"),
    "why": Entry("dsmt.cli.why:why", "the chain of events that led to what is"),
    "why-not": Entry("dsmt.cli.why:why_not", "what keeps an instance off the nodes"),
    "export": Entry("dsmt.cli.export:export", "the whole history in a file that proves that it is whole"),
    "verify": Entry("dsmt.cli.verify:verify", "check a history or a recorded stream offline"),
    "replay": Entry("dsmt.cli.replay:replay", "decide again what controllers decided in a history"),
    "cert": Group(
        "certificates: who may say what, and until when",
        {
            "list": Entry("dsmt.cli.cert:list_all", "every certificate that is met from here, and until when it counts"),
            "show": Entry("dsmt.cli.cert:show", "the certificates of one name, or of one key"),
            "rotate": Entry("dsmt.cli.cert:rotate", "give what lives in this home a new certificate"),
            "revoke": Entry("dsmt.cli.cert:revoke", "end a key for good, and keep or drop what it has said"),
        },
    ),
    "trust": Group("trust", {"export": Entry("dsmt.cli.trust:export", "what is needed to verify this realm offline")}),
    "completion": Entry("dsmt.cli.helping:completion", "have bash, zsh or fish complete commands and names"),
    "help": Entry("dsmt.cli.helping:help_on", "what a command or a word means, with examples"),
    "version": Entry("dsmt.cli.setting_up:version", "the version of this program"),
}  # fmt: skip
HIDDEN: Final = frozenset({"setplan", "plan-set"})
"""Aliases: they work, and are not listed."""
