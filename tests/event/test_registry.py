"""The registry: which row takes a topic, and what follows from a row (docs/reference/topics.md)."""

import pytest
from msgspec.structs import replace

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import NO_LEAF, ChainLink, Event
from dsmt.event.registry import (
    TOPICS,
    as_pattern,
    can_match,
    is_evidence,
    is_fact,
    lookup,
    owner_of,
    row_of,
    take_everything,
    taken,
    unify,
)


def event(topic, version=None):
    return Event(
        source="agent/n1/web/app/0", incarnation=1, sequence=1, chain=ChainLink(1, NO_LEAF), type="t", topic=topic,
        subject="", time=1, data={}, epoch=version, version=version,
    )  # fmt: skip


FOUND = [
    # a topic, the row that takes it, and what its named levels are
    ("node/n1/attributes", "node/<node>/attributes", {"node": "n1"}),
    ("node/n1/probe/n2", "node/<node>/probe/<observer>", {"node": "n1", "observer": "n2"}),
    (
        "broker/b1/session/agent/n1/web/app/0",
        "broker/<broker>/session/<source/>",
        {"broker": "b1", "source": "agent/n1/web/app/0"},
    ),
    ("source/node/n1", "source/<source/>", {"source": "node/n1"}),
    (
        "service/web/slot/app/0",
        "service/<service>/slot/<component>/<index>",
        {"service": "web", "component": "app", "index": "0"},
    ),
    ("config/brake", "config/brake", {}),
    ("config/clock/b1", "config/clock/<broker>", {"broker": "b1"}),
    ("config/other/b1", "config/<name/>", {"name": "other/b1"}),
    ("trust/revoked/0f/node/n1", "trust/revoked/<key>/<source/>", {"key": "0f", "source": "node/n1"}),
    ("trust/revoked/0f", "trust/<name/>", {"name": "revoked/0f"}),
]


@pytest.mark.parametrize(("topic", "template", "levels"), FOUND)
def test_the_first_row_that_takes_a_topic_is_its_row_and_names_its_levels(topic, template, levels):
    found = lookup(topic)
    assert (found.row.template, dict(found.levels)) == (template, levels)
    assert found.row in TOPICS
    assert row_of(topic) == found.row


NOWHERE = ["nowhere", "node/n1", "node/n1/attributes/x", "x/node/n1/attributes", "config", "config/", "node//attributes"]


@pytest.mark.parametrize("topic", NOWHERE)
def test_a_topic_that_no_row_takes_has_no_row_no_owner_and_no_fact(topic):
    assert lookup(topic) is None
    assert row_of(topic) is None
    assert owner_of(topic) is None
    assert not is_fact(event(topic, version=1))


OWNERS = [
    ("node/n1/attributes", "monitor/n1"),
    ("node/n1/probe/n2", "monitor/n2"),
    ("node/n1/agent/web/app/0/heartbeat", "agent/n1/web/app/0"),
    ("service/web/status/app/0/n1/application", "agent/n1/web/app/0"),
    ("source/agent/n1/web/app/0", "agent/n1/web/app/0"),
    (f"trust/revoked/{'0f' * 16}/node/n1", "node/n1"),
    ("service/web/spec", None),
    ("app/web/x", None),
]


@pytest.mark.parametrize(("topic", "owner"), OWNERS)
def test_an_owned_topic_names_its_only_writer(topic, owner):
    assert owner_of(topic) == owner


FACTS = [
    # a topic, and whether an event on it is a fact without a version, and with one
    ("node/n1/attributes", True, True),
    ("node/n1/heartbeat", False, False),
    ("service/web/spec", True, True),
    ("service/web/command/app/0", False, False),
    ("app/web/x", False, True),
    ("user/x", False, True),
]


@pytest.mark.parametrize(("topic", "without", "with_one"), FACTS)
def test_a_row_says_what_is_a_fact_and_where_the_writer_chooses_the_version_says_it(topic, without, with_one):
    assert (is_fact(event(topic)), is_fact(event(topic, version=1))) == (without, with_one)


@pytest.mark.parametrize(
    ("topic", "version", "type_", "said"),
    [
        ("nowhere/x", None, "t", "there is no topic nowhere/x"),
        ("user/x", None, "t", "user/x takes events of type dsmt.user, not t"),
        ("node/n1/heartbeat", 1, None, "a version stands on shared facts only"),
        ("node/n1/attributes", 1, None, "a version stands on shared facts only"),
        ("service/web/spec", None, None, "a version stands on shared facts only"),
        ("user/x", None, None, ""),
        ("user/x", 1, None, ""),
    ],
)
def test_a_row_takes_what_is_of_its_type_and_has_a_version_as_a_shared_fact_alone(topic, version, type_, said):
    match = lookup(topic)
    told = replace(event(topic, version), type=type_ or match.row.event_type)
    if not said:
        assert taken(told) == match
        return
    with pytest.raises(UnusableEventError, match=said):
        taken(told)


PATTERNS = [
    # a template, what is known, and the pattern
    ("node/<node>/attributes", {}, "node/+/attributes"),
    ("node/<node>/attributes", {"node": "n1"}, "node/n1/attributes"),
    ("node/<node>/probe/<observer>", {"observer": "n2"}, "node/+/probe/n2"),
    ("source/<source/>", {}, "source/"),
    ("source/<source/>", {"source": "node/n1"}, "source/node/n1"),
    ("trust/revoked/<key>/<source/>", {"source": "node/n1"}, "trust/revoked/+/node/n1"),
    ("trust/revoked/<key>/<source/>", {"key": "0f"}, "trust/revoked/0f/"),
    ("config/brake", {"node": "n1"}, "config/brake"),
]


@pytest.mark.parametrize(("template", "levels", "pattern"), PATTERNS)
def test_a_template_is_a_pattern_with_what_is_known_filled_in(template, levels, pattern):
    assert as_pattern(template, levels) == pattern


UNIFIED = [
    # an owner's template, a name, and the levels under which they are one
    ("node/<node>", "node/n1", {"node": "n1"}),
    ("node/<node>", "monitor/n1", None),
    ("node/<node>", "node", None),
    ("node/<node>", "node/n1/x", None),
    (
        "agent/<node>/<service>/<component>/<index>",
        "agent/n1/web/app/0",
        {"node": "n1", "service": "web", "component": "app", "index": "0"},
    ),
    ("agent/<node>/<service>/<component>/<index>", "monitor/n1/web/app/0", None),
    ("<source/>", "node/n1", {"source": "node/n1"}),
    ("<source/>", "root", {"source": "root"}),
]


@pytest.mark.parametrize(("template", "name", "levels"), UNIFIED)
def test_an_owner_s_template_becomes_a_name_under_its_levels_or_not_at_all(template, name, levels):
    assert unify(template, name) == levels


@pytest.mark.parametrize("topic", [topic for topic, owner in OWNERS if owner])
def test_the_owner_of_a_topic_is_found_from_its_row_s_template_and_the_name_s_levels(topic):
    row = lookup(topic).row
    levels = unify(row.owner, owner_of(topic))
    assert lookup(as_pattern(row.template, levels).replace("+", "z")).row == row


@pytest.mark.parametrize(
    ("pattern", "template", "may"),
    [
        ("/", "node/<node>/attributes", True),
        ("node/", "node/<node>/attributes", True),
        ("node/n1/attributes", "node/<node>/attributes", True),
        ("node/+/attributes", "node/<node>/attributes", True),
        ("node/n1/verdict", "node/<node>/attributes", False),
        ("node/n1", "node/<node>/attributes", False),
        ("node/n1/attributes/", "node/<node>/attributes", False),
        ("node/n1/attributes/more", "node/<node>/attributes", False),
        ("broker/b1/session/agent/n1/web/", "broker/<broker>/session/<source/>", True),
        ("broker/b1/session/agent/n1/web/app/0", "broker/<broker>/session/<source/>", True),
        ("broker/b1/session/node", "broker/<broker>/session/<source/>", True),
        ("broker/b1/stats/node", "broker/<broker>/session/<source/>", False),
        ("broker/b1/session/", "broker/<broker>/session/<source/>", True),
        ("broker/b1/session", "broker/<broker>/session/<source/>", False),
    ],
)
def test_a_pattern_may_take_a_row_s_topics_or_none(pattern, template, may):
    assert can_match(pattern, template) is may


EVERY_ROW = [as_pattern(row.template, {}) for row in TOPICS]


@pytest.mark.parametrize(
    ("patterns", "everything"),
    [
        (["/"], True),
        (EVERY_ROW, True),
        ([one for one in EVERY_ROW if one != "node/+/attributes"], False),
        (["any0/", "any1/"], False),
        ([*(one for one in EVERY_ROW if one != "source/"), "source/+"], False),  # names are longer
        ([], False),
    ],
)
def test_patterns_take_everything_that_take_each_topic_of_each_row(patterns, everything):
    assert take_everything(patterns) is everything


@pytest.mark.parametrize(
    ("topic", "evidence"),
    [
        ("controller/c1/decision", True),
        ("node/n1/heartbeat", False),
        ("node/n1/verdict", False),
        ("user/a", False),
        ("no/such", False),
    ],
)
def test_evidence_are_signals_whose_row_keeps_them_as_that_and_no_facts(topic: str, evidence: bool) -> None:
    assert is_evidence(topic) == evidence
