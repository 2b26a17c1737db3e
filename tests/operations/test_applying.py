"""Applying: all is checked before anything is said."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dsmt.errors import InputError
from dsmt.operations.write import applying
from dsmt.spec.parsing import parse
from tests.controllers.build import Realm, web

from .sights import sight

LARGE = "service: large\ncomponents:\n" + "".join(
    f"  c{number}:\n    run: sleep 1\n    env: {{A: '{'x' * 1000}'}}\n" for number in range(70)
)


@pytest.mark.parametrize("doing", ["plan", "apply"])
def test_a_spec_that_no_event_can_hold_is_refused_before_anything_is_planned_or_said(doing: str, monkeypatch: Any) -> None:
    said: list[Any] = []

    async def look(_bus: Any, *, of: Any = ()) -> Any:
        return sight(Realm("n1"))

    async def say(_bus: Any, drafts: list[Any]) -> None:
        said.extend(drafts)

    monkeypatch.setattr(applying, "look", look)
    monkeypatch.setattr(applying, "say", say)
    declared = [
        applying.Declared(spec=parse(text, file="t")[0], directory=Path(), warnings=(), file=f"{name}.yaml")
        for name, text in (("web", web(1)), ("large", LARGE))
    ]
    bus: Any = None
    done: Any = (
        applying.plan_all(bus, declared, by="operator/alice")
        if doing == "plan"
        else applying.apply(bus, declared, by="operator/alice", reason="")
    )
    with pytest.raises(InputError, match=r"large\.yaml: large takes [0-9]+ bytes .* nothing was done") as caught:
        asyncio.run(done)
    assert caught.value.next == "put large texts into an artifact"
    assert said == []
