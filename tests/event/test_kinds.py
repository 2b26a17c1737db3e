"""Kinds of events: what follows from a row, and what each kind says, in the words of an operator."""

import re

import msgspec
import pytest

from dsmt.event.envelope import NO_LEAF, ChainLink, Event
from dsmt.event.hlc import hlc
from dsmt.event.kinds.broker import BrokerNotice, BrokerStats, SessionFact, TrimRecord, Withheld
from dsmt.event.kinds.controller import ControllerState, Decision
from dsmt.event.kinds.instance import Command, Endpoint, Health, LogLines, Progress, Status, Step
from dsmt.event.kinds.joining import JoinRefused, JoinRequest, RenewalRequest, Renewed, TokenFact
from dsmt.event.kinds.node import NodeAttributes, NodeControl, NodeVerdict, Probe
from dsmt.event.kinds.realm import BrakeWord, BrokerWord, ClockWord, EngineWord, NodesetFact, PurgeWord, Revoked, Tombstone
from dsmt.event.kinds.row import KindRow
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, Previous, Slot, SlotControl
from dsmt.event.kinds.source import Following, Heartbeat, KeeperReplaced, Started, TakenDown
from dsmt.event.reason import reason
from dsmt.event.records import to_data
from dsmt.event.registry import TOPICS, lookup
from dsmt.event.status import Layer, State

NOW_MS = 1_700_000_000_000
WHY = reason("run.exited", exit_code=3, time="2 s")
FLAPS = reason("run.flapping", n=10, time="1m", last="exited", pause="10m", cause="its spec")
EXITED = "exited with code 3 after 2 s"
INSTANCE = "service/web/status/app/0/n1"
AT = "2026-07-01T12:00:00.000Z"
AT_MS = 1_782_907_200_000
BY = {"by": "operator/alice.x7", "reason": "disk"}


def said(topic, record, version=None):
    """What an event says of its subject."""
    found = lookup(topic).row
    event = Event(
        source="node/n1", incarnation=1, sequence=1, chain=ChainLink(1, NO_LEAF), type=found.event_type, topic=topic,
        subject="", time=hlc(NOW_MS), data=to_data(record), epoch=None if version is None else 1, version=version,
    )  # fmt: skip
    assert type(record) is found.record
    return found.says(event, record)


def status(state, layer=Layer.APPLICATION, **about):
    return Status(state=state, layer=layer, node="n1", generation=4, attempt=1, since_ms=1, emit_rate_s=30.0, **about)


def session(state, how=None):
    return SessionFact(attachment=1, state=state, how=how, since_ms=1, incarnation=1, pid=None, version="1", address="a")


def slot(node="n1", desired="running", **about):
    return Slot(node=node, spec="operator/alice#1-1", revision=2, desired=desired, **about)


def health(word, evidence="", why=None):
    return Health(health=word, generation=1, check="http", evidence=evidence, failures=0, since_ms=1, reason=why)


def command(**arguments):
    return Command(id="c", verb="RETRY", generation=1, asker="operator/alice.x7", arguments=arguments)


def token(**about):
    return TokenFact(**{"role": "node", "name": "*", "labels": {}, "expires_ms": 1, "by": "bob", **about})


def lines(*told):
    return LogLines(command="c", lines=told, last=False)


ATTRIBUTES = NodeAttributes(
    cpus=4, memory_bytes=8 * 2**30, memory_free_bytes=900 * 2**20, disk_bytes=1, disk_free_bytes=1, load=0.52, address="a",
    version="1", boot_id="b",
)  # fmt: skip
STATS = BrokerStats(
    store="s", head=9, head_hash=b"", sessions=3, events=9, facts=7, disk_bytes=1, history_from_ms=1, dropped=0, lag_s=0.0,
    pid=None, version="1", address="a",
)  # fmt: skip
DECISION = Decision(
    store="s", row=8, view_digest=b"", now_ms=1, ruleset=1, broker="b1", may_accuse=True, produced=("a", "b")
)
SENTENCES = [
    ("node/n1/heartbeat", Heartbeat(incarnation=1, sequence=5, lag_s=0.0034, emit_rate_s=1.0), "is alive: #5, lag 3 ms"),
    ("source/node/n1", Started(previous_incarnation=None, previous_sequence=None, version="1.2"), "starts, version 1.2"),
    (
        "node/n1/keeper", KeeperReplaced(directory="/h/n1", died=7, pid=9),
        "its spawner, pid 7, had died; pid 9 took its place (/h/n1)",
    ),
    ("node/n1/attributes", ATTRIBUTES, "has 4 cores, 900 MiB of 8 GiB memory free, load 0.5"),
    (
        "node/n1/probe/n2", Probe(result="passed", reason="", round_trip_s=0.0012),
        "answered a probe from n2 in 1.2 ms",
    ),
    ("node/n1/probe/n2", Probe(result="passed", reason="", round_trip_s=None), "answered a probe from n2"),
    (
        "node/n1/probe/n2", Probe(result="failed", reason="no answer", round_trip_s=None),
        "did not answer a probe from n2: no answer",
    ),
    (
        "node/n1/verdict",
        NodeVerdict(state="dead", road="silent", attachments={}, evidence=(), message="all silent", since_ms=1),
        "is dead: all silent",
    ),
    (
        "node/n1/verdict",
        NodeVerdict(state="left", road="operator", attachments={}, evidence=(), message="removed", since_ms=1),
        "has left: removed",
    ),
    ("node/n1/control", NodeControl(mode="active", **BY), 'is in use, says alice: "disk"'),
    ("node/n1/control", NodeControl(mode="draining", **BY), 'drains, says alice: "disk"'),
    ("node/n1/control", NodeControl(mode="excluded", by="bob", reason=""), "is excluded, says bob"),
    ("broker/b1/session/node/n1", session("open"), "is connected to b1"),
    ("broker/b1/session/node/n1", session("silent"), "is silent at b1"),
    ("broker/b1/session/node/n1", session("closed", "peer"), "is disconnected from b1 (the peer closed it)"),
    ("broker/b1/session/node/n1", session("closed", "timeout"), "is disconnected from b1 (it timed out)"),
    ("broker/b1/session/node/n1", session("closed", "local"), "is disconnected from b1 (b1 closed it)"),
    ("broker/b1/session/node/n1", session("closed"), "is disconnected from b1 (b1 closed it)"),
    ("broker/b1/stats", STATS, "holds 7 facts, 9 events, 3 connections"),
    (
        "broker/b1/notice", BrokerNotice(kind="gap", source="node/n1", topic=None, first=1, last=2, message="2 are missing"),
        "reports gap: 2 are missing",
    ),
    (
        "broker/b1/trimmed", TrimRecord(store="s", number=1, budget="log", first=3, last=9, count=5, rows=b""),
        "drops 5 old rows of log, from #3 to #9",
    ),
    (
        "controller/c1/state", ControllerState(version="1.2", ruleset=6, pid=None, decisions=0),
        "is up: version 1.2, ruleset 6",
    ),
    ("controller/c1/decision", DECISION, "decides 2 facts at row 8 of b1"),
    ("controller/c1/decision", msgspec.structs.replace(DECISION, produced=("a",)), "decides 1 fact at row 8 of b1"),
    ("service/web/spec", SpecFact(spec={}, **BY), 'is r3, applied by alice: "disk"'),
    ("service/web/spec", SpecFact(spec={}, by="bob", reason="", removed=True), "is removed by bob"),
    ("service/web/slot/app/0", slot(), "is to run on n1, generation 3, r2"),
    (
        "service/web/slot/app/0", slot(previous=Previous(node="n2", generation=2, deadline_ms=1), reason=WHY),
        f"is to run on n1, generation 3, r2; n2 keeps its copy until then: {EXITED}",
    ),
    ("service/web/slot/app/0", slot(None, reason=WHY), f"has no node: {EXITED}"),
    ("service/web/slot/app/0", slot(desired="stopped", reason=WHY), f"is to stop on n1, generation 3: {EXITED}"),
    ("service/web/slot/app/0", slot(desired="gone"), "is to end, generation 3"),
    ("service/web/control/app/0", SlotControl(), "is to run, says nobody"),
    ("service/web/control/app/0", SlotControl(restart=AT_MS, **BY), f'is to run, restart of {AT}, says alice: "disk"'),
    ("service/web/control/app/0", SlotControl(move="", restart=AT_MS, by="bob"), f"is to move, restart of {AT}, says bob"),
    ("service/web/control/app/0", SlotControl(move="n2", **BY), 'is to move to n2, says alice: "disk"'),
    (
        "service/web/control/app/0", SlotControl(move="n2", hold=Hold(by="bob", at_ms=1, reason="new disk"), **BY),
        'is to move to n2, is held stopped by bob: "new disk"',
    ),
    ("service/web/control/app/0", SlotControl(hold=Hold(by="bob", at_ms=1, reason="")), "is held stopped by bob"),
    (f"{INSTANCE}/container", status(State.INSTALLED, Layer.CONTAINER), "container on n1 is installed"),
    (f"{INSTANCE}/agent", status(State.RUNNING, Layer.AGENT, pid=7), "agent on n1 is running, pid 7"),
    (
        f"{INSTANCE}/agent", status(State.FAILED, Layer.AGENT, reason=WHY, orphan=True),
        f"agent on n1 is failed: {EXITED}, with no slot fact",
    ),
    (f"{INSTANCE}/application", status(State.REQUESTED), "begins on n1, generation 4"),
    (f"{INSTANCE}/application", status(State.INITIATED), "installs on n1"),
    (f"{INSTANCE}/application", status(State.INSTANTIATED), "starts on n1"),
    (f"{INSTANCE}/application", status(State.RUNNING, pid=7, orphan=True), "runs on n1, pid 7, with no slot fact"),
    (f"{INSTANCE}/application", status(State.FAILED), "failed on n1"),
    (f"{INSTANCE}/application", status(State.FAILED, reason=WHY, parked=True), f"failed on n1: {EXITED}; parked"),
    (f"{INSTANCE}/application", status(State.FAILED, reason=FLAPS, parked=True), f"failed on n1: {FLAPS.message}"),
    (f"{INSTANCE}/application", status(State.FAILED, next_try_ms=NOW_MS + 1500), "failed on n1; next try in 1.5 s"),
    (f"{INSTANCE}/application", status(State.FAILED, next_try_ms=NOW_MS + 50), "failed on n1; next try in 0.05 s"),
    (f"{INSTANCE}/application", status(State.FAILED, next_try_ms=NOW_MS + 49), "failed on n1; dsmt tries again at once"),
    (f"{INSTANCE}/application", status(State.FAILED, next_try_ms=1), "failed on n1; dsmt tries again at once"),
    (f"{INSTANCE}/application", status(State.TERMINATED), "stops on n1"),
    (
        f"{INSTANCE}/application", status(State.TERMINATED, step=Step(name="stop", since_ms=NOW_MS - 2500, limit_s=10)),
        "stops on n1; its `stop` command has taken 2.5 s so far, and is ended after 10 s",
    ),
    (f"{INSTANCE}/application", status(State.STOPPED, reason=WHY), f"is stopped on n1: {EXITED}"),
    (f"{INSTANCE}/application", status(State.GONE), "is gone from n1"),
    (f"{INSTANCE}/application", status(State.GONE, reason=WHY), f"is gone from n1: {EXITED}"),
    (f"{INSTANCE}/application", status(State.UNDEFINED), "is undefined on n1"),
    ("service/web/progress/app/0/n1", Progress(step="fetch", done=3, total=9, unit="MiB"), "fetch: 3 of 9 MiB"),
    ("service/web/progress/app/0/n1", Progress(step="fetch", done=3, total=None, unit="MiB"), "fetch: 3 MiB"),
    ("service/web/command/app/0", command(reason="disk"), 'gets RETRY from alice: "disk"'),
    ("service/web/command/app/0", command(reason=5), "gets RETRY from alice"),
    ("service/web/health/app/0/n1", health("ready"), "is ready: http"),
    ("service/web/health/app/0/n1", health("none", "it runs"), "is up: it runs"),
    ("service/web/health/app/0/n1", health("unready", "503", WHY), f"is not ready: {EXITED}"),
    (
        "service/web/endpoint/app/0/n1",
        Endpoint(address="192.0.2.1", ports={"http": 80, "tls": 443}, generation=1, ready=True),
        "is served on n1 at 192.0.2.1 http:80 tls:443",
    ),
    (
        "service/web/endpoint/app/0/n1", Endpoint(address="192.0.2.1", ports={}, generation=1, ready=True),
        "is served on n1 at 192.0.2.1",
    ),
    (
        "service/web/endpoint/app/0/n1", Endpoint(address="192.0.2.1", ports={}, generation=1, ready=False),
        "is no longer served on n1",
    ),
    ("service/web/log/app/0/n1/stdout", lines(), "wrote nothing more"),
    ("service/web/log/app/0/n1/stdout", lines("a"), "wrote: a"),
    ("service/web/log/app/0/n1/stdout", lines("a", "b"), "wrote 2 lines, the last: b"),
    ("nodeset/good", NodesetFact(expression="minus(all_nodes, n1)", **BY), 'is minus(all_nodes, n1), says alice: "disk"'),
    ("tombstone/service/web", Tombstone(**BY), 'has ended, says alice: "disk"'),
    ("config/brake", BrakeWord(held=True, released_ms=0, **BY), 'is held: nothing is replaced, says alice: "disk"'),
    ("config/brake", BrakeWord(held=False, released_ms=0, by="bob", reason=""), "is released, says bob"),
    ("config/broker/b4", BrokerWord(address="h:1", public=b"", **BY), 'b4 is a broker at h:1, says alice: "disk"'),
    ("config/broker/b4", BrokerWord(address="h:1", public=b"", leaf=True, **BY), 'b4 is a leaf at h:1, says alice: "disk"'),
    ("config/broker/b4", BrokerWord(address="h:1", public=b"", by="bob", removed=True), "b4 is a broker no more, says bob"),
    ("config/engine", EngineWord(brokers=(("h:1", b""), ("g:2", b"")), by="bob"), "moves to brokers at h:1, g:2, says bob"),
    ("config/engine", EngineWord(brokers=(("h:1", b""),), authority="PEM", by="bob"), "moves to NATS at h:1, says bob"),
    ("config/engine", EngineWord(brokers=(), by="bob"), "stays where it is, says bob"),
    (
        "config/purge/web", PurgeWord(epoch=1, **BY),
        'what web left in data directories is deleted, says alice: "disk"',
    ),
    ("config/clock/b1", ClockWord(ahead_s=3.24, **BY), 'the clock of b1\'s machine, +3.2 s, is right, says alice: "disk"'),
    ("trust/revoked/0f/root", Revoked(by="bob", name="node/n1"), "has its key revoked by bob"),
    ("trust/revoked/0f/root", Revoked(**BY), 'has its key 0f revoked by alice: "disk"'),
    ("node/n1/following", Following(word="operator/bob#1-2"), "follows the realm where that moves"),
    ("controller/c1/following", Following(word="w", lacks="nats-py"), "cannot follow the realm: nats-py"),
    ("node/n1/down", TakenDown(by="operator/bob.x7"), "is taken down, says bob"),
    ("node/n1/down", TakenDown(by="bob", reason="disk"), 'is taken down, says bob: "disk"'),
    (
        "broker/b1/withheld/b2", Withheld(count=2, source="node/n1", incarnation=1, sequence=7),
        "does not give b1 what it has said to hold: node/n1 #7",
    ),
    (
        "broker/b1/withheld/b2", Withheld(count=0, source="", incarnation=0, sequence=0),
        "gives b1 all that it has said to hold",
    ),
    ("trust/token/a1", token(), "lets one node join with any name, says bob"),
    ("trust/token/a1", token(name="db-*", **BY), 'lets one node join with the name db-*, says alice: "disk"'),
    ("trust/token/a1", token(revoked=True, key="0f", **BY), 'is revoked by alice: "disk"'),
    ("trust/token/a1", token(key="0f", member="db-1"), "is used: db-1 joins"),
    ("joining/a1/request", JoinRequest(name="db-1", public=b""), "asks to join as db-1"),
    ("joining/a1/refused", JoinRefused(key="0f", code="c", message="it is used"), "may not join: it is used"),
    ("node/n1/renewal", RenewalRequest(expires_ms=1), "asks for the next certificate"),
    ("node/n1/certificate", Renewed(certificate=b""), "has its certificate renewed"),
]  # fmt: skip


@pytest.mark.parametrize(("topic", "record", "words"), SENTENCES, ids=[words for _, _, words in SENTENCES])
def test_an_event_says_this_of_its_subject(topic, record, words):
    assert said(topic, record, version=3) == words


def test_of_each_record_there_is_a_sentence_here():
    assert {row.record for row in TOPICS} - {type(record) for _, record, _ in SENTENCES} == {None}


def test_each_row_with_a_record_has_a_sentence_and_no_other_has():
    assert [row.template for row in TOPICS if (row.record is None) != (row.says is None)] == []


def test_rows_of_one_type_say_one_thing_and_are_folded_together():
    kinds = {(row.event_type, row.record, row.says, row.folded, row.routine) for row in TOPICS}
    assert len(kinds) == len({event_type for event_type, *_ in kinds})


def test_only_facts_with_a_record_are_folded_and_only_facts_have_a_time_to_live():
    assert [row.template for row in TOPICS if row.folded and (row.kind != "fact" or row.record is None)] == []
    assert [row.template for row in TOPICS if row.ttl_ms is not None and row.kind != "fact"] == []


def test_an_owned_row_s_topics_name_their_owner():
    for row in TOPICS:
        if row.owner is not None:
            assert set(re.findall("<.+?>", row.owner)) <= set(re.findall("<.+?>", row.template)), row.template


def test_who_writes_is_one_source_or_the_sources_of_some_roles():
    owned, shared = (
        KindRow("a/<node>", "t", "fact", "node/<node>"),
        KindRow("a/<node>", "t", "fact", ("operator", "controller")),
    )
    assert (owned.owner, owned.roles, owned.shared) == ("node/<node>", (), False)
    assert (shared.owner, shared.roles, shared.shared) == (None, ("operator", "controller"), True)


def test_heartbeats_and_measurements_pass_all_the_time():
    routine = {row.event_type for row in TOPICS if row.routine}
    assert routine >= {"dsmt.heartbeat", "dsmt.broker.stats", "dsmt.node.attributes"}
