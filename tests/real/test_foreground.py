"""What runs in the foreground: `up` goes on as long as what it has begun; a program by hand is one that `up` knows."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import suppress

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import Parts
from dsmt.system.procfs import send_signal
from tests.real.fleet import eventually
from tests.real.homes import at, ended, everybody, foreground, run, whole
from tests.real.seat import dsmt, start

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


def test_what_runs_by_hand_is_started_no_second_time_by_up_and_is_ended_by_down(tmp_path):
    """As what systemd keeps does: its units run the same commands."""

    async def scenario(home: Home) -> None:
        await dsmt(home.root, "init")
        kinds = ("broker", "controller")
        by_hand = [await start(home.root, kind, "run", f"{kind[0]}1") for kind in kinds]
        try:
            found = [at(home, f"{kind}s", f"{kind[0]}1", kind) for kind in kinds]
            await eventually("they run", lambda: all(look() for look in found))
            await dsmt(home.root, "up", "--detach", "--nodes", "1", "--controllers", "1")
            shown = [(await dsmt(home.root, f"{kind}s", "--json")).json for kind in kinds]
            assert [[one["pid"] for one in rows] for rows in shown] == [[one.pid] for one in by_hand]
            await dsmt(home.root, "down")
            assert [await asyncio.wait_for(one.wait(), 30) for one in by_hand] == [0, 0]
        finally:
            for one in by_hand:
                with suppress(ProcessLookupError):
                    one.kill()

    run(tmp_path, scenario)
