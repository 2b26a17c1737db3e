"""Outside: of a node that is let in no more it is told since when, why, what to do, and what may still run there."""

from __future__ import annotations

import asyncio
from itertools import permutations
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.realm import Revoked
from dsmt.event.status import Layer, State
from dsmt.operations.read.rows.certificates import in_use
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.rows.outside import Outside, twice
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.summaries import services, status
from dsmt.operations.read.why.answers import of_target
from dsmt.operations.read.why.explaining import why
from dsmt.operations.remote.adding import _out
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from dsmt.view import View
from tests.controllers.build import Realm, key, web
from tests.operations.scripted import ScriptedBus, came, complete
from tests.operations.sights import sight
from tests.operations.test_alerts import certified, stats

KEY = "ab" * 16
ROOT = SecretKey(bytes(32))


def trust() -> TrustStore:
    return TrustStore(RealmName(name="prod", roots=(ROOT.public,)))


def expired(realm: Realm, *, ends_s: int) -> TrustStore:
    """What a reader knows: the certificate of n2, which has ended so long ago."""
    store, begins = trust(), realm.now_ms // 1000 - 7200
    store.add(root_issued("node/n2", ROOT, key=ROOT, now_s=begins, serial=bytes(16), lifetime_s=7200 - ends_s).chain[0].raw)
    return store


def running() -> tuple[Realm, list[int]]:
    """A realm of two nodes with two instances on each; which of them are on n2."""
    realm = Realm("n1", "n2", "n3")
    realm.controller("c1")
    realm.apply(web(6))
    realm.settle(seconds=1)
    return realm, [number for number, node in enumerate(realm.nodes_of()) if node == "n2"]


def keep_out(realm: Realm, node: str = "n2") -> None:
    realm.session(f"node/{node}", "closed", how="peer", kept_out=KEY)


def out(realm: Realm, store: TrustStore | None = None, node: str = "n2") -> Outside | None:
    used = in_use(store or trust(), realm.now_ms // 1000)
    return next(one.out for one in node_rows(sight(realm), used) if one.node == node)


def test_of_a_node_whose_copy_keeps_it_out_that_is_told_though_its_monitor_is_attached() -> None:
    realm, there = running()
    since_ms = realm.now_ms
    keep_out(realm)
    told = out(realm.after(60))
    assert told is not None
    assert (told.why, told.key, told.since) == ("kept out", KEY, rfc3339(since_ms))
    assert [(one.instance, one.elsewhere) for one in told.may_run] == [(f"web/app/{n}", None) for n in there]
    shown = status(sight(realm), trust(), [])
    assert (shown.state, shown.nodes.alive, shown.nodes.out) == ("degraded", 3, ["n2"])
    (alert,) = (one for one in shown.alerts if one.target == "node/n2")
    assert (alert.code, alert.who) == ("node.kept_out", "you")
    runs = "; may still run there: " + ", ".join(f"web/app/{n}" for n in there)
    said = f"two processes have attached in turn with its key, as if it was copied: both are out since {rfc3339(since_ms)}"
    assert alert.message == said + runs
    way = f"dsmt node add it again, or dsmt cert revoke {KEY} here and dsmt join TOKEN there"
    assert alert.next == f"end the copy, then dsmt cert rotate node/n2; on a host: {way}"
    assert of_target(sight(realm), "node/n2", [], {}, {}) == (
        f"node/n2 is alive, and let in no more: {alert.message}; next: {alert.next}"
    )


def test_who_attaches_again_with_another_key_is_out_no_more() -> None:
    realm, _ = running()
    keep_out(realm)
    realm.attach("n2", sources=["node/n2"])
    assert out(realm) is None
    assert status(sight(realm), trust(), []).nodes.out == []


@pytest.mark.parametrize("why", ["revoked", "expired", "kept out"])
def test_what_was_replaced_since_is_told_with_where_it_is_now_and_what_has_ended_there_is_not(why: str) -> None:
    realm, there = running()
    ended, *left = there
    realm.status(key(ended), "n2", State.STOPPED)
    store = trust()
    if why == "revoked":
        realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/n2", reason="stolen"))
        realm.after(9)  # so long may it take until its sessions are ended
    elif why == "expired":
        store = expired(realm, ends_s=60)
    realm.close("n2")
    if why == "kept out":
        keep_out(realm)
    realm.verdict("n2")
    realm.settle(seconds=1)
    told = out(realm, store)
    assert told is not None
    assert told.why == why
    places = realm.nodes_of()
    assert "n2" not in places
    assert [(one.instance, one.elsewhere) for one in told.may_run] == [(f"web/app/{n}", places[n]) for n in left]
    assert all(f"web/app/{n} (on {places[n]} now)" in told.message for n in left)
    (alert,) = (one for one in status(sight(realm), store, []).alerts if one.target == "node/n2")
    assert (alert.message.startswith(told.message), alert.who) == (True, "you")
    assert told.message in of_target(sight(realm), "node/n2", [], {}, in_use(store, realm.now_ms // 1000))
    realm.hold(key(left[0]))
    realm.settle(seconds=1)
    told = out(realm, store)
    assert told is not None
    assert told.may_run[0].elsewhere is None, "it is stopped there"


def test_who_joined_again_is_not_out_for_the_key_that_was_revoked_before() -> None:
    realm, _ = running()
    realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/n2", reason="stolen"))
    realm.close("n2")
    assert out(realm) is not None
    realm.after(2).attach("n2", number=realm.now_ms + 2_000)
    assert out(realm) is None
    realm.after(9).close("n2")
    realm.verdict("n2")
    assert out(realm) is None


def test_who_attached_where_a_revocation_was_not_heard_of_yet_and_was_closed_for_it_is_out() -> None:
    realm, _ = running()
    realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/n2", reason="stolen"))
    realm.after(3).attach("n2", number=realm.now_ms + 3_000)
    realm.after(6).close("n2")
    told = out(realm)
    assert told is not None
    assert (told.why, told.key) == ("revoked", KEY)


@pytest.mark.parametrize(("number", "is_out"), [(0, True), (1, False)], ids=["before", "after"])
def test_a_revocation_ends_what_had_attached_by_then_and_nothing_later(number: int, is_out: bool) -> None:
    """By the greatest attachment of any of its sources, however long it was heard."""
    realm, _ = running()
    realm.attach("n2", sources=["node/n2"], number=realm.now_ms + number)
    realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/n2", reason="stolen"))
    realm.after(60).close("n2")
    assert (out(realm) is not None) == is_out


def test_of_a_node_of_whose_sessions_nothing_is_known_the_time_tells_and_the_key_of_another_one_does_not() -> None:
    realm, _ = running()
    for name in ("node/n3", "node/n9"):
        realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name=name, reason="stolen"))
        realm.close("n2")
        assert out(realm) is None
    realm.attributes("n9")
    assert out(realm, node="n9") is not None
    realm.after(60).attributes("n9")
    assert out(realm, node="n9") is None


def test_who_was_heard_for_long_on_the_other_side_of_a_cut_is_out_all_the_same() -> None:
    realm, _ = running()
    realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/n2", reason="stolen"))
    realm.after(60).attributes("n2")
    assert out(realm) is None
    realm.close("n2")
    realm.verdict("n2")
    told = out(realm)
    assert told is not None
    assert told.why == "revoked"


@pytest.mark.parametrize(
    ("state", "about", "may_run"),
    [
        (State.RUNNING, {}, True),
        (State.STOPPED, {}, False),
        (State.FAILED, {}, False),
        (State.FAILED, {"next_try_ms": 1}, True),
        (State.GONE, {"layer": Layer.CONTAINER}, False),
    ],
    ids=["running", "stopped", "failed", "to be tried again", "cleared away"],
)
def test_what_has_ended_for_good_is_not_told_to_run(state: State, about: dict[str, Any], may_run: bool) -> None:
    realm, there = running()
    realm.status(key(there[0]), "n2", state, **about)
    keep_out(realm)
    told = out(realm)
    assert told is not None
    assert (f"web/app/{there[0]}" in {one.instance for one in told.may_run}) == may_run


def test_the_word_of_a_broker_that_is_lost_keeps_nobody_out() -> None:
    realm = Realm("n1", "n2", brokers=("b1", "b2"))
    realm.session("broker/b2", "open", broker="b1")
    realm.session("node/n2", "closed", how="peer", broker="b2", attachment=2, kept_out=KEY)
    assert out(realm) is not None
    realm.session("broker/b2", "closed", broker="b1")
    assert out(realm) is None


def test_where_nobody_believes_what_was_said_of_an_instance_its_slot_tells_where_it_was() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(4))
    for _ in range(20):
        realm.step()
        realm.after(1)  # nothing is said of any instance, as of those of a key that nobody believes
    there = [number for number, node in enumerate(realm.nodes_of()) if node == "n2"]
    realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/n2", reason="stolen"))
    realm.close("n2")
    realm.verdict("n2")
    told = out(realm)
    assert told is not None
    assert [(one.instance, one.elsewhere) for one in told.may_run] == [(f"web/app/{n}", None) for n in there]
    realm.settle(seconds=1, obey=False)
    told = out(realm)
    assert told is not None
    assert [(one.instance, one.elsewhere) for one in told.may_run] == [(f"web/app/{n}", "n1") for n in there]


def test_what_was_placed_there_after_it_was_out_is_not_told_to_run() -> None:
    realm = Realm("n1", "n2")
    since_ms = realm.now_ms
    realm.after(1).apply(web(2))
    realm.settle(seconds=1, obey=False)
    assert "n2" in realm.nodes_of()
    realm.session("node/n2", "closed", how="local", since_ms=since_ms, kept_out=KEY)
    told = out(realm)
    assert told is not None
    assert told.may_run == []
    assert "may still run" not in told.message


def test_a_node_whose_copy_is_attached_to_another_broker_is_named_with_both_brokers() -> None:
    realm = Realm("n1", "n2", brokers=("b1", "b2"))
    realm.controller("c1")
    realm.apply(web(2))
    realm.settle(seconds=1)
    assert "n2" in realm.nodes_of(), "it is in, and what it runs is in its place"
    since_ms = realm.now_ms
    for source in ("node/n2", "controller/c1"):
        realm.session(source, "open", broker="b2", attachment=2)
    assert out(realm.after(19)) is None
    told = out(realm.after(1))
    assert told is not None
    assert (told.why, told.since, told.may_run) == ("twice", rfc3339(since_ms), [])
    known = expired(realm, ends_s=-60)
    told = out(realm, known)
    assert told is not None
    (own,) = known.certificates()
    assert told.key == own.key_id.hex()
    assert f"dsmt cert revoke {told.key} here" in told.next
    shown = status(sight(realm), trust(), [])
    assert (shown.state, shown.nodes.out) == ("degraded", [])
    alerts = {one.target: one for one in shown.alerts}
    said = "two processes are attached under its name, as if it was copied, or the name given again, "
    said += f"at b1 and b2, since {rfc3339(since_ms)}"
    assert said in alerts["node/n2"].message
    assert said in alerts["controller/c1"].message
    assert (alerts["node/n2"].code, alerts["controller/c1"].code) == ("node.twice", "controller.twice")
    assert f"node/n2 is alive, and there twice: {told.message}; next: end" in of_target(sight(realm), "node/n2", [], {}, {})


def test_what_a_broker_says_that_is_not_heard_makes_nobody_two() -> None:
    """A full disk: it cannot say that who was attached there has gone elsewhere."""
    realm = Realm("n1", "n2", brokers=("b1", "b2"))
    realm.session("node/n2", "open", broker="b2", attachment=2)
    realm.after(20)
    seen = sight(realm)
    for broker, ago_ms in (("b1", 1_000), ("b2", 1_000)):
        seen.passing.stats[broker] = realm.now_ms - ago_ms, stats()
    assert twice(seen, "node/n2", {}) is not None
    seen.passing.stats["b2"] = realm.now_ms - 10_000, stats()
    assert twice(seen, "node/n2", {}) is None


def test_what_a_broker_said_whose_certificate_has_ended_makes_nobody_two_and_parts_no_brokers() -> None:
    realm = Realm("n1", "n2", brokers=("b1", "b2", "b3"))
    realm.controller("c1")
    realm.apply(web(2))
    realm.settle(seconds=1)
    for source in ("node/n2", "controller/c1"):
        realm.session(source, "open", broker="b2", attachment=2)
    for to, by in permutations(("b1", "b2", "b3"), 2):
        realm.session(f"broker/{to}", "open", broker=by)
    for to, by in (("b1", "b2"), ("b2", "b1")):
        realm.session(f"broker/{to}", "closed", how="timeout", broker=by)
    seen = sight(realm.after(20))

    def told(ends_s: int) -> set[str]:
        used = certified(seen.now_ms // 1000, broker_b2=ends_s)
        found = Found(nodes=node_rows(seen, used), controllers=controller_rows(seen), used=used, services=services(seen))
        return {one.code for one in alerts(seen, found)} & {"node.twice", "controller.twice", "broker.apart"}

    assert told(3600) == {"node.twice", "controller.twice", "broker.apart"}
    assert told(-60) == set()


def test_nor_does_it_where_a_node_is_explained_or_added_again_which_would_end_its_key() -> None:
    realm = Realm("n1", "n2", brokers=("b1", "b2"))
    realm.session("node/n2", "open", broker="b2", attachment=2)
    realm.after(60)
    realm.say("broker/b1", "broker/b1/stats", stats())
    events = [event for _, event in realm.rows]
    bus = cast("Any", ScriptedBus([[*came(*events), complete(realm.now_ms)]], now_ms=realm.now_ms, events=events))
    assert "twice" not in asyncio.run(why(bus, trust(), "node/n2")).explained.says
    assert asyncio.run(_out(cast("Any", SimpleNamespace(bus=bus, trust=trust())), "n2")) == (None, None)


def test_of_however_many_nodes_that_are_away_the_facts_of_the_realm_are_gone_through_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    realm, gone = Realm("n1"), [f"x{number}" for number in range(40)]
    for name in gone:
        realm.attributes(name)
    realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/x7", reason="stolen"))
    passed: list[int] = []
    winners = View.winners
    monkeypatch.setattr(View, "winners", lambda view: passed.append(1) or winners(view))
    rows = {one.node: one for one in node_rows(sight(realm.after(60)))}
    assert [one.node for one in rows.values() if one.out is not None] == ["x7"]
    assert len(passed) <= 1
