"""Waiting for a revision: another operator has stopped the instance in which it is tried."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from dsmt.errors import FailedError, TransportError
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.waits import lasting, settling, waiting
from tests.controllers.build import Realm, key, web

from .sights import sight
from .waits import applied, realm, wait

__all__ = ["realm"]


def tried(realm: Realm, update: str = "") -> list[int]:
    """Where r3 is tried of three instances on which r2 is good."""
    realm.apply(web(3, component=update))
    realm.settle(seconds=1)
    realm.after(60).apply(web(3, component=f"env: {{A: b}}\n{update}"))
    realm.step()
    return [index for index in range(3) if realm.slot(index).revision == 3]


def seen(realm: Realm, monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None) -> None:
    """Whoever watches sees the realm for as long as something is to stay so; at the end `then` is what comes."""

    async def watch(_bus: object) -> AsyncIterator[Sight]:
        yield sight(realm)
        yield sight(realm.after(lasting.PARKED_MS / 1000 - 0.1))
        then()
        yield sight(realm.after(0.1))

    monkeypatch.setattr(waiting, "watch", watch)


def stop(realm: Realm, index: int) -> None:
    realm.hold(key(index))
    realm.step()
    realm.status(key(index), realm.slot(index).node or "", State.STOPPED)


def test_who_waits_for_a_revision_is_told_that_somebody_has_stopped_the_instance_in_which_it_is_tried(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at,) = tried(realm)
    stop(realm, at)
    seen(realm, monkeypatch)
    for counted in (False, True):
        with pytest.raises(FailedError) as told:
            wait(partial(settling.settled, counted=counted), applied(3))
        why = f'web/app/{at}, in which it was tried, was stopped by alice: "a test"'
        assert told.value.message == f"web r3 is not ready, and goes no further: {why}"
        assert (told.value.code, told.value.exit) == ("wait.opposed", 1)
        assert told.value.next == f"dsmt start web/app/{at} lets it go on; dsmt rollback web gives it up"


def test_what_is_started_again_at_once_is_waited_for(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    (at,) = tried(realm)
    stop(realm, at)
    seen(realm, monkeypatch, lambda: realm.control(key(at), hold=None))
    with pytest.raises(TransportError, match="the connection ended"):
        wait(settling.settled, applied(3))


def test_a_revision_that_is_tried_in_another_instance_too_is_waited_for(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = tried(realm, "update: {max_parallel: 2}\n")
    stop(realm, first)
    seen(realm, monkeypatch)
    with pytest.raises(TransportError, match="the connection ended"):  # nobody there has obeyed yet
        wait(settling.settled, applied(3))
    realm.status(key(other), realm.slot(other).node or "", State.RUNNING)
    with pytest.raises(TransportError, match="the connection ended"):
        wait(settling.settled, applied(3))
    stop(realm, other)
    with pytest.raises(FailedError, match="web r3 is not ready, and goes no further"):
        wait(settling.settled, applied(3))


def test_one_of_several_services_that_goes_no_further_keeps_nobody_from_waiting_for_the_others(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    realm.apply(web(1, service="other"))
    (at,) = tried(realm)
    stop(realm, at)
    realm.settle(seconds=1)
    seen(realm, monkeypatch)
    each, bus = [applied(3), msgspec.structs.replace(applied(1), service="other")], object()
    act: Any = settling.all_settled
    done, opposed = asyncio.run(act(bus, each, limit_s=1))
    assert [(one.service, one.outcome) for one in done] == [("other", "ready")]
    assert isinstance(opposed, FailedError)
