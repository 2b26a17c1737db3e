"""Wards: until when what a dead node has left behind is looked for."""

from __future__ import annotations

import selectors
import signal

import pytest

from dsmt.ports.processes import ProcessIdentity
from dsmt.programs import wards
from dsmt.programs.wards import GRACE_S, LOOK_AGAIN_S, Wards


def test_a_dead_node_is_looked_at_until_two_looks_find_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    now, late = [100.0], ProcessIdentity(7, 1, "b")
    looks: list[set[ProcessIdentity]] = [set(), {late}, set(), set()]
    killed: list[tuple[ProcessIdentity, int]] = []
    monkeypatch.setattr(wards, "process_of", lambda *_: None)
    monkeypatch.setattr(wards, "left_behind", lambda _: looks.pop(0))
    monkeypatch.setattr(wards, "send_signal", lambda who, number: killed.append((who, number)))
    with selectors.DefaultSelector() as selector:
        at = Wards(selector, set(), lambda: now[0])
        at.add("/node")
        at.tick()
        assert (len(looks), at.due) == (4, 100.0 + GRACE_S), "another spawner may come first"
        while at.due is not None:
            now[0] = at.due
            at.tick()
    assert (looks, killed) == ([], [(late, signal.SIGKILL)]), "who was being forked is missed by the first look"
    assert now[0] == pytest.approx(100.0 + GRACE_S + 3 * LOOK_AGAIN_S)
