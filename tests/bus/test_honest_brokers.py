"""Who asks another broker for its last moments, and is behind a third itself, names nobody for that (rule E4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dsmt.bus.broker import withheld
from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others import examining
from dsmt.bus.broker.others.examining import examine
from dsmt.bus.wire import frames as f
from dsmt.event.kinds.broker import BrokerNotice
from tests.bus.meshes import held
from tests.bus.realm import Pen, TestRealm, scenario
from tests.bus.test_reading_again import other, three
from tests.waiting import until


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """What lasts for seconds lasts for a tenth of that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examining, "SETTLE_S", 0.4)
        patch.setattr(withheld, "NEWEST_MS", 200)
        patch.setattr(withheld, "GIVEN_MS", withheld.GIVEN_MS / 10)
        yield


def hang(broker: Broker, of: Broker) -> None:
    """What a broker reads of another one waits."""
    real = broker._others.take
    take = lambda name, *about: 50 if name == of._identity.name else real(name, *about)  # noqa: E731
    broker._others.take = take  # type: ignore[method-assign]


async def named(by: Broker, whom: Broker) -> set[str]:
    """Whom a broker has named when it has asked another one."""
    bus: Any = other(by, whom).bus
    await examine(bus, by._others._withholding, lambda _: None)
    return by._others._withholding._named


@scenario
async def test_the_broker_of_a_source_that_is_late_is_not_named_while_it_is_not_read_to_then(r: TestRealm) -> None:
    b1, b2, b3 = await three(r)
    identity, since_ms = r.identity("operator/a"), b3.now_ms()
    raw = await r.raw(identity.name, identity=identity)
    await until(lambda: b1._store.winner("broker/b3/session/operator/a") is not None and b3.now_ms() > since_ms + 1500)
    hang(b1, b3)
    raw.send(f.Publish(), Pen(identity).write("user/x", {"n": 1}, ahead_s=-1.0).raw)
    await until(lambda: held(b2) >= held(b3) != set())
    assert await named(b1, b2) == set()


@scenario
async def test_where_a_broker_reads_is_not_named_for_what_that_one_says(r: TestRealm) -> None:
    b1, _, b3 = await three(r)
    since_ms = b3.now_ms()
    await until(lambda: b3.now_ms() > since_ms + 500)
    hang(b1, b3)
    b3.say("notice", BrokerNotice(kind="clock", source="broker/b3", topic=None, first=1, last=1, message="late"))
    said_ms = b3.now_ms()
    await until(lambda: b1.now_ms() > said_ms + 700)
    assert await named(b1, b3) == set()
