"""Chains: what was sent and did not come is always known, and never more than that (rule B1, B2, B4)."""

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from dsmt.event import chain
from dsmt.event.chain import ChainPosition, ChainReader, SourceChain
from dsmt.event.codec import seal
from dsmt.event.envelope import NO_LEAF, ChainLink, Event
from dsmt.trust.keys import SecretKey

KEY = SecretKey(bytes(32))
TOPIC = "node/n1/heartbeat"
DELIVERED = {
    ChainPosition.BASELINE,
    ChainPosition.NEXT,
    ChainPosition.GAP,
    ChainPosition.LATE,
    ChainPosition.EARLIER,
    ChainPosition.FOUND,
}


def line(incarnation=1):
    return "node/n1", TOPIC, incarnation


class Source:
    """A source that signs what it is told to, in one incarnation."""

    def __init__(self, incarnation=1):
        self.chain = SourceChain(incarnation)
        self.sent = []

    def say(self, topic=TOPIC, word="x"):
        sequence, link = self.chain.next(topic)
        signed = signed_event(topic, self.chain.incarnation, sequence, link, word)
        self.chain.signed(signed.event, signed.leaf)
        self.sent.append(signed)
        return signed


def signed_event(topic, incarnation, sequence, link, word="x"):
    event = Event(
        source="node/n1",
        incarnation=incarnation,
        sequence=sequence,
        chain=link,
        type="t",
        topic=topic,
        subject="",
        time=1,
        data={"word": word},
    )
    return seal([event], KEY)[0]


def a_run(length, incarnation=1):
    source = Source(incarnation)
    return [source.say(word=str(i)) for i in range(length)]


RUN = a_run(200)
RUNS = {1: a_run(12), 2: a_run(12, 2), 3: a_run(12, 3)}


def numbers(ranges):
    return [n for low, high in ranges for n in range(low, high + 1)]


def read_all(events, most=3):
    """Feed a reader; what it delivered, gave up, and still misses."""
    reader, delivered, lost = ChainReader(), [], []
    with patch.object(chain, "MAX_MISSING", most):
        for event in events:
            judged = reader.judge(event)
            assert judged.position is not ChainPosition.EQUIVOCATION
            assert (judged.missing is None) == (judged.position is not ChainPosition.GAP)
            if judged.position in DELIVERED:
                delivered.append(event.event.chain.number)
            if judged.lost:
                lost += numbers([judged.lost])
            assert len(reader.missing(line())) <= most
    return delivered, lost, numbers(reader.missing(line()))


@given(st.lists(st.integers(0, 24), min_size=1, max_size=60))
@settings(max_examples=400)
def test_delivered_missing_and_lost_are_together_what_was_sent(places):
    """Any order, any losses, any duplicates: from the baseline to the greatest that came, each number exactly once."""
    delivered, lost, missing = read_all([RUN[i] for i in places])
    baseline = places[0] + 1
    assert len(delivered) == len(set(delivered))
    assert sorted(n for n in delivered + lost + missing if n >= baseline) == list(range(baseline, max(places) + 2))
    assert min(lost + missing, default=baseline) >= baseline, "of what was before the baseline nothing is owed"
    assert set(missing).isdisjoint(i + 1 for i in places)


@given(st.lists(st.integers(0, 24), min_size=1, max_size=60))
def test_what_comes_of_before_the_baseline_is_read_once(places):
    delivered, lost, _ = read_all([RUN[i] for i in places], most=64)
    assert sorted(delivered) == sorted({i + 1 for i in places})
    assert not lost


@given(st.permutations(range(20)))
def test_a_run_that_comes_whole_in_any_order_leaves_nothing_missing(order):
    delivered, lost, missing = read_all([RUN[i] for i in order], most=64)
    assert sorted(delivered) == list(range(1, 21))
    assert not lost
    assert not missing


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 11)), min_size=1, max_size=40))
def test_each_incarnation_is_a_chain_of_its_own_in_whatever_order_they_come(arrivals):
    reader = ChainReader()
    apart = {of: ChainReader() for of in RUNS}
    for of, i in arrivals:
        assert reader.judge(RUNS[of][i]) == apart[of].judge(RUNS[of][i])
        assert [reader.missing(line(n)) for n in RUNS] == [apart[n].missing(line(n)) for n in RUNS]


def test_what_was_before_the_baseline_goes_last_when_there_are_too_many_holes():
    reader = ChainReader()
    with patch.object(chain, "MAX_MISSING", 3):
        judged = [reader.judge(RUN[i]) for i in (9, 11, 13, 15)]
        assert [j.lost for j in judged] == [None, None, None, (11, 11)]
        assert reader.judge(RUN[4]) == chain.Judged(ChainPosition.EARLIER, lost=(13, 13))
        told = [reader.judge(RUN[i]).position for i in (10, 3, 4, 14)]
    assert told == [ChainPosition.DUPLICATE, ChainPosition.EARLIER, ChainPosition.DUPLICATE, ChainPosition.LATE]


def test_what_was_given_up_goes_first_when_there_are_too_many_holes():
    reader = ChainReader()
    with patch.object(chain, "MAX_MISSING", 3):
        for i in (9, 11, 13, 15):
            reader.judge(RUN[i])  # 11 is given up here, for 13 and 15 are missing, too
        reader.forgive(line(), 14, 15)
        assert reader.judge(RUN[17]).lost is None
        assert reader.missing(line()) == [(13, 13), (17, 17)]
        told = [reader.judge(RUN[i]).position for i in (14, 12, 4)]
    assert told == [ChainPosition.DUPLICATE, ChainPosition.LATE, ChainPosition.EARLIER]


def test_what_was_given_up_must_link_to_what_stands_around_it():
    reader = ChainReader()
    for i in (0, 3):
        reader.judge(RUN[i])
    reader.forgive(line(), 2, 3)
    behind_another = another(RUN[1], previous=bytes(32))
    told = [reader.judge(one).position for one in (behind_another, another(RUN[2]), RUN[2], another(RUN[1]), RUN[1])]
    assert told == [
        ChainPosition.EQUIVOCATION,
        ChainPosition.EQUIVOCATION,
        ChainPosition.FOUND,
        ChainPosition.EQUIVOCATION,
        ChainPosition.FOUND,
    ]


def test_more_holes_than_are_remembered_lose_the_oldest_and_one_that_comes_too_late_is_none():
    reader = ChainReader()
    odd = RUN[0 : 2 * (chain.MAX_MISSING + 3) : 2]
    judged = [reader.judge(event) for event in odd]
    assert [j.lost for j in judged if j.lost] == [(2, 2), (4, 4)]
    assert len(reader.missing(line())) == chain.MAX_MISSING
    told = [reader.judge(RUN[i]).position for i in (1, 3, 4, 5)]
    assert told == [ChainPosition.DUPLICATE, ChainPosition.DUPLICATE, ChainPosition.DUPLICATE, ChainPosition.LATE]


def test_every_second_of_a_long_gap_does_not_make_more_holes_than_are_remembered():
    reader = ChainReader()
    reader.judge(RUN[0])
    assert reader.judge(RUN[199]).missing == (2, 199)
    lost = [judged.lost for i in range(2, 198, 2) if (judged := reader.judge(RUN[i])).lost]
    left = reader.missing(line())
    assert len(left) == chain.MAX_MISSING
    assert sorted(numbers(lost) + numbers(left)) == [n for n in range(2, 200) if n % 2 == 0 or n == 199]


@given(st.integers(1, 30), st.integers(0, 29), st.lists(st.integers(1, 30), unique=True, min_size=1))
def test_what_is_forgiven_is_waited_for_no_more_and_the_rest_still_is(low, more, came):
    reader, high = ChainReader(), low + more
    for number in sorted(came):
        reader.judge(RUN[number - 1])
    before = numbers(reader.missing(line()))
    reader.forgive(line(), low, high)
    assert numbers(reader.missing(line())) == [n for n in before if not low <= n <= high]
    for number in before:
        late = reader.judge(RUN[number - 1]).position
        assert late is (ChainPosition.FOUND if low <= number <= high else ChainPosition.LATE)
        assert reader.judge(RUN[number - 1]).position is ChainPosition.DUPLICATE
    assert reader.missing(line()) == []
    assert reader.judge(RUN[max(came)]).position is ChainPosition.NEXT


def another(event, word="forged", *, previous=None):
    """Another event of the same source with the same number, and with the same link or another one."""
    told = event.event
    link = told.chain if previous is None else ChainLink(told.chain.number, previous)
    return signed_event(told.topic, told.incarnation, told.sequence, link, word)


def test_a_second_event_of_the_head_s_number_is_an_equivocation():
    reader = ChainReader()
    positions = [reader.judge(event).position for event in (*RUN[:3], another(RUN[2]), RUN[2])]
    assert positions[3:] == [ChainPosition.EQUIVOCATION, ChainPosition.DUPLICATE]


@given(st.integers(0, 8), st.integers(0, 11))
def test_one_forged_event_in_the_place_of_another_is_found_when_the_next_one_comes(first, place):
    reader = ChainReader()
    events = [another(event) if i == place else event for i, event in enumerate(RUN[:12])]
    found = [
        i for i, event in enumerate(events[first:], first) if reader.judge(event).position is ChainPosition.EQUIVOCATION
    ]
    assert found == ([place + 1] if first <= place < 11 else [])


@given(st.permutations(range(1, 9)), st.integers(1, 8))
def test_a_forged_event_cannot_fill_a_gap_unseen(order, place):
    """1 and 10 are known; 2 to 9 come late in any order, one of them forged: it shows, and the true one is missed."""
    reader = ChainReader()
    reader.judge(RUN[0])
    reader.judge(RUN[9])
    positions = [reader.judge(another(RUN[i]) if i == place else RUN[i]).position for i in order]
    assert ChainPosition.EQUIVOCATION in positions
    assert reader.missing(line())


def test_what_fills_a_gap_must_link_to_what_stands_before_it():
    source, fork = Source(), Source()
    for word in ("a", "b", "c"):
        source.say(word=word)
    for word in ("A", "b", "c"):
        fork.say(word=word)
    reader = ChainReader()
    told = [reader.judge(event).position for event in (source.sent[0], fork.sent[2], fork.sent[1])]
    assert told == [ChainPosition.BASELINE, ChainPosition.GAP, ChainPosition.EQUIVOCATION]
    assert reader.missing(line()) == [(2, 2)]


def test_a_fork_is_followed_after_it_was_told_once():
    source, fork = Source(), Source()
    for word in ("a", "b", "c"):
        source.say(word=word)
    for word in ("a", "B", "c", "d", "e"):
        fork.say(word=word)
    reader = ChainReader()
    told = [reader.judge(event).position for event in (*source.sent, *fork.sent[3:], source.sent[2])]
    assert told == [
        ChainPosition.BASELINE,
        ChainPosition.NEXT,
        ChainPosition.NEXT,
        ChainPosition.EQUIVOCATION,
        ChainPosition.NEXT,
        ChainPosition.DUPLICATE,
    ]
    assert reader.missing(line()) == []


def test_chains_of_other_topics_and_sources_are_apart():
    reader, source = ChainReader(), Source()
    told = [reader.judge(source.say(topic)).position for topic in ("a", "b", "a", "b")]
    assert told == [ChainPosition.BASELINE, ChainPosition.BASELINE, ChainPosition.NEXT, ChainPosition.NEXT]


def test_the_pair_that_was_read_longest_ago_is_forgotten_and_begins_as_a_baseline():
    reader, source = ChainReader(most=2), Source()
    for topic in ("a", "b"):
        reader.judge(source.say(topic))
    reader.judge(source.say("a"))
    assert reader.judge(source.say("c")).position is ChainPosition.BASELINE
    assert reader.judge(source.say("a")).position is ChainPosition.NEXT
    assert reader.judge(source.say("b")).position is ChainPosition.BASELINE


def test_what_is_forgiven_of_a_chain_that_is_forgotten_is_nothing():
    reader, source = ChainReader(most=1), Source()
    reader.judge(source.say("a"))
    reader.judge(source.say("b"))
    reader.forgive(("node/n1", "a", 1), 2, 3)
    assert reader.missing(("node/n1", "a", 1)) == []


def test_a_source_numbers_its_events_and_links_each_topic_from_zeros():
    source = Source()
    first, other, second = source.say("a"), source.say("b"), source.say("a")
    assert [s.event.sequence for s in source.sent] == [1, 2, 3]
    assert first.event.chain == other.event.chain == ChainLink(1, NO_LEAF)
    assert second.event.chain == ChainLink(2, first.leaf)
