"""The last events of a service, on its screen: what others write without end keeps nobody from that screen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli.status import _last_events
from dsmt.errors import TransportError
from dsmt.event.registry import TOPICS
from dsmt.event.topic import matches
from dsmt.operations.words.patterns import some_topic
from dsmt.operations.words.targets import Target
from dsmt.ports.bus import Interest
from tests.loops import in_virtual_time
from tests.operations.test_extremes import LEVELS, filled

OF_SERVICES = [row for row in TOPICS if row.template.startswith("service/<service>/")]
TOLD = {"dsmt.service.spec", "dsmt.slot", "dsmt.slot.control", "dsmt.status", "dsmt.health"}


@pytest.mark.parametrize("row", OF_SERVICES, ids=lambda row: row.template)
@pytest.mark.parametrize("target", ["web", "web/app", "web/app/0", "web/app/1", "db"])
def test_what_it_is_to_be_and_how_it_is_is_read_and_nothing_of_what_it_writes(row: Any, target: str) -> None:
    named, levels = Target.parse(target), {"component": "app", "index": "0", "service": "web"}
    assert {name: LEVELS[name] for name in levels} == levels
    is_its = target in ("web", "web/app", "web/app/0") or (target == "web/app/1" and row.event_type == "dsmt.service.spec")
    taken = any(matches(some_topic(pattern), filled(row.template)) for pattern in named.states)
    assert taken == (is_its and row.event_type in TOLD)


class Never:
    """Deliveries of which none comes."""

    def __aiter__(self) -> "Never":
        return self

    async def __anext__(self) -> Any:
        await asyncio.Event().wait()


@in_virtual_time
async def test_a_screen_comes_without_them_where_they_do_not_come(capsys: pytest.CaptureFixture[str]) -> None:
    @asynccontextmanager
    async def subscribe(_: Interest) -> AsyncIterator[Never]:
        yield Never()

    bus = SimpleNamespace(subscribe=subscribe, now_ms=lambda: 10**12, attached=True, broker="broker/b1")
    assert await _last_events(bus, Target("web")) == []  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert said.startswith("warning: its last events did not come within 20 s: dsmt tail service/web/spec ")


async def lost(*_: Any) -> AsyncIterator[Any]:
    raise TransportError("wait.ended", "the connection ended", next="try again")
    yield []


@in_virtual_time
async def test_a_lost_connection_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmt.cli.status.tail", lost)
    with pytest.raises(TransportError, match="the connection ended"):
        await _last_events(SimpleNamespace(), Target("web"))  # type: ignore[arg-type]
