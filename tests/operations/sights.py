"""A sight of a realm that stands in a test's hands."""

import asyncio
from collections.abc import AsyncIterator, Callable

from dsmt.operations.read.realm.passing import Passing
from dsmt.operations.read.realm.sight import Sight
from tests.controllers.build import Realm


def sight(realm: Realm) -> Sight:
    """What an operator attached to the realm's first broker sees."""
    return Sight(realm.view, realm.now_ms, realm.now_ms - 400, realm.broker, whole=True, passing=Passing())


def watched(realm: Realm) -> Callable[[object], AsyncIterator[Sight]]:
    """In the place of `watch`: what is so, each hundredth of a second."""

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        while True:
            yield sight(realm)
            await asyncio.sleep(0.01)

    return watch
