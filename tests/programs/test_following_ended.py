"""A key has ended, and nothing stands of where the realm moves: a member goes nowhere, once its broker knows all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dsmt.ports.bus import Complete, Cursor, Delivery, Notice
from dsmt.ports.realm import KEY_ENDED
from dsmt.programs.following import DESTINATION, Follower
from tests.programs.test_following import HERE


class Reads:
    """A bus of which each subscription brings the next of these."""

    def __init__(self, *brought: Delivery) -> None:
        self._brought = list(brought)

    @asynccontextmanager
    async def subscribe(self, _interest: object) -> AsyncIterator[AsyncIterator[list[Delivery]]]:
        async def batches() -> AsyncIterator[list[Delivery]]:
            yield [self._brought.pop(0)]

        yield batches()


@pytest.mark.parametrize("whole", [False, True])
def test_only_a_broker_that_is_whole_tells_by_its_silence_that_the_realm_stays(tmp_path: Path, whole: bool) -> None:
    """One that was made anew has yet to read the word of who is believed, and has the realm move."""
    bus: Any = Reads(Notice(KEY_ENDED, ""), Complete(Cursor("store", 1, 0), whole=whole))
    nobody: Any = None
    (tmp_path / DESTINATION).touch()
    asyncio.run(Follower(bus, nobody, tmp_path, HERE, nobody)._hear())
    assert (tmp_path / DESTINATION).exists() is not whole
