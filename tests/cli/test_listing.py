"""What a list reads of the realm."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli import cert, listing
from dsmt.cli.root import main
from dsmt.operations.local.members.certificates import Rotated
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.targets import Target
from tests.cli.screens import running_one
from tests.operations.sights import sight


def test_who_asks_for_one_service_reads_no_other_unless_there_is_none_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, kept = list[tuple[str, ...]](), list[object]()

    async def look(_bus: object, *, passing: bool, of: tuple[str, ...] = ()) -> Sight:
        assert passing
        asked.append(of)
        return sight(running_one())

    ctx: Any = SimpleNamespace(ask=lambda work: asyncio.run(work(SimpleNamespace(bus=None))))
    monkeypatch.setattr(listing, "look", look)
    monkeypatch.setattr(listing, "remember", lambda _, found: kept.append(found))
    for named, looks in ((None, [()]), (Target("web"), [("web",)]), (Target("wbe"), [("wbe",), ()])):
        asked.clear()
        listing.seen(ctx, named)
        assert asked == looks
    assert len(kept) == 2, "what is completed is of a whole view"


@pytest.mark.parametrize("how", ["list", "show"])
def test_who_reaches_no_broker_is_told_which_certificates_are_not_listed(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    monkeypatch.setenv("DSMT_HOME", str(made))
    assert main(["cert", how, *(["broker/b1"] if how == "show" else [])]) == 0
    told = capsys.readouterr()
    assert "broker/b1" in told.out
    assert told.err == (
        "waiting for an answer at 127.0.0.1:1\n"
        "warning: only what this home has is listed, and not which keys are revoked: no broker answers at 127.0.0.1:1\n"
    )


@pytest.mark.parametrize(
    ("name", "restarted", "said"),
    [
        ("operator/alice", False, "its former key ends with its certificate; only if it was stolen: dsmt cert revoke 07"),
        ("node/n1", True, "its former key ends with its certificate; only if it was stolen: dsmt cert revoke 07"),
        ("node/n1", False, "its former key ends with its certificate; only if it was stolen: start it anew, then dsmt cert"),
    ],
)
def test_who_rotates_a_key_is_not_told_to_revoke_it_unless_it_was_stolen(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, said: str, *, restarted: bool
) -> None:
    async def rotated(*_: object) -> Rotated:
        return Rotated(name=name, key="08", before="07", issued="", expires="", clock="realm", restarted=restarted)

    monkeypatch.setenv("DSMT_HOME", str(made))
    monkeypatch.setattr(cert, "_rotated", rotated)
    assert main(["cert", "rotate", name]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(said)
