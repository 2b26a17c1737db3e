"""A copy of a process is attached to another broker, later than the true one, and ends: the true one counts again (A11)."""

from __future__ import annotations

from dsmt.bus.client.client import BusClient
from dsmt.bus.rules.ended_keys import NAMESAKE
from dsmt.event.kinds.broker import SessionFact
from tests.bus.meshes import at, mesh
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.test_brokers_of_one_name import session
from tests.bus.test_named_twice import FOLLOWING, say, told
from tests.waiting import until


def stays(client: BusClient) -> None:
    """Have a client know no other broker than its own."""
    client.brokers.told = lambda *_, **__: None  # type: ignore[method-assign]


@scenario
async def test_who_is_attached_when_a_later_attachment_elsewhere_has_ended_attaches_anew_with_a_greater_one(
    r: TestRealm,
) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    identity = r.identity("node/n1")
    true = await r.client("node/n1", identity=identity, brokers=at(b1))
    stays(true)
    copied = await r.client("node/n1", identity=identity, brokers=at(b2))
    stays(copied)
    before = true.attachment
    await until(lambda: session(b1, "broker/b2", "node/n1"))
    assert (true.attached, true.attachment) == (True, before), "while both are there both stay"
    assert copied.attachment > before

    def newest() -> SessionFact:
        said = [session(b1, f"broker/{name}", "node/n1") for name in ("b1", "b2")]
        return max((one for one in said if one is not None), key=lambda one: one.attachment)

    await r.stop(copied)
    await until(lambda: true.attachment > copied.attachment)
    await until(lambda: (newest().attachment, newest().state) == (true.attachment, "open"))


@scenario
async def test_who_attaches_anew_after_a_copy_that_has_spoken_later_is_told_to_say_all_again(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    identity = r.identity("node/n1")
    true = await r.client("node/n1", identity=identity, brokers=at(b1))
    await say(true, "true")
    copied = await r.client("node/n1", identity=identity, brokers=at(b2))
    for client in (true, copied):
        stays(client)
    await say(copied, "copied")
    await until(lambda: told(b1, b2) == {"copied"})
    async with reading(true, FOLLOWING) as seen:
        await r.stop(copied)
        await seen.until(lambda one: NAMESAKE in one.notices)
        await say(true, "true")
    await until(lambda: told(b1, b2) == {"true"})
