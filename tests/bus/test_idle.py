"""The loop of tests that wait for nothing outside: it passes over what it would only wait for, and over nothing else."""

import asyncio
import socket
import threading
import time

from tests.bus.idle import run_alone


def clocks() -> list[float]:
    return [time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)]


def test_a_day_in_which_nothing_happens_takes_no_time_and_all_clocks_go_ahead_by_it() -> None:
    async def main() -> None:
        before = clocks()
        await asyncio.sleep(86_400)
        assert all(86_400 <= now - then < 86_460 for then, now in zip(before, clocks(), strict=True))

    before = clocks()
    run_alone(main())
    assert all(now - then < 60 for then, now in zip(before, clocks(), strict=True)), "as they were after it"


def test_what_comes_from_a_thread_or_a_socket_is_waited_for() -> None:
    async def main() -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        threading.Timer(0.05, lambda: there.send(b"late")).start()
        try:
            async with asyncio.timeout(30):
                assert await asyncio.get_running_loop().sock_recv(here, 4) == b"late"
                assert await asyncio.to_thread(threading.Event().wait, 0.05) is False
        finally:
            here.close()
            there.close()

    run_alone(main())
