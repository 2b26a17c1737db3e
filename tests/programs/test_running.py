"""What a program's loop does beside its work: where that fails the program has crashed."""

import asyncio

import pytest

from dsmt.programs.running import until_over


def test_what_fails_beside_a_program_s_work_ends_it_and_what_is_cancelled_there_does_not() -> None:
    """A node whose certificate nobody renews any more would be let in nowhere, a month later."""

    async def main() -> None:
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

    asyncio.run(main())


@pytest.mark.parametrize("how", ["over", "cancelled"])
def test_a_program_whose_work_is_over_ends_whatever_is_done_beside_it(how: str) -> None:
    async def main() -> None:
        running, beside = (asyncio.get_running_loop().create_future() for _ in range(2))
        if how == "over":
            running.set_result(None)
        else:
            running.cancel()
        await asyncio.wait_for(until_over(running, beside), 10)
        assert not beside.done()

    asyncio.run(main())
