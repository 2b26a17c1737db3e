"""The command line: parse, call an operation, print, exit code.

Rule 1: every command stands in `COMMANDS`, as `module:attribute` beside its one line of help; its module is imported only
    when it is called, so that `dsmt --help` is quick.
Rule 2: a verb that is not in the table is never guessed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import click


class Entry(NamedTuple):
    """A command: where it is, and its line of help."""

    place: str
    help: str

    def load(self) -> click.Command:
        """Import it. Raises `TypeError` for a place where there is none."""
        import click  # noqa: PLC0415 - not for the table alone

        module, _, attribute = self.place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.place} is no command")
        return command


class Group(NamedTuple):
    """Commands below a word, as `dsmt node drain`."""

    help: str
    commands: Mapping[str, Entry]


_WHATIF: Final = Entry("dsmt.cli.whatif:whatif", "show what would follow if nodes died or were drained")
_NODESET: Final = Group(
    "named sets of nodes",
    {
        "list": Entry("dsmt.cli.nodeset:list_sets", "list the named sets, and how many nodes each selects"),
        "show": Entry("dsmt.cli.nodeset:show", "show one set, and the nodes that it selects now"),
        "set": Entry(
            "dsmt.cli.nodeset:set_one", "give an expression a name: dsmt nodeset set good 'minus(all_nodes, failed)'"
        ),
        "use": Entry("dsmt.cli.nodeset:use", "run a component's instances on the nodes of a set"),
        "remove": Entry("dsmt.cli.nodeset:remove", "forget a named set"),
    },
)

COMMANDS: Final[dict[str, Entry | Group]] = {
    "up": Entry("dsmt.cli.machine:up", "run a realm on this machine: brokers, controllers, nodes"),
    "down": Entry("dsmt.cli.machine:down", "stop everything that this home started, services included"),
    "upgrade": Entry("dsmt.cli.machine:upgrade", "restart dsmt in this home as it is installed now; services run on"),
    "demo": Entry("dsmt.cli.machine:demo", "watch dsmt repair a real service, in half a minute"),
    "init": Entry("dsmt.cli.setting_up:init", "make a realm in this home: keys, brokers, an operator"),
    "status": Entry("dsmt.cli.status:status", "show the realm on one screen, or one service"),
    "ps": Entry("dsmt.cli.listing:ps", "list the instances: where each runs, and its state"),
    "endpoints": Entry("dsmt.cli.listing:endpoints", "show where a service's instances can be reached now"),
    "services": Entry("dsmt.cli.listing:services", "list the services, and how many instances of each are ready"),
    "nodes": Entry("dsmt.cli.node:nodes", "list the nodes: alive or not, what each has and runs"),
    "brokers": Entry("dsmt.cli.listing:brokers", "list the brokers: where each listens, what it holds, its state"),
    "controllers": Entry("dsmt.cli.listing:controllers", "list the controllers: alive or not, how much each decided"),
    "broker": Group(
        "one broker: add, remove, run",
        {
            "add": Entry("dsmt.cli.brokers:add", "add a broker to the realm, on this machine"),
            "remove": Entry("dsmt.cli.brokers:remove", "end a broker; its clients go to another one"),
            "run": Entry("dsmt.cli.running:broker_run", "run a broker in the foreground"),
        },
    ),
    "bus": Group(
        "the bus that carries the realm: migrate",
        {"migrate": Entry("dsmt.cli.bus:migrate", "move the realm to NATS, or back to brokers, while its services run")},
    ),
    "controller": Group(
        "one controller: add, remove, run",
        {
            "add": Entry("dsmt.cli.controllers:add", "add a controller to the realm, on this machine"),
            "remove": Entry("dsmt.cli.controllers:remove", "end a controller, or forget one that is gone"),
            "run": Entry("dsmt.cli.running:controller_run", "run a controller in the foreground"),
        },
    ),
    "node": Group(
        "one node: add, show, drain, exclude, include, remove, run",
        {
            "run": Entry("dsmt.cli.running:node_run", "run a node in the foreground"),
            "add": Entry("dsmt.cli.hosts:add", "make other machines nodes of the realm, over SSH"),
            "show": Entry("dsmt.cli.node:show", "show one node, and every dsmt process on it"),
            "drain": Entry("dsmt.cli.node:drain", "move everything off a node and keep it empty"),
            "exclude": Entry("dsmt.cli.node:exclude", "place nothing more on a node"),
            "include": Entry("dsmt.cli.node:include", "use a node again"),
            "remove": Entry("dsmt.cli.node:remove", "forget a node, and clear the machine that it was added on"),
        },
    ),
    "apply": Entry("dsmt.cli.spec:apply", "create or change services as their files say"),
    "plan": Entry("dsmt.cli.spec:plan", "show what apply would do, step by step"),
    "whatif": _WHATIF,
    "what-if": _WHATIF,
    "diff": Entry("dsmt.cli.spec:diff", "show what differs between a file and what is applied"),
    "get": Entry("dsmt.cli.spec:get", "print a service's file, as it was applied last"),
    "history": Entry("dsmt.cli.past:history", "list a service's revisions, and what became of each"),
    "rollback": Entry("dsmt.cli.past:rollback", "go back to an earlier revision"),
    "example": Entry("dsmt.cli.setting_up:example", "print a service file to begin with"),
    "schema": Entry("dsmt.cli.setting_up:schema", "print the JSON Schema of service files"),
    "explain": Entry("dsmt.cli.setting_up:explain", "explain a key of the service file"),
    "start": Entry("dsmt.cli.control:start", "let instances that were stopped run again"),
    "stop": Entry("dsmt.cli.control:stop", "stop instances, and keep them stopped until `dsmt start`"),
    "restart": Entry("dsmt.cli.control:restart", "restart instances, a few at a time"),
    "retry": Entry("dsmt.cli.control:retry", "retry now instances that are parked, failed or waiting for their next try"),
    "scale": Entry("dsmt.cli.control:scale", "change how many instances a component has"),
    "move": Entry("dsmt.cli.control:move", "move an instance to another node"),
    "remove": Entry("dsmt.cli.removing:remove", "end a service: stop and uninstall all of it"),
    "wait": Entry("dsmt.cli.control:wait", "wait until instances are in a state"),
    "nodeset": _NODESET,
    "setplan": _NODESET,
    "plan-set": _NODESET,
    "brake": Group(
        "the brake, which stops dsmt from replacing instances on other nodes",
        {
            "show": Entry("dsmt.cli.brake:show", "show whether the brake is on or held, and why"),
            "hold": Entry("dsmt.cli.brake:hold", "replace nothing until the brake is released"),
            "release": Entry("dsmt.cli.brake:release", "release the brake, and replace the instances of silent nodes"),
        },
    ),
    "clock": Group(
        "correct realm time by hand",
        {"accept": Entry("dsmt.cli.clock:accept", "accept the clock of a broker's machine as realm time")},
    ),
    "tail": Entry("dsmt.cli.stream:tail", "follow the stream of events, verified"),
    "publish": Entry("dsmt.cli.stream:publish", "publish an event of your own, on a topic under user/"),
    "logs": Entry("dsmt.cli.logs:logs", "show what instances have written to stdout and stderr"),
    "why": Entry("dsmt.cli.why:why", "show the chain of events that led to the present state"),
    "why-not": Entry("dsmt.cli.why:why_not", "show why nodes do not take an instance"),
    "export": Entry("dsmt.cli.export:export", "write the history, whole or from a time on, to a file that proves itself"),
    "verify": Entry("dsmt.cli.verify:verify", "check a history or a recorded stream offline"),
    "replay": Entry("dsmt.cli.replay:replay", "repeat the decisions of controllers from a history, and compare"),
    "cert": Group(
        "certificates: who may publish what, and until when",
        {
            "list": Entry("dsmt.cli.cert:list_all", "list the certificates that are known here, and when each expires"),
            "show": Entry("dsmt.cli.cert:show", "show the certificates of one name, or of one key"),
            "rotate": Entry("dsmt.cli.cert:rotate", "give a member of this home a new key and certificate"),
            "revoke": Entry("dsmt.cli.cert:revoke", "revoke a key for good, and keep or drop what it has signed"),
        },
    ),
    "operator": Group(
        "operators: add",
        {"add": Entry("dsmt.cli.operator:add", "make the home of a further operator, with a key of their own")},
    ),
    "token": Group(
        "tokens, with which machines join the realm",
        {
            "create": Entry("dsmt.cli.joining:create", "make a token with which one machine can join"),
            "list": Entry("dsmt.cli.joining:list_all", "list the tokens: open, used, expired or revoked"),
            "revoke": Entry("dsmt.cli.joining:revoke", "end an unused token"),
        },
    ),
    "join": Entry("dsmt.cli.joining:join", "make this machine a node of a realm, with a token"),
    "trust": Group(
        "let others verify this realm",
        {"export": Entry("dsmt.cli.trust:export", "write what is needed to verify this realm offline")},
    ),
    "completion": Entry("dsmt.cli.helping:completion", "print completion of commands and names for bash, zsh or fish"),
    "help": Entry("dsmt.cli.helping:help_on", "explain a command or a word, with examples"),
    "version": Entry("dsmt.cli.setting_up:version", "print the version of this program"),
}  # fmt: skip
HIDDEN: Final = frozenset({"setplan", "plan-set", "what-if"})
"""Aliases: they work, and are not listed."""
