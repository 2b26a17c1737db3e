"""What attaching costs: it is on the account of the ancestor, and bounded there; nobody else is delayed (rule D2)."""

from __future__ import annotations

import pytest

from dsmt.bus.rules.quota import ATTACH_BURST, ATTACH_RATE, CERTIFICATES, Rates
from dsmt.errors import RefusedError
from tests.bus.realm import TestRealm, scenario
from tests.waiting import until

DAY_S = 24 * 3600


@scenario
async def test_what_is_said_of_a_nodes_sessions_is_on_its_account(r: TestRealm):
    broker = await r.broker()
    node = r.identity("node/n1")
    name = "agent/n1/web/app/0"
    await r.client(node.name, identity=node)
    await until(lambda: broker._store.winner("broker/b1/session/node/n1") is not None)
    before = broker._store.live("node/n1")[0]
    agent = await r.client(name, identity=r.identity(name, parent=node))
    winner = f"broker/b1/session/{name}"
    await until(lambda: broker._store.winner(winner) is not None)
    assert broker._store.live("node/n1")[0] >= before + 1
    await r.stop(agent)
    await until(lambda: broker._session_words.presence._known[name].state == "closed")
    assert broker._store._db.one("SELECT count(*) FROM events WHERE topic = ? AND payer != 'node/n1'", (winner,)) == (0,)


@scenario
async def test_who_attaches_under_ever_new_names_is_refused_with_a_sentence_and_its_node_is_not(r: TestRealm):
    broker = await r.broker()
    broker._admission.comings = Rates(0.01, 4.5)
    nodes = {name: r.identity(f"node/{name}") for name in ("n1", "n2")}
    for i in range(5):
        name = f"agent/n1/web/app/{i}"
        await r.raw(name, identity=r.identity(name, parent=nodes["n1"]))
    rows = broker._store.head
    name = "agent/n1/web/app/5"
    with pytest.raises(RefusedError) as caught:
        await r.raw(name, identity=r.identity(name, parent=nodes["n1"]))
    assert caught.value.code == "quota"
    assert "what node/n1 has certified attaches again and again" in caught.value.message
    assert not [row for row in broker._store.rows(rows, 1000) if row.topic.endswith(name)]
    assert (await r.client("node/n1", identity=nodes["n1"])).attached
    other = "agent/n2/web/app/0"
    assert (await r.client(other, identity=r.identity(other, parent=nodes["n2"]))).attached


@scenario
async def test_who_attaches_and_detaches_in_a_loop_is_refused_and_attaches_when_it_has_waited(r: TestRealm):
    broker = await r.broker()
    broker._admission.comings = Rates(0.3, 2.5)
    node = r.identity("node/n1")
    for _ in range(3):
        await r.raw(node.name, identity=node)
    with pytest.raises(RefusedError, match="node/n1 attaches again and again"):
        await r.raw(node.name, identity=node)
    assert (await r.client(node.name, identity=node)).attached


@scenario
async def test_who_falls_silent_and_speaks_again_and_again_is_sent_away(r: TestRealm):
    broker = await r.broker()
    broker._admission.comings = Rates(0.01, 1.5)
    raw = await r.raw("operator/eve")
    await until(lambda: broker._sessions.by_name)
    session, presence = broker._sessions.by_name["operator/eve"], broker._session_words.presence
    for _ in range(2):
        presence._known["operator/eve"].becomes("silent", 0)
        broker._heard(session)
    await raw.closed()
    assert session.refused


@scenario
async def test_a_new_name_is_refused_where_the_ancestor_has_as_many_facts_as_it_may(r: TestRealm):
    broker = await r.broker()
    node = r.identity("node/n1")
    await r.client(node.name, identity=node)
    broker._store.live = lambda _payer=None: (100_000, 0)
    with pytest.raises(RefusedError, match="as many as its certificate allows"):
        await r.raw("agent/n1/web/app/0", identity=r.identity("agent/n1/web/app/0", parent=node))
    await r.raw(node.name, identity=node)


@scenario
async def test_who_is_refused_for_want_of_room_has_not_attached_and_pays_nothing(r: TestRealm):
    """Else those that found no room would keep out the next ones of their node when there is some."""
    broker = await r.broker()
    broker._admission.comings = Rates(0.001, 1.0)
    node, names = r.identity("node/n1"), [f"agent/n1/web/app/{i}" for i in range(3)]
    live, broker._store.live = broker._store.live, lambda _payer=None: (100_000, 0)
    for name in names[:2]:
        with pytest.raises(RefusedError, match="as many as its certificate allows"):
            await r.raw(name, identity=r.identity(name, parent=node))
    broker._store.live = live
    await r.raw(names[2], identity=r.identity(names[2], parent=node))


def comings(times: list[float]) -> int:
    """How many of those who come at these times are refused."""
    rates, refused = Rates(ATTACH_RATE, ATTACH_BURST), 0
    for at in times:
        if rates.may("operator/alice/", at):
            rates.spend("operator/alice/", 1.0, at)
        else:
            refused += 1
    return refused


def test_ordinary_use_is_never_refused():
    assert comings([float(second) for second in range(DAY_S)]) == 0, "a command line each second"
    assert comings([0.0] * CERTIFICATES) == 0, "all that a node may have certified, at once"
    assert comings([i * 30.0 for i in range(DAY_S // 30) for _ in range(100)]) == 0, "a hundred agents each half a minute"


def test_a_loop_costs_no_more_in_a_day_than_its_rate():
    assert DAY_S * 20 - comings([i / 20 for i in range(DAY_S * 20)]) <= DAY_S * ATTACH_RATE + ATTACH_BURST + 1
