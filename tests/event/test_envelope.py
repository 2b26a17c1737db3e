"""The envelope: when an event is dead, what it ends, what it is about, and how its id is written."""

import pytest

from dsmt.errors import InputError
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId, thing_of
from dsmt.event.hlc import hlc

AT = 1_700_000_000_000


def event(topic="service/web/spec", **fields):
    return Event(
        source="operator/a", incarnation=3, sequence=4, chain=ChainLink(1, NO_LEAF), type="t", topic=topic, subject="",
        time=hlc(AT, 9), data={}, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ttl", "now_ms", "dead"),
    [
        (None, AT, False),
        (None, 2**60, False),
        (1000, AT, False),
        (1000, AT + 999, False),
        (1000, AT + 1000, True),
        (1000, AT + 1001, True),
    ],
)
def test_an_event_is_dead_when_its_time_to_live_has_passed_and_a_durable_one_never(ttl, now_ms, dead):
    assert event(ttl=ttl).is_dead(now_ms) == dead


def test_a_time_to_live_counts_from_the_milliseconds_of_the_event_s_time():
    assert (event().time_ms, event().expires_ms, event(ttl=7).expires_ms) == (AT, None, AT + 7)


@pytest.mark.parametrize(
    ("topic", "thing"),
    [
        ("service/web/spec", "service/web"),
        ("service/web/slot/app/0", "service/web"),
        ("nodeset/good", "nodeset/good"),
        ("tombstone/service/web", "tombstone/service"),
        ("alone", "alone"),
    ],
)
def test_a_topic_is_about_what_its_first_two_levels_name(topic, thing):
    assert thing_of(topic) == thing


@pytest.mark.parametrize(
    ("topic", "ends"),
    [
        ("tombstone/service/web", "service/web"),
        ("tombstone/node/n1", "node/n1"),
        ("service/web/spec", ""),
        ("service/tombstone/web", ""),
        ("tombstones/service/web", ""),
    ],
)
def test_a_tombstone_ends_what_follows_in_its_topic_and_nothing_else_ends_anything(topic, ends):
    assert event(topic).ends == ends


def test_an_id_names_source_incarnation_and_sequence():
    assert str(event().id) == "operator/a#3-4"
    assert EventId.parse("operator/a#3-4") == event().id


def test_a_text_that_is_no_id_is_repeated_in_the_refusal():
    with pytest.raises(InputError, match="'operator/a 3-4'") as caught:
        EventId.parse("operator/a 3-4")
    assert caught.value.code == "event.id"
