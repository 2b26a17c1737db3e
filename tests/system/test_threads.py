"""Threads that cannot be started."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, Never

import pytest

from dsmt.errors import FailedError
from dsmt.operations import connection
from dsmt.system.threads import check_threads


def test_who_may_start_no_thread_is_told_what_the_limit_is_and_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of a link ended the whole command: `Resource temporarily unavailable (src/thread.cpp:241)`."""
    before = threading.active_count()
    check_threads(2)
    assert threading.active_count() == before

    def refuse(_: threading.Thread) -> Never:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(connection, "TrustStore", lambda _: SimpleNamespace(add_all=lambda _: None))
    nobody: Any = SimpleNamespace(realm=None, addresses=[], chain=())

    async def attach() -> None:
        async with connection._attached(nobody, nobody, [], 1.0, reads=True):
            pytest.fail("nobody may attach")

    with pytest.raises(FailedError) as caught:
        asyncio.run(attach())
    assert caught.value.code == "link.threads"
    assert caught.value.next == "raise the limit (ulimit -u), or end some, then try again"
