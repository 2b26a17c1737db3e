"""A realm of which one instance fails, and waits that look at it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dsmt.event.reason import reason
from dsmt.event.status import State
from dsmt.operations.read.waits import waiting
from dsmt.operations.read.waits.heeding import Asked, asked_of
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.words.targets import Target
from dsmt.operations.words.telling import Tell, silent
from dsmt.operations.write.controlling import following
from tests.controllers.build import Realm, key, web

from .sights import sight, watched

WEB = Target("web")
EXITED = reason("start.exited", code="code 3", exit_code=3, time="3ms", target="web/app/0")


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Realm:
    """Two of web on two nodes, of which the second fails; whoever watches sees it."""
    made = Realm("n1", "n2")
    made.apply(web(2))
    made.settle(seconds=1)
    made.status(key(1), made.slot(1).node or "", State.FAILED, reason=EXITED, next_try_ms=made.now_ms + 5_000, failures=1)
    monkeypatch.setattr(waiting, "watch", watched(made))
    return made


def wait(act: Callable[..., Coroutine[Any, Any, Any]], *words: object, tell: Tell = silent) -> Any:
    bus: Any = None
    return asyncio.run(act(bus, *words, limit_s=0.1, tell=tell))


def applied(revision: int) -> Applied:
    return Applied(service="web", revision=revision, plan=None, outcome="applied", ready=0, wanted=2)


def asked(realm: Realm) -> dict[str, Asked]:
    """What stands of both now, as a command that has just been given says."""
    found = {}
    for index in range(2):
        entry = realm.view.slot(key(index))
        assert entry is not None
        found[str(key(index))] = asked_of(sight(realm), key(index), following(entry), entry.followed_control[0])
    return found
