"""How long what runs in a container may take to end, as its files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmt.agents.rules.record import InstanceRecord, Outgoing
from dsmt.operations.local.processes import patience
from dsmt.ports.driver import Handle
from dsmt.spec.parsing import parse

TEXT = "service: web\ncomponents: {app: {run: sleep 1, stop: {grace: 40s, delay: 5s, command: ask it}}}\n"
SPEC = parse(TEXT, file="web.yaml")[0]
BESIDE = InstanceRecord(boot="b", outgoing=Outgoing(process=Handle({}), ports={}))


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
