"""`up` in the foreground: it goes on as long as what it has begun, and no longer."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import Parts
from dsmt.system.procfs import send_signal
from tests.real.fleet import eventually
from tests.real.homes import at, ended, everybody, foreground, run, whole
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_an_up_whose_realm_was_ended_elsewhere_ends_and_never_ends_a_later_one(tmp_path):
    async def scenario(home: Home) -> None:
        first, asleep = await foreground(home), None
        try:
            await whole(first)
            asleep = await foreground(home)
            await whole(asleep)
            asleep.send_signal(signal.SIGSTOP)  # it sees nothing of what follows
            await dsmt(home.root, "down")
            _, said = await asyncio.wait_for(first.communicate(), 30)
            assert first.returncode == 1
            error = json.loads(said)["error"]
            assert (error["code"], error["next"]) == ("up.ended", "dsmt up starts it again")
            assert error["message"].startswith(f"dsmt down, typed elsewhere, has ended the realm in {home.root}")
            await dsmt(home.root, "up", "--detach")
            before = everybody(home)
            asleep.send_signal(signal.SIGTERM)
            assert await ended(asleep, signal.SIGCONT) == 1
            assert everybody(home) == before
            assert all(before.values())
        finally:
            for one in filter(None, (first, asleep)):
                await ended(one, signal.SIGKILL) if one.returncode is None else None

    run(tmp_path, scenario)


def test_an_up_outlives_an_upgrade_and_the_keeper_and_ends_with_all_that_would_start_the_keeper_again(tmp_path):
    async def scenario(home: Home) -> None:
        up = await foreground(home)
        try:
            await whole(up)
            keeper = at(home, "keeper", "", "spawner")
            was = keeper()
            await dsmt(home.root, "upgrade")
            now = keeper()
            assert now not in (None, was)
            send_signal(now, signal.SIGKILL)
            await eventually("another keeper", lambda: keeper() not in (None, now))
            assert up.returncode is None
            parts = Parts(home)
            keeping = [*parts.restarters(), *parts.controllers(), *parts.brokers()]
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for identity in keeping:
                    send_signal(identity, number)
            _, said = await asyncio.wait_for(up.communicate(), 30)
            assert up.returncode == 1
            assert json.loads(said)["error"]["code"] == "up.ended"
        finally:
            await ended(up, signal.SIGKILL) if up.returncode is None else None

    run(tmp_path, scenario)
