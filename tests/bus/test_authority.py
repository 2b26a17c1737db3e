"""Who may read, end a key, or write what instances say to each other (rules A14, J3)."""

from __future__ import annotations

from typing import Any

import pytest

from dsmt.bus.rules.authority import check_reads, check_revocation, check_runs
from dsmt.errors import InputError, RefusedError, UnusableEventError
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.trust.revocations import topic_of


def event(topic: str, source: str, data: dict[str, Any] | None = None, ttl: int | None = None) -> Event:
    return Event(
        source=source, incarnation=1, sequence=1, chain=ChainLink(1, NO_LEAF), type="t", topic=topic, subject="", time=1,
        data=data or {}, ttl=ttl,
    )  # fmt: skip


def signed(one: Event, key_id: bytes = b"k" * 16) -> SignedEvent:
    return SignedEvent(one, b"", bytes(32), key_id)


@pytest.mark.parametrize(
    ("patterns", "refused"),
    [
        (("service/web/", "config/"), None),
        (("service/web/status/app/0/n1/application",), None),
        (("config/", "service/"), "service/"),
        (("service/db/slot/app/0",), "service/db/slot/app/0"),
        (("/",), "/"),
        ((), None),
    ],
)
def test_each_pattern_must_be_within_what_the_certificate_lets_read(patterns, refused) -> None:
    if refused is None:
        check_reads("agent/a", ("service/web/", "config/"), patterns)
        return
    with pytest.raises(RefusedError, match=f"agent/a may not read {refused}$") as told:
        check_reads("agent/a", ("service/web/", "config/"), patterns)
    assert told.value.code == "trust.denied"


def test_what_is_no_pattern_is_a_mistake_and_no_refusal() -> None:
    with pytest.raises(InputError):
        check_reads("agent/a", ("/",), ("a//b",))


class Trust:
    """Knows which key may end which."""

    def may_revoke(self, by: bytes, key_id: bytes) -> bool:
        return (by, key_id) == (b"k" * 16, b"x" * 16)


ROOTS = topic_of(b"x" * 16, "root")


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (signed(event(ROOTS, "root")), None),
        (signed(event("user/t", "root", ttl=5)), None),
        (signed(event(ROOTS, "root"), b"o" * 16), "trust.denied"),
        (signed(event(topic_of(b"y" * 16, "root"), "root")), "trust.denied"),
        (signed(event(ROOTS, "root", ttl=5)), "event.schema"),
        (signed(event("trust/revoked/abc/root", "root")), "event.topic"),
    ],
)
def test_a_revocation_stands_for_good_and_only_where_it_ends_a_key(one, code) -> None:
    if code is None:
        check_revocation(Trust(), one)  # type: ignore[arg-type]
        return
    with pytest.raises(UnusableEventError) as refused:
        check_revocation(Trust(), one)  # type: ignore[arg-type]
    assert refused.value.code == code
    assert refused.value.next
    assert (one.event.source if code != "event.topic" else one.event.topic) in refused.value.message


AGENT, SLOT = "agent/n1/web/app/0", "service/web/slot/app/0"


@pytest.mark.parametrize(
    ("topic", "slot", "why"),
    [
        ("app/web/hello", {"node": "n1", "desired": "running"}, None),
        ("app/web/hello", {"node": "n1", "desired": "stopped"}, None),
        ("app/web/hello", {"node": "n1", "desired": "gone"}, "is to be gone from n1"),
        ("app/web/hello", {"node": "n2", "desired": "running"}, "is not on n1"),
        ("app/web/hello", {"node": "n2", "desired": "gone"}, "is not on n1"),
        ("app/web/hello", None, "is not on n1"),
        ("user/t", None, None),
        ("service/web/status/app/0/n1/application", None, None),
    ],
)
def test_only_an_agent_whose_slot_is_on_its_node_writes_what_instances_say_to_each_other(topic, slot, why) -> None:
    facts = {} if slot is None else {SLOT: signed(event(SLOT, "controller/c1", slot))}
    if why is None:
        check_runs(event(topic, AGENT), facts.get)
        return
    with pytest.raises(UnusableEventError, match=rf"{AGENT} may not publish {topic}: web/app/0 {why}\.") as refused:
        check_runs(event(topic, AGENT), facts.get)
    assert refused.value.code == "trust.denied"
    assert refused.value.next
