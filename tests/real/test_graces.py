"""A program has the time to end that its file gives it, whoever ends it."""

from __future__ import annotations

import pytest

from dsmt.operations.local.processes import ending
from tests.loops import in_real_time
from tests.real.applied import applied, rows
from tests.real.fleet import fleet

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ENDS_S = 3.0
SLOW = f"""\
import os, signal, sys, time
from pathlib import Path

def ends(*_):
    time.sleep({ENDS_S})
    Path(os.environ["DSMT_DATA"], "clean").touch()
    sys.exit()

signal.signal(signal.SIGTERM, ends)
Path(os.environ["DSMT_DATA"], "begun").touch()
signal.pause()
"""
SPEC = """\
service: web
components:
  slow:
    data: true
    run: [python3, "{program}"]
    health: {{exec: [test, -e, "{{data}}/begun"], interval: 200ms}}
    stop: {{grace: 20s}}
"""


@pytest.mark.parametrize("all_of_it", [True, False], ids=["down", "end_node"])
@in_real_time
async def test_what_takes_long_to_end_and_may_is_not_killed_before(tmp_path, monkeypatch, all_of_it):
    monkeypatch.setattr(ending, "GRACE_S", ENDS_S / 10)
    program, path = tmp_path / "slow.py", tmp_path / "web.yaml"
    program.write_text(SLOW)
    path.write_text(SPEC.format(program=program))
    async with fleet(tmp_path) as made:
        await applied(made, path)
        node = (await rows(made, "web"))["web/slow/0"]["node"]
        if all_of_it:
            assert (await ending.down(made.home)).killed == 0
        else:
            await ending.end_node(made.home, node)
        assert (made.home.part("nodes", node) / "data/web/slow/0/clean").exists()
