"""Each rule of the floors finds the defect it is there for, and lets its neighbour pass."""

import pytest

from .floors import ROOT
from .rules import around_a_port, circle, impure, sources, undocumented, unordered, upwards

SOURCES = sources()


@pytest.mark.parametrize(
    ("module", "text", "says"),
    [
        ("dsmt.event.x", "from dsmt.trust import keys", "above it"),
        ("dsmt.event.x", "def f():\n    import dsmt.ports.bus", "above it"),
        ("dsmt.event.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dsmt.view import View", "above it"),
        ("dsmt.event.x", "from ..trust import keys", "above it"),
        ("dsmt.bus.rules.x", "from dsmt.bus.client import client", "above it"),
        ("dsmt.bus.rules.x", "from dsmt.bus.client.client import BusClient", "above it"),
        ("dsmt.controllers.decide", "from dsmt.monitors.rules.health import Health", "another room"),
        ("dsmt.bus.client.client", "from dsmt.bus.broker.ingest import Ingest", "another room"),
        ("dsmt.bus.client.x", "from dsmt.system.clock import LinuxClock", "which is an adapter"),
        ("dsmt.agents.instance.x", "from dsmt.bus.client.client import BusClient", "another room"),
        ("dsmt.spec.x", "import dsmt.view", "above it"),
        ("dsmt.spec.x", "import dsmt.trust.keys", "another room"),
        ("dsmt.monitors.rules.health", "from dsmt.agents.rules import reconcile", "another room"),
        ("dsmt.programs.x", "import dsmt.cli.up", "above it"),
        ("dsmt.bus", "from dsmt.bus.rules.validator import EventValidator", "above it"),
        ("dsmt.bus.novelty", "", "in no room"),
        ("dsmt.novelty", "", "in no room"),
        ("dsmt.bus.client.client", "import dsmt.novelty", "which is in no room"),
        ("dsmt.bus.broker.broker", "from dsmt.bus.zeromq.network import ZmqNetwork", "another room"),
        ("dsmt.bus.broker.ingest", "from dsmt.bus.store.sqlite import SqliteStore", "another room"),
        ("dsmt.bus.broker.ingest", "from dsmt.bus.broker.broker import Broker", "which is a shell"),
        ("dsmt.agents.instance.deployment_agent", "from dsmt.agents.drivers.process import ProcessDriver", "another room"),
        ("dsmt.monitors.probe", "from dsmt.monitors.checks.tcp import TcpCheck", "which is an adapter"),
        ("dsmt.bus.rules.x", "from dsmt.ports.store import Store", "holds no port"),
        ("dsmt.agents.rules.launching", "from dsmt.ports.sockets import Sockets as S", "holds no port"),
        ("dsmt.bus.rules.x", "from dsmt.logs import Logger", "which is a way out"),
        ("dsmt.operations.words.sentences", "from dsmt.operations.read.realm.sight import Sight", "above it"),
    ],
)
def test_a_planted_import_upwards_or_sideways_is_found(module, text, says):
    assert any(says in wrong for wrong in upwards(module, text, SOURCES))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dsmt.bus.rules.x", "from dsmt.event.codec import decode\nfrom dsmt.errors import InputError"),
        ("dsmt.bus.rules.x", "from dsmt.ports.store import Row\nfrom dsmt.bus.wire import frames"),
        ("dsmt.bus.broker.x", "from dsmt.ports.store import Store\nfrom dsmt.logs import Logger"),
        (
            "dsmt.bus.client.x",
            "from dsmt.bus.rules.outbox import Outbox\nfrom . import client",
        ),
        ("dsmt.agents.drivers.novelty", "from dsmt.system.procfs import stat_of\nfrom dsmt.ports.driver import Ask"),
        ("dsmt.programs.x", "from dsmt.bus.client.client import Client\nfrom dsmt.system.clock import LinuxClock"),
    ],
)
def test_an_import_from_below_is_allowed(module, text):
    assert not upwards(module, text, SOURCES)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dsmt.operations.read.realm.watching", "from dsmt.bus.client.client import BusClient"),
        ("dsmt.operations.write.clocks", "from dsmt.bus.rules import realm_time"),
        ("dsmt.programs.controller", "from dsmt.bus.zeromq.network import ZmqNetwork"),
        ("dsmt.cli.x", "def f():\n    import dsmt.bus.wire.frames"),
    ],
)
def test_a_planted_way_around_the_port_of_the_bus_is_found(module, text):
    assert around_a_port(module, text, SOURCES)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dsmt.programs.bus", "from dsmt.bus.client.client import BusClient"),
        ("dsmt.simulator.world", "from dsmt.bus.client.client import BusClient"),
        ("dsmt.bus.client.x", "from dsmt.bus.rules.outbox import Outbox"),
        ("dsmt.cli.x", "from dsmt.ports.bus import Bus\nfrom dsmt.programs.bus import the_bus"),
    ],
)
def test_who_knows_the_port_or_puts_the_bus_together_is_left_alone(module, text):
    assert not around_a_port(module, text, SOURCES)


IMPURITIES = [
    "import asyncio", "import os", "import os.path", "from time import monotonic", "import random", "import secrets",
    "import socket", "import threading", "import subprocess", "from pathlib import Path", "import io\nio.open('x')",
    "from io import open", "import zmq", "import sqlite3", "import structlog", "import uuid", "import logging", "import sys",
    "import urllib.request", "from nacl.utils import random", "from nacl.bindings import randombytes",
    "def f():\n    import time", "import signal\nsignal.alarm(1)", "from signal import setitimer",
    "async def f(): ...", "async def f():\n    await g()", "open('x')", "print(1)",
    "from datetime import datetime\ndatetime.now()", "import datetime\ndatetime.date.today()",
    "import datetime\ndatetime.datetime.now()", "import datetime as d\nd.datetime.now(d.UTC)",
    "from datetime import datetime as d\nd.utcnow()", "import contextlib\ncontextlib.os.getcwd()",
    "import contextlib as c\nc.os.getcwd()", "from contextlib import os", "import asyncio\nasyncio.to_thread(f)",
    "from asyncio import open_connection", "import asyncio as a\na.create_subprocess_exec('x')", "loop.time()",
    "import asyncio\nasyncio.get_running_loop().time()",
]  # fmt: skip


@pytest.mark.parametrize("text", IMPURITIES)
@pytest.mark.parametrize("module", ["dsmt.event.x", "dsmt.view.x", "dsmt.bus.rules.x", "dsmt.bus.broker.x"])
def test_a_planted_touch_of_the_outside_is_found_below_the_line(module, text):
    assert impure(module, text)


@pytest.mark.parametrize("text", [t for t in IMPURITIES if "async def" not in t and t != "import asyncio"])
def test_a_planted_touch_of_the_outside_is_found_in_a_shell(text):
    assert impure("dsmt.bus.client.client", text)
    assert impure("dsmt.ports.x", text)
    assert not impure("dsmt.bus.zeromq.network", text)


@pytest.mark.parametrize(
    "text",
    [
        "import io\nio.StringIO()",
        "from io import BytesIO",
        "from math import log",
        "import signal\nsignal.SIGTERM",
        "import ruamel.yaml",
    ],
)
def test_what_stays_inside_is_allowed_below_the_line(text):
    assert not impure("dsmt.event.x", text)


def test_a_shell_may_wait():
    assert not impure("dsmt.bus.client.client", "import asyncio\nasync def f():\n    await asyncio.sleep(1)")
    assert impure("dsmt.bus.client.client", "import asyncio\nasyncio.as_completed([])")


@pytest.mark.parametrize(
    "text",
    [
        "for x in {1, 2}: ...", "for x in set(y): ...", "[x for x in {1, 2}]", "{x: 1 for x in frozenset(y)}",
        "list({1, 2})", "tuple(set(y))", "','.join({a for a in y})", "sorted(y, key=hash)", "max(y, key=id)", "hash(x)",
        "id(x)", "for x in set(a) | b: ...", "for x in a.keys() - b: ...", "next(iter({1, 2}))",
        "sum(x for x in {1.0, 2.0})",
        "min(x for x in {1, 2})", "dict.fromkeys({1, 2})", "def f(y: set[int]):\n    return list(y)",
        "def f():\n    y = {1, 2}\n    for x in y: ...",

        "class A:\n    y: set[int]\n    def f(self):\n        return [*map(g, self.y)]",
        "class A:\n    def f(self):\n        self.y: set[int] = set()\n        for x in self.y: ...",
    ],
)  # fmt: skip
def test_a_planted_order_of_a_set_is_found(text):
    assert unordered("dsmt.controllers.decide", text)


@pytest.mark.parametrize(
    "text",
    [
        "for x in sorted({1, 2}): ...", "any(x for x in {1, 2})", "{x for x in {1, 2}}", "sorted(x for x in set(y))",
        "for x in [1, 2]: ...", "len({1, 2})", "x in {1, 2}", "set(list(y))", "a.hash(x)", "id = 3", "for x in a - b: ...",
    ],
)  # fmt: skip
def test_a_set_that_is_sorted_or_only_asked_is_allowed(text):
    assert not unordered("dsmt.controllers.decide", text)


@pytest.mark.parametrize(
    "text", ["", "'''m'''\ndef f(): ...", "'''m'''\nclass C: ...", "'''m'''\nclass C:\n    '''c'''\n    def f(self): ..."]
)
def test_a_planted_thing_without_a_docstring_is_found(text):
    assert undocumented("dsmt.event.x", text)


def test_private_things_need_no_docstring():
    assert not undocumented("dsmt.event.x", "'''m'''\ndef _f(): ...\nclass C:\n    '''c'''\n    def __init__(self): ...")


def test_a_planted_circle_is_found():
    assert circle({"dsmt.a": "import dsmt.b", "dsmt.b": "from dsmt import c", "dsmt.c": "from .a import x", "dsmt": ""})
    assert not circle({"dsmt.a": "import dsmt.b", "dsmt.b": "from dsmt import c", "dsmt.c": "", "dsmt": ""})
    between = {"dsmt.a.x": "import dsmt.b.x", "dsmt.b.x": "", "dsmt.b.y": "import dsmt.a.y", "dsmt.a.y": ""}
    assert not circle(between)
    assert circle(between, lambda module: module.rpartition(".")[0])


@pytest.mark.parametrize(
    ("attaches", "given", "says"),
    [
        ("ask", "Reading", 'incompatible type "BusReader"; expected "Bus"'),
        ("ask", "Connection", "incompatible type"),
        ("act", "Connection", "Success"),
    ],
)
def test_a_planted_command_that_writes_where_it_may_only_read_is_found(tmp_path, attaches, given, says):
    mypy = pytest.importorskip("mypy.api", reason="make lint brings it")
    planted = tmp_path / "planted.py"
    planted.write_text(f"""
from dsmt.cli.context import CliContext
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.write import clocks

def planted(ctx: CliContext) -> clocks.AcceptedClock:
    async def work(connection: {given}) -> clocks.AcceptedClock:
        return await clocks.accept(connection.bus, "b1", by="", reason="")
    return ctx.{attaches}(work)
""")
    found, _, _ = mypy.run(["--config-file", str(ROOT / "pyproject.toml"), str(planted)])
    assert says in found
