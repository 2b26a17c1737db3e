"""Events of every form, for hypothesis, and one to change."""

from hypothesis import strategies as st

from dsmt.event.codec import protected_header
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId
from dsmt.event.hlc import hlc
from dsmt.trust.keys import SecretKey

KEY = SecretKey(bytes(range(32)))
PROTECTED = protected_header(KEY.algorithm, KEY.key_id)

levels = st.from_regex(r"[a-z0-9_-][a-z0-9._-]{0,6}", fullmatch=True)
topics = st.lists(levels, min_size=1, max_size=6).map("/".join)
positive = st.integers(1, 2**63 - 1)
ids = st.builds(EventId, topics, positive, positive)
printable = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=20)
text = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | text | st.binary(max_size=20)
plain = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
links = st.just(ChainLink(1, NO_LEAF)) | st.builds(ChainLink, st.integers(2, 2**63 - 1), st.binary(min_size=32, max_size=32))
orders = st.just((None, None)) | st.tuples(positive, positive)
events = st.builds(
    lambda order, **fields: Event(epoch=order[0], version=order[1], **fields),
    orders,
    source=topics,
    incarnation=positive,
    sequence=positive,
    chain=links,
    type=printable,
    topic=topics,
    subject=printable,
    time=positive,
    data=st.dictionaries(text, plain, max_size=4),
    cause=st.lists(ids, max_size=3).map(tuple),
    ttl=st.none() | st.integers(1, 2**53),
    to=st.lists(topics, max_size=3).map(tuple),
    replaces=st.none() | ids,
    declares=st.none() | st.tuples(positive, positive),
)


def an_event(**changes):
    fields = {
        "source": "node/n1",
        "incarnation": 7,
        "sequence": 3,
        "chain": ChainLink(1, NO_LEAF),
        "type": "dsmt.heartbeat",
        "topic": "node/n1/heartbeat",
        "subject": "node/n1",
        "time": hlc(1_700_000_000_000),
        "data": {"lag_s": 0.5},
    }
    return Event(**{**fields, **changes})
