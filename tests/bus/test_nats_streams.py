"""What is made of what a NATS server says of its streams."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats import past, streams
from dsmt.bus.nats.headers import STATUS
from dsmt.bus.nats.link import ApiError
from dsmt.bus.nats.past import NatsPast, PastPage
from dsmt.bus.nats.streams import NO_MESSAGE
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError

SUBJECTS = Subjects("test")
B2, B3 = {"name": "b2", "current": True}, {"name": "b3", "current": True}


@pytest.mark.parametrize(
    ("leader", "others", "wanted", "kept"),
    [
        ("b2", [B3], 2, None),
        ("b2", [], 1, None),
        ("b1", [B2, B3], 3, "is led by b1"),
        ("b2", [B3, {"name": "b1", "current": True}], 3, "is on b1"),
        ("b2", [B3 | {"current": False}], 2, "is not whole yet on b3"),
        ("b2", [B3 | {"offline": True}], 2, "is not whole yet on b3"),
        ("b2", [B3], 3, "is on b2, b3 alone: 3 servers are to hold it"),
        ("", [B3], 2, "has no leader"),
    ],
    ids=["two hold it", "one does", "it leads", "it holds it", "one lacks some", "one is away", "too few", "none leads"],
)
def test_a_server_may_go_where_all_who_are_to_hold_a_stream_have_all_of_it_without_that_one(
    monkeypatch: pytest.MonkeyPatch, leader: str, others: list[dict[str, Any]], wanted: int, kept: str | None
) -> None:
    whole = {"cluster": {"leader": "b2", "replicas": [B3]}, "config": {"num_replicas": 2}}
    told = {"cluster": {"leader": leader, "replicas": others}, "config": {"num_replicas": wanted}}

    for one in (SUBJECTS.history, SUBJECTS.facts, SUBJECTS.blobs):

        async def info(_: object, stream: str, one: str = one) -> dict[str, Any]:
            return told if stream == one else whole

        monkeypatch.setattr(streams, "_info", info)
        link: Any = None
        expected = None if kept is None else f"stream {one} {kept}"
        assert asyncio.run(streams.kept_by(link, SUBJECTS, "b1")) == expected


def test_a_row_that_does_not_come_is_named_and_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(NatsPast):
        async def page(self, within_s: float) -> PastPage:
            return PastPage([], self._place, 0)

    async def end_of(*_: object) -> int:
        return 3

    async def play() -> None:
        unused: Any = None
        opener: Any = SimpleNamespace(subjects=SimpleNamespace(history="H", taken_by=lambda *_, **__: []))
        async for _ in Silent(unused, opener, unused).rest():
            pass

    monkeypatch.setattr(past, "end_of", end_of)
    monkeypatch.setattr(past, "BEHIND_S", -1.0)
    with pytest.raises(TransportError, match="row 3 of stream H") as caught:
        asyncio.run(play())
    assert caught.value.code == "nats.behind"


@pytest.mark.parametrize("wrong", [None, "the stream has no leader"])
def test_of_more_subjects_than_a_server_gives_at_once_the_last_of_each_is_asked_for(wrong: str | None) -> None:
    """A server says 413 where more than a thousand have something."""
    held = [(1, "a.x"), (2, "b.y"), (3, "a.z"), (4, "a.x"), (5, "c.x"), (6, "b.y"), (7, "a.x")]
    deaf: list[str] = []

    async def nothing(*_: object) -> None:
        pass

    async def listen() -> tuple[str, None]:
        return "inbox", None

    async def next_of(_: object) -> Any:
        return SimpleNamespace(headers={STATUS: "413"}, data=b"")

    async def api(_: str, asked: dict[str, Any]) -> dict[str, Any]:
        if wrong is not None:
            raise ApiError(10008, wrong)
        pattern = asked["next_by_subj"].removesuffix(">")
        for row, subject in held:
            if row >= asked["seq"] and subject.startswith(pattern):
                return {"message": {"subject": subject, "seq": row, "time": "2026-01-01T00:00:00Z"}}
        raise ApiError(NO_MESSAGE, "no message found")

    async def ended(inbox: str) -> None:
        deaf.append(inbox)

    link: Any = SimpleNamespace(listen=listen, question=lambda *_: b"", send=nothing, next_of=next_of, api=api, deaf=ended)
    asked = streams.last_of_each(link, "H", ["a.>", "b.>"])
    if wrong is None:
        assert [(one.sequence, one.subject) for one in asyncio.run(asked)] == [(7, "a.x"), (3, "a.z"), (6, "b.y")]
    else:
        with pytest.raises(TransportError, match=wrong):
            asyncio.run(asked)
    assert deaf == ["inbox"]
