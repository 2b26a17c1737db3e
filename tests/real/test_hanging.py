"""Hanging: whoever is kept, and stands still, is ended and started again by who keeps it; times are shorter here (C15)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.records import process_of
from tests.real.fleet import end, eventually, gone

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ASK_S, SILENT_S, AGAIN_S = 0.1, 3.0, 1.0
"""Of 10 s, 60 s and 10 s. On a busy machine one that is well gets no core for a second, now and then."""
KEEPER = """
import os, sys
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.ports.store import StoreFullError
from dsmt.programs import keeper, pings
from dsmt.system import processes

HEARD, FULL = {heard!r}, {full!r}
pings.Pings.__init__.__defaults__ = ({silent_s}, {again_s})
processes.keep_asking.__kwdefaults__["ask_s"] = {ask_s}
processes.watch_spawner.__kwdefaults__["ask_s"] = {ask_s}

def heard(self, who, now, really=pings.Pings.heard):
    really(self, who, now)
    with open(os.path.join(HEARD, str(who.pid)), "a") as file:
        file.write(".")

def append(self, batch, really=SqliteStore.append):
    if os.path.exists(FULL):
        raise StoreFullError("store.full", "the disk is full", next="free space on its disk")
    return really(self, batch)

pings.Pings.heard, SqliteStore.append = heard, append
sys.exit(keeper.main(sys.argv[1], int(sys.argv[2])))
"""
"""A keeper whose spawners write down who asks, and whose brokers have a full disk while there is a file `full`."""

Kept = dict[tuple[str, str, str], ProcessIdentity | None]
EVERYBODY = (
    ("brokers", "b1", "broker"),
    ("controllers", "c1", "controller"),
    ("controllers", "c2", "controller"),
    ("nodes", "n1", "container_manager"),
    ("nodes", "n1", "node_monitor"),
)


class Realm:
    """One on this machine, below the keeper above."""

    def __init__(self, directory: Path) -> None:
        self.home, self.heard, self.full = Home(directory / "home"), directory / "heard", directory / "full"
        self.heard.mkdir()
        told = {"heard": str(self.heard), "full": str(self.full)}
        self.code = KEEPER.format(**told, ask_s=ASK_S, silent_s=SILENT_S, again_s=AGAIN_S)

    def kept(self) -> Kept:
        return {at: process_of(self.home.part(*at[:2]), at[2]) for at in EVERYBODY}

    def asked(self, who: ProcessIdentity | None) -> int:
        """How often somebody has asked who keeps it."""
        file = self.heard / str(who.pid if who is not None else 0)
        return file.stat().st_size if file.exists() else 0

    async def all_ask(self) -> Kept:
        await eventually("all of them ask", lambda: all(self.asked(who) > 1 for who in self.kept().values()))
        return self.kept()


def run(directory: Path, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Realm], object]) -> None:
    realm = Realm(directory)
    command = [sys.executable, "-c", realm.code, str(keeper_directory(realm.home))]
    monkeypatch.setattr("dsmt.operations.local.processes.keeping.command_of", lambda _directory: command)

    async def main() -> None:
        try:
            await up(realm.home, Wanted(nodes=1))
            await scenario(realm)
        finally:
            await end(realm.home)

    asyncio.run(main())


@pytest.mark.parametrize("at", EVERYBODY, ids=lambda at: at[2])
def test_whoever_is_kept_and_hangs_is_killed_and_started_again_and_nobody_else_is(tmp_path, monkeypatch, at):
    async def scenario(realm: Realm) -> None:
        before = await realm.all_ask()
        os.kill(before[at].pid, signal.SIGSTOP)
        await gone(before[at])
        await eventually("another in its place", lambda: realm.kept()[at])
        after = await realm.all_ask()
        assert after[at] != before[at]
        assert {one: who for one, who in after.items() if one != at} == {o: w for o, w in before.items() if o != at}

    run(tmp_path, monkeypatch, scenario)


def test_a_broker_that_can_store_nothing_asks_on_and_is_not_said_to_hang(tmp_path, monkeypatch):
    async def scenario(realm: Realm) -> None:
        before = await realm.all_ask()
        realm.full.touch()
        broker = before["brokers", "b1", "broker"]
        asked, long = realm.asked(broker), 2 * (SILENT_S + AGAIN_S) / ASK_S
        await eventually("it asks for twice as long as one that hangs may live", lambda: realm.asked(broker) > asked + long)
        assert realm.kept() == before

    run(tmp_path, monkeypatch, scenario)
