"""How long what runs in a container may take to end, as its files say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dsmt.agents.rules.record import InstanceRecord, OutgoingCopy
from dsmt.operations.local.processes import ending, patience
from dsmt.ports.driver import Handle
from dsmt.spec.parsing import parse

TEXT = "service: web\ncomponents: {app: {run: sleep 1, stop: {grace: 40s, delay: 5s, command: ask it}}}\n"
SPEC = parse(TEXT, file="web.yaml")[0]
BESIDE = InstanceRecord(boot="b", outgoing=OutgoingCopy(process=Handle({}), ports={}))


@pytest.mark.parametrize(
    ("component", "record", "expected"),
    [
        ("app", None, 85.0),
        ("app", InstanceRecord(boot="b"), 85.0),
        ("app", BESIDE, 170.0),
        ("former", None, None),
    ],
)
def test_its_delay_its_command_and_its_grace_count_and_those_of_the_copy_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, component: str, record: InstanceRecord | None, expected: float | None
) -> None:
    monkeypatch.setattr(patience, "spec_in", lambda _: SPEC)
    monkeypatch.setattr(patience, "record_in", lambda _: record)
    assert patience.stop_in(tmp_path / "web" / component / "0") == expected


def test_what_has_no_spec_that_can_be_read_is_not_known(tmp_path: Path) -> None:
    assert patience.stop_in(tmp_path / "web/app/0") is None


def test_each_agent_has_the_time_of_its_own_program_and_all_at_least_as_long_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, float] = {}

    async def end(those: list[str], within_s: float) -> set[str]:
        told.update(dict.fromkeys(those, within_s))
        return {one for one in those if one == "of slow"}

    monkeypatch.setattr(ending, "end", end)
    monkeypatch.setattr(ending, "agents_in", lambda container: [f"of {container.name}"])
    monkeypatch.setattr(ending, "stop_in", lambda container: {"slow": 60.0, "quick": 1.0}.get(container.name))
    others: Any = ["another"]
    killed = asyncio.run(ending._end_agents(map(Path, ("slow", "quick", "unknown")), others))
    grace, own = ending.GRACE_S, ending.OWN_S
    assert told == {"of slow": 60.0 + own, "of quick": grace, "of unknown": grace, "another": grace}
    assert killed == {"of slow"}
