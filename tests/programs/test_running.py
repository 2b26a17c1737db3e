"""What a program's loop does beside its work: where that fails the program has crashed."""

import asyncio

import pytest

from dsmt.programs.running import run_beside, until_over
from tests.loops import in_real_time


@in_real_time
async def test_what_fails_beside_a_program_s_work_ends_it_and_what_is_cancelled_there_does_not() -> None:
    """A node whose certificate nobody renews any more would be let in nowhere, a month later."""
    running, cancelled, over, failing = (asyncio.get_running_loop().create_future() for _ in range(4))
    waiting = asyncio.ensure_future(until_over(running, cancelled, over, failing))
    await asyncio.sleep(0)
    cancelled.cancel()
    over.set_result(None)
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    failing.set_exception(RuntimeError("as nobody foresaw"))
    with pytest.raises(RuntimeError, match="as nobody foresaw"):
        await waiting


@pytest.mark.parametrize("how", ["over", "cancelled"])
@in_real_time
async def test_a_program_whose_work_is_over_ends_whatever_is_done_beside_it(how: str) -> None:
    running, beside = (asyncio.get_running_loop().create_future() for _ in range(2))
    if how == "over":
        running.set_result(None)
    else:
        running.cancel()
    await asyncio.wait_for(until_over(running, beside), 10)
    assert not beside.done()


@pytest.mark.parametrize("how", ["fails", "is over", "is cancelled"])
def test_nothing_that_is_done_beside_a_broker_fails_unseen_nor_goes_on_behind_it(how: str) -> None:
    """A broker that keeps its keeper no more, or a gate that looks at its disk no more, would be found out by nobody."""
    ended: list[str] = []

    async def lasts(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise OSError("no descriptor is left")

    async def main() -> None:
        work = asyncio.sleep(0) if how == "is over" else lasts("work")
        running = asyncio.ensure_future(run_beside(work, lasts("beside"), *([fails()] if how == "fails" else [])))
        await asyncio.sleep(0)
        if how == "is cancelled":
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        elif how == "fails":
            with pytest.raises(OSError, match="no descriptor"):
                await running
        else:
            await running
        assert sorted(ended) == (["beside"] if how == "is over" else ["beside", "work"])

    asyncio.run(asyncio.wait_for(main(), 10))
