"""The table of topics: for each row who may write it, how it is kept, and that nobody else may."""

import re
from typing import NamedTuple

import msgspec
import pytest

from dsmt.errors import UnusableEventError
from dsmt.event.order import newer
from dsmt.event.registry import TOPICS, is_fact, lookup, owner_of
from dsmt.event.topic import is_topic
from dsmt.trust.grants import is_usual, may, may_say, may_write, publish_patterns, read_patterns, subset

DAY = 86_400_000
AGENT, OTHER_AGENT = "agent/n1/web/app/0", "agent/n1/web/app/1"
NAMES = (
    "operator/alice", "operator/alice.x7", "issuer/i1", "issuer/i2", "broker/b1", "broker/b2", "controller/c1",
    "controller/c2", "joining/a1", "joining/a2", "node/n1", "node/n2", "monitor/n1", "monitor/n2", AGENT, OTHER_AGENT,
    "agent/n2/db/app/0", "root",
)  # fmt: skip
OPERATORS, CONTROLLERS = ("operator/alice", "operator/alice.x7"), ("controller/c1", "controller/c2")
ISSUERS = ("issuer/i1", "issuer/i2")


class Expected(NamedTuple):
    """A row of the contract with an example; `ttl` in ms, None for durable facts and signals.

    It is written by hand: whoever changes who may say what that stands here changes it twice. What is not here is held by
    the test of every row.
    """

    topic: str
    kind: str
    """`F o`, `F S`, `s` (its source or its roles), or `F S, s`."""
    writers: tuple[str, ...]
    ttl: int | None = None
    budget: str = "evidence"


TABLE = [
    Expected("node/n1/attributes", "F o", ("monitor/n1",), DAY),
    Expected("node/n1/heartbeat", "s", ("node/n1",), None, "signal"),
    Expected("node/n1/probe/n2", "F o", ("monitor/n2",), 600_000),
    Expected("node/n1/verdict", "F S", (*CONTROLLERS, *OPERATORS)),
    Expected("node/n1/agent/web/app/0/heartbeat", "s", (AGENT,), None, "signal"),
    Expected("node/n1/monitor/heartbeat", "s", ("monitor/n1",), None, "signal"),
    Expected("broker/b1/heartbeat", "s", ("broker/b1",), None, "signal"),
    Expected("controller/c1/heartbeat", "s", ("controller/c1",), None, "signal"),
    Expected("controller/c1/state", "F o", ("controller/c1",), DAY),
    Expected("node/n1/control", "F S", OPERATORS),
    Expected("broker/b1/session/node/n1", "F o", ("broker/b1",), DAY),
    Expected("broker/b1/session/agent/n1/web/app/0", "F o", ("broker/b1",), DAY),
    Expected("broker/b1/stats", "s", ("broker/b1",)),
    Expected("service/web/spec", "F S", OPERATORS),
    Expected("nodeset/good", "F S", OPERATORS),
    Expected("service/web/control/app/0", "F S", OPERATORS),
    Expected("service/web/slot/app/0", "F S", CONTROLLERS),
    Expected("service/web/status/app/0/n1/container", "F o", ("node/n1",), DAY),
    Expected("service/web/status/app/0/n1/agent", "F o", ("node/n1",), DAY),
    Expected("service/web/status/app/0/n1/application", "F o", (AGENT,), DAY),
    Expected("service/web/progress/app/0/n1", "s", (AGENT,), None, "signal"),
    Expected("service/web/command/app/0", "s", (*OPERATORS, *CONTROLLERS)),
    Expected("service/web/health/app/0/n1", "F o", (AGENT,), DAY),
    Expected("service/web/endpoint/app/0/n1", "F o", (AGENT,), 90_000, "signal"),
    Expected("service/web/barrier/up/arrived/app/0/n1", "F o", (AGENT,), DAY),
    Expected("service/web/barrier/up/released", "F S", CONTROLLERS),
    Expected("service/web/log/app/0/n1/stderr", "s", (AGENT,), None, "log"),
    Expected("controller/c1/decision", "s", ("controller/c1",)),
    Expected(f"trust/revoked/{'0f' * 16}/node/n1", "F o", ("node/n1",)),
    Expected(f"trust/revoked/{'0f' * 16}/root", "F o", ("root",)),
    Expected("trust/certificate/abc", "F S", ("root", *ISSUERS, *OPERATORS)),
    Expected("config/lease-voters", "F S", OPERATORS),
    Expected("config/brake", "F S", OPERATORS),
    Expected("reaction/f00", "F S", OPERATORS, DAY),
    Expected("verdict/f00", "F S", OPERATORS, DAY),
    Expected("app/web/some/thing", "F S, s", (AGENT, OTHER_AGENT), None, "signal"),
    Expected("user/some/thing", "F S, s", OPERATORS, None, "signal"),
    Expected("trust/token/a1", "F S", (*ISSUERS, *OPERATORS)),
    Expected("joining/a1/request", "s", ("joining/a1",)),
    Expected("joining/a1/refused", "s", ISSUERS),
    Expected("node/n1/renewal", "s", ("node/n1",), None, "signal"),
    Expected("node/n1/certificate", "s", ISSUERS),
    # beside the table of topics: what the rules ask for
    Expected("broker/b1/notice", "s", ("broker/b1",)),
    Expected("broker/b1/trimmed", "s", ("broker/b1",)),
    Expected("config/clock/b1", "F S", OPERATORS),
    Expected("broker/b1/keeper", "s", ("broker/b1",)),
    Expected("controller/c1/keeper", "s", ("controller/c1",)),
    Expected("node/n1/keeper", "s", ("node/n1",)),
    Expected("source/controller/c1", "s", ("controller/c1",)),
    Expected("source/agent/n1/web/app/0", "s", (AGENT,)),
    Expected("tombstone/service/web", "F S", (*OPERATORS, *CONTROLLERS)),
    Expected("tombstone/node/n1", "F S", OPERATORS),
    Expected("tombstone/nodeset/good", "F S", OPERATORS),
]
ROWS = pytest.mark.parametrize("row", TABLE, ids=[row.topic for row in TABLE])


@pytest.fixture(scope="module")
def everybody(realm):
    """The names of the table with their identities; the root speaks with a certificate of its own."""
    known = {name: realm.identities[name] for name in NAMES if name != "root"}
    return {**known, "root": realm.by_root("root", key=realm.root)}


@pytest.fixture(scope="module")
def store(realm, everybody):
    return realm.store(*everybody.values())


@ROWS
def test_a_topic_is_kept_as_the_contract_says(row):
    found = lookup(row.topic).row
    assert is_topic(row.topic)
    assert found.kind == {"F": "fact", "s": "signal"}.get(row.kind[0] if "," not in row.kind else "")
    assert found.shared == (row.kind in ("F S", "F S, s") or len(row.writers) > 1)
    assert (found.ttl_ms, found.budget) == (row.ttl, row.budget)


@ROWS
def test_an_owned_topic_contains_its_only_writer_and_a_shared_one_none(row):
    if lookup(row.topic).row.shared:
        assert owner_of(row.topic) is None
    else:
        assert (owner_of(row.topic),) == row.writers


@ROWS
def test_a_name_may_write_a_topic_exactly_if_the_contract_says_so(row):
    """Grant and row together; the grant alone may hold more, to delegate it."""
    assert [name for name in NAMES if may(publish_patterns(name), row.topic) and may_write(name, row.topic)] == [
        name for name in NAMES if name in row.writers
    ]


@ROWS
def test_the_trust_store_opens_a_writer_s_event_and_refuses_every_other_one_s(realm, everybody, store, row):
    for name, identity in everybody.items():
        raw = realm.says(name, row.topic, key=identity.key)
        if name in row.writers:
            assert store.open(raw).event.topic == row.topic
        else:
            with pytest.raises(UnusableEventError) as caught:
                store.open(raw)
            assert caught.value.code == "trust.denied"


@ROWS
def test_facts_are_ordered_as_their_topic_is(realm, row):
    shared = row.kind.startswith("F S")
    old = realm.event(row.topic, source=row.writers[0], sequence=1, at=realm.now + 9, version=2 if shared else None)
    new = realm.event(row.topic, source=row.writers[-1], sequence=2, at=realm.now, version=3 if shared else None)
    assert newer(new, old)
    assert not newer(old, new)
    assert is_fact(new) == row.kind.startswith("F")


LEVELS = {
    "node": "n1", "observer": "n2", "broker": "b1", "controller": "c1", "service": "web", "component": "app", "index": "0",
    "token": "a1", "key": "0f" * 16, "source/": "node/n1", "name/": "some/thing",
}  # fmt: skip


def filled(template):
    """A template with a name at each of its open levels."""
    return re.sub(r"<([a-z]+/?)>", lambda found: LEVELS.get(found[1], "x"), template)


@pytest.mark.parametrize("row", TOPICS, ids=lambda row: row.template)
def test_whom_a_row_names_may_write_its_topics_and_nobody_else(realm, everybody, store, row):
    topic = filled(row.template)
    assert lookup(topic).row == row, "no row before it takes its topics"
    for name, identity in everybody.items():
        of_role = name.split("/")[0] in row.roles and not (name.startswith("agent/") and name.split("/")[2] != "web")
        writes = of_role or (row.owner is not None and filled(row.owner) == name)
        assert (may(publish_patterns(name), topic) and may_write(name, topic)) == writes, name
        raw = realm.says(name, topic, key=identity.key)
        if writes:
            assert store.open(raw).event.topic == topic
        else:
            with pytest.raises(UnusableEventError) as caught:
                store.open(raw)
            assert caught.value.code == "trust.denied"


@pytest.mark.parametrize("row", TOPICS, ids=lambda row: row.template)
def test_what_a_name_may_write_is_within_what_is_usual_for_it(row):
    """So a usual grant need not be looked at."""
    topic = filled(row.template)
    for name in NAMES:
        assert is_usual(name, publish_patterns(name)), name
        assert may(publish_patterns(name), topic) or not may_write(name, topic), name


@pytest.mark.parametrize("missing", range(len(publish_patterns(AGENT))))
def test_a_grant_that_lacks_a_pattern_is_not_usual_and_is_looked_at(realm, missing):
    patterns = publish_patterns(AGENT)
    left = patterns[:missing] + patterns[missing + 1 :]
    certificate = msgspec.structs.replace(realm.identities[AGENT].certificate, publish=left)
    assert not is_usual(AGENT, left)
    for row in TOPICS:
        topic = filled(row.template)
        assert may_say(certificate, topic) == (may(left, topic) and may_write(AGENT, topic))


@pytest.mark.parametrize("name", [name for name in NAMES if name.count("/") == 1])
def test_a_name_of_the_same_kind_may_not_write_the_owned_topics_of_another(name):
    role = name.split("/")[0]
    for row in TABLE:
        owner = owner_of(row.topic)
        if owner is not None and owner.startswith(f"{role}/") and owner != name:
            assert not may_write(name, row.topic)


@pytest.mark.parametrize(
    ("parent", "name"),
    [
        ("node/n1", "monitor/n1"),
        ("node/n1", AGENT),
        ("issuer/i1", "node/n7"),
        ("issuer/i1", "node/n1"),
        ("operator/alice", "operator/alice.x7"),
        ("operator/alice", "joining/a1"),
    ],
)
def test_what_a_delegate_needs_is_within_its_parent_s_grant(parent, name):
    assert subset(publish_patterns(name), publish_patterns(parent))
    assert subset(read_patterns(name), read_patterns(parent))


@pytest.mark.parametrize(
    ("parent", "name"),
    [
        ("node/n1", "monitor/n2"),
        ("node/n1", "agent/n2/web/app/0"),
        ("node/n1", "node/n2"),
        ("node/n1", "controller/c1"),
        (AGENT, OTHER_AGENT),
        ("monitor/n1", AGENT),
        ("issuer/i1", "controller/c1"),
        ("issuer/i1", "broker/b1"),
        ("issuer/i1", "operator/alice"),
        ("issuer/i1", "joining/a1"),
        ("joining/a1", "node/n1"),
        ("joining/a1", "joining/a2"),
    ],
)
def test_what_somebody_else_needs_is_not(parent, name):
    assert not subset(publish_patterns(name), publish_patterns(parent))


def test_an_agent_and_a_monitor_read_what_concerns_them_only():
    agent = read_patterns(AGENT)
    for topic in (
        "service/web/spec",
        "service/web/slot/app/1",
        "config/brake",
        "app/web/x",
        "broker/b1/stats",
        "tombstone/service/web",
    ):
        assert may(agent, topic)
    for topic in (
        "service/db/spec",
        "app/db/x",
        "node/n2/attributes",
        "user/x",
        "trust/certificate/x",
        "tombstone/service/db",
    ):
        assert not may(agent, topic)
    assert may(read_patterns("monitor/n1"), "node/n2/attributes")
    assert not may(read_patterns("monitor/n1"), "service/web/spec")
    assert read_patterns("controller/c1") == ("/",)


@pytest.mark.parametrize("topic", ["nowhere", "node/n1", "node/n1/attributes/x", "service/web", "tombstone/config/x"])
def test_a_topic_of_no_row_is_written_by_nobody(topic):
    assert lookup(topic) is None
    assert owner_of(topic) is None
    assert not any(may_write(name, topic) for name in NAMES)


def test_an_agent_writes_of_its_own_service_only_whatever_its_certificate_has_room_for():
    assert may_write(AGENT, "app/web/progress")
    assert not may_write(AGENT, "app/db/progress")
