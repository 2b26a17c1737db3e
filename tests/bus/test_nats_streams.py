"""What is made of what a NATS server says of its streams."""

import asyncio
from typing import Any

import pytest

from dsmt.bus.nats import streams
from dsmt.bus.wire.subjects import Subjects

SUBJECTS = Subjects("test")
B2, B3 = {"name": "b2", "current": True}, {"name": "b3", "current": True}


@pytest.mark.parametrize(
    ("leader", "others", "wanted", "stands"),
    [
        ("b2", [B3], 2, True),
        ("b2", [], 1, True),
        ("b1", [B2, B3], 3, False),
        ("b2", [B3, {"name": "b1", "current": True}], 3, False),
        ("b2", [B3 | {"current": False}], 2, False),
        ("b2", [B3 | {"offline": True}], 2, False),
        ("b2", [B3], 3, False),
        ("", [B3], 2, False),
    ],
    ids=["two hold it", "one does", "it leads", "it holds it", "one lacks some", "one is away", "too few", "none leads"],
)
def test_a_server_may_go_where_all_who_are_to_hold_a_stream_have_all_of_it_without_that_one(
    monkeypatch: pytest.MonkeyPatch, leader: str, others: list[dict[str, Any]], wanted: int, *, stands: bool
) -> None:
    whole = {"cluster": {"leader": "b2", "replicas": [B3]}, "config": {"num_replicas": 2}}
    told = {"cluster": {"leader": leader, "replicas": others}, "config": {"num_replicas": wanted}}

    for one in (SUBJECTS.history, SUBJECTS.facts, SUBJECTS.blobs):

        async def info(_: object, stream: str, one: str = one) -> dict[str, Any]:
            return told if stream == one else whole

        monkeypatch.setattr(streams, "_info", info)
        link: Any = None
        assert asyncio.run(streams.stands_without(link, SUBJECTS, "b1")) is stands
